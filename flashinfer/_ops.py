"""Loads the binding and holds its torch ops, with their fake implementations.

Every op writes to tensors it is given and returns nothing, so the fakes have nothing to compute.
The schemas are in ``csrc/torch/registration.cpp``; the front functions that check and allocate are
in the module of each family.
"""

from __future__ import annotations

from typing import Any, Callable

import torch

from flashinfer import _C

build_info = _C.build_info


def _fake(*args: Any, **kwargs: Any) -> None:
    """Shapes and dtypes were checked by the front function; outputs are among the arguments."""


def _op(name: str) -> Callable[..., None]:
    torch.library.register_fake(f"flashinfer::{name}", _fake)
    overload: Callable[..., None] = getattr(torch.ops.flashinfer, name).default
    return overload


rmsnorm = _op("rmsnorm")
fused_add_rmsnorm = _op("fused_add_rmsnorm")
layernorm = _op("layernorm")
rmsnorm_quant = _op("rmsnorm_quant")
fused_add_rmsnorm_quant = _op("fused_add_rmsnorm_quant")
act_and_mul = _op("act_and_mul")
rope = _op("rope")
rope_inplace = _op("rope_inplace")
append_paged_kv = _op("append_paged_kv")
batch_positions = _op("batch_positions")
concat_mla_k = _op("concat_mla_k")
merge_state = _op("merge_state")
merge_state_inplace = _op("merge_state_inplace")
merge_states = _op("merge_states")
attention_plan = _op("attention_plan")
attention = _op("attention")
upload_words = _op("upload_words")
mla_decode = _op("mla_decode")
packbits = _op("packbits")
segment_packbits = _op("segment_packbits")
segment_gemm = _op("segment_gemm")
bmm_fp8 = _op("bmm_fp8")
# sampling
sample = _op("sample")
renorm_probs = _op("renorm_probs")
mask_logits = _op("mask_logits")
top_k = _op("top_k")
softmax = _op("softmax")
chain_speculative = _op("chain_speculative")

# Implemented in Python: over attention_plan and attention by flashinfer._single, over attention by
# flashinfer._attention, and over mla_decode by flashinfer._mla. They are for what traces; otherwise
# the ops that they call are called.
_torch_library: Any = torch.library  # which has no types here
_library = _torch_library.Library("flashinfer", "FRAGMENT")
_library.define(
    "single_attention(Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor(a!) out, Tensor(b!)? lse,"
    " bool hnd, bool causal, SymInt window_left, str pos_encoding, float sm_scale,"
    " float logits_soft_cap, float v_scale, float rope_scale, float rope_theta) -> ()",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)
_library.define(
    "planned_attention(Tensor q, Tensor k, Tensor v, Tensor? kv_indices, Tensor(a!) out,"
    " Tensor(b!)? lse, Tensor plan, Tensor workspace, Tensor? mask, Tensor? mask_indptr,"
    " Tensor sizes, bool exact, bool hnd, bool causal, SymInt window_left, str pos_encoding,"
    " float sm_scale, float logits_soft_cap, float v_scale, float rope_scale, float rope_theta)"
    " -> ()",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)
_library.define(
    "planned_mla(Tensor q_nope, Tensor q_pe, Tensor ckv, Tensor kpe, Tensor kv_indices,"
    " Tensor(a!) out, Tensor(b!)? lse, Tensor plan, Tensor workspace, Tensor sizes,"
    " SymInt window_left, str pos_encoding, float sm_scale, float logits_soft_cap, float v_scale,"
    " float rope_scale, float rope_theta) -> ()",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)
single_attention = _op("single_attention")
planned_attention = _op("planned_attention")
planned_mla = _op("planned_mla")


def implement(name: str, function: Callable[..., None]) -> None:
    """Gives an op that was defined here its implementation, once."""
    for key in ("CPU", "CUDA"):
        _library.impl(name, function, key)
