"""The names and signatures are those of FlashInfer 0.2.0, with what was added to them behind."""

from __future__ import annotations

import importlib
import inspect
import re
import typing

import pytest

import flashinfer
from flashinfer import _build_info, decode, page, sparse

ROPE = "rotary_dim=None, interleave=False, rope_scale=1, rope_theta=10000.0"
LLAMA31 = (
    "rotary_dim=None, interleave=False, rope_scale=8, rope_theta=500000.0, low_freq_factor=1,"
    " high_freq_factor=4, old_context_len=8192"
)
LLAMA31_BY_SEGMENT = LLAMA31.replace("interleave=False", "interleave=None")
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
    "apply_llama31_rope": f"q, k, indptr, offsets, {LLAMA31_BY_SEGMENT}",
    "apply_llama31_rope_inplace": f"q, k, indptr, offsets, {LLAMA31_BY_SEGMENT}",
    "apply_llama31_rope_pos_ids": f"q, k, pos_ids, {LLAMA31}",
    "apply_llama31_rope_pos_ids_inplace": f"q, k, pos_ids, {LLAMA31}",
    "apply_rope_with_cos_sin_cache": "q, k, cos_cache, sin_cache, pos_ids, interleave=False",
    "apply_rope_with_cos_sin_cache_inplace": (
        "q, k, cos_cache, sin_cache, pos_ids, interleave=False"
    ),
    "get_batch_indices_positions": "append_indptr, seq_lens, nnz",
    "get_seq_lens": "kv_indptr, kv_last_page_len, page_size",
    "bmm_fp8": "A, B, A_scale, B_scale, dtype, out=None",
    "merge_state": "v_a, s_a, v_b, s_b",
    "merge_state_in_place": "v, s, v_other, s_other, mask=None",
    "merge_states": "v, s",
    "packbits": "x, bitorder='big'",
    "segment_packbits": "x, indptr, bitorder='big'",
}
NOT_RANDOM = "deterministic=True, check_nan=False"
# 0.2.0's, with a default for uniform_samples, and so for what follows, and with a generator.
SIGNATURES |= {
    "sampling_from_probs": f"probs, uniform_samples=None, {NOT_RANDOM}, generator=None",
    "top_p_sampling_from_probs": (
        f"probs, uniform_samples=None, top_p=None, {NOT_RANDOM}, generator=None"
    ),
    "top_k_sampling_from_probs": (
        f"probs, uniform_samples=None, top_k=None, {NOT_RANDOM}, generator=None"
    ),
    "min_p_sampling_from_probs": (
        f"probs, uniform_samples=None, min_p=None, {NOT_RANDOM}, generator=None"
    ),
    "top_k_top_p_sampling_from_probs": (
        "probs, uniform_samples=None, top_k=None, top_p=None, filter_apply_order='top_k_first',"
        f" {NOT_RANDOM}, generator=None"
    ),
    "top_k_top_p_sampling_from_logits": (
        "probs, uniform_samples=None, top_k=None, top_p=None, filter_apply_order='top_k_first',"
        f" {NOT_RANDOM}, generator=None"
    ),
    "top_p_renorm_probs": "probs, top_p",
    "top_k_renorm_probs": "probs, top_k",
    "top_p_renorm_prob": "probs, top_p",
    "top_k_renorm_prob": "probs, top_k",
    "top_k_mask_logits": "logits, top_k",
    "chain_speculative_sampling": (
        "draft_probs, draft_token_ids, uniform_samples=None, target_probs=None,"
        " maybe_output_accepted_token_num=None, maybe_output_emitted_token_num=None,"
        " deterministic=True, generator=None"
    ),
}
FLOAT_OPTIONS = "window_left=-1, logits_soft_cap=None, sm_scale=None"
ROPE_OPTIONS = "rope_scale=None, rope_theta=None"
SCALES = "q_scale=None, k_scale=None, v_scale=None"
SINGLE_PREFILL = (
    "q, k, v, custom_mask=None, packed_custom_mask=None, causal=False, kv_layout='NHD',"
    " pos_encoding_mode='NONE', allow_fp16_qk_reduction=False, sm_scale=None, window_left=-1,"
    f" logits_soft_cap=None, {ROPE_OPTIONS}"
)
SIGNATURES |= {
    "single_decode_with_kv_cache": (
        "q, k, v, kv_layout='NHD', pos_encoding_mode='NONE', use_tensor_cores=False,"
        f" {SCALES}, {FLOAT_OPTIONS}, {ROPE_OPTIONS}"
    ),
    "single_prefill_with_kv_cache": f"{SINGLE_PREFILL}, return_lse=False, backend='auto'",
    "single_prefill_with_kv_cache_return_lse": f"{SINGLE_PREFILL}, return_lse=True, backend='auto'",
}
# Of releases after 0.2.0.
SIGNATURES |= {
    "fast_decode_plan": (
        "self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,"
        " pos_encoding_mode='NONE', window_left=-1, logits_soft_cap=None, q_data_type=None,"
        " kv_data_type=None, data_type=None, sm_scale=None, rope_scale=None, rope_theta=None,"
        " non_blocking=True, fixed_split_size=None, disable_split_kv=False, q_len_per_req=1,"
        " global_override_indptr_cpu=None"
    ),
    "concat_mla_k": "k, k_nope, k_rope",
    "fused_add_rmsnorm_quant": "out, input, residual, weight, scale, eps=1e-06, enable_pdl=None",
    "layernorm": "input, gemma, beta, eps=1e-06",
    "rmsnorm_quant": "out, input, weight, scale, eps=1e-06, enable_pdl=None",
    "sampling_from_logits": (
        "logits, indices=None, deterministic=True, generator=None, check_nan=False"
    ),
    "softmax": "logits, temperature=None, enable_pdl=None",
    "top_k": (
        "input, k, sorted=False, deterministic=False, tie_break=<TopKTieBreak.NONE: 0>,"
        " dsa_graph_safe=False"
    ),
}
WORKSPACE = "float_workspace_buffer, kv_layout='NHD'"
SEGMENT_GEMM = (
    "self, x, weights, batch_size, weight_column_major, seg_lens=None, seg_indptr=None,"
    " weight_indices=None"
)
RESET = "self, float_workspace_buffer, int_workspace_buffer"
# Of causal and of llama31's interleave the releases have different defaults: None here.
FORWARD_PAGED = (
    "self, q, paged_kv_cache, causal=None, pos_encoding_mode='NONE',"
    f" allow_fp16_qk_reduction=False, k_scale=None, v_scale=None, {FLOAT_OPTIONS}, {ROPE_OPTIONS}"
)
FORWARD_RAGGED = (
    "self, q, k, v, causal=None, pos_encoding_mode='NONE', allow_fp16_qk_reduction=False,"
    f" {FLOAT_OPTIONS}, {ROPE_OPTIONS}"
)
FORWARD_DECODE = (
    f"self, q, paged_kv_cache, pos_encoding_mode='NONE', {SCALES}, {FLOAT_OPTIONS}, {ROPE_OPTIONS}"
)
PLAN_DECODE = (
    "self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,"
    " pos_encoding_mode='NONE', window_left=-1, logits_soft_cap=None, q_data_type='float16',"
    f" kv_data_type=None, data_type=None, sm_scale=None, {ROPE_OPTIONS}, non_blocking=False"
)
PLAN_PAGED = (
    "self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads,"
    " num_kv_heads, head_dim, page_size, custom_mask=None, packed_custom_mask=None, causal=False,"
    " pos_encoding_mode='NONE', allow_fp16_qk_reduction=False, sm_scale=None, window_left=-1,"
    f" logits_soft_cap=None, {ROPE_OPTIONS}, q_data_type='float16', kv_data_type=None,"
    " non_blocking=False"
)
PLAN_RAGGED = (
    "self, qo_indptr, kv_indptr, num_qo_heads, num_kv_heads, head_dim, custom_mask=None,"
    " packed_custom_mask=None, causal=None, pos_encoding_mode='NONE',"
    f" allow_fp16_qk_reduction=False, {FLOAT_OPTIONS}, {ROPE_OPTIONS}, q_data_type='float16',"
    " kv_data_type=None"
)
PLAN_BLOCKS = (
    "self, indptr, indices, M, N, R, C, num_qo_heads, num_kv_heads, head_dim, mask=None,"
    " packed_mask=None, causal=False, pos_encoding_mode='NONE', allow_fp16_qk_reduction=False,"
    f" logits_soft_cap=None, sm_scale=None, {ROPE_OPTIONS}, q_data_type='float16',"
    " kv_data_type=None, non_blocking=False"
)
PLAN_LEVELS = (
    "self, qo_indptr_arr, paged_kv_indptr_arr, paged_kv_indices_arr, paged_kv_last_page_len,"
    " num_qo_heads, num_kv_heads, head_dim, page_size, causal=False, pos_encoding_mode='NONE',"
    " allow_fp16_qk_reduction=False, sm_scale=None, window_left=-1, logits_soft_cap=None,"
    f" {ROPE_OPTIONS}, q_data_type='float16'"
)
TABLES = "num_qo_heads, num_kv_heads, head_dim, page_size"
DECODE = {
    "reset_workspace_buffer": RESET,
    "plan": PLAN_DECODE,
    "begin_forward": PLAN_DECODE,
    "run": f"self, q, paged_kv_cache, {SCALES}, return_lse=False",
    "run_return_lse": f"self, q, paged_kv_cache, {SCALES}",
    "forward": FORWARD_DECODE,
    "forward_return_lse": FORWARD_DECODE,
    "end_forward": "self",
}
RUN_MLA = (
    "self, q_nope, q_pe, paged_ckv_cache, paged_kpe_cache, q_scale=None, k_scale=None, v_scale=None"
)
# As in 0.2.0, but for the keywords at the end and the older aliases.
PLAN_MLA = (
    "self, indptr, indices, last_page_len, num_qo_heads, head_dim_compressed_kv, page_size,"
    " sm_scale, window_left=-1, logits_soft_cap=None, data_type='float16', q_data_type=None,"
    " rope_scale=None, rope_theta=None, pos_encoding_mode='ROPE_LLAMA'"
)
FORWARD_MLA = (
    f"{RUN_MLA}, window_left=-1, logits_soft_cap=None, sm_scale=None, rope_scale=None,"
    " rope_theta=None"
)
# Of every wrapper: what it is made with, and its methods.
WRAPPERS: dict[str, tuple[str, dict[str, str]]] = {
    "BatchDecodeWithPagedKVCacheWrapper": (
        f"{WORKSPACE}, use_cuda_graph=False, use_tensor_cores=False, paged_kv_indptr_buffer=None,"
        " paged_kv_indices_buffer=None, paged_kv_last_page_len_buffer=None",
        DECODE,
    ),
    "CUDAGraphBatchDecodeWithPagedKVCacheWrapper": (
        "workspace_buffer, indptr_buffer, indices_buffer, last_page_len_buffer, kv_layout='NHD',"
        " use_tensor_cores=False",
        DECODE,
    ),
    "BatchDecodeMlaWithPagedKVCacheWrapper": (
        "float_workspace_buffer, use_cuda_graph=False, paged_kv_indptr_buffer=None,"
        " paged_kv_indices_buffer=None, paged_kv_last_page_len_buffer=None",
        {
            "reset_workspace_buffer": RESET,
            "plan": PLAN_MLA,
            "begin_forward": PLAN_MLA,
            "run": f"{RUN_MLA}, return_lse=False, out=None, lse=None",
            "run_return_lse": f"{RUN_MLA}, out=None, lse=None",
            "forward": FORWARD_MLA,
            "forward_return_lse": FORWARD_MLA,
            "end_forward": "self",
        },
    ),
    "BatchMLAPagedAttentionWrapper": (
        "float_workspace_buffer, use_cuda_graph=False, qo_indptr=None, kv_indptr=None,"
        " kv_indices=None, kv_len_arr=None, backend='auto'",
        {
            "reset_workspace_buffer": RESET,
            "plan": (
                "self, qo_indptr, kv_indptr, kv_indices, kv_len_arr, num_heads, head_dim_ckv,"
                " head_dim_kpe, page_size, causal, sm_scale, q_data_type=None, kv_data_type=None"
            ),
            "run": (
                "self, q_nope, q_pe, ckv_cache, kpe_cache, out=None, lse=None, return_lse=False,"
                " return_lse_base_on_e=False"
            ),
            "end_forward": "self",
        },
    ),
    "BatchPrefillWithPagedKVCacheWrapper": (
        f"{WORKSPACE}, use_cuda_graph=False, qo_indptr_buf=None, paged_kv_indptr_buf=None,"
        " paged_kv_indices_buf=None, paged_kv_last_page_len_buf=None, custom_mask_buf=None,"
        " qk_indptr_buf=None, backend='auto'",
        {
            "reset_workspace_buffer": RESET,
            "plan": PLAN_PAGED,
            "begin_forward": PLAN_PAGED,
            "run": "self, q, paged_kv_cache, k_scale=None, v_scale=None, return_lse=False",
            "run_return_lse": "self, q, paged_kv_cache, k_scale=None, v_scale=None",
            "forward": FORWARD_PAGED,
            "forward_return_lse": FORWARD_PAGED,
            "end_forward": "self",
        },
    ),
    "BatchPrefillWithRaggedKVCacheWrapper": (
        f"{WORKSPACE}, use_cuda_graph=False, qo_indptr_buf=None, kv_indptr_buf=None,"
        " custom_mask_buf=None, qk_indptr_buf=None, backend='auto'",
        {
            "reset_workspace_buffer": RESET,
            "plan": PLAN_RAGGED,
            "begin_forward": PLAN_RAGGED,
            "run": "self, q, k, v, return_lse=False",
            "run_return_lse": "self, q, k, v",
            "forward": FORWARD_RAGGED,
            "forward_return_lse": FORWARD_RAGGED,
            "end_forward": "self",
        },
    ),
    "BlockSparseAttentionWrapper": (
        "float_workspace_buffer, backend='auto'",
        {
            "reset_workspace_buffer": RESET,
            "plan": PLAN_BLOCKS,
            "begin_forward": PLAN_BLOCKS,
            "run": "self, q, k, v, return_lse=False",
            "forward": (
                "self, q, k, v, pos_encoding_mode='NONE', allow_fp16_qk_reduction=False,"
                f" logits_soft_cap=None, sm_scale=None, {ROPE_OPTIONS}"
            ),
            "end_forward": "self",
        },
    ),
    "MultiLevelCascadeAttentionWrapper": (
        f"num_levels, {WORKSPACE}, use_cuda_graph=False, qo_indptr_buf_arr=None,"
        " paged_kv_indptr_buf_arr=None, paged_kv_indices_buf_arr=None,"
        " paged_kv_last_page_len_buf_arr=None",
        {
            "reset_workspace_buffer": RESET + "s",
            "plan": PLAN_LEVELS,
            "begin_forward": PLAN_LEVELS,
            "run": "self, q, paged_kv_cache",
            "forward": "self, q, paged_kv_cache",
            "end_forward": "self",
        },
    ),
    "SegmentGEMMWrapper": (
        "float_workspace_buffer, backend='auto'",
        {
            "reset_workspace_buffer": f"{RESET}=None",
            "run": SEGMENT_GEMM,
            "forward": SEGMENT_GEMM,
        },
    ),
    "BatchDecodeWithSharedPrefixPagedKVCacheWrapper": (
        WORKSPACE,
        {
            "reset_workspace_buffer": RESET,
            "begin_forward": (
                "self, unique_kv_indptr, unique_kv_indices, unique_kv_last_page_len,"
                f" {TABLES}, data_type='float16'"
            ),
            "forward": "self, q, k_shared, v_shared, unique_kv_cache",
            "end_forward": "self",
        },
    ),
    "BatchPrefillWithSharedPrefixPagedKVCacheWrapper": (
        WORKSPACE,
        {
            "reset_workspace_buffer": RESET,
            "begin_forward": (
                "self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len,"
                f" {TABLES}"
            ),
            "forward": (
                "self, q, k_shared, v_shared, unique_kv_cache, causal=None,"
                f" allow_fp16_qk_reduction=False, sm_scale=None, {ROPE_OPTIONS}"
            ),
            "end_forward": "self",
        },
    ),
}
# What releases after 0.2.0 have too, behind their arguments.
PDL = "enable_pdl=None"
FROM_ROWS = "indices=None, return_valid=False"
LATER = {
    "rmsnorm": PDL,
    "fused_add_rmsnorm": PDL,
    "gemma_rmsnorm": PDL,
    "gemma_fused_add_rmsnorm": PDL,
    "silu_and_mul": PDL,
    "gelu_and_mul": PDL,
    "gelu_tanh_and_mul": PDL,
    "get_batch_indices_positions": "batch_indices=None, positions=None",
    "bmm_fp8": "backend='auto'",
    "sampling_from_probs": FROM_ROWS,
    "top_p_sampling_from_probs": FROM_ROWS,
    "top_k_sampling_from_probs": FROM_ROWS,
    "min_p_sampling_from_probs": FROM_ROWS,
    "top_k_top_p_sampling_from_probs": FROM_ROWS,
    "top_k_top_p_sampling_from_logits": FROM_ROWS,
    "top_p_renorm_probs": "is_deterministic=True",
    "top_p_renorm_prob": "is_deterministic=True",
    "single_decode_with_kv_cache": "return_lse=False",
}
SPLITS = "o_data_type=None, fixed_split_size=None, disable_split_kv=False, hints"
INTO = "out=None, lse=None, enable_pdl=None"
LATER_OF_WRAPPERS: dict[str, dict[str, str]] = {
    "BatchDecodeWithPagedKVCacheWrapper": {
        "": "backend='auto'",
        "plan": SPLITS,
        "begin_forward": SPLITS,
        "run": f"{INTO}, window_left=None",
        "run_return_lse": f"{INTO}, window_left=None",
    },
    "CUDAGraphBatchDecodeWithPagedKVCacheWrapper": {
        "plan": SPLITS,
        "begin_forward": SPLITS,
        "run": f"{INTO}, window_left=None",
        "run_return_lse": f"{INTO}, window_left=None",
    },
    "BatchDecodeMlaWithPagedKVCacheWrapper": {
        "": "use_tensor_cores=False",
        "run": PDL,
        "run_return_lse": PDL,
    },
    "BatchPrefillWithPagedKVCacheWrapper": {
        "plan": f"head_dim_vo=None, {SPLITS}",
        "begin_forward": f"head_dim_vo=None, {SPLITS}",
        "run": f"q_scale=None, {INTO}, window_left=None",
        "run_return_lse": f"q_scale=None, {INTO}, window_left=None",
    },
    "BatchPrefillWithRaggedKVCacheWrapper": {
        "plan": f"non_blocking=False, head_dim_vo=None, {SPLITS}",
        "begin_forward": f"non_blocking=False, head_dim_vo=None, {SPLITS}",
        "run": INTO,
        "run_return_lse": INTO,
    },
    "BlockSparseAttentionWrapper": {
        "plan": "o_data_type=None",
        "begin_forward": "o_data_type=None",
        "run": INTO,
    },
    "MultiLevelCascadeAttentionWrapper": {
        "plan": "kv_data_type=None",
        "begin_forward": "kv_data_type=None",
    },
    "SegmentGEMMWrapper": {"run": "out=None", "forward": "out=None"},
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


def with_later(signature: str, later: str) -> str:
    return f"{signature}, {later}" if later else signature


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    expected = with_later(SIGNATURES[name], LATER.get(name, ""))
    assert words(getattr(flashinfer, name)) == expected


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapper(name: str) -> None:
    wrapper = getattr(flashinfer, name)
    made_with, methods = WRAPPERS[name]
    later = LATER_OF_WRAPPERS.get(name, {})
    assert words(wrapper) == with_later(made_with, later.get("", ""))
    for method, signature in methods.items():
        expected = with_later(signature, later.get(method, ""))
        assert words(getattr(wrapper, method)) == expected, method
    public = {method for method in dir(wrapper) if not method.startswith("_")}
    assert public - set(methods) <= {"is_cuda_graph_enabled", "use_tensor_cores"}
    for method in public:
        assert inspect.getdoc(getattr(wrapper, method)), method


def test_names_that_frameworks_import_from_the_modules() -> None:
    assert callable(decode._grouped_size_compiled_for_decode_kernels)
    assert callable(sparse.convert_bsr_mask_layout)
    for module in (decode, flashinfer.prefill, flashinfer.cascade, sparse, flashinfer.gemm):
        for name in set(module.__all__) - {"convert_bsr_mask_layout"}:
            assert getattr(flashinfer, name) is getattr(module, name)


@pytest.mark.skipif(not hasattr(typing, "get_overloads"), reason="overloads are kept from 3.11 on")
def test_both_forms_of_append() -> None:
    assert [words(form) for form in typing.get_overloads(page.append_paged_kv_cache)] == APPEND


# What FlashInfer has in the modules alone.
OF_THE_MODULES = {
    *("convert_bsr_mask_layout", "block_sparse_indices_to_vector_sparse_offsets", "TopKTieBreak"),
}


def test_every_module_exports_what_the_package_does() -> None:
    exported: set[str] = set()
    for name in (
        *("activation", "cascade", "concat_ops", "decode", "gemm", "mla", "norm", "page"),
        *("prefill", "quantization", "rope", "sampling", "sparse", "topk"),
    ):
        module = importlib.import_module(f"flashinfer.{name}")
        for export in set(module.__all__) - OF_THE_MODULES:
            assert getattr(module, export) is getattr(flashinfer, export)
            exported.add(export)
    assert exported == set(flashinfer.__all__)


def test_everything_public_is_exported_and_documented() -> None:
    assert set(flashinfer.__all__) == {
        *SIGNATURES,
        *WRAPPERS,
        "append_paged_kv_cache",
    }
    for name in flashinfer.__all__:
        assert inspect.getdoc(getattr(flashinfer, name)), name


def documented(doc: str) -> set[str]:
    """The names that ``Args`` of a docstring explains."""
    section = doc.partition("Args:\n")[2].partition("\n\n")[0]
    return set(re.findall(r"^    (\w+): \S", section, re.M))


@pytest.mark.parametrize("name", flashinfer.__all__)
def test_help_explains_every_argument(name: str) -> None:
    member = getattr(flashinfer, name)
    functions = {name: member}
    if inspect.isclass(member):
        functions |= {
            f"{name}.{method}": function
            for method, function in inspect.getmembers(member, inspect.isfunction)
            if not method.startswith("_")
        }
    for where, function in functions.items():
        doc = inspect.getdoc(function) or ""
        if "rguments" in doc:  # says whose arguments they are
            continue
        parameters = set(inspect.signature(function).parameters) - {"self", "args", "kwargs"}
        assert parameters <= documented(doc), f"{where}: {parameters - documented(doc)}"


def test_version_is_the_full_one() -> None:
    public, _, local = flashinfer.__version__.partition("+")
    assert public == _build_info.PUBLIC_VERSION
    assert local.replace("torch", "_torch", 1).startswith(_build_info.VARIANT.split("_")[0])
