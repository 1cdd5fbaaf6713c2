"""Cheap checks of the front functions; each names the argument, what came and what was expected.

They run on fake tensors too, so that a wrong call fails while it is traced.
"""

from __future__ import annotations

from typing import Any

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
FLOATS_AND_FP8 = (*FLOATS, torch.float8_e4m3fn, torch.float8_e5m2)
INTEGERS = (torch.int32, torch.int64)


class UnknownName(ValueError, KeyError):
    """A layout or a mode by a name that there is not; FlashInfer looks such names up."""

    __str__ = ValueError.__str__  # a KeyError's is the repr of its message


def tensor(name: str, value: Any) -> None:
    """TypeError unless ``value`` is a tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a torch.Tensor")


def dims(name: str, value: torch.Tensor, form: str) -> None:
    """ValueError unless ``value`` has the number of dimensions that ``form`` spells.

    ``form`` is such as ``[nnz, heads, head_dim]``.
    """
    if not isinstance(value, torch.Tensor):
        tensor(name, value)
    if value.ndim != form.count(",") + 1:
        raise ValueError(f"{name} has shape {list(value.shape)}, expected {form}")


def shape(name: str, value: torch.Tensor, expected: tuple[int, ...], form: str) -> None:
    """ValueError unless ``value`` has exactly this shape, which ``form`` puts into words."""
    if not isinstance(value, torch.Tensor):
        tensor(name, value)
    if value.shape != expected:
        raise ValueError(f"{name} has shape {list(value.shape)}, expected {list(expected)}: {form}")


def floating(name: str, value: torch.Tensor, allowed: tuple[torch.dtype, ...] = FLOATS) -> None:
    """TypeError unless the dtype is one that the kernels have; float32 is for the CPU."""
    if value.dtype not in allowed:
        words = ", ".join(str(dtype) for dtype in allowed)
        raise TypeError(f"{name} has dtype {value.dtype}, expected one of {words}")
    if value.dtype == torch.float32 and value.is_cuda:
        raise TypeError(f"{name} has dtype torch.float32 on CUDA, expected float16 or bfloat16")


def like(name: str, value: torch.Tensor, reference_name: str, reference: torch.Tensor) -> None:
    """TypeError or ValueError unless dtype and device are those of ``reference``."""
    if value.dtype != reference.dtype:
        raise TypeError(
            f"{name} has dtype {value.dtype}, expected {reference.dtype} as {reference_name} has"
        )
    if value.device != reference.device:
        same_device(name, value, reference_name, reference)


def same_device(
    name: str, value: torch.Tensor, reference_name: str, reference: torch.Tensor
) -> None:
    """ValueError unless both are on one device."""
    if value.device != reference.device:
        raise ValueError(
            f"{name} is on {value.device}, expected {reference.device} as {reference_name} is"
        )


def index(name: str, value: torch.Tensor, reference: torch.Tensor, form: str) -> torch.Tensor:
    """An index tensor as the kernels take it: 1-D int32, contiguous, where ``reference`` is.

    int64 is converted; other dtypes are a TypeError, other shapes and devices a ValueError.
    """
    dims(name, value, form)
    if value.dtype not in INTEGERS:
        raise TypeError(f"{name} has dtype {value.dtype}, expected torch.int32 or torch.int64")
    if value.device != reference.device:
        raise ValueError(f"{name} is on {value.device}, expected {reference.device}")
    return value.to(torch.int32).contiguous()


def rows_contiguous(value: torch.Tensor) -> torch.Tensor:
    """``value``, or a copy where its last dimension has gaps, which the kernels do not take."""
    return value if value.stride(-1) == 1 else value.contiguous()
