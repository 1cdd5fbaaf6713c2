"""Norms of rows: by the root mean square, plain, fused and in fp8, and layer norm.

The former is by Zhang and Sennrich (2019, arXiv:1910.07467).
"""

from __future__ import annotations

import torch

from flashinfer import _checks, _ops

__all__ = [
    "fused_add_rmsnorm",
    "fused_add_rmsnorm_quant",
    "gemma_fused_add_rmsnorm",
    "gemma_rmsnorm",
    "layernorm",
    "rmsnorm",
    "rmsnorm_quant",
]

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def _check(input: torch.Tensor, weight: torch.Tensor) -> None:
    _checks.dims("input", input, "[rows, hidden]")
    _checks.floating("input", input)
    _checks.shape("weight", weight, (input.shape[1],), "the hidden size of input")
    _checks.like("weight", weight, "input", input)


def _rmsnorm(
    input: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    out: torch.Tensor | None,
    weight_bias: float,
) -> torch.Tensor:
    _check(input, weight)
    if out is None:
        out = torch.empty(input.shape, dtype=input.dtype, device=input.device)
    else:
        _checks.shape("out", out, input.shape, "the shape of input")
        _checks.like("out", out, "input", input)
    rows = _checks.rows_contiguous(out)
    _ops.rmsnorm(rows, _checks.rows_contiguous(input), weight.contiguous(), float(eps), weight_bias)
    if rows is not out:
        out.copy_(rows)
    return out


def _fused_add_rmsnorm(
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    weight_bias: float,
) -> None:
    _check(input, weight)
    _checks.shape("residual", residual, input.shape, "the shape of input")
    _checks.like("residual", residual, "input", input)
    x, r = _checks.rows_contiguous(input), _checks.rows_contiguous(residual)
    _ops.fused_add_rmsnorm(x, r, weight.contiguous(), float(eps), weight_bias)
    if x is not input:
        input.copy_(x)
    if r is not residual:
        residual.copy_(r)


def rmsnorm(
    input: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-6,
    out: torch.Tensor | None = None,
    enable_pdl: bool | None = None,
) -> torch.Tensor:
    """RMS norm of every row: ``input * rsqrt(mean(input**2) + eps) * weight``, summed in fp32.

    Args:
        input: ``[rows, hidden]``; float16, bfloat16, or float32 on the CPU. Any row stride.
        weight: ``[hidden]``, dtype and device of ``input``.
        eps: added to the mean of the squares.
        out: where to write, like ``input``; allocated if None.
        enable_pdl: ignored.

    Returns:
        ``out``, or a new tensor ``[rows, hidden]``.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    return _rmsnorm(input, weight, eps, out, 0.0)


def gemma_rmsnorm(
    input: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-6,
    out: torch.Tensor | None = None,
    enable_pdl: bool | None = None,
) -> torch.Tensor:
    """RMS norm as Gemma has it, whose weights are stored less one: ``... * (1 + weight)``.

    The sum ``1 + weight`` is made in fp32. Arguments, result and errors are those of
    :func:`rmsnorm`.
    """
    return _rmsnorm(input, weight, eps, out, 1.0)


def fused_add_rmsnorm(
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-6,
    enable_pdl: bool | None = None,
) -> None:
    """Adds and norms in one pass, both in place.

    First ``residual += input``, then ``input = rmsnorm(residual, weight, eps)``, where the norm
    takes the sum before it was rounded to the dtype of ``residual``.

    Args:
        input: ``[rows, hidden]``; float16, bfloat16, or float32 on the CPU. Becomes the norm.
        residual: like ``input``. Becomes the sum.
        weight: ``[hidden]``, dtype and device of ``input``.
        eps: added to the mean of the squares.
        enable_pdl: ignored.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _fused_add_rmsnorm(input, residual, weight, eps, 0.0)


def gemma_fused_add_rmsnorm(
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-6,
    enable_pdl: bool | None = None,
) -> None:
    """:func:`fused_add_rmsnorm` with Gemma's ``1 + weight``; arguments and errors are the same."""
    _fused_add_rmsnorm(input, residual, weight, eps, 1.0)


def _scale(scale: float | torch.Tensor, input: torch.Tensor) -> tuple[torch.Tensor | None, float]:
    """The tensor of one element, or the number."""
    if not isinstance(scale, torch.Tensor):
        return None, float(scale)
    _checks.same_device("scale", scale, "input", input)
    if scale.numel() != 1:
        raise ValueError(f"scale has {scale.numel()} elements, expected 1")
    return scale.float().reshape(1), 1.0


def _check_fp8(out: torch.Tensor, input: torch.Tensor) -> None:
    _checks.shape("out", out, tuple(input.shape), "the shape of input")
    _checks.floating("out", out, _FP8)
    _checks.same_device("out", out, "input", input)


def rmsnorm_quant(
    out: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    scale: float | torch.Tensor,
    eps: float = 1e-6,
    enable_pdl: bool | None = None,
) -> None:
    """RMS norm of every row in fp8: ``rmsnorm(input, weight, eps) / scale``, in fp32 up to there.

    Args:
        out: ``[rows, hidden]``, float8_e4m3fn or float8_e5m2, where to write. What is out of range
            becomes the largest number, infinity too, and NaN stays one.
        input: ``[rows, hidden]``; float16, bfloat16, or float32 on the CPU.
        weight: ``[hidden]``, dtype and device of ``input``.
        scale: a number, or one in a tensor, on the device of ``input``.
        eps: added to the mean of the squares.
        enable_pdl: ignored.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _check(input, weight)
    _check_fp8(out, input)
    number = _scale(scale, input)
    rows = _checks.rows_contiguous(out)
    x = _checks.rows_contiguous(input)
    _ops.rmsnorm_quant(rows, x, weight.contiguous(), *number, float(eps))
    if rows is not out:
        out.copy_(rows)


def fused_add_rmsnorm_quant(
    out: torch.Tensor,
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    scale: float | torch.Tensor,
    eps: float = 1e-6,
    enable_pdl: bool | None = None,
) -> None:
    """Adds in place, and norms into fp8.

    First ``residual += input``, then ``out`` as from :func:`rmsnorm_quant` of the sum before it was
    rounded to the dtype of ``residual``.

    Args:
        out: ``[rows, hidden]``, float8_e4m3fn or float8_e5m2, where to write.
        input: ``[rows, hidden]``; float16, bfloat16, or float32 on the CPU.
        residual: like ``input``. Becomes the sum.
        weight: ``[hidden]``, dtype and device of ``input``.
        scale: a number, or one in a tensor, on the device of ``input``.
        eps: added to the mean of the squares.
        enable_pdl: ignored.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _check(input, weight)
    _checks.shape("residual", residual, input.shape, "the shape of input")
    _checks.like("residual", residual, "input", input)
    _check_fp8(out, input)
    number = _scale(scale, input)
    rows, r = _checks.rows_contiguous(out), _checks.rows_contiguous(residual)
    x = _checks.rows_contiguous(input)
    _ops.fused_add_rmsnorm_quant(rows, x, r, weight.contiguous(), *number, float(eps))
    if rows is not out:
        out.copy_(rows)
    if r is not residual:
        residual.copy_(r)


def layernorm(
    input: torch.Tensor, gemma: torch.Tensor, beta: torch.Tensor, eps: float = 1e-6
) -> torch.Tensor:
    """Layer norm of every row: ``(input - mean) * rsqrt(variance + eps) * gemma + beta``, in fp32.

    By torch's own operation (Ba et al., 2016, arXiv:1607.06450).

    Args:
        input: ``[rows, hidden]``; float16, bfloat16, or float32 on the CPU.
        gemma: ``[hidden]``, the weight, of any floating point dtype, computed with as float32; the
            name is FlashInfer's.
        beta: ``[hidden]``, likewise.
        eps: added to the variance.

    Returns:
        ``[rows, hidden]``, like ``input``.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _checks.dims("input", input, "[rows, hidden]")
    _checks.floating("input", input)
    for name, value in (("gemma", gemma), ("beta", beta)):
        _checks.shape(name, value, (input.shape[1],), "the hidden size of input")
        _checks.same_device(name, value, "input", input)
        if not value.is_floating_point():
            raise TypeError(f"{name} has dtype {value.dtype}, expected a floating point one")
    out = torch.empty(input.shape, dtype=input.dtype, device=input.device)
    gamma, shift = gemma.float().contiguous(), beta.float().contiguous()
    _ops.layernorm(out, _checks.rows_contiguous(input), gamma, shift, float(eps))
    return out
