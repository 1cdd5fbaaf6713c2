from __future__ import annotations

from collections.abc import Callable

import pytest
import reference
import torch

import flashinfer

ACTIVATIONS = [
    (flashinfer.silu_and_mul, "silu"),
    (flashinfer.gelu_and_mul, "gelu"),
    (flashinfer.gelu_tanh_and_mul, "gelu_tanh"),
]

Activation = Callable[..., torch.Tensor]


@pytest.mark.parametrize(("act", "name"), ACTIVATIONS)
@pytest.mark.parametrize("d", [1, 7, 8, 111, 500, 2048, 11008])
@pytest.mark.parametrize("rows", [1, 19])
def test_act_and_mul(
    act: Activation, name: str, rows: int, d: int, dtype: torch.dtype, device: str
) -> None:
    x = reference.rows((rows, 2 * d), dtype, device)
    reference.assert_close(act(x), reference.act_and_mul(x, name))


@pytest.mark.parametrize(("act", "name"), ACTIVATIONS)
def test_whole_range(act: Activation, name: str, dtype: torch.dtype, device: str) -> None:
    # Where exp overflows or vanishes the gate is 0 or the identity, never NaN.
    gate = torch.cat((torch.linspace(-200, 200, 4001), torch.linspace(-6, 6, 4001))).to(dtype)
    x = torch.cat((gate, torch.ones_like(gate)))[None].to(device)
    reference.assert_close(act(x), reference.act_and_mul(x, name))


@pytest.mark.parametrize(("act", "name"), ACTIVATIONS)
@pytest.mark.parametrize("shape", [(14,), (2, 3, 14), (2, 1, 3, 222), (0, 14), (3, 0)])
def test_any_number_of_dimensions(
    act: Activation, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    x = reference.rows(shape, dtype, device)
    out = act(x)
    assert out.shape == (*shape[:-1], shape[-1] // 2)
    reference.assert_close(out, reference.act_and_mul(x, name))


@pytest.mark.parametrize("strides", reference.STRIDES)
@pytest.mark.parametrize("out_strides", reference.STRIDES)
@pytest.mark.parametrize("shape", [(19, 222), (3, 5, 222)])
def test_strides_and_out(
    strides: str, out_strides: str, shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    x = reference.rows(shape, dtype, device, strides)
    out = reference.rows((*shape[:-1], 111), dtype, device, out_strides)
    assert flashinfer.silu_and_mul(x, out=out) is out
    reference.assert_close(out, reference.act_and_mul(x, "silu"))


def test_transposed_input(dtype: torch.dtype, device: str) -> None:
    x = reference.rows((14, 19), dtype, device).T
    reference.assert_close(flashinfer.gelu_and_mul(x), reference.act_and_mul(x, "gelu"))
