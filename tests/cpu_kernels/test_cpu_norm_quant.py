"""Layer norm, and norms with fp8 results, on the CPU against fp64, at every level."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from capi import INVALID_ARGUMENT, Failed, Guarded, Library
from compare import FLOATS, assert_rounded
from fp8_reference import FP8, assert_nearest, assert_same, every_rounding, saturated
from test_cpu_norm import FP32, HIDDEN, exact_rmsnorm


def layernorm(
    lib: Library, out: torch.Tensor, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor
) -> None:
    lib("layernorm", dtype=x.dtype, rows=x.shape[0], hidden=x.shape[1], out=out,
        out_stride=out.stride(0), input=x, input_stride=x.stride(0), gamma=gamma, beta=beta,
        eps=1e-5)  # fmt: skip


def exact_layernorm(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    centred = x.double() - x.double().mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    return centred * scale * gamma.double() + beta.double()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_layernorm(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, hidden: int
) -> None:
    source, target = Guarded((5, hidden), dtype), Guarded((5, hidden), dtype, gap=3)
    x = source.fill(torch.randn(5, hidden, generator=generator) * 3 + 1)
    gamma, beta = torch.randn(2, hidden, generator=generator)
    expected = exact_layernorm(x, gamma, beta)
    for out, guard in ((target.view, target), (x, source)):
        layernorm(lib, out, x, gamma, beta)
        assert_rounded(out, expected, FP32, 4e-6)
        assert guard.intact()


@pytest.mark.parametrize("hidden", [96, 20001])
def test_a_mean_far_from_zero(lib: Library, generator: torch.Generator, hidden: int) -> None:
    """The variance is not a difference of two large sums."""
    x = torch.randn(3, hidden, generator=generator) + 1000
    gamma, beta, out = torch.ones(hidden), torch.zeros(hidden), torch.empty_like(x)
    layernorm(lib, out, x, gamma, beta)
    # The mean itself is rounded to 2^-14.
    assert_rounded(out, exact_layernorm(x, gamma, beta), FP32, 2e-4)


def test_bad_rows_of_layernorm(lib: Library) -> None:
    x = torch.randn(4, 33)
    x[1, 32] = torch.nan
    x[2, 0] = torch.inf
    x[3] = 7  # without a variance: beta
    out, beta = torch.empty_like(x), torch.randn(33)
    layernorm(lib, out, x, torch.ones(33), beta)
    assert out[1:3].isnan().all()
    assert torch.equal(out[3], beta)
    assert not out[0].isnan().any()


def quant(lib: Library, out: torch.Tensor, x: torch.Tensor, w: torch.Tensor, **more: Any) -> None:
    values = {"scale_value": 0.3, "eps": 1e-6, **more}
    lib("rmsnorm_quant", dtype=x.dtype, out_dtype=out.dtype, rows=x.shape[0], hidden=x.shape[1],
        out=out, out_stride=out.stride(0), input=x, input_stride=x.stride(0), weight=w,
        **values)  # fmt: skip


@pytest.mark.parametrize("out_dtype", FP8, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_norms_in_fp8(
    lib: Library,
    generator: torch.Generator,
    dtype: torch.dtype,
    out_dtype: torch.dtype,
    hidden: int,
) -> None:
    inputs, residuals = Guarded((5, hidden), dtype), Guarded((5, hidden), dtype, gap=1)
    outputs = Guarded((5, hidden), out_dtype, gap=3)
    x = inputs.fill(torch.randn(5, hidden, generator=generator))
    residual = residuals.fill(torch.randn(5, hidden, generator=generator))
    weight = torch.randn(hidden, generator=generator).to(dtype)
    out, before = outputs.view, x.clone()
    quant(lib, out, x, weight)
    assert_nearest(out, exact_rmsnorm(x, weight, 1e-6, 0.0) / 0.3)
    assert outputs.intact()
    total = x.float() + residual.float()
    lib("fused_add_rmsnorm_quant", dtype=dtype, out_dtype=out_dtype, rows=5, hidden=hidden, out=out,
        out_stride=out.stride(0), input=x, input_stride=x.stride(0), residual=residual,
        residual_stride=residual.stride(0), weight=weight, scale=torch.tensor([0.3]),
        eps=1e-6)  # fmt: skip
    assert torch.equal(residual, total.to(dtype))
    assert_nearest(out, exact_rmsnorm(total, weight, 1e-6, 0.0) / 0.3)
    assert torch.equal(x, before)
    for guard in (inputs, residuals, outputs):
        assert guard.intact()


@pytest.mark.parametrize("out_dtype", FP8, ids=str)
def test_every_rounding(lib: Library, out_dtype: torch.dtype) -> None:
    """Ones are their own norm, so that the result is the weight."""
    values = every_rounding(out_dtype)
    for size in (values.shape[1], 3):  # whole vectors, and a part of one
        part = values[:, :size]
        out = torch.empty(part.shape, dtype=out_dtype)
        quant(lib, out, torch.ones_like(part), part[0], eps=0.0, scale_value=1.0)
        assert_same(out, saturated(part, out_dtype))


@pytest.mark.parametrize("scale", [1.0, -2.5, 1e-9, 1e-40, 0.0, 1e9, torch.inf])
def test_scales(lib: Library, generator: torch.Generator, scale: float) -> None:
    x, w = torch.randn(3, 64, generator=generator), torch.randn(64, generator=generator)
    x[1, :7] = 0
    out, by_value = (torch.empty(x.shape, dtype=FP8[0]) for _ in range(2))
    quant(lib, out, x, w, scale=torch.tensor([scale]), scale_value=torch.nan)
    inverse = max(-3.4028234e38, min(3.4028234e38, 1 / scale if scale else torch.inf))
    assert_nearest(out, exact_rmsnorm(x, w, 1e-6, 0.0) * inverse)
    quant(lib, by_value, x, w, scale_value=scale)
    assert_same(by_value, out)


def test_bad_rows_in_fp8(lib: Library) -> None:
    x = torch.randn(3, 33)
    x[1, 32] = torch.nan
    x[2] = 0
    for scale, row_0_is_nan in ((1.0, False), (torch.nan, True)):
        out = torch.empty(x.shape, dtype=FP8[0])
        quant(lib, out, x, torch.ones(33), scale_value=scale)
        nan = out.float().isnan()
        assert nan[1].all()
        assert bool(nan[0].all()) == bool(nan[2].all()) == row_0_is_nan


@pytest.mark.parametrize("op", ["rmsnorm_quant", "fused_add_rmsnorm_quant"])
def test_dtypes_that_are_refused(lib: Library, op: str) -> None:
    with pytest.raises(Failed, match=f"{op}: out_dtype 0 is not an fp8") as error:
        lib(op, dtype=torch.float16, out_dtype=torch.float16, rows=1, hidden=1)
    assert error.value.status == INVALID_ARGUMENT
    with pytest.raises(Failed, match=f"{op}: dtype 3 is not fp16, bf16 or fp32"):
        lib(op, dtype=FP8[0], out_dtype=FP8[0], rows=1, hidden=1)


@pytest.mark.parametrize("op", ["layernorm", "rmsnorm_quant", "fused_add_rmsnorm_quant"])
@pytest.mark.parametrize(("rows", "hidden"), [(0, 8), (3, 0)])
def test_empty(lib: Library, op: str, rows: int, hidden: int) -> None:
    more = {"out_dtype": FP8[0]} if op.endswith("quant") else {}
    lib(op, dtype=torch.float16, rows=rows, hidden=hidden, **more)
