"""FlashInfer: attention kernels for serving large language models.

Raises ImportError if the torch in this environment is not the one this build was made for; the
message has the commands that install the right build. ``python -m flashinfer.env`` says what is
installed, what was found and whether it fits, also where this import fails.
"""

from __future__ import annotations

from flashinfer import _compat

if _compat.is_doctor():
    # Python imports this package before the module in it; whatever would fail here is what the
    # doctor is asked about, so it takes over before that.
    from flashinfer import env

    raise SystemExit(env.main())

try:
    from flashinfer import _build_info
except ImportError as error:
    raise _compat.unfit(_compat.not_built()) from error

_build = _compat.read_build(_build_info)
_compat.check(_build)

try:
    from flashinfer import _ops  # loads the binding, so only after the check
except ImportError as error:
    raise _compat.unfit(_compat.not_loaded(_build, str(error))) from error

_compat.check_library(_build, *_ops.build_info())

from flashinfer.activation import gelu_and_mul, gelu_tanh_and_mul, silu_and_mul  # noqa: E402
from flashinfer.cascade import (  # noqa: E402
    BatchDecodeWithSharedPrefixPagedKVCacheWrapper,
    BatchPrefillWithSharedPrefixPagedKVCacheWrapper,
    MultiLevelCascadeAttentionWrapper,
    merge_state,
    merge_state_in_place,
    merge_states,
)
from flashinfer.concat_ops import concat_mla_k  # noqa: E402
from flashinfer.decode import (  # noqa: E402
    BatchDecodeMlaWithPagedKVCacheWrapper,
    BatchDecodeWithPagedKVCacheWrapper,
    CUDAGraphBatchDecodeWithPagedKVCacheWrapper,
    fast_decode_plan,
    single_decode_with_kv_cache,
)
from flashinfer.gemm import SegmentGEMMWrapper, bmm_fp8  # noqa: E402
from flashinfer.mla import BatchMLAPagedAttentionWrapper  # noqa: E402
from flashinfer.norm import (  # noqa: E402
    fused_add_rmsnorm,
    fused_add_rmsnorm_quant,
    gemma_fused_add_rmsnorm,
    gemma_rmsnorm,
    layernorm,
    rmsnorm,
    rmsnorm_quant,
)
from flashinfer.page import (  # noqa: E402
    append_paged_kv_cache,
    get_batch_indices_positions,
    get_seq_lens,
)
from flashinfer.prefill import (  # noqa: E402
    BatchPrefillWithPagedKVCacheWrapper,
    BatchPrefillWithRaggedKVCacheWrapper,
    single_prefill_with_kv_cache,
    single_prefill_with_kv_cache_return_lse,
)
from flashinfer.quantization import packbits, segment_packbits  # noqa: E402
from flashinfer.rope import (  # noqa: E402
    apply_llama31_rope,
    apply_llama31_rope_inplace,
    apply_llama31_rope_pos_ids,
    apply_llama31_rope_pos_ids_inplace,
    apply_rope,
    apply_rope_inplace,
    apply_rope_pos_ids,
    apply_rope_pos_ids_inplace,
    apply_rope_with_cos_sin_cache,
    apply_rope_with_cos_sin_cache_inplace,
)
from flashinfer.sampling import (  # noqa: E402
    chain_speculative_sampling,
    min_p_sampling_from_probs,
    sampling_from_logits,
    sampling_from_probs,
    softmax,
    top_k_mask_logits,
    top_k_renorm_prob,
    top_k_renorm_probs,
    top_k_sampling_from_probs,
    top_k_top_p_sampling_from_logits,
    top_k_top_p_sampling_from_probs,
    top_p_renorm_prob,
    top_p_renorm_probs,
    top_p_sampling_from_probs,
)
from flashinfer.sparse import BlockSparseAttentionWrapper  # noqa: E402
from flashinfer.topk import top_k  # noqa: E402

__version__: str = _build_info.VERSION
__git_commit__: str = _build_info.COMMIT  # of a nightly; "" for a release

__all__ = [
    "BatchDecodeMlaWithPagedKVCacheWrapper",
    "BatchDecodeWithPagedKVCacheWrapper",
    "BatchDecodeWithSharedPrefixPagedKVCacheWrapper",
    "BatchMLAPagedAttentionWrapper",
    "BatchPrefillWithPagedKVCacheWrapper",
    "BatchPrefillWithRaggedKVCacheWrapper",
    "BatchPrefillWithSharedPrefixPagedKVCacheWrapper",
    "BlockSparseAttentionWrapper",
    "CUDAGraphBatchDecodeWithPagedKVCacheWrapper",
    "MultiLevelCascadeAttentionWrapper",
    "SegmentGEMMWrapper",
    "append_paged_kv_cache",
    "apply_llama31_rope",
    "apply_llama31_rope_inplace",
    "apply_llama31_rope_pos_ids",
    "apply_llama31_rope_pos_ids_inplace",
    "apply_rope",
    "apply_rope_inplace",
    "apply_rope_pos_ids",
    "apply_rope_pos_ids_inplace",
    "apply_rope_with_cos_sin_cache",
    "apply_rope_with_cos_sin_cache_inplace",
    "bmm_fp8",
    "chain_speculative_sampling",
    "concat_mla_k",
    "fast_decode_plan",
    "fused_add_rmsnorm",
    "fused_add_rmsnorm_quant",
    "gelu_and_mul",
    "gelu_tanh_and_mul",
    "gemma_fused_add_rmsnorm",
    "gemma_rmsnorm",
    "get_batch_indices_positions",
    "get_seq_lens",
    "layernorm",
    "merge_state",
    "merge_state_in_place",
    "merge_states",
    "min_p_sampling_from_probs",
    "packbits",
    "rmsnorm",
    "rmsnorm_quant",
    "sampling_from_logits",
    "sampling_from_probs",
    "segment_packbits",
    "silu_and_mul",
    "single_decode_with_kv_cache",
    "single_prefill_with_kv_cache",
    "single_prefill_with_kv_cache_return_lse",
    "softmax",
    "top_k",
    "top_k_mask_logits",
    "top_k_renorm_prob",
    "top_k_renorm_probs",
    "top_k_sampling_from_probs",
    "top_k_top_p_sampling_from_logits",
    "top_k_top_p_sampling_from_probs",
    "top_p_renorm_prob",
    "top_p_renorm_probs",
    "top_p_sampling_from_probs",
]
