from __future__ import annotations

import pytest
import torch
from emulated import Emulator
from rounding import assert_rounded

HALF_TYPES = [torch.float16, torch.bfloat16]
TYPES = [*HALF_TYPES, torch.float32]
EPS = 1e-5


def reference(x: torch.Tensor, weight: torch.Tensor, bias: float) -> torch.Tensor:
    x = x.double()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * (bias + weight.double())


def rmsnorm(
    gpu: Emulator, out: torch.Tensor, x: torch.Tensor, w: torch.Tensor, bias: float
) -> None:
    gpu(
        "rmsnorm", dtype=x.dtype, rows=x.shape[0], hidden=x.shape[1], out=out,
        out_stride=out.stride(0), input=x, input_stride=x.stride(0), weight=w, eps=EPS,
        weight_bias=bias,
    )  # fmt: skip


def fused(gpu: Emulator, x: torch.Tensor, r: torch.Tensor, w: torch.Tensor, bias: float) -> None:
    gpu(
        "fused_add_rmsnorm", dtype=x.dtype, rows=x.shape[0], hidden=x.shape[1], input=x,
        input_stride=x.stride(0), residual=r, residual_stride=r.stride(0), weight=w, eps=EPS,
        weight_bias=bias,
    )  # fmt: skip


# (rows, hidden): a part of a warp, a warp and a block for each row; one and several vectors a
# thread; more rows than the blocks that run at once; scalar sizes; rows too long for registers.
SHAPES = [
    *[(1, 1), (3, 1), (300, 8), (33, 64), (300, 128), (9, 248), (5, 512), (70, 1024), (9, 111)],
    *[(40, 111), (7, 500), (5, 2048), (70, 2048), (3, 4096), (19, 4096), (2, 8192), (9, 8192)],
    *[(2, 3001), (1, 16384), (9, 16384), (2, 16392), (3, 20000), (1, 40001)],
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "hidden"), SHAPES)
def test_rmsnorm(gpu: Emulator, dtype: torch.dtype, rows: int, hidden: int) -> None:
    x = torch.randn(rows, hidden).to(dtype)
    w = torch.randn(hidden).to(dtype)
    out = gpu.empty((rows, hidden), dtype)
    rmsnorm(gpu, out, gpu.put(x), gpu.put(w, "weight"), 0.0)
    assert_rounded(out, reference(x, w, 0.0))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "hidden"), SHAPES)
def test_fused_add_rmsnorm(gpu: Emulator, dtype: torch.dtype, rows: int, hidden: int) -> None:
    x, r = torch.randn(rows, hidden).to(dtype), torch.randn(rows, hidden).to(dtype)
    w = torch.randn(hidden).to(dtype)
    x_out, r_out = gpu.put(x), gpu.put(r, "residual")
    fused(gpu, x_out, r_out, gpu.put(w, "weight"), 0.0)
    total = x.double() + r.double()
    assert_rounded(r_out, total)
    assert_rounded(x_out, reference(total, w, 0.0))


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_gemma_adds_one_to_the_weight_in_fp32(gpu: Emulator, dtype: torch.dtype) -> None:
    x, r = torch.randn(5, 256).to(dtype), torch.randn(5, 256).to(dtype)
    w = (torch.randn(256) * 1e-3).to(dtype)  # 1 + w is not a number of the dtype
    out = gpu.empty((5, 256), dtype)
    rmsnorm(gpu, out, gpu.put(x), gpu.put(w, "weight"), 1.0)
    assert_rounded(out, reference(x, w, 1.0))
    x_out, r_out = gpu.put(x), gpu.put(r, "residual")
    fused(gpu, x_out, r_out, gpu.put(w, "weight"), 1.0)
    assert_rounded(x_out, reference(x.double() + r.double(), w, 1.0))


# Strides and offsets in elements: vectors stay possible, or not because of one of the operands.
LAYOUTS = [(136, 136, 0, 0), (129, 128, 0, 0), (128, 131, 0, 0), (128, 128, 1, 0), (128, 128, 0, 3)]


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
    x, r = torch.randn(9, 128).to(dtype), torch.randn(9, 128).to(dtype)
    w = torch.randn(128).to(dtype)
    placed = gpu.put(x, strides=(in_stride, 1), offset=in_offset)
    other = gpu.empty((9, 128), dtype, strides=(out_stride, 1), offset=out_offset)
    weight = gpu.put(w, "weight", offset=in_offset)
    rmsnorm(gpu, other, placed, weight, 0.0)
    assert_rounded(other, reference(x, w, 0.0))
    residual = gpu.put(r, "residual", strides=(out_stride, 1), offset=out_offset)
    fused(gpu, placed, residual, weight, 0.0)
    assert_rounded(placed, reference(x.double() + r.double(), w, 0.0))
    assert_rounded(residual, x.double() + r.double())


@pytest.mark.parametrize("hidden", [64, 111, 2048, 16384, 16392])
def test_rmsnorm_in_place(gpu: Emulator, hidden: int) -> None:
    x, w = torch.randn(70, hidden).half(), torch.randn(hidden).half()
    placed = gpu.put(x)
    rmsnorm(gpu, placed, placed, gpu.put(w, "weight"), 0.0)
    assert_rounded(placed, reference(x, w, 0.0))


def test_one_row_may_have_any_stride(gpu: Emulator) -> None:
    # A row of a transposed tensor: the stride says nothing, and the row is still read in vectors.
    x, w = torch.randn(1, 4096).half(), torch.randn(4096).half()
    out = gpu.empty((1, 4096), torch.float16)
    gpu(
        "rmsnorm", dtype=x.dtype, rows=1, hidden=4096, out=out, out_stride=1, input=gpu.put(x),
        input_stride=4097, weight=gpu.put(w, "weight"), eps=EPS, weight_bias=0.0,
    )  # fmt: skip
    assert_rounded(out, reference(x, w, 0.0))


def test_sum_of_squares_does_not_overflow_in_fp16(gpu: Emulator) -> None:
    x, w = torch.full((2, 4096), 60000.0).half(), torch.ones(4096).half()
    out = gpu.empty(x.shape, x.dtype)
    rmsnorm(gpu, out, gpu.put(x), gpu.put(w, "weight"), 0.0)
    assert_rounded(out, reference(x, w, 0.0))
