"""Packing of bools into bits, as custom attention masks are passed."""

from __future__ import annotations

from typing import Any

import torch

from flashinfer import _checks, _ops

__all__ = ["packbits", "segment_packbits"]


def _little_endian(bitorder: str) -> bool:
    if bitorder not in ("big", "little"):
        raise ValueError(f"bitorder is {bitorder!r}, expected 'big' or 'little'")
    return bitorder == "little"


def _bools(x: torch.Tensor) -> torch.Tensor:
    _checks.dims("x", x, "[n]")
    return x.to(torch.bool).contiguous()


def packbits(x: torch.Tensor, bitorder: str = "big") -> torch.Tensor:
    """Packs eight elements to a byte, like ``numpy.packbits``; the last byte is filled with zeros.

    Args:
        x: ``[n]``, bool or any dtype of which non-zero counts as true.
        bitorder: ``"big"``: element 0 is the highest bit of byte 0; ``"little"``: the lowest.

    Returns:
        uint8 ``[ceil(n / 8)]``.

    Raises:
        ValueError: ``x`` is not 1-D, or ``bitorder`` is neither of the two.
        TypeError: ``x`` is not a tensor.
    """
    little_endian = _little_endian(bitorder)
    bools = _bools(x)
    y = torch.empty(((bools.shape[0] + 7) // 8,), dtype=torch.uint8, device=x.device)
    _ops.packbits(bools, y, little_endian)
    return y


def segment_packbits(
    x: torch.Tensor, indptr: torch.Tensor, bitorder: str = "big"
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`packbits` of every segment ``x[indptr[i]:indptr[i + 1]]``, each from a fresh byte.

    The size of the result depends on ``indptr``, so on CUDA this waits for the device, and
    ``torch.compile(fullgraph=True)`` needs ``torch._dynamo.config.capture_scalar_outputs``;
    ``torch.export`` takes it as it is.

    Args:
        x: ``[n]``, bool or any dtype of which non-zero counts as true.
        indptr: ``[batch_size + 1]``, int32 or int64, non-decreasing within 0..n.
        bitorder: as for :func:`packbits`.

    Returns:
        ``(y, new_indptr)``: uint8 ``[new_indptr[-1]]`` and ``[batch_size + 1]`` of the dtype of
        ``indptr``; segment i is ``y[new_indptr[i]:new_indptr[i + 1]]``.

    Raises:
        ValueError: a shape, a device or ``bitorder`` is wrong.
        TypeError: an argument is not a tensor, or ``indptr`` has another dtype.
    """
    little_endian = _little_endian(bitorder)
    bools = _bools(x)
    in_indptr = _checks.index("indptr", indptr, x, "[batch_size + 1]")
    if in_indptr.shape[0] == 0:
        raise ValueError("indptr has shape [0], expected [batch_size + 1]")
    new_indptr = torch.zeros_like(indptr)
    torch.cumsum((indptr.diff() + 7) // 8, dim=0, out=new_indptr[1:])
    total: Any = new_indptr[-1].item()  # an int, or a symbol where something traces
    y = torch.empty((total,), dtype=torch.uint8, device=x.device)
    _ops.segment_packbits(bools, in_indptr, new_indptr.to(torch.int32), y, little_endian)
    return y, new_indptr
