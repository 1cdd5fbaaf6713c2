"""Merging attention states: parts of one softmax computed over disjoint sets of keys.

A state is ``v``, the attention output over its keys, and ``s``, their log-sum-exp (fp32, base 2).
Two states merge to ``v = (v_a 2^s_a + v_b 2^s_b) / (2^s_a + 2^s_b)`` and
``s = log2(2^s_a + 2^s_b)``, which is associative and exact (Ye et al., 2024, "Cascade Inference").
"""

from __future__ import annotations

import torch

from flashinfer import _checks, _ops
from flashinfer._cascade_wrappers import (
    BatchDecodeWithSharedPrefixPagedKVCacheWrapper,
    BatchPrefillWithSharedPrefixPagedKVCacheWrapper,
    MultiLevelCascadeAttentionWrapper,
)

__all__ = [
    "BatchDecodeWithSharedPrefixPagedKVCacheWrapper",
    "BatchPrefillWithSharedPrefixPagedKVCacheWrapper",
    "MultiLevelCascadeAttentionWrapper",
    "merge_state",
    "merge_state_in_place",
    "merge_states",
]


def _state(
    v_name: str, v: torch.Tensor, s_name: str, s: torch.Tensor, reference: torch.Tensor
) -> None:
    if v is not reference:
        _checks.shape(v_name, v, tuple(reference.shape), "the shape of the first state")
        _checks.like(v_name, v, "the first state", reference)
    _checks.shape(s_name, s, tuple(reference.shape[:-1]), f"{v_name} without head_dim")
    _checks.same_device(s_name, s, v_name, reference)


def merge_state(
    v_a: torch.Tensor, s_a: torch.Tensor, v_b: torch.Tensor, s_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merges two states.

    Args:
        v_a: ``[seq_len, num_heads, head_dim]``; float16, bfloat16, or float32 on the CPU.
        s_a: ``[seq_len, num_heads]``, float32 (other dtypes are converted), base 2; ``-inf`` for a
            state over no keys.
        v_b: like ``v_a``.
        s_b: like ``s_a``.

    Returns:
        ``(v, s)``: like ``v_a``, and float32 like ``s_a``.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _checks.dims("v_a", v_a, "[seq_len, num_heads, head_dim]")
    _checks.floating("v_a", v_a)
    _state("v_a", v_a, "s_a", s_a, v_a)
    _state("v_b", v_b, "s_b", s_b, v_a)
    v_out = torch.empty(v_a.shape, dtype=v_a.dtype, device=v_a.device)
    s_out = torch.empty(s_a.shape, dtype=torch.float32, device=v_a.device)
    _ops.merge_state(
        v_a.contiguous(),
        s_a.to(torch.float32).contiguous(),
        v_b.contiguous(),
        s_b.to(torch.float32).contiguous(),
        v_out,
        s_out,
    )
    return v_out, s_out


def merge_state_in_place(
    v: torch.Tensor,
    s: torch.Tensor,
    v_other: torch.Tensor,
    s_other: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> None:
    """Merges another state into ``(v, s)``, which are overwritten.

    Args:
        v: ``[seq_len, num_heads, head_dim]``; float16, bfloat16, or float32 on the CPU.
        s: ``[seq_len, num_heads]``, float32, base 2.
        v_other: like ``v``.
        s_other: like ``s`` (other dtypes are converted).
        mask: ``[seq_len]``, bool or uint8: rows where it is zero are left as they are.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _checks.dims("v", v, "[seq_len, num_heads, head_dim]")
    _checks.floating("v", v)
    _state("v", v, "s", s, v)
    _state("v_other", v_other, "s_other", s_other, v)
    if s.dtype != torch.float32:
        raise TypeError(f"s has dtype {s.dtype}, expected torch.float32, as it is overwritten")
    if mask is not None:
        _checks.shape("mask", mask, (v.shape[0],), "[seq_len]")
        _checks.same_device("mask", mask, "v", v)
        if mask.dtype not in (torch.bool, torch.uint8):
            raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool or torch.uint8")
        mask = mask.contiguous()
    v_merged, s_merged = v.contiguous(), s.contiguous()
    _ops.merge_state_inplace(
        v_merged,
        s_merged,
        v_other.contiguous(),
        s_other.to(torch.float32).contiguous(),
        mask,
    )
    if v_merged is not v:
        v.copy_(v_merged)
    if s_merged is not s:
        s.copy_(s_merged)


def merge_states(v: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Merges any number of states at once.

    Args:
        v: ``[seq_len, num_states, num_heads, head_dim]``; float16, bfloat16, or float32 on the CPU.
        s: ``[seq_len, num_states, num_heads]``, float32 (other dtypes are converted), base 2.

    Returns:
        ``(v, s)``: ``[seq_len, num_heads, head_dim]`` like ``v``, and float32
        ``[seq_len, num_heads]``.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _checks.dims("v", v, "[seq_len, num_states, num_heads, head_dim]")
    _checks.floating("v", v)
    _state("v", v, "s", s, v)
    seq_len, _, num_heads, head_dim = v.shape
    v_out = torch.empty((seq_len, num_heads, head_dim), dtype=v.dtype, device=v.device)
    s_out = torch.empty((seq_len, num_heads), dtype=torch.float32, device=v.device)
    _ops.merge_states(v.contiguous(), s.to(torch.float32).contiguous(), v_out, s_out)
    return v_out, s_out
