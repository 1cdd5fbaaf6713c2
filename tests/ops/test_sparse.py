from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from batches import Heads, assert_attention, randn, workspace

import flashinfer
from flashinfer import sparse


class Matrix:
    """A random block-sparse matrix; `dense` says which of its elements count."""

    def __init__(self, rows: int, columns: int, R: int, C: int, device: str) -> None:  # noqa: N803
        blocks = torch.rand(rows, columns) < 0.4
        blocks[0] = False  # a row of blocks without any
        counts = blocks.sum(1)
        self.indptr = torch.zeros(rows + 1, dtype=torch.int32)
        self.indptr[1:] = counts.cumsum(0)
        self.indices = blocks.nonzero()[:, 1].to(torch.int32)
        self.shape = (rows * R, columns * C, R, C)
        self.mask = torch.rand(self.indices.shape[0], R, C) < 0.5
        full, part = (torch.zeros(rows, columns, R, C, dtype=torch.bool) for _ in range(2))
        full[blocks] = True
        part[blocks] = self.mask
        self.dense = full.transpose(1, 2).reshape(rows * R, columns * C)
        self.masked = part.transpose(1, 2).reshape(rows * R, columns * C)
        self.indptr, self.indices = self.indptr.to(device), self.indices.to(device)
        self.mask = self.mask.to(device)


def inputs(matrix: Matrix, heads: Heads, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    queries, keys = matrix.shape[:2]
    return [
        randn(n, h, heads.dim, dtype=dtype, device=device)
        for n, h in ((queries, heads.qo), (keys, heads.kv), (keys, heads.kv))
    ]


@pytest.mark.parametrize("blocks", [(1, 1), (1, 7), (4, 16), (16, 4), (33, 5)], ids=str)
@pytest.mark.parametrize("heads", [Heads(4, 4, 64), Heads(8, 2, 128)])
def test_blocks(blocks: tuple[int, int], heads: Heads, dtype: torch.dtype, device: str) -> None:
    matrix = Matrix(9, 21, *blocks, device)
    q, k, v = inputs(matrix, heads, dtype, device)
    wrapper = flashinfer.BlockSparseAttentionWrapper(workspace(device))
    wrapper.plan(matrix.indptr, matrix.indices, *matrix.shape, *heads)
    expected = reference.attention(q, k, v, mask=matrix.dense)
    assert_attention(wrapper.run(q, k, v), expected)
    assert_attention(wrapper.run(q, k, v, return_lse=True), expected)


@pytest.mark.parametrize("how", ["bools", "packed"])
@pytest.mark.parametrize("blocks", [(1, 7), (4, 16), (33, 5)], ids=str)
def test_masks_within_the_blocks(blocks: tuple[int, int], how: str, device: str) -> None:
    matrix, heads = Matrix(9, 21, *blocks, device), Heads(4, 2, 64)
    q, k, v = inputs(matrix, heads, torch.float16, device)
    given: dict[str, Any] = {"mask": matrix.mask}
    if how == "packed":
        flat = sparse.convert_bsr_mask_layout(matrix.mask, matrix.indptr)
        bits = matrix.indptr * blocks[0] * blocks[1]
        given = {"packed_mask": flashinfer.segment_packbits(flat, bits, "little")[0]}
    wrapper = flashinfer.BlockSparseAttentionWrapper(workspace(device))
    wrapper.plan(matrix.indptr, matrix.indices, *matrix.shape, *heads, **given)
    expected = reference.attention(q, k, v, mask=matrix.masked)
    assert_attention(wrapper.run(q, k, v, return_lse=True), expected, atol=1e-2, rtol=1e-3)


def test_long_rows_and_rows_that_end_within_a_block(device: str) -> None:
    heads = Heads(4, 1, 64)
    matrix = Matrix(3, 400, 8, 16, device)
    q, k, v = inputs(matrix, heads, torch.float16, device)
    q = q[:-3]
    wrapper = flashinfer.BlockSparseAttentionWrapper(workspace(device))
    wrapper.plan(matrix.indptr, matrix.indices, q.shape[0], *matrix.shape[1:], *heads)
    assert wrapper._planned is not None
    assert wrapper._planned.capacity.slots > 0
    expected = reference.attention(q, k, v, mask=matrix.dense[:-3])
    assert_attention(wrapper.run(q, k, v, return_lse=True), expected)


def test_options_and_older_calls(device: str) -> None:
    heads = Heads(4, 2, 64)
    matrix = Matrix(5, 7, 4, 8, device)
    q, k, v = inputs(matrix, heads, torch.float16, device)
    # Of 0.1.6: mask, packed_mask, pos_encoding_mode, allow_fp16, cap, sm_scale
    old: Any = (None, None, "NONE", False, 3.0, 0.3)
    wrapper = flashinfer.BlockSparseAttentionWrapper(workspace(device))
    wrapper.begin_forward(matrix.indptr, matrix.indices, *matrix.shape, *heads, *old)
    expected = reference.attention(q, k, v, mask=matrix.dense, logits_soft_cap=3.0, sm_scale=0.3)
    assert_attention(wrapper.run(q, k, v), expected)
    out = wrapper.forward(q, k, v, logits_soft_cap=2.0)
    assert_attention(out, reference.attention(q, k, v, mask=matrix.dense, logits_soft_cap=2.0))
    wrapper.end_forward()
    wrapper.plan(
        matrix.indptr, matrix.indices, *matrix.shape, *heads, logits_soft_cap=3.0, sm_scale=0.3
    )
    assert_attention(wrapper.run(q, k, v), expected)


def test_mask_layout() -> None:
    mask = torch.arange(12).view(3, 2, 2)
    flat = sparse.convert_bsr_mask_layout(mask, torch.tensor([0, 2, 2, 3]))
    assert flat.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11]
