from __future__ import annotations

import pytest
import torch
from emulated import Emulator

TYPES = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float32]


def bits(x: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor: fp8 values have no torch.equal."""
    return x.contiguous().view(torch.uint8)


def append(
    gpu: Emulator,
    k: torch.Tensor,
    v: torch.Tensor,
    caches: tuple[torch.Tensor, torch.Tensor],
    batch_indices: torch.Tensor,
    positions: torch.Tensor,
    kv_indices: torch.Tensor,
    kv_indptr: torch.Tensor,
) -> None:
    """``caches`` are [pages, page_size, heads, head_dim], in whatever layout."""
    strides = {
        f"{name}_stride_{axis}": cache.stride(i)
        for name, cache in zip("kv", caches, strict=True)
        for i, axis in enumerate(["page", "slot", "h"])
    }
    gpu(
        "append_paged_kv", dtype=k.dtype, nnz=k.shape[0], num_heads=k.shape[1], head_dim=k.shape[2],
        page_size=caches[0].shape[1], batch_size=len(kv_indptr) - 1, append_key=k, append_value=v,
        key_stride_n=k.stride(0), key_stride_h=k.stride(1), value_stride_n=v.stride(0),
        value_stride_h=v.stride(1), batch_indices=batch_indices, positions=positions,
        k_cache=caches[0], v_cache=caches[1], kv_indices=kv_indices, kv_indptr=kv_indptr, **strides,
    )  # fmt: skip


def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("page_size", [1, 5, 16])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize(
    ("heads", "head_dim"), [(1, 1), (2, 64), (8, 128), (3, 256), (3, 111), (2, 10), (9, 512)]
)
def test_append_paged_kv(
    gpu: Emulator, dtype: torch.dtype, page_size: int, layout: str, heads: int, head_dim: int
) -> None:
    before, added = [0, 7, 20, 3], [9, 0, 1, 12]
    lengths = [a + b for a, b in zip(before, added, strict=True)]
    pages = [-(-n // page_size) for n in lengths]
    kv_indptr = torch.tensor([0, *pages]).cumsum(0)
    kv_indices = torch.randperm(sum(pages) + 3)[: sum(pages)]
    batch_indices = [b for b, n in enumerate(added) for _ in range(n)]
    positions = [p for a, n in zip(before, added, strict=True) for p in range(a, a + n)]
    nnz = len(positions)
    k, v = random((nnz, heads, head_dim), dtype), random((nnz, heads, head_dim), dtype)

    # One 5-D tensor as it is used: K and V of a page are neighbours.
    shape = (sum(pages) + 3, 2, page_size, heads, head_dim)
    start = random(shape, dtype)
    expected = start.clone()
    for n, (b, p) in enumerate(zip(batch_indices, positions, strict=True)):
        page = kv_indices[kv_indptr[b] + p // page_size]
        expected[page, 0, p % page_size] = k[n]
        expected[page, 1, p % page_size] = v[n]
    if layout == "HND":
        cache = gpu.put(start.transpose(2, 3).contiguous(), "cache").transpose(2, 3)
    else:
        cache = gpu.put(start, "cache")
    append(
        gpu, gpu.put(k, "append_key"), gpu.put(v, "append_value"), (cache[:, 0], cache[:, 1]),
        gpu.ints(batch_indices), gpu.ints(positions), gpu.ints(kv_indices), gpu.ints(kv_indptr),
    )  # fmt: skip
    assert torch.equal(bits(cache), bits(expected))


@pytest.mark.parametrize(("gap", "offset"), [(0, 0), (8, 0), (2, 0), (1, 0), (0, 1), (0, 4)])
def test_heads_apart_and_unaligned(gpu: Emulator, gap: int, offset: int) -> None:
    nnz, heads, head_dim = 11, 3, 64
    k, v = random((nnz, heads, head_dim), torch.float16), random((nnz, heads, head_dim), torch.half)
    strides = (heads * (head_dim + gap), head_dim + gap, 1)
    caches = (
        gpu.empty((nnz, 1, heads, head_dim), torch.float16, "k_cache", offset=offset),
        gpu.empty((nnz, 1, heads, head_dim), torch.float16, "v_cache"),
    )
    order = torch.randperm(nnz)
    append(
        gpu, gpu.put(k, "append_key", strides=strides), gpu.put(v, "append_value"), caches,
        gpu.ints([0] * nnz), gpu.ints(torch.arange(nnz)), gpu.ints(order), gpu.ints([0, nnz]),
    )  # fmt: skip
    assert torch.equal(caches[0][order, 0], k)
    assert torch.equal(caches[1][order, 0], v)


def test_padding_rows_are_skipped(gpu: Emulator) -> None:
    k = random((4, 1, 64), torch.float16)
    cache = torch.zeros(2, 2, 1, 64).half()
    caches = (gpu.put(cache, "k_cache"), gpu.put(cache, "v_cache"))
    append(
        gpu, gpu.put(k), gpu.put(k), caches, gpu.ints([0, -1, 1, 2]), gpu.ints([1, 0, 0, 9]),
        gpu.ints([1, 0]), gpu.ints([0, 1, 2]),
    )  # fmt: skip
    cache[1, 1], cache[0, 0] = k[0], k[2]
    assert torch.equal(caches[0], cache)
    assert torch.equal(caches[1], cache)


def test_more_rows_than_the_blocks_that_run_at_once(gpu: Emulator) -> None:
    gpu.library.fi_emulator_set_multiprocessors(1)
    k = random((3000, 1, 8), torch.float16)
    caches = (
        gpu.empty((3000, 1, 1, 8), torch.float16, "k_cache"),
        gpu.empty((3000, 1, 1, 8), torch.float16, "v_cache"),
    )
    everyone = torch.arange(3000)
    append(
        gpu, gpu.put(k), gpu.put(k), caches, gpu.ints([0] * 3000), gpu.ints(everyone),
        gpu.ints(everyone), gpu.ints([0, 3000]),
    )  # fmt: skip
    assert torch.equal(caches[0].reshape(k.shape), k)


@pytest.mark.parametrize("padding", [0, 1, 700])
@pytest.mark.parametrize("added", [[4], [0, 0, 3, 1, 0, 5], [0], [], [1] * 300])
def test_batch_positions(gpu: Emulator, added: list[int], padding: int) -> None:
    total = sum(added)
    seq_lens = [n + 10 * b for b, n in enumerate(added)]
    batch_indices = gpu.empty((total + padding,), torch.int32, "batch_indices")
    positions = gpu.empty((total + padding,), torch.int32, "positions")
    gpu(
        "batch_positions", batch_size=len(added), nnz=total + padding, batch_indices=batch_indices,
        append_indptr=gpu.ints(torch.tensor([0, *added]).cumsum(0)), seq_lens=gpu.ints(seq_lens),
        positions=positions,
    )  # fmt: skip
    expected = [b for b, n in enumerate(added) for _ in range(n)]
    assert batch_indices.tolist() == expected + [-1] * padding
    expected = [s - n + i for s, n in zip(seq_lens, added, strict=True) for i in range(n)]
    assert positions.tolist() == expected + [0] * padding
