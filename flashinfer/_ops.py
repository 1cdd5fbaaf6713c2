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
act_and_mul = _op("act_and_mul")
rope = _op("rope")
rope_inplace = _op("rope_inplace")
append_paged_kv = _op("append_paged_kv")
batch_positions = _op("batch_positions")
merge_state = _op("merge_state")
merge_state_inplace = _op("merge_state_inplace")
merge_states = _op("merge_states")
packbits = _op("packbits")
segment_packbits = _op("segment_packbits")
