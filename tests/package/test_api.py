"""The names and signatures are those of FlashInfer 0.2.0."""

from __future__ import annotations

import inspect
import typing

import pytest

import flashinfer
from flashinfer import _build_info, page

ROPE = "rotary_dim=None, interleave=False, rope_scale=1, rope_theta=10000.0"
LLAMA31 = (
    "rotary_dim=None, interleave=False, rope_scale=8, rope_theta=500000.0, low_freq_factor=1,"
    " high_freq_factor=4, old_context_len=8192"
)
SIGNATURES = {
    "rmsnorm": "input, weight, eps=1e-06, out=None",
    "fused_add_rmsnorm": "input, residual, weight, eps=1e-06",
    "gemma_rmsnorm": "input, weight, eps=1e-06, out=None",
    "gemma_fused_add_rmsnorm": "input, residual, weight, eps=1e-06",
    "silu_and_mul": "input, out=None",
    "gelu_and_mul": "input, out=None",
    "gelu_tanh_and_mul": "input, out=None",
    "apply_rope": f"q, k, indptr, offsets, {ROPE}",
    "apply_rope_inplace": f"q, k, indptr, offsets, {ROPE}",
    "apply_rope_pos_ids": f"q, k, pos_ids, {ROPE}",
    "apply_rope_pos_ids_inplace": f"q, k, pos_ids, {ROPE}",
    "apply_llama31_rope": f"q, k, indptr, offsets, {LLAMA31}",
    "apply_llama31_rope_inplace": f"q, k, indptr, offsets, {LLAMA31}",
    "apply_llama31_rope_pos_ids": f"q, k, pos_ids, {LLAMA31}",
    "apply_llama31_rope_pos_ids_inplace": f"q, k, pos_ids, {LLAMA31}",
    "apply_rope_with_cos_sin_cache": "q, k, cos_cache, sin_cache, pos_ids, interleave=False",
    "apply_rope_with_cos_sin_cache_inplace": (
        "q, k, cos_cache, sin_cache, pos_ids, interleave=False"
    ),
    "get_batch_indices_positions": "append_indptr, seq_lens, nnz",
    "get_seq_lens": "kv_indptr, kv_last_page_len, page_size",
    "merge_state": "v_a, s_a, v_b, s_b",
    "merge_state_in_place": "v, s, v_other, s_other, mask=None",
    "merge_states": "v, s",
    "packbits": "x, bitorder='big'",
    "segment_packbits": "x, indptr, bitorder='big'",
}
APPEND = [
    "append_key, append_value, batch_indices, positions, paged_kv_cache, kv_indices, kv_indptr,"
    " kv_last_page_len, kv_layout=Ellipsis",
    "append_key, append_value, append_indptr, paged_kv_cache, kv_indices, kv_indptr,"
    " kv_last_page_len, kv_layout=Ellipsis",
]


def words(function: object) -> str:
    assert callable(function)
    return ", ".join(
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in inspect.signature(function).parameters.values()
    )


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    assert words(getattr(flashinfer, name)) == SIGNATURES[name]


@pytest.mark.skipif(not hasattr(typing, "get_overloads"), reason="overloads are kept from 3.11 on")
def test_both_forms_of_append() -> None:
    assert [words(form) for form in typing.get_overloads(page.append_paged_kv_cache)] == APPEND


def test_everything_public_is_exported_and_documented() -> None:
    assert set(flashinfer.__all__) == {*SIGNATURES, "append_paged_kv_cache"}
    for name in flashinfer.__all__:
        assert inspect.getdoc(getattr(flashinfer, name)), name


def test_version_is_the_full_one() -> None:
    public, _, local = flashinfer.__version__.partition("+")
    assert public == _build_info.PUBLIC_VERSION
    assert local.replace("torch", "_torch", 1).startswith(_build_info.VARIANT.split("_")[0])
