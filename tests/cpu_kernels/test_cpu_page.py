from __future__ import annotations

import pytest
import torch
from capi import Failed, Library

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2]


def strides(name: str, cache: torch.Tensor, layout: str) -> dict[str, int]:
    """Strides of a 4-D cache, [page, slot, head, dim] (NHD) or [page, head, slot, dim] (HND)."""
    slot, head = (1, 2) if layout == "NHD" else (2, 1)
    return {
        f"{name}_stride_page": cache.stride(0),
        f"{name}_stride_slot": cache.stride(slot),
        f"{name}_stride_h": cache.stride(head),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_append(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, layout: str, page_size: int
) -> None:
    heads, dim, batch = 3, 20, 3
    pages_each = [4, 1, 9]
    kv_indptr = torch.tensor([0, *pages_each]).cumsum(0).to(torch.int32)
    total = int(kv_indptr[-1])
    kv_indices = torch.randperm(total + 5, generator=generator)[:total].to(torch.int32)
    # Every entry of every request in random order, and two rows of padding.
    rows = torch.tensor(
        [(b, p) for b in range(batch) for p in range(pages_each[b] * page_size)] + [(-1, 0), (3, 0)]
    )
    rows = rows[torch.randperm(len(rows), generator=generator)]
    nnz = len(rows)
    batch_indices, positions = (column.to(torch.int32).contiguous() for column in rows.T)
    shape = (page_size, heads) if layout == "NHD" else (heads, page_size)
    # Strides that differ between keys and values, in every dimension.
    caches = [torch.zeros(total + 5, 2, *shape, dim + i).to(dtype)[:, i, ..., :dim] for i in (0, 1)]
    keys = torch.randn(nnz, heads + 1, dim + 4, generator=generator).to(dtype)[:, :heads, :dim]
    values = torch.randn(nnz, heads + 2, dim + 7, generator=generator).to(dtype)[:, :heads, 2:-5]
    expected = [cache.float() for cache in caches]
    for n in range(nnz):
        b, p = int(batch_indices[n]), int(positions[n])
        if not 0 <= b < batch:
            continue
        page, slot = int(kv_indices[kv_indptr[b] + p // page_size]), p % page_size
        for which, row in enumerate((keys[n], values[n])):
            for h in range(heads):
                at = (page, slot, h) if layout == "NHD" else (page, h, slot)
                expected[which][at] = row[h].float()
    lib(
        "append_paged_kv",
        dtype=dtype,
        nnz=nnz,
        num_heads=heads,
        head_dim=dim,
        page_size=page_size,
        batch_size=batch,
        append_key=keys,
        append_value=values,
        key_stride_n=keys.stride(0),
        key_stride_h=keys.stride(1),
        value_stride_n=values.stride(0),
        value_stride_h=values.stride(1),
        batch_indices=batch_indices,
        positions=positions,
        k_cache=caches[0],
        v_cache=caches[1],
        kv_indices=kv_indices,
        kv_indptr=kv_indptr,
        **strides("k", caches[0], layout),
        **strides("v", caches[1], layout),
    )
    for cache, exact in zip(caches, expected, strict=True):
        assert torch.equal(cache.float(), exact)


def test_side_by_side_heads(lib: Library, generator: torch.Generator) -> None:
    keys = torch.randn(4, 2, 8, generator=generator)
    cache = torch.zeros(2, 2, 2, 8)
    lib(
        "append_paged_kv",
        dtype=keys.dtype,
        nnz=4,
        num_heads=2,
        head_dim=8,
        page_size=2,
        batch_size=1,
        append_key=keys,
        append_value=keys,
        key_stride_n=16,
        key_stride_h=8,
        value_stride_n=16,
        value_stride_h=8,
        batch_indices=torch.zeros(4, dtype=torch.int32),
        positions=torch.arange(4, dtype=torch.int32),
        k_cache=cache,
        v_cache=cache,
        kv_indices=torch.tensor([1, 0], dtype=torch.int32),
        kv_indptr=torch.tensor([0, 2], dtype=torch.int32),
        **strides("k", cache, "NHD"),
        **strides("v", cache, "NHD"),
    )
    assert torch.equal(cache, keys.view(2, 2, 2, 8).flip(0))


@pytest.mark.parametrize("position", [-1, 4])
def test_append_refuses_a_page_the_request_lacks(lib: Library, position: int) -> None:
    keys, cache = torch.ones(2, 1, 8), torch.zeros(4, 2, 1, 8)
    with pytest.raises(Failed, match=rf"positions\[1\] is {position}, but request 0 has 2 pages"):
        lib(
            "append_paged_kv",
            dtype=keys.dtype,
            nnz=2,
            num_heads=1,
            head_dim=8,
            page_size=2,
            batch_size=1,
            append_key=keys,
            append_value=keys,
            batch_indices=torch.zeros(2, dtype=torch.int32),
            positions=torch.tensor([0, position], dtype=torch.int32),
            k_cache=cache,
            v_cache=cache,
            kv_indices=torch.tensor([0, 1], dtype=torch.int32),
            kv_indptr=torch.tensor([0, 2], dtype=torch.int32),
        )
    assert not cache.any(), "nothing is written"


def test_append_refuses(lib: Library) -> None:
    with pytest.raises(Failed, match="dtype 5 is not one of fi_dtype"):
        lib("append_paged_kv", dtype=5, page_size=1)
    with pytest.raises(Failed, match="page_size is 0, expected 1 or more"):
        lib("append_paged_kv", dtype=torch.float16, page_size=0)


@pytest.mark.parametrize("nnz", [7, 12])
def test_batch_positions(lib: Library, nnz: int) -> None:
    indptr = torch.tensor([0, 3, 3, 7], dtype=torch.int32)
    seq_lens = torch.tensor([10, 4, 4], dtype=torch.int32)
    batch_indices = torch.full((nnz + 2,), 99, dtype=torch.int32)
    positions = torch.full((nnz + 2,), 99, dtype=torch.int32)
    lib(
        "batch_positions",
        batch_size=3,
        nnz=nnz,
        append_indptr=indptr,
        seq_lens=seq_lens,
        batch_indices=batch_indices,
        positions=positions,
    )
    padding = nnz - 7
    assert batch_indices.tolist() == [0, 0, 0, 2, 2, 2, 2] + [-1] * padding + [99, 99]
    assert positions.tolist() == [7, 8, 9, 0, 1, 2, 3] + [0] * padding + [99, 99]


def test_batch_positions_of_no_request(lib: Library) -> None:
    out = torch.full((2, 3), 5, dtype=torch.int32)
    lib(
        "batch_positions",
        batch_size=0,
        nnz=3,
        append_indptr=torch.zeros(1, dtype=torch.int32),
        batch_indices=out[0],
        positions=out[1],
    )
    assert out.tolist() == [[-1] * 3, [0] * 3]


@pytest.mark.parametrize("indptr", [[0, 4, 3], [0, 2, 6], [-1, 2, 3]])
def test_batch_positions_refuses(lib: Library, indptr: list[int]) -> None:
    out = torch.full((2, 5), 5, dtype=torch.int32)
    with pytest.raises(Failed, match=r"append_indptr\[\d\] is -?\d, expected"):
        lib(
            "batch_positions",
            batch_size=2,
            nnz=5,
            append_indptr=torch.tensor(indptr, dtype=torch.int32),
            seq_lens=torch.tensor([9, 9], dtype=torch.int32),
            batch_indices=out[0],
            positions=out[1],
        )
    assert (out == 5).all()
