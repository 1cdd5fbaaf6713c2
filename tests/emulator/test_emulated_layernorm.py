"""Layer norm against fp64."""

from __future__ import annotations

import pytest
import torch
from emulated import Emulator
from rounding import assert_rounded
from test_emulated_norm import EPS, LAYOUTS, SHAPES, TYPES


def reference(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    x = x.double()
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + EPS)
    return centred * scale * gamma.double() + beta.double()


def layernorm(
    gpu: Emulator, out: torch.Tensor, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor
) -> None:
    gpu(
        "layernorm", dtype=x.dtype, rows=x.shape[0], hidden=x.shape[1], out=out,
        out_stride=out.stride(0), input=x, input_stride=x.stride(0), gamma=gamma, beta=beta,
        eps=EPS,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "hidden"), SHAPES)
def test_layernorm(gpu: Emulator, dtype: torch.dtype, rows: int, hidden: int) -> None:
    x = torch.randn(rows, hidden).to(dtype)
    gamma, beta = torch.randn(hidden), torch.randn(hidden)
    out = gpu.empty((rows, hidden), dtype)
    layernorm(gpu, out, gpu.put(x), gpu.put(gamma, "gamma"), gpu.put(beta, "beta"))
    assert_rounded(out, reference(x, gamma, beta), fp32_error=6e-6)


@pytest.mark.parametrize("hidden", [96, 2056, 20000])
def test_a_mean_far_from_zero(gpu: Emulator, hidden: int) -> None:
    """The variance is not a difference of two large sums."""
    x = torch.randn(3, hidden) + 1000
    gamma, beta = torch.ones(hidden), torch.zeros(hidden)
    out = gpu.empty(x.shape, x.dtype)
    layernorm(gpu, out, gpu.put(x), gpu.put(gamma, "gamma"), gpu.put(beta, "beta"))
    # The mean itself is rounded to 2^-14.
    assert_rounded(out, reference(x, gamma, beta), fp32_error=2e-4)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("in_stride", "out_stride", "in_offset", "out_offset"), LAYOUTS)
def test_rows_apart_and_unaligned(
    gpu: Emulator,
    dtype: torch.dtype,
    in_stride: int,
    out_stride: int,
    in_offset: int,
    out_offset: int,
) -> None:
    x, gamma, beta = torch.randn(9, 128).to(dtype), torch.randn(128), torch.randn(128)
    placed = gpu.put(x, strides=(in_stride, 1), offset=in_offset)
    weights = gpu.put(gamma, "gamma", offset=in_offset), gpu.put(beta, "beta", offset=out_offset)
    out = gpu.empty((9, 128), dtype, strides=(out_stride, 1), offset=out_offset)
    layernorm(gpu, out, placed, *weights)
    assert_rounded(out, reference(x, gamma, beta))


@pytest.mark.parametrize("hidden", [64, 111, 2048, 16392])
def test_in_place_and_bad_rows(gpu: Emulator, hidden: int) -> None:
    x, gamma, beta = torch.randn(70, hidden).half(), torch.randn(hidden), torch.randn(hidden)
    x[3, hidden - 1] = torch.nan
    x[4, 0] = torch.inf
    x[5] = 7  # without a variance: beta
    placed = gpu.put(x)
    layernorm(gpu, placed, placed, gpu.put(gamma, "gamma"), gpu.put(beta, "beta"))
    assert placed[3:5].isnan().all()
    good = torch.ones(70, dtype=torch.bool)
    good[3:5] = False
    assert_rounded(placed[good], reference(x[good], gamma, beta))


def test_sums_do_not_overflow_in_fp16(gpu: Emulator) -> None:
    x = torch.full((2, 4096), 60000.0).half()
    x[:, ::2] = -60000.0
    ones, zeros = torch.ones(4096), torch.zeros(4096)
    out = gpu.empty(x.shape, x.dtype)
    layernorm(gpu, out, gpu.put(x), gpu.put(ones, "gamma"), gpu.put(zeros, "beta"))
    assert_rounded(out, reference(x, ones, zeros))
