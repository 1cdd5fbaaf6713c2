from __future__ import annotations

import math

import pytest
import torch
from capi import Failed, Guarded, Library
from compare import FLOATS, assert_rounded

SILU, GELU, GELU_TANH = 0, 1, 2
ACTIVATIONS = [SILU, GELU, GELU_TANH]
# Relative fp32 error before the rounding.
FP32 = 1e-6
# Results smaller than this come out as 0 (e^x below the smallest normal number, times x).
FLUSHED = 2e-36


def exact(activation: int, gate: torch.Tensor) -> torch.Tensor:
    """The activation in fp64, in forms that keep the relative accuracy of small results."""
    x = gate.double()
    if activation == SILU:
        return x * torch.sigmoid(x)
    if activation == GELU:
        twice_cdf: torch.Tensor = torch.special.erfc(-x / math.sqrt(2))
        return x * 0.5 * twice_cdf
    return x * torch.sigmoid(tanh_argument(x))


def tanh_argument(x: torch.Tensor) -> torch.Tensor:
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def relative_error(activation: int, gate: torch.Tensor) -> torch.Tensor:
    """What fp32 may lose: e^u magnifies the roundings of u, three or four of 2^-24, by |u|."""
    error = torch.full(gate.shape, FP32, dtype=torch.float64)
    if activation == GELU_TANH:
        negative = gate.double().nan_to_num().clamp(-15, 0)
        error += tanh_argument(negative).abs() * 4 * 2**-24
    return error


def act_and_mul(lib: Library, activation: int, x: torch.Tensor, out: torch.Tensor) -> None:
    lib(
        "act_and_mul",
        dtype=x.dtype,
        activation=activation,
        rows=x.shape[0],
        d=x.shape[1] // 2,
        out=out,
        out_stride=out.stride(0),
        input=x,
        input_stride=x.stride(0),
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("d", [1, 8, 31, 128, 500])
def test_act_and_mul(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, activation: int, d: int
) -> None:
    x = Guarded((4, 2 * d), dtype).fill(torch.randn(4, 2 * d, generator=generator) * 2)
    target = Guarded((4, d), dtype)
    act_and_mul(lib, activation, x, target.view)
    expected = exact(activation, x[:, :d]) * x[:, d:].double()
    error = relative_error(activation, x[:, :d])
    assert_rounded(target.view, expected, error)
    assert target.intact()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_gate(lib: Library, dtype: torch.dtype, activation: int) -> None:
    """All 65,536 gates, times one: subnormal numbers, infinities and NaN included."""
    gate = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).view(1, -1)
    out = torch.empty_like(gate)
    act_and_mul(lib, activation, torch.cat([gate, torch.ones_like(gate)], 1), out)
    assert_rounded(out, exact(activation, gate), relative_error(activation, gate), FLUSHED)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fp32_accuracy(lib: Library, generator: torch.Generator, activation: int) -> None:
    """Relative accuracy over the whole range, and special values."""
    dense = torch.linspace(-15, 15, 200_001)
    wide = torch.randn(100_000, generator=generator) * 40
    powers = torch.cat([sign * 2.0 ** torch.arange(-140, 128) for sign in (1.0, -1.0)])
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 3.4e38, -3.4e38])
    payload = torch.tensor([0x7FC00001, 0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    gate = torch.cat([dense, wide, powers, special, payload]).view(1, -1)
    out = torch.empty_like(gate)
    act_and_mul(lib, activation, torch.cat([gate, torch.ones_like(gate)], 1), out)
    assert_rounded(out, exact(activation, gate), relative_error(activation, gate), FLUSHED)


def test_refuses_unknown_activation(lib: Library) -> None:
    with pytest.raises(Failed, match="activation 3 is not silu, gelu or gelu_tanh"):
        lib("act_and_mul", dtype=torch.float16, activation=3, rows=1, d=1)


@pytest.mark.parametrize(("rows", "d"), [(0, 8), (3, 0)])
def test_empty(lib: Library, rows: int, d: int) -> None:
    lib("act_and_mul", dtype=torch.float16, rows=rows, d=d)
