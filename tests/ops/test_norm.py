from __future__ import annotations

from collections.abc import Callable

import pytest
import reference
import torch
from fp8_reference import FP8, assert_nearest

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


@pytest.mark.parametrize("out_dtype", FP8, ids=str)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_norms_in_fp8(hidden: int, out_dtype: torch.dtype, dtype: torch.dtype, device: str) -> None:
    x = reference.rows((19, hidden), dtype, device)
    residual = reference.rows((19, hidden), dtype, device)
    w = reference.rows((hidden,), dtype, device)
    out = torch.empty((19, hidden), dtype=out_dtype, device=device)
    flashinfer.rmsnorm_quant(out, x, w, 0.3, 1e-5)
    assert_nearest(out, reference.rmsnorm(x, w, 1e-5) / 0.3)
    before, total = x.clone(), x.float() + residual.float()
    flashinfer.fused_add_rmsnorm_quant(out, x, residual, w, torch.tensor([[0.3]], device=device))
    assert_nearest(out, reference.rmsnorm(total, w, 1e-6) / 0.3)
    assert torch.equal(residual, total.to(dtype))
    assert torch.equal(x, before)


@pytest.mark.parametrize("strides", reference.STRIDES)
@pytest.mark.parametrize("out_strides", reference.STRIDES)
def test_norms_in_fp8_of_strides(
    strides: str, out_strides: str, dtype: torch.dtype, device: str
) -> None:
    x = reference.rows((19, 111), dtype, device, strides)
    residual = reference.rows((19, 111), dtype, device, out_strides)
    w = reference.rows((111,), dtype, device, "inner gaps")
    wide = torch.zeros((19, 260), device=device).to(FP8[0])
    out = {
        "contiguous": torch.empty((19, 111), dtype=FP8[0], device=device),
        "row gaps": wide[:, 5:116],
        "inner gaps": wide[:, 1:223:2],
    }[out_strides]
    flashinfer.rmsnorm_quant(out, x, w, torch.tensor(2, device=device))
    assert_nearest(out, reference.rmsnorm(x, w, 1e-6) / 2)
    total = x.float() + residual.float()
    flashinfer.fused_add_rmsnorm_quant(out, x, residual, w, 0.5)
    assert_nearest(out, reference.rmsnorm(total, w, 1e-6) * 2)
    assert torch.equal(residual, total.to(dtype))
    outside = {"row gaps": wide[:, 116:], "inner gaps": wide[:, ::2]}.get(out_strides, wide)
    assert not outside.float().any()


def test_fp8_is_rounded_once_and_saturates(device: str) -> None:
    for out_dtype in FP8:
        for numbers in (torch.rand(64, 512) * 4, torch.randn(64, 512) * 1e4):
            x = numbers.to(device, torch.bfloat16)
            w = torch.ones(512, dtype=torch.bfloat16, device=device)
            out = torch.empty(x.shape, dtype=out_dtype, device=device)
            flashinfer.rmsnorm_quant(out, x, w, 1e-3)
            assert_nearest(out, reference.rmsnorm(x, w, 1e-6) / 1e-3)
            assert not out.float().isnan().any()


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("rows", [1, 19])
def test_layernorm(
    rows: int, hidden: int, weight_dtype: torch.dtype, dtype: torch.dtype, device: str
) -> None:
    x = reference.rows((rows, hidden), dtype, device)
    gamma = reference.rows((hidden,), weight_dtype, device)
    beta = reference.rows((hidden,), weight_dtype, device, "inner gaps")
    out = flashinfer.layernorm(x, gamma, beta, 1e-5)
    assert out.dtype == dtype
    reference.assert_close(out, reference.layernorm(x, gamma, beta, 1e-5), atol=6e-6)


@pytest.mark.parametrize("strides", reference.STRIDES)
def test_layernorm_strides(strides: str, dtype: torch.dtype, device: str) -> None:
    x = reference.rows((19, 111), dtype, device, strides)
    gamma, beta = (reference.rows((111,), torch.float32, device) for _ in range(2))
    right = reference.layernorm(x, gamma, beta, 1e-6)
    reference.assert_close(flashinfer.layernorm(x, gamma, beta), right, atol=6e-6)


def test_layernorm_with_a_mean_far_from_zero(device: str) -> None:
    # In float16: the squares do not fit, and the variance is a millionth of them.
    x = (torch.randn(3, 4096) * 30 + 30000).to(device, torch.float16)
    ones, zeros = torch.ones(4096, device=device), torch.zeros(4096, device=device)
    right = reference.layernorm(x, ones, zeros, 1e-6)
    reference.assert_close(flashinfer.layernorm(x, ones, zeros), right)


def test_norms_keep_nan_in_its_row(device: str) -> None:
    x = torch.randn(3, 500).to(device, torch.float16)
    x[1, 499] = torch.nan
    ones = torch.ones(500, device=device)
    out = torch.empty(x.shape, dtype=FP8[0], device=device)
    flashinfer.rmsnorm_quant(out, x, ones.half(), 1.0)
    for result in (out.float(), flashinfer.layernorm(x, ones, ones).float()):
        assert result.isnan().all(-1).tolist() == [False, True, False]
        assert not result[::2].isnan().any()


def test_norms_of_no_rows(dtype: torch.dtype, device: str) -> None:
    x, w = torch.empty(0, 64).to(device, dtype), torch.ones(64).to(device, dtype)
    out = torch.empty(x.shape, dtype=FP8[0], device=device)
    flashinfer.rmsnorm_quant(out, x, w, 1.0)
    flashinfer.fused_add_rmsnorm_quant(out, x, x.clone(), w, 1.0)
    assert flashinfer.layernorm(x, w, w).shape == (0, 64)
