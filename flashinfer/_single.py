"""Attention of one request over contiguous keys and values, its plan in a cache on the host.

An op of its own, ``flashinfer::single_attention``: a plan is made of numbers that
``torch.compile`` has no values for while it traces.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from flashinfer import _attention, _checks, _ops, _plan
from flashinfer._attention import Options
from flashinfer._masks import flat_mask, packed_mask


class _Cached(NamedTuple):
    words: torch.Tensor  # on the host
    capacity: _plan.Capacity


@functools.lru_cache(maxsize=256)
def _plan_for(qo_len: int, kv_len: int, heads: _plan.Heads, device: torch.device) -> _Cached:
    # Not inference tensors, even where the first call is made under torch.inference_mode().
    with torch.inference_mode(False):
        requests = _plan.Requests(
            torch.tensor([0, qo_len], dtype=torch.int32),
            torch.zeros(1, dtype=torch.int32),
            torch.tensor([kv_len], dtype=torch.int32),
        )
        capacity = _plan.exact_capacity(requests, heads, device, None)
        return _Cached(_plan.fill(requests, heads, device, capacity), capacity)


def _run(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    hnd: bool,
    causal: bool,
    window_left: int,
    pos_encoding: str,
    sm_scale: float,
    logits_soft_cap: float,
    v_scale: float,
    rope_scale: float,
    rope_theta: float,
) -> None:
    """What the op does on the CPU and on CUDA."""
    heads = _plan.Heads(q.shape[1], k.shape[0 if hnd else 1], q.shape[2])
    cached = _plan_for(q.shape[0], k.shape[1 if hnd else 0], heads, q.device)
    size = cached.capacity
    floats = size.slots * heads.kv * size.tile_rows * (heads.dim + 1)
    workspace = torch.empty((floats,), dtype=torch.float32, device=q.device)
    words, mask_indptr = cached.words, None
    if q.device.type != "cpu":
        # Sent with every call, without waiting: a plan that is kept on the device would have to be
        # complete for all streams, and in a captured graph for all replays.
        words = torch.empty((size.words,), dtype=torch.int32, device=q.device)
        _ops.upload_words(cached.words, words)
    if mask is not None:
        mask_indptr = torch.zeros((2,), dtype=torch.int32, device=q.device)
    _attention.launch(
        _plan.Plan(words, workspace, size, heads, q.shape[0]),
        q,
        k,
        v,
        None,
        out,
        lse,
        mask,
        mask_indptr,
        hnd,
        Options(
            causal, window_left, pos_encoding, sm_scale, logits_soft_cap, rope_scale, rope_theta
        ),
        v_scale,
    )


_ops.implement("single_attention", _run)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    hnd: bool,
    chosen: Options,
    *,
    v_scale: float | None = None,
    custom_mask: torch.Tensor | None = None,
    packed_custom_mask: torch.Tensor | None = None,
    return_lse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention of one request, ``q`` being ``[qo_len, num_qo_heads, head_dim]`` and checked."""
    form = "[num_kv_heads, kv_len, head_dim]" if hnd else "[kv_len, num_kv_heads, head_dim]"
    _checks.dims("k", k, form)
    qo_len, num_qo_heads, head_dim = q.shape
    kv_len = k.shape[1 if hnd else 0]
    heads = _plan.Heads(num_qo_heads, k.shape[0 if hnd else 1], head_dim)
    heads.check(q.device)
    _attention.check_keys(k, v, q, heads, hnd)
    mask = None
    if packed_custom_mask is not None:
        size = (qo_len * kv_len + 7) // 8
        mask = packed_mask("packed_custom_mask", packed_custom_mask, size, q.device)
    elif custom_mask is not None:
        bools = flat_mask("custom_mask", custom_mask, qo_len * kv_len, q.device)
        mask = torch.empty(((qo_len * kv_len + 7) // 8,), dtype=torch.uint8, device=q.device)
        _ops.packbits(bools, mask, True)
    elif chosen.causal and kv_len < qo_len:
        raise ValueError(
            f"k has {kv_len} rows for {qo_len} of q, expected as many or more with causal=True: the"
            " first queries would see no key"
        )
    q = _attention.rows(q)
    out, lse = _attention.allocate(q, return_lse)
    moves = return_lse and chosen.pos_encoding == "ALIBI" and _attention.alibi_moves()
    arguments = (
        q,
        k,
        v,
        mask,
        out,
        lse,
        hnd,
        chosen.causal,
        *chosen.after_causal(v_scale),
    )
    # The op where something traces; without it, the dispatcher need not call back into Python.
    if torch.compiler.is_compiling() or type(q) is not torch.Tensor:
        _ops.single_attention(*arguments)
    else:
        _run(*arguments)
    if lse is not None and moves:
        lse = _attention.moved(lse, lse.new_full((qo_len,), kv_len - qo_len))
    return out, lse
