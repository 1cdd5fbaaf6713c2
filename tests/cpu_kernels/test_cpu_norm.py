from __future__ import annotations

import pytest
import torch
from capi import Failed, Guarded, Library
from compare import FLOATS, assert_rounded

HIDDEN = [1, 7, 8, 16, 111, 128, 500, 1024, 4099]
FP32 = 2e-6


def exact_rmsnorm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, weight_bias: float
) -> torch.Tensor:
    scale = torch.rsqrt(x.double().square().mean(-1, keepdim=True) + eps)
    return x.double() * scale * (weight.double() + weight_bias)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("weight_bias", [0.0, 1.0])
def test_rmsnorm(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, hidden: int, weight_bias: float
) -> None:
    rows = 5
    source = Guarded((rows, hidden), dtype)
    x = source.fill(torch.randn(rows, hidden, generator=generator) * 3)
    weight = torch.randn(hidden, generator=generator).to(dtype)
    expected = exact_rmsnorm(x, weight, 1e-6, weight_bias)
    target = Guarded((rows, hidden), dtype, gap=3)
    for out, guard in ((target.view, target), (x, source)):
        lib(
            "rmsnorm",
            dtype=dtype,
            rows=rows,
            hidden=hidden,
            out=out,
            out_stride=out.stride(0),
            input=x,
            input_stride=x.stride(0),
            weight=weight,
            eps=1e-6,
            weight_bias=weight_bias,
        )
        assert_rounded(out, expected, FP32)
        assert guard.intact()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("weight_bias", [0.0, 1.0])
def test_fused_add_rmsnorm(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, hidden: int, weight_bias: float
) -> None:
    rows = 5
    inputs, residuals = Guarded((rows, hidden), dtype), Guarded((rows, hidden), dtype, gap=1)
    x = inputs.fill(torch.randn(rows, hidden, generator=generator))
    residual = residuals.fill(torch.randn(rows, hidden, generator=generator))
    weight = torch.randn(hidden, generator=generator).to(dtype)
    # The norm takes the fp32 sum, not the rounded one.
    total = x.float() + residual.float()
    expected = exact_rmsnorm(total, weight, 1e-5, weight_bias)
    lib(
        "fused_add_rmsnorm",
        dtype=dtype,
        rows=rows,
        hidden=hidden,
        input=x,
        input_stride=x.stride(0),
        residual=residual,
        residual_stride=residual.stride(0),
        weight=weight,
        eps=1e-5,
        weight_bias=weight_bias,
    )
    assert torch.equal(residual, total.to(dtype))
    assert_rounded(x, expected, FP32)
    assert inputs.intact()
    assert residuals.intact()


def test_long_rows_of_equal_elements(lib: Library) -> None:
    """Every addition to one sum would be rounded in the same direction."""
    hidden = 2**17 + 5
    x, out = torch.tensor([[0.3], [0.7], [1.1]]).repeat(1, hidden), torch.empty(3, hidden)
    sizes = {"rows": 3, "hidden": hidden, "input_stride": hidden, "out_stride": hidden}
    lib("rmsnorm", dtype=x.dtype, out=out, input=x, weight=torch.ones(hidden), **sizes)
    assert (out - 1).abs().max() < 1e-5


def test_large_values_do_not_overflow(lib: Library) -> None:
    x = torch.full((1, 512), 60000.0, dtype=torch.float16)
    out = torch.empty_like(x)
    weight = torch.ones(512, dtype=torch.float16)
    lib(
        "rmsnorm",
        dtype=x.dtype,
        rows=1,
        hidden=512,
        out=out,
        out_stride=512,
        input=x,
        input_stride=512,
        weight=weight,
        eps=1e-6,
    )
    assert torch.equal(out, weight.view(1, -1))


def test_one_nan_stays_in_its_row(lib: Library) -> None:
    x = torch.ones(3, 33)
    x[1, 32] = float("nan")
    out = torch.empty_like(x)
    lib(
        "rmsnorm",
        dtype=x.dtype,
        rows=3,
        hidden=33,
        out=out,
        out_stride=33,
        input=x,
        input_stride=33,
        weight=torch.ones(33),
        eps=0.0,
    )
    assert out.isnan().any(dim=1).tolist() == [False, True, False]
    assert out[1].isnan().all()


@pytest.mark.parametrize("op", ["rmsnorm", "fused_add_rmsnorm"])
def test_refuses_fp8(lib: Library, op: str) -> None:
    with pytest.raises(Failed, match=rf"{op}: dtype 3 is not fp16, bf16 or fp32"):
        lib(op, dtype=torch.float8_e4m3fn, rows=1, hidden=1)


@pytest.mark.parametrize("op", ["rmsnorm", "fused_add_rmsnorm"])
@pytest.mark.parametrize(("rows", "hidden"), [(0, 8), (3, 0)])
def test_empty(lib: Library, op: str, rows: int, hidden: int) -> None:
    lib(op, dtype=torch.float16, rows=rows, hidden=hidden)
