"""fp16 and bf16 loads and stores, through rope: out = x * cos - y * sin."""

from __future__ import annotations

import pytest
import torch
from capi import Library

HALVES = [torch.float16, torch.bfloat16]


def rotate(lib: Library, x: torch.Tensor, cosines: torch.Tensor) -> torch.Tensor:
    """Return x * cosines, rounded to x's dtype: one head at position 0 with sin = 0 and y = 0."""
    pairs = x.numel()
    q = torch.cat([x, torch.zeros_like(x)])
    cache = torch.cat([cosines, torch.zeros_like(cosines)])
    lib(
        "rope",
        dtype=x.dtype,
        nnz=1,
        num_qo_heads=1,
        head_dim=2 * pairs,
        rotary_dim=2 * pairs,
        q=q,
        q_out=q,
        pos_ids=torch.zeros(1, dtype=torch.int32),
        pos_ids_bits=32,
        cos_sin_cache=cache,
        cos_sin_stride=2 * pairs,
        max_position=1,
    )
    return q[:pairs]


def same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equal bits, or both NaN."""
    return (a.view(torch.int16) == b.view(torch.int16)) | (a.isnan() & b.isnan())


@pytest.mark.parametrize("dtype", HALVES)
def test_every_value_survives(lib: Library, dtype: torch.dtype) -> None:
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    result = rotate(lib, values, torch.ones(values.numel()))
    assert same(result, values).all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "low", [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
)
def test_every_rounding(lib: Library, dtype: torch.dtype, low: int) -> None:
    """Every upper half of an fp32 number, with lower halves on and beside both ties."""
    upper = torch.arange(-(2**15), 2**15, dtype=torch.int32)
    numbers = (upper * 65536 + low).view(torch.float32)
    result = rotate(lib, torch.ones(numbers.numel(), dtype=dtype), numbers)
    expected = numbers.to(dtype)
    wrong = ~same(result, expected)
    assert not wrong.any(), f"{numbers[wrong][0]!r}: {result[wrong][0]!r}, {expected[wrong][0]!r}"
