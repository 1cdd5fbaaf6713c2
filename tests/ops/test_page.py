from __future__ import annotations

from typing import Any

import pytest
import torch

import flashinfer

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
DTYPES = [torch.float16, torch.bfloat16, *FP8]
HEADS, DIM = 3, 64

# Untyped, as the tests build its arguments from parts; test_api.py has the two typed forms.
append: Any = flashinfer.append_paged_kv_cache


def bits(x: torch.Tensor) -> torch.Tensor:
    """For exact comparison, as torch cannot compare fp8."""
    return x.contiguous().view(torch.uint8)


def noise(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.randn(shape).to(dtype).to(device)


class Batch:
    """Requests of several lengths whose last rows are new, over shuffled pages."""

    def __init__(self, page_size: int, device: str) -> None:
        self.page_size = page_size
        self.seq_lens = [1, 40, 7, page_size, 2 * page_size + 1]
        self.new = [1, 13, 7, 0, 2 * page_size]
        pages = [-(-length // page_size) for length in self.seq_lens]
        self.num_pages = sum(pages) + 3
        order = torch.randperm(self.num_pages)[: sum(pages)]
        self.table = [part.tolist() for part in torch.split(order, pages)]
        self.kv_indices = order.to(torch.int32).to(device)
        self.kv_indptr = self._indptr(pages, device)
        self.last = torch.tensor(
            [(length - 1) % page_size + 1 for length in self.seq_lens],
            dtype=torch.int32,
            device=device,
        )
        self.append_indptr = self._indptr(self.new, device)
        self.nnz = sum(self.new)

    @staticmethod
    def _indptr(counts: list[int], device: str) -> torch.Tensor:
        return torch.tensor([0, *counts]).cumsum(0).to(torch.int32).to(device)

    def places(self) -> list[tuple[int, int]]:
        """(request, position) of every new row."""
        return [
            (b, length - new + i)
            for b, (length, new) in enumerate(zip(self.seq_lens, self.new, strict=True))
            for i in range(new)
        ]

    def expected(self, cache: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`cache` [pages, page_size, heads, dim] with the new rows in it."""
        want = bits(cache).clone()
        for n, (b, position) in enumerate(self.places()):
            page = self.table[b][position // self.page_size]
            want[page, position % self.page_size] = bits(rows[n])
        return want


def nhd(cache: torch.Tensor, layout: str) -> torch.Tensor:
    return cache.transpose(-3, -2) if layout == "HND" else cache


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("form", ["tensor", "tuple"])
@pytest.mark.parametrize("api", ["0.2.0", "0.1.6"])
@pytest.mark.parametrize("page_size", [1, 3, 16])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_append(
    layout: str, form: str, api: str, page_size: int, dtype: torch.dtype, device: str
) -> None:
    batch = Batch(page_size, device)
    inner = (HEADS, page_size) if layout == "HND" else (page_size, HEADS)
    cache = noise((batch.num_pages, 2, *inner, DIM), dtype, device)
    keys, values = noise((2, batch.nnz, HEADS, DIM), dtype, device)
    want_k = batch.expected(nhd(cache[:, 0], layout), keys)
    want_v = batch.expected(nhd(cache[:, 1], layout), values)
    target = cache if form == "tensor" else (cache[:, 0].clone(), cache[:, 1].clone())
    rest = (target, batch.kv_indices, batch.kv_indptr, batch.last, layout)
    if api == "0.1.6":
        append(keys, values, batch.append_indptr, *rest)
    else:
        where = flashinfer.get_batch_indices_positions(
            batch.append_indptr,
            flashinfer.get_seq_lens(batch.kv_indptr, batch.last, page_size),
            batch.nnz,
        )
        append(keys, values, *where, *rest)
    got_k, got_v = (cache[:, 0], cache[:, 1]) if form == "tensor" else target
    assert torch.equal(bits(nhd(got_k, layout)), want_k)
    assert torch.equal(bits(nhd(got_v, layout)), want_v)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_append_float32(layout: str) -> None:
    batch = Batch(4, "cpu")
    inner = (HEADS, 4) if layout == "HND" else (4, HEADS)
    cache = torch.randn(batch.num_pages, 2, *inner, DIM)
    keys, values = torch.randn(2, batch.nnz, HEADS, DIM)
    want = batch.expected(nhd(cache[:, 0], layout), keys)
    append(
        keys,
        values,
        batch.append_indptr,
        cache,
        batch.kv_indices,
        batch.kv_indptr,
        batch.last,
        layout,
    )
    assert torch.equal(bits(nhd(cache[:, 0], layout)), want)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("dim", [1, 5, 64])
def test_append_with_gaps_everywhere(layout: str, dim: int, device: str) -> None:
    batch = Batch(4, device)
    inner = (HEADS, 4) if layout == "HND" else (4, HEADS)
    big = noise((batch.num_pages + 2, 2, inner[0] + 1, inner[1] + 2, dim + 3), DTYPES[0], device)
    before = big.clone()
    view = big[1:-1, :, 1:, 1:-1, 2 : 2 + dim]
    qkv = noise((batch.nnz, 2 * HEADS + 5, 2 * dim), DTYPES[0], device)
    keys, values = qkv[:, :HEADS, dim:], qkv[:, HEADS + 5 :, ::2]
    want = before.clone()
    window = want[1:-1, :, 1:, 1:-1, 2 : 2 + dim]
    for n, (b, position) in enumerate(batch.places()):
        page, slot = batch.table[b][position // 4], position % 4
        nhd(window[:, 0], layout)[page, slot] = keys[n]
        nhd(window[:, 1], layout)[page, slot] = values[n]
    append(
        keys,
        values,
        batch.append_indptr,
        view,
        batch.kv_indices,
        batch.kv_indptr,
        batch.last,
        kv_layout=layout,
    )
    assert torch.equal(big, want)


def test_append_by_keyword_in_both_forms(device: str) -> None:
    batch = Batch(4, device)
    old = torch.zeros(batch.num_pages, 2, 4, HEADS, DIM, dtype=torch.float16, device=device)
    keys, values = noise((2, batch.nnz, HEADS, DIM), torch.float16, device)
    table = {
        "kv_indices": batch.kv_indices,
        "kv_indptr": batch.kv_indptr,
        "kv_last_page_len": batch.last,
    }
    append(
        append_key=keys,
        append_value=values,
        append_indptr=batch.append_indptr,
        paged_kv_cache=old,
        **table,
    )
    indices, positions = flashinfer.get_batch_indices_positions(
        batch.append_indptr, torch.tensor(batch.seq_lens, device=device), batch.nnz
    )
    named = torch.zeros_like(old)
    append(keys, values, batch_indices=indices, positions=positions, paged_kv_cache=named, **table)
    mixed = torch.zeros_like(old)
    append(keys, values, indices, positions=positions, paged_kv_cache=mixed, **table)
    one = torch.zeros_like(old)
    append(keys, values, batch.append_indptr, paged_kv_cache=one, **table)
    assert old.any()
    for other in (named, mixed, one):
        assert torch.equal(old, other)


def test_append_skips_padding_rows(device: str) -> None:
    cache = torch.zeros(2, 2, 4, HEADS, DIM, dtype=torch.float16, device=device)
    rows = torch.ones(4, HEADS, DIM, dtype=torch.float16, device=device)
    index = torch.tensor([-1, 0, 1, 7], dtype=torch.int32, device=device)
    position = torch.tensor([0, 1, 0, 0], dtype=torch.int32, device=device)
    append(
        rows,
        rows,
        index,
        position,
        cache,
        torch.tensor([1], dtype=torch.int32, device=device),
        torch.tensor([0, 1], dtype=torch.int32, device=device),
        torch.tensor([2], dtype=torch.int32, device=device),
    )
    assert cache.sum() == 2 * HEADS * DIM
    assert (cache[1, :, 1] == 1).all()


def test_append_int64_indices(device: str) -> None:
    batch = Batch(4, device)
    cache = torch.zeros(batch.num_pages, 2, 4, HEADS, DIM, dtype=torch.float16, device=device)
    keys, values = noise((2, batch.nnz, HEADS, DIM), torch.float16, device)
    want = batch.expected(cache[:, 0], keys)
    append(
        keys,
        values,
        batch.append_indptr.long(),
        cache,
        batch.kv_indices.long(),
        batch.kv_indptr.long(),
        batch.last.long(),
    )
    assert torch.equal(bits(cache[:, 0]), want)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_batch_indices_positions(padding: int, index: torch.dtype, device: str) -> None:
    batch = Batch(16, device)
    lengths = torch.tensor(batch.seq_lens, dtype=index, device=device)
    indices, positions = flashinfer.get_batch_indices_positions(
        batch.append_indptr.to(index), lengths, batch.nnz + padding
    )
    assert indices.dtype == positions.dtype == torch.int32
    want = batch.places() + [(-1, 0)] * padding
    assert list(zip(indices.tolist(), positions.tolist(), strict=True)) == want


def test_batch_indices_positions_of_nothing(device: str) -> None:
    empty = torch.zeros(1, dtype=torch.int32, device=device)
    indices, positions = flashinfer.get_batch_indices_positions(empty, empty[:0], 0)
    assert indices.shape == positions.shape == (0,)


@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_seq_lens(page_size: int, device: str) -> None:
    batch = Batch(page_size, device)
    lengths = flashinfer.get_seq_lens(batch.kv_indptr, batch.last, page_size)
    assert lengths.tolist() == batch.seq_lens


def test_seq_lens_of_a_request_without_pages(device: str) -> None:
    indptr = torch.tensor([0, 0, 2], dtype=torch.int32, device=device)
    last = torch.tensor([0, 3], dtype=torch.int32, device=device)
    assert flashinfer.get_seq_lens(indptr, last, 8).tolist() == [0, 11]
