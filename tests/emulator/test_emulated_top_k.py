"""The largest entries against a stable sort."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from emulated import INVALID_ARGUMENT, UNSUPPORTED, Emulator, Failed
from top_k_reference import KINDS, check, rows_of


def top_k(gpu: Emulator, x: torch.Tensor, k: int, sorted: bool, last: bool) -> None:
    """``x`` is in emulated memory."""
    rows, columns = x.shape
    values, indices = gpu.empty((rows, k), x.dtype), gpu.empty((rows, k), torch.int64, "indices")
    gpu("top_k", dtype=x.dtype, rows=rows, columns=columns, k=k, input=x, input_stride=x.stride(0),
        values=values, indices=indices, sorted=sorted, last=last)  # fmt: skip
    check(values, indices, x, sorted, last)


# A block of 256 threads and of 1024; rows of vectors and of single elements; more of a kind than
# the selection's list has room for.
SIZES = [(1, 1), (3, 2), (111, 7), (111, 111), (1000, 64), (8192, 3), (20001, 300), (24000, 6000)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("columns", "k"), SIZES)
def test_top_k(gpu: Emulator, kind: str, columns: int, k: int) -> None:
    x = gpu.put(rows_of(kind, 2, columns, torch.float32))
    for last in (False, True):
        top_k(gpu, x, k, False, last)
        if k <= 300:
            top_k(gpu, x, k, True, last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["normal", "nan", "whole"])
@pytest.mark.parametrize(("columns", "k"), [(7, 5), (1000, 64), (20008, 64)])
def test_half_types(gpu: Emulator, dtype: torch.dtype, kind: str, columns: int, k: int) -> None:
    x = gpu.put(rows_of(kind, 2, columns, dtype))
    top_k(gpu, x, k, True, False)
    top_k(gpu, x, k, False, True)


def test_as_many_as_are_sorted(gpu: Emulator) -> None:
    top_k(gpu, gpu.put(rows_of("whole", 1, 8000, torch.float16)), 4096, True, False)


def test_the_longest_vocabulary(gpu: Emulator) -> None:
    top_k(gpu, gpu.put(rows_of("normal", 1, 262144, torch.bfloat16)), 50, True, False)


@pytest.mark.parametrize(("stride", "offset"), [(1008, 0), (1001, 0), (1000, 3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_rows_apart_and_unaligned(
    gpu: Emulator, dtype: torch.dtype, stride: int, offset: int
) -> None:
    x = rows_of("normal", 3, 1000, dtype)
    top_k(gpu, gpu.put(x, strides=(stride, 1), offset=offset), 20, True, False)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k": 0}, "k must be in 1..9, got 0"),
        ({"k": 10}, "k must be in 1..9, got 10"),
        ({"k": 5000, "columns": 9000, "sorted": 1}, "k must be in 1..4096, got 5000"),
        ({"columns": 2**20 + 1}, "vocab must be at most 1048576"),
    ],
)
def test_what_is_refused(gpu: Emulator, values: dict[str, Any], words: str) -> None:
    call: dict[str, Any] = {"rows": 1, "columns": 9, "k": 1, "dtype": torch.float16}
    with pytest.raises(Failed, match=words) as error:
        gpu("top_k", **{**call, **values})
    assert error.value.status == INVALID_ARGUMENT
    with pytest.raises(Failed, match="float16, bfloat16 or float32") as error:
        gpu("top_k", **{**call, "dtype": torch.float8_e4m3fn})
    assert error.value.status == UNSUPPORTED
