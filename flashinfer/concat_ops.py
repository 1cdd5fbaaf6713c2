"""Keys of multi-head latent attention, put together."""

from __future__ import annotations

import torch

from flashinfer import _checks, _ops

__all__ = ["concat_mla_k"]


def concat_mla_k(k: torch.Tensor, k_nope: torch.Tensor, k_rope: torch.Tensor) -> None:
    """Writes the parts of keys into ``k``: each head's own, and behind it the one of all heads.

    Args:
        k: ``[num_tokens, num_heads, nope_dim + rope_dim]`` of any dtype, written to; any strides.
        k_nope: ``[num_tokens, num_heads, nope_dim]``, dtype and device of ``k``.
        k_rope: ``[num_tokens, 1, rope_dim]``, likewise.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _checks.dims("k", k, "[num_tokens, num_heads, nope_dim + rope_dim]")
    _checks.dims("k_nope", k_nope, "[num_tokens, num_heads, nope_dim]")
    _checks.dims("k_rope", k_rope, "[num_tokens, 1, rope_dim]")
    tokens, heads, nope_dim = k_nope.shape
    rope_dim = k_rope.shape[2]
    _checks.shape("k_rope", k_rope, (tokens, 1, rope_dim), "one row for each token of k_nope")
    _checks.shape("k", k, (tokens, heads, nope_dim + rope_dim), "k_nope and k_rope side by side")
    _checks.like("k_nope", k_nope, "k", k)
    _checks.like("k_rope", k_rope, "k", k)
    rows = _checks.rows_contiguous(k)
    nope, rope = _checks.rows_contiguous(k_nope), _checks.rows_contiguous(k_rope)
    _ops.concat_mla_k(rows, nope, rope)
    if rows is not k:
        k.copy_(rows)
