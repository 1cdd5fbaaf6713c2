"""The caller's threads: ranges cut anywhere give the same bytes as one thread."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from capi import Library


def cut_anywhere(n: int, grain: int) -> list[tuple[int, int]]:
    cuts = sorted({0, n, *random.Random(n).choices(range(n), k=12)})
    ranges = list(itertools.pairwise(cuts))
    return ranges[::-1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_rmsnorm(lib: Library, generator: torch.Generator, dtype: torch.dtype) -> None:
    x = torch.randn(200, 520, generator=generator).to(dtype)
    weight = torch.randn(520, generator=generator).to(dtype)

    def run() -> torch.Tensor:
        out = torch.empty_like(x)
        lib(
            "rmsnorm",
            dtype=dtype,
            rows=200,
            hidden=520,
            out=out,
            out_stride=520,
            input=x,
            input_stride=520,
            weight=weight,
            eps=1e-6,
        )
        return out

    alone = run()
    with lib.threads(cut_anywhere) as grains:
        assert torch.equal(run(), alone)
    assert len(grains) == 1
    assert 1 <= grains[0] < 200


def test_little_work_stays_on_the_caller(lib: Library) -> None:
    x = torch.ones(2, 64)
    with lib.threads(cut_anywhere) as grains:
        lib("act_and_mul", dtype=x.dtype, rows=2, d=32, out=x.clone(), input=x)
    assert grains == []


def test_batch_positions(lib: Library) -> None:
    lengths = torch.randint(0, 200, (900,), generator=torch.Generator().manual_seed(1))
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(torch.int32)
    nnz = int(indptr[-1])
    out = torch.full((2, nnz), -7, dtype=torch.int32)
    with lib.threads(cut_anywhere) as grains:
        lib(
            "batch_positions",
            batch_size=900,
            nnz=nnz,
            append_indptr=indptr,
            seq_lens=(lengths + 3).to(torch.int32),
            batch_indices=out[0],
            positions=out[1],
        )
    assert grains
    assert torch.equal(out[0].long(), torch.repeat_interleave(torch.arange(900), lengths))
    first = torch.repeat_interleave(indptr[:-1].long(), lengths)
    assert torch.equal(out[1].long(), torch.arange(nnz) - first + 3)
