"""Gated activations: the first half of every row, activated, times the second half."""

from __future__ import annotations

import torch

from flashinfer import _checks, _ops

__all__ = ["gelu_and_mul", "gelu_tanh_and_mul", "silu_and_mul"]


def _act_and_mul(input: torch.Tensor, out: torch.Tensor | None, activation: str) -> torch.Tensor:
    _checks.tensor("input", input)
    _checks.floating("input", input)
    if input.dim() == 0 or input.shape[-1] % 2 != 0:
        raise ValueError(
            f"input has shape {list(input.shape)}, expected [..., 2 * d]: an even last dimension"
        )
    d = input.shape[-1] // 2
    shape = (*input.shape[:-1], d)
    if out is None:
        out = torch.empty(shape, dtype=input.dtype, device=input.device)
    else:
        _checks.shape("out", out, shape, "[..., d] for input [..., 2 * d]")
        _checks.like("out", out, "input", input)
    # The kernels take rows of one stride: 2-D as it comes, all else as a contiguous matrix.
    if input.dim() != 2:
        input = input.contiguous().view(input[..., 0].numel(), 2 * d)
    rows = out if out.dim() == 2 and out.stride(-1) == 1 else out.contiguous()
    _ops.act_and_mul(rows.view(input.shape[0], d), _checks.rows_contiguous(input), activation)
    if rows is not out:
        out.copy_(rows)
    return out


def silu_and_mul(
    input: torch.Tensor, out: torch.Tensor | None = None, enable_pdl: bool | None = None
) -> torch.Tensor:
    """``silu(input[..., :d]) * input[..., d:]`` with ``silu(x) = x / (1 + exp(-x))``.

    Computed in fp32 and rounded once (SwiGLU of Shazeer, 2020, arXiv:2002.05202).

    Args:
        input: ``[..., 2 * d]``; float16, bfloat16, or float32 on the CPU. Any d, any strides.
        out: where to write, ``[..., d]``, dtype and device of ``input``; allocated if None.
        enable_pdl: ignored.

    Returns:
        ``out``, or a new tensor ``[..., d]``.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    return _act_and_mul(input, out, "silu")


def gelu_and_mul(
    input: torch.Tensor, out: torch.Tensor | None = None, enable_pdl: bool | None = None
) -> torch.Tensor:
    """``gelu(input[..., :d]) * input[..., d:]`` with ``gelu(x) = x/2 * (1 + erf(x / sqrt(2)))``.

    Arguments, result and errors are those of :func:`silu_and_mul`.
    """
    return _act_and_mul(input, out, "gelu")


def gelu_tanh_and_mul(
    input: torch.Tensor, out: torch.Tensor | None = None, enable_pdl: bool | None = None
) -> torch.Tensor:
    """:func:`gelu_and_mul` with the tanh form of GELU (Hendrycks and Gimpel, arXiv:1606.08415).

    ``gelu(x) = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3)))``. Arguments, result and errors
    are those of :func:`silu_and_mul`.
    """
    return _act_and_mul(input, out, "gelu_tanh")
