// The ops that registration.cpp offers to torch. Every one writes to tensors it was given and
// returns nothing; the Python front functions allocate. The schemas are in registration.cpp.
#ifndef FLASHINFER_TORCH_OPS_H_
#define FLASHINFER_TORCH_OPS_H_

#include <string_view>

#include "tensor.h"

namespace flashinfer {
namespace binding {

// norm.cpp
void rmsnorm(const fi_exec& exec, const Tensor& out, const Tensor& input, const Tensor& weight,
             double eps, double weight_bias);
void fused_add_rmsnorm(const fi_exec& exec, const Tensor& input, const Tensor& residual,
                       const Tensor& weight, double eps, double weight_bias);
void layernorm(const fi_exec& exec, const Tensor& out, const Tensor& input, const Tensor& gamma,
               const Tensor& beta, double eps);
void rmsnorm_quant(const fi_exec& exec, const Tensor& out, const Tensor& input,
                   const Tensor& weight, const Tensor* scale, double scale_value, double eps);
void fused_add_rmsnorm_quant(const fi_exec& exec, const Tensor& out, const Tensor& input,
                             const Tensor& residual, const Tensor& weight, const Tensor* scale,
                             double scale_value, double eps);

// activation.cpp
void act_and_mul(const fi_exec& exec, const Tensor& out, const Tensor& input,
                 std::string_view activation);

// rope.cpp: optional tensors are NULL where they were None.
void rope(const fi_exec& exec, const Tensor& q, const Tensor& k, const Tensor& q_out,
          const Tensor& k_out, const Tensor* pos_ids, const Tensor* indptr, const Tensor* offsets,
          const Tensor* cos_sin_cache, int64_t rotary_dim, bool interleave, bool llama31,
          double rope_scale, double rope_theta, double smooth_a, double smooth_b);
void rope_inplace(const fi_exec& exec, const Tensor& q, const Tensor& k, const Tensor* pos_ids,
                  const Tensor* indptr, const Tensor* offsets, const Tensor* cos_sin_cache,
                  int64_t rotary_dim, bool interleave, bool llama31, double rope_scale,
                  double rope_theta, double smooth_a, double smooth_b);

// page.cpp
void append_paged_kv(const fi_exec& exec, const Tensor& append_key, const Tensor& append_value,
                     const Tensor& batch_indices, const Tensor& positions, const Tensor& k_cache,
                     const Tensor& v_cache, const Tensor& kv_indices, const Tensor& kv_indptr,
                     bool hnd);
void batch_positions(const fi_exec& exec, const Tensor& append_indptr, const Tensor& seq_lens,
                     const Tensor& batch_indices, const Tensor& positions);

// concat.cpp: of any dtype.
void concat_mla_k(const fi_exec& exec, const Tensor& k, const Tensor& k_nope, const Tensor& k_rope);

// cascade.cpp
void merge_state(const fi_exec& exec, const Tensor& v_a, const Tensor& s_a, const Tensor& v_b,
                 const Tensor& s_b, const Tensor& v_out, const Tensor& s_out);
void merge_state_inplace(const fi_exec& exec, const Tensor& v, const Tensor& s,
                         const Tensor& v_other, const Tensor& s_other, const Tensor* mask);
void merge_states(const fi_exec& exec, const Tensor& v, const Tensor& s, const Tensor& v_out,
                  const Tensor& s_out);

// attention.cpp: attention_plan reads and writes host tensors, whatever device it plans for (-1 is
// the CPU); `workspace` is scratch of `num_slots` partial states.
void attention_plan(const fi_exec& exec, const Tensor& qo_indptr, const Tensor& kv_base,
                    const Tensor& kv_len, int64_t num_qo_heads, int64_t num_kv_heads,
                    int64_t head_dim, int64_t device, int64_t tile_rows, int64_t max_slots,
                    int64_t item_capacity, int64_t merge_capacity, const Tensor* plan,
                    const Tensor& result);
void upload_words(const fi_exec& exec, const HostTensor& words, const Tensor& out);
void attention(const fi_exec& exec, const Tensor& q, const Tensor& k, const Tensor& v,
               const Tensor* kv_indices, const Tensor& out, const Tensor* lse, const Tensor& plan,
               const Tensor& workspace, const Tensor* mask, const Tensor* mask_indptr,
               const Tensor* alibi_slopes, int64_t tile_rows, int64_t item_capacity,
               int64_t merge_capacity, int64_t num_slots, bool hnd, bool causal,
               int64_t window_left, std::string_view pos_encoding, double sm_scale,
               double logits_soft_cap, double v_scale, double rope_scale, double rope_theta);

// mla.cpp
void mla_decode(const fi_exec& exec, const Tensor& q_nope, const Tensor& q_pe, const Tensor& ckv,
                const Tensor& kpe, const Tensor& kv_indices, const Tensor& out, const Tensor* lse,
                const Tensor& plan, const Tensor& workspace, int64_t tile_rows,
                int64_t item_capacity, int64_t merge_capacity, int64_t num_slots,
                int64_t window_left, std::string_view pos_encoding, double sm_scale,
                double logits_soft_cap, double v_scale, double rope_scale, double rope_theta);

// quantization.cpp
void packbits(const fi_exec& exec, const Tensor& x, const Tensor& y, bool little_endian);
void segment_packbits(const fi_exec& exec, const Tensor& x, const Tensor& in_indptr,
                      const Tensor& out_indptr, const Tensor& y, bool little_endian);

// gemm.cpp
void segment_gemm(const fi_exec& exec, const Tensor& x, const Tensor& weights,
                  const Tensor& seg_indptr, const Tensor* weight_indices, const Tensor& out,
                  bool weight_column_major);
void bmm_fp8(const fi_exec& exec, const Tensor& a, const Tensor& b, const Tensor& a_scale,
             const Tensor& b_scale, const Tensor& out);
// sampling.cpp: filters as in api.h; their tensors replace their values.
void sample(const fi_exec& exec, const Tensor& samples, const Tensor* success, const Tensor& probs,
            const Tensor& uniform_samples, const Tensor* top_k, int64_t top_k_value,
            const Tensor* top_p, double top_p_value, const Tensor* min_p, double min_p_value,
            bool top_k_first);
void renorm_probs(const fi_exec& exec, const Tensor& out, const Tensor& probs, const Tensor* top_k,
                  int64_t top_k_value, const Tensor* top_p, double top_p_value);
void mask_logits(const fi_exec& exec, const Tensor& out, const Tensor& logits, const Tensor* top_k,
                 int64_t top_k_value);
void top_k(const fi_exec& exec, const Tensor& values, const Tensor& indices, const Tensor& input,
           bool sorted, bool last);
void softmax(const fi_exec& exec, const Tensor& out, const Tensor& logits,
             const Tensor* temperature, double temperature_value);
void chain_speculative(const fi_exec& exec, const Tensor& output_token_ids,
                       const Tensor& output_accepted, const Tensor& output_emitted,
                       const Tensor& draft_probs, const Tensor& draft_token_ids,
                       const Tensor& uniform_samples, const Tensor& target_probs);

}  // namespace binding
}  // namespace flashinfer

#endif  // FLASHINFER_TORCH_OPS_H_
