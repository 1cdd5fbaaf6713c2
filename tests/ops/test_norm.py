from __future__ import annotations

from collections.abc import Callable

import pytest
import reference
import torch

import flashinfer

# One vector and less, odd sizes, the field's 111 and 500, typical models, a long row.
HIDDEN = [1, 3, 8, 111, 500, 1024, 3072, 8193]
NORMS = [(flashinfer.rmsnorm, 0.0), (flashinfer.gemma_rmsnorm, 1.0)]
FUSED = [(flashinfer.fused_add_rmsnorm, 0.0), (flashinfer.gemma_fused_add_rmsnorm, 1.0)]

Norm = Callable[..., torch.Tensor]


@pytest.mark.parametrize(("norm", "bias"), NORMS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("rows", [1, 19, 99])
def test_rmsnorm(
    norm: Norm, bias: float, rows: int, hidden: int, dtype: torch.dtype, device: str
) -> None:
    x = reference.rows((rows, hidden), dtype, device)
    w = reference.rows((hidden,), dtype, device)
    reference.assert_close(norm(x, w), reference.rmsnorm(x, w, 1e-6, bias))


@pytest.mark.parametrize("strides", reference.STRIDES)
@pytest.mark.parametrize("out_strides", reference.STRIDES)
def test_rmsnorm_strides_and_out(
    strides: str, out_strides: str, dtype: torch.dtype, device: str
) -> None:
    x = reference.rows((19, 111), dtype, device, strides)
    w = reference.rows((111,), dtype, device, "inner gaps")
    out = reference.rows((19, 111), dtype, device, out_strides)
    assert flashinfer.rmsnorm(x, w, eps=1e-5, out=out) is out
    reference.assert_close(out, reference.rmsnorm(x, w, 1e-5))


def test_rmsnorm_writes_nothing_beside_its_rows(dtype: torch.dtype, device: str) -> None:
    wide = torch.full((19, 130), 7.0, dtype=dtype, device=device)
    x = reference.rows((19, 111), dtype, device)
    flashinfer.rmsnorm(x, torch.ones(111, dtype=dtype, device=device), out=wide[:, 9:120])
    assert (wide[:, :9] == 7).all()
    assert (wide[:, 120:] == 7).all()
    assert not (wide[:, 9:120] == 7).all()


def test_rmsnorm_in_place(dtype: torch.dtype, device: str) -> None:
    x = reference.rows((19, 500), dtype, device)
    w = reference.rows((500,), dtype, device)
    expected = reference.rmsnorm(x, w, 1e-6)
    flashinfer.rmsnorm(x, w, out=x)
    reference.assert_close(x, expected)


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_rmsnorm_of_zeros_is_zero_and_eps_counts(
    eps: float, dtype: torch.dtype, device: str
) -> None:
    w = torch.ones(64, dtype=dtype, device=device)
    assert (flashinfer.rmsnorm(torch.zeros(3, 64, dtype=dtype, device=device), w, eps) == 0).all()
    x = reference.rows((3, 64), dtype, device)
    reference.assert_close(flashinfer.rmsnorm(x, w, eps), reference.rmsnorm(x, w, eps))


def test_rmsnorm_sums_in_float32(device: str) -> None:
    # The squares do not fit into float16, their mean does.
    x = torch.full((2, 4096), 300.0, dtype=torch.float16, device=device)
    w = torch.ones(4096, dtype=torch.float16, device=device)
    assert (flashinfer.rmsnorm(x, w) == 1).all()


def test_rmsnorm_of_no_rows(dtype: torch.dtype, device: str) -> None:
    w = torch.ones(64, dtype=dtype, device=device)
    x = torch.empty(0, 64, dtype=dtype, device=device)
    assert flashinfer.rmsnorm(x, w).shape == (0, 64)
    flashinfer.fused_add_rmsnorm(x, x.clone(), w)


@pytest.mark.parametrize(("fused", "bias"), FUSED)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("rows", [1, 19])
def test_fused_add_rmsnorm(
    fused: Callable[..., None],
    bias: float,
    rows: int,
    hidden: int,
    dtype: torch.dtype,
    device: str,
) -> None:
    x = reference.rows((rows, hidden), dtype, device)
    residual = reference.rows((rows, hidden), dtype, device)
    w = reference.rows((hidden,), dtype, device)
    total = x.float() + residual.float()
    fused(x, residual, w, eps=1e-5)
    assert torch.equal(residual, total.to(dtype))
    reference.assert_close(x, reference.rmsnorm(total, w, 1e-5, bias))


@pytest.mark.parametrize("strides", reference.STRIDES)
@pytest.mark.parametrize("residual_strides", reference.STRIDES)
def test_fused_add_rmsnorm_strides(
    strides: str, residual_strides: str, dtype: torch.dtype, device: str
) -> None:
    x = reference.rows((19, 111), dtype, device, strides)
    residual = reference.rows((19, 111), dtype, device, residual_strides)
    w = reference.rows((111,), dtype, device)
    total = x.float() + residual.float()
    flashinfer.fused_add_rmsnorm(x, residual, w)
    assert torch.equal(residual, total.to(dtype))
    reference.assert_close(x, reference.rmsnorm(total, w, 1e-6))
