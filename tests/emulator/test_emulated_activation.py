from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from emulated import Emulator
from rounding import assert_rounded

TYPES = [torch.float16, torch.bfloat16, torch.float32]


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-x))


ACTIVATIONS = [(0, silu), (1, gelu), (2, gelu_tanh)]


def act_and_mul(gpu: Emulator, code: int, out: torch.Tensor, x: torch.Tensor) -> None:
    gpu(
        "act_and_mul", dtype=x.dtype, activation=code, rows=x.shape[0], d=x.shape[1] // 2, out=out,
        out_stride=out.stride(0), input=x, input_stride=x.stride(0),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("code", "function"), ACTIVATIONS)
@pytest.mark.parametrize(
    ("rows", "d"), [(1, 1), (2, 8), (700, 16), (40, 111), (5, 500), (33, 128), (3, 4104), (9, 2048)]
)
def test_act_and_mul(
    gpu: Emulator,
    dtype: torch.dtype,
    code: int,
    function: Callable[[torch.Tensor], torch.Tensor],
    rows: int,
    d: int,
) -> None:
    x = (3 * torch.randn(rows, 2 * d)).to(dtype)
    out = gpu.empty((rows, d), dtype)
    act_and_mul(gpu, code, out, gpu.put(x))
    assert_rounded(out, function(x[:, :d].double()) * x[:, d:].double())


@pytest.mark.parametrize(
    ("in_stride", "out_stride", "in_offset", "out_offset"),
    [(144, 72, 0, 0), (129, 64, 0, 0), (128, 67, 0, 0), (128, 64, 1, 0), (128, 64, 0, 5)],
)
def test_rows_apart_and_unaligned(
    gpu: Emulator, in_stride: int, out_stride: int, in_offset: int, out_offset: int
) -> None:
    x = torch.randn(19, 128).bfloat16()
    placed = gpu.put(x, strides=(in_stride, 1), offset=in_offset)
    out = gpu.empty((19, 64), x.dtype, strides=(out_stride, 1), offset=out_offset)
    act_and_mul(gpu, 0, out, placed)
    assert_rounded(out, silu(x[:, :64].double()) * x[:, 64:].double())


@pytest.mark.parametrize(("code", "function"), ACTIVATIONS)
def test_extremes(
    gpu: Emulator, code: int, function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    gate = torch.tensor([0.0, -0.0, 1e-7, -1e-7, 20.0, -20.0, 90.0, -90.0, 1e4, -1e4, 1e30, -1e30])
    x = torch.cat([gate, torch.ones(12)]).reshape(1, 24)
    out = gpu.empty((1, 12), torch.float32)
    act_and_mul(gpu, code, out, gpu.put(x))
    assert_rounded(out, function(gate.double().clamp(min=-500)).reshape(1, 12))


def test_an_infinite_gate_passes_through(gpu: Emulator) -> None:
    x = torch.tensor([[float("inf"), 2.0]])
    out = gpu.empty((1, 1), torch.float32)
    act_and_mul(gpu, 0, out, gpu.put(x))
    assert out.item() == float("inf")
