// The two implementations behind the C interface, one namespace each, with the same functions.
// api.cpp chooses by exec.device; csrc/cpu/<family>.cpp and csrc/cuda/<family>.cu define them.
#ifndef FLASHINFER_BACKEND_H_
#define FLASHINFER_BACKEND_H_

#include "flashinfer/api.h"

namespace flashinfer {

// Records the text that fi_last_error() returns on this thread (printf form) and returns `status`.
fi_status fail(fi_status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

#define FLASHINFER_FOR_EACH_OP(X)                             \
  X(rmsnorm, fi_rmsnorm_args)                                 \
  X(fused_add_rmsnorm, fi_fused_add_rmsnorm_args)             \
  X(layernorm, fi_layernorm_args)                             \
  X(rmsnorm_quant, fi_rmsnorm_quant_args)                     \
  X(fused_add_rmsnorm_quant, fi_fused_add_rmsnorm_quant_args) \
  X(act_and_mul, fi_act_and_mul_args)                         \
  X(rope, fi_rope_args)                                       \
  X(append_paged_kv, fi_append_paged_kv_args)                 \
  X(batch_positions, fi_batch_positions_args)                 \
  X(concat_mla_k, fi_concat_mla_k_args)                       \
  X(merge_state, fi_merge_state_args)                         \
  X(merge_states, fi_merge_states_args)                       \
  X(attention_plan, fi_attention_plan_args)                   \
  X(attention, fi_attention_args)                             \
  X(upload_words, fi_upload_words_args)                       \
  X(mla_decode, fi_mla_decode_args)                           \
  X(packbits, fi_packbits_args)                               \
  X(sample, fi_sample_args)                                   \
  X(renorm_probs, fi_renorm_probs_args)                       \
  X(mask_logits, fi_mask_logits_args)                         \
  X(top_k, fi_top_k_args)                                     \
  X(softmax, fi_softmax_args)                                 \
  X(chain_speculative, fi_chain_speculative_args)             \
  X(segment_gemm, fi_segment_gemm_args)                       \
  X(bmm_fp8, fi_bmm_fp8_args)

#define FLASHINFER_DECLARE(op, args_type) fi_status op(const fi_exec& exec, const args_type& args);
namespace cpu {
FLASHINFER_FOR_EACH_OP(FLASHINFER_DECLARE)
}  // namespace cpu
namespace cuda {
FLASHINFER_FOR_EACH_OP(FLASHINFER_DECLARE)
}  // namespace cuda
#undef FLASHINFER_DECLARE

}  // namespace flashinfer

#endif  // FLASHINFER_BACKEND_H_
