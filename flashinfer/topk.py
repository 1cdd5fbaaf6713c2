"""The largest entries of every row, as releases after 0.2.0 have it."""

from __future__ import annotations

import enum

import torch

from flashinfer import _checks, _ops

__all__ = ["TopKTieBreak", "top_k"]

# Limits of the kernels: FI_MAX_VOCAB and FI_MAX_SORTED in api.h.
_MAX_COLUMNS = 1 << 20
_MAX_SORTED_ON_CUDA = 4096


class TopKTieBreak(enum.IntEnum):
    """Which of the entries that equal the least chosen one are chosen."""

    NONE = 0  # any; here those of smaller indices, too
    SMALL = 1  # those of smaller indices
    LARGE = 2  # those of larger indices


def top_k(
    input: torch.Tensor,
    k: int,
    sorted: bool = False,
    deterministic: bool = False,
    tie_break: int = TopKTieBreak.NONE,
    dsa_graph_safe: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``k`` largest entries of every row.

    NaN is larger than all else. The result is the same in every call, on the CPU and on CUDA.

    Args:
        input: ``[batch_size, d]``, floating point. float64, and d above 1,048,576, take torch's own
            operations.
        k: 1 to d.
        sorted: in descending order, and equal entries by index: ascending, or descending with
            ``tie_break`` LARGE. Otherwise by ascending index.
        deterministic: ignored: results always are.
        tie_break: a :class:`TopKTieBreak`.
        dsa_graph_safe: ignored: CUDA graphs can capture every form.

    Returns:
        ``(values, indices)``: ``[batch_size, k]``, like ``input``, and int64.

    Raises:
        ValueError: a shape, ``k`` or ``tie_break`` is wrong.
        TypeError: a dtype is wrong, or ``input`` is not a tensor.
    """
    _checks.dims("input", input, "[batch_size, d]")
    if not input.is_floating_point():
        raise TypeError(f"input has dtype {input.dtype}, expected a floating point one")
    if not 1 <= k <= input.shape[1]:
        raise ValueError(f"k is {k}, expected 1 to {input.shape[1]}")
    if tie_break not in (TopKTieBreak.NONE, TopKTieBreak.SMALL, TopKTieBreak.LARGE):
        raise ValueError(f"tie_break is {tie_break}, expected 0 (NONE), 1 (SMALL) or 2 (LARGE)")
    last = tie_break == TopKTieBreak.LARGE
    if input.dtype not in _checks.FLOATS or input.shape[1] > _MAX_COLUMNS:
        return _by_sorting(input, k, sorted, last)
    shape = (input.shape[0], k)
    values = torch.empty(shape, dtype=input.dtype, device=input.device)
    indices = torch.empty(shape, dtype=torch.int64, device=input.device)
    in_kernel = sorted and not (input.is_cuda and k > _MAX_SORTED_ON_CUDA)
    _ops.top_k(values, indices, _checks.rows_contiguous(input), in_kernel, last)
    if sorted and not in_kernel:
        order = _descending(values, last)
        return values.gather(1, order), indices.gather(1, order)
    return values, indices


def _descending(values: torch.Tensor, last: bool) -> torch.Tensor:
    """The places of a row's entries in descending order, equal ones ascending, or descending."""
    if not last:
        return values.sort(dim=-1, descending=True, stable=True).indices
    order = values.flip(-1).sort(dim=-1, descending=True, stable=True).indices
    return values.shape[1] - 1 - order


def _by_sorting(
    input: torch.Tensor, k: int, sorted: bool, last: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    indices = _descending(input, last)[:, :k].contiguous()
    if not sorted:
        indices = indices.sort(dim=-1).values
    return input.gather(1, indices), indices
