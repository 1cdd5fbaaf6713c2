"""The largest entries on the CPU against a stable sort, at every level."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from capi import INVALID_ARGUMENT, Failed, Guarded, Library
from compare import FLOATS
from top_k_reference import KINDS, check, rows_of


def top_k(lib: Library, x: torch.Tensor, k: int, sorted: bool, last: bool) -> None:
    rows, columns = x.shape
    values = torch.empty((rows, k), dtype=x.dtype)
    indices = torch.full((rows, k), -7)
    lib("top_k", dtype=x.dtype, rows=rows, columns=columns, k=k, input=x, input_stride=x.stride(0),
        values=values, indices=indices, sorted=sorted, last=last)  # fmt: skip
    check(values, indices, x, sorted, last)


# Around a vector and a piece (64); few enough for the bound by pieces, and more.
SIZES = [(1, 1), (2, 2), (15, 4), (64, 1), (65, 64), (1003, 7), (1003, 8), (1003, 1003),
         (20001, 50), (20001, 6000)]  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("columns", "k"), SIZES)
def test_top_k(lib: Library, dtype: torch.dtype, kind: str, columns: int, k: int) -> None:
    torch.manual_seed(columns + k)
    source = Guarded((2, columns), dtype)
    x = source.fill(rows_of(kind, 2, columns, dtype))
    for sorted in (False, True):
        for last in (False, True):
            top_k(lib, x, k, sorted, last)


def test_the_longest_vocabulary(lib: Library) -> None:
    top_k(lib, rows_of("normal", 1, 262144, torch.bfloat16), 300, True, False)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k": 0}, "k must be in 1..9, got 0"),
        ({"k": 10}, "k must be in 1..9, got 10"),
        ({"columns": 2**20 + 1}, "columns must be at most 1048576"),
        ({"dtype": torch.float8_e5m2}, "dtype 4 is not fp16, bf16 or fp32"),
    ],
)
def test_what_is_refused(lib: Library, values: dict[str, Any], words: str) -> None:
    call: dict[str, Any] = {"rows": 1, "columns": 9, "k": 1, "dtype": torch.float16}
    with pytest.raises(Failed, match=words) as error:
        lib("top_k", **{**call, **values})
    assert error.value.status == INVALID_ARGUMENT


@pytest.mark.parametrize(("rows", "columns"), [(0, 8), (3, 0)])
def test_empty(lib: Library, rows: int, columns: int) -> None:
    lib("top_k", dtype=torch.float16, rows=rows, columns=columns, k=1)
