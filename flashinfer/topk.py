"""The largest entries of every row, as releases after 0.2.0 have it; by torch's own operations."""

from __future__ import annotations

import enum

import torch

from flashinfer import _checks

__all__ = ["TopKTieBreak", "top_k"]


class TopKTieBreak(enum.IntEnum):
    """Which of the entries that equal the least chosen one are chosen."""

    NONE = 0  # any
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

    Args:
        input: ``[batch_size, d]``, floating point.
        k: 1 to d.
        sorted: in descending order; otherwise in any.
        deterministic: the same result in every call, which on CUDA sorts whole rows.
        tie_break: a :class:`TopKTieBreak`; other than NONE, whole rows are sorted.
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
    if tie_break == TopKTieBreak.LARGE:
        values, indices = input.flip(-1).sort(dim=-1, descending=True, stable=True)
        return values[:, :k].contiguous(), input.shape[1] - 1 - indices[:, :k]
    if deterministic or tie_break == TopKTieBreak.SMALL:
        values, indices = input.sort(dim=-1, descending=True, stable=True)
        return values[:, :k].contiguous(), indices[:, :k].contiguous()
    values, indices = input.topk(k, dim=-1, sorted=sorted)
    return values, indices
