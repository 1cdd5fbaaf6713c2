"""Norms with fp8 results: against fp64, and every rounding there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from emulated import INVALID_ARGUMENT, Emulator, Failed
from fp8_reference import FP8, assert_nearest, assert_same, every_rounding, saturated
from rounding import assert_rounded
from test_emulated_norm import EPS, LAYOUTS, TYPES, reference


def quant(gpu: Emulator, out: torch.Tensor, x: torch.Tensor, w: torch.Tensor, **more: Any) -> None:
    values = {"scale_value": 0.3, "eps": EPS, **more}
    gpu(
        "rmsnorm_quant", dtype=x.dtype, out_dtype=out.dtype, rows=x.shape[0], hidden=x.shape[1],
        out=out, out_stride=out.stride(0), input=x, input_stride=x.stride(0), weight=w, **values,
    )  # fmt: skip


def fused(
    gpu: Emulator,
    out: torch.Tensor,
    x: torch.Tensor,
    r: torch.Tensor,
    w: torch.Tensor,
    **more: Any,
) -> None:
    values = {"scale_value": 0.3, "eps": EPS, **more}
    gpu(
        "fused_add_rmsnorm_quant", dtype=x.dtype, out_dtype=out.dtype, rows=x.shape[0],
        hidden=x.shape[1], out=out, out_stride=out.stride(0), input=x, input_stride=x.stride(0),
        residual=r, residual_stride=r.stride(0), weight=w, **values,
    )  # fmt: skip


# As in test_emulated_norm: parts of a warp, a warp, a block; one and several vectors a thread; odd
# sizes; rows too long for registers.
SHAPES = [(3, 1), (33, 64), (9, 248), (70, 1024), (7, 111), (70, 2048), (9, 8192), (2, 3001),
          (2, 16392), (1, 40001)]  # fmt: skip


@pytest.mark.parametrize("out_dtype", FP8, ids=str)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "hidden"), SHAPES)
def test_both(
    gpu: Emulator, dtype: torch.dtype, out_dtype: torch.dtype, rows: int, hidden: int
) -> None:
    x, r = torch.randn(rows, hidden).to(dtype), torch.randn(rows, hidden).to(dtype)
    w = torch.randn(hidden).to(dtype)
    out = gpu.empty((rows, hidden), out_dtype)
    placed, weight = gpu.put(x), gpu.put(w, "weight")
    quant(gpu, out, placed, weight)
    assert_nearest(out, reference(x, w, 0.0) / 0.3)
    residual, out = gpu.put(r, "residual"), gpu.empty((rows, hidden), out_dtype)
    fused(gpu, out, placed, residual, weight)
    total = x.double() + r.double()
    assert_rounded(residual, total)
    assert_nearest(out, reference(total, w, 0.0) / 0.3)
    assert torch.equal(placed, x)


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
    weight = gpu.put(w, "weight", offset=in_offset)
    out = gpu.empty((9, 128), FP8[0], strides=(out_stride, 1), offset=out_offset)
    quant(gpu, out, placed, weight)
    assert_nearest(out, reference(x, w, 0.0) / 0.3)
    residual = gpu.put(r, "residual", strides=(out_stride, 1), offset=out_offset)
    out = gpu.empty((9, 128), FP8[0])
    fused(gpu, out, placed, residual, weight)
    assert_nearest(out, reference(x.double() + r.double(), w, 0.0) / 0.3)
    assert_rounded(residual, x.double() + r.double())


@pytest.mark.parametrize("out_dtype", FP8, ids=str)
@pytest.mark.parametrize("offset", [0, 1])
def test_every_rounding(gpu: Emulator, out_dtype: torch.dtype, offset: int) -> None:
    """Ones are their own norm, so that the result is the weight; with and without vectors."""
    values = every_rounding(out_dtype)
    out = gpu.empty(values.shape, out_dtype)
    x = gpu.put(torch.ones_like(values), offset=offset)
    quant(gpu, out, x, gpu.put(values[0], "weight"), eps=0.0, scale_value=1.0)
    assert_same(out, saturated(values, out_dtype))


@pytest.mark.parametrize("scale", [1.0, -2.5, 1e-9, 1e-40, 0.0, 1e9, torch.inf])
def test_scales(gpu: Emulator, scale: float) -> None:
    x, w = torch.randn(3, 64), torch.randn(64)
    x[1, :7] = 0
    out, placed = gpu.empty(x.shape, FP8[0]), gpu.put(x)
    by_tensor = gpu.put(torch.tensor([scale]), "scale")
    weight = gpu.put(w, "weight")
    quant(gpu, out, placed, weight, scale=by_tensor, scale_value=torch.nan)
    inverse = max(-3.4028234e38, min(3.4028234e38, 1 / scale if scale else torch.inf))
    assert_nearest(out, reference(x, w, 0.0) * inverse)
    alone = gpu.empty(x.shape, FP8[0])
    quant(gpu, alone, placed, weight, scale_value=scale)
    assert_same(alone, out)


def test_bad_rows(gpu: Emulator) -> None:
    x, w = torch.randn(4, 2048).half(), torch.randn(2048).half()
    x[1, 77] = torch.nan
    x[2, 5] = torch.inf
    x[3] = 0
    for more in ({}, {"scale": gpu.put(torch.tensor([torch.nan]))}):
        out = gpu.empty(x.shape, FP8[0])
        quant(gpu, out, gpu.put(x), gpu.put(w, "weight"), **more)
        nan = out.float().isnan()
        assert nan[1].all()
        # Infinity has an inverse root of 0: it is 0 times infinity, the others are 0.
        assert nan[2].sum() == (2048 if more else 1)
        assert nan[3].all() == bool(more)
        assert nan[0].any() == bool(more)


@pytest.mark.parametrize("op", ["rmsnorm_quant", "fused_add_rmsnorm_quant"])
def test_what_is_refused(gpu: Emulator, op: str) -> None:
    values: dict[str, Any] = {"rows": 1, "hidden": 8, "dtype": torch.float16}
    with pytest.raises(Failed, match=f"{op}: out must be float8_e4m3 or float8_e5m2") as error:
        gpu(op, out_dtype=torch.float16, **values)
    assert error.value.status == INVALID_ARGUMENT
    with pytest.raises(Failed, match=f"{op}: hidden must be below"):
        gpu(op, out_dtype=FP8[0], **{**values, "hidden": 2**31})
