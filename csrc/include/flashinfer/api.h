// The C interface of libflashinfer: all that the torch binding, or any other caller, may use.
//
// No torch type and no C++ type crosses it, so one libflashinfer per CUDA version serves every
// torch version and both C++ string ABIs. Pointers are device pointers where `exec->device >= 0`
// and host pointers otherwise; strides are in elements; the innermost dimension is contiguous.
// Callers validate: the functions check only what would make them read or write out of place.
#ifndef FLASHINFER_API_H_
#define FLASHINFER_API_H_

#include <stdint.h>

#if defined(_WIN32)
#define FI_API
#else
#define FI_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fi_status {
  FI_OK = 0,
  FI_INVALID_ARGUMENT = 1,  // an argument is out of range; fi_last_error() names it
  FI_UNSUPPORTED = 2,       // understood, but not in this build (e.g. CUDA in a CPU build, or
                            // code for this GPU)
  FI_CUDA_ERROR = 3         // the CUDA runtime refused; fi_last_error() has its words
} fi_status;

typedef enum fi_dtype {
  FI_FLOAT16 = 0,
  FI_BFLOAT16 = 1,
  FI_FLOAT32 = 2,
  FI_FLOAT8_E4M3 = 3,
  FI_FLOAT8_E5M2 = 4
} fi_dtype;

// Calls body(arg, begin, end) over disjoint ranges that together cover [0, n), on as many threads
// as the caller likes; `grain` is the smallest range worth a thread. Returns when all are done.
typedef void (*fi_range_body)(void* arg, int64_t begin, int64_t end);
typedef void (*fi_parallel_for)(int64_t n, int64_t grain, fi_range_body body, void* arg);

// Where an operation runs.
typedef struct fi_exec {
  int32_t device;                // -1: the CPU; otherwise the CUDA device ordinal
  void* stream;                  // CUDA: the cudaStream_t to launch on
  fi_parallel_for parallel_for;  // CPU: the caller's threads; NULL runs serially
} fi_exec;

// Thread-local text of the last failure on this thread; never NULL.
FI_API const char* fi_last_error(void);

// "key=value\n" lines written at compile time by the compiler that ran. Keys: component, version,
// cuda (measured from the compiler: "13.0.88" or "none"), archs (as asked for), cxx. The same bytes
// lie in the ELF section "flashinfer_info", to be read without loading the library.
FI_API const char* fi_build_info(void);

// ---------------------------------------------------------------- norm
// out[i, j] = input[i, j] * rsqrt(mean_j(input[i, :]^2) + eps) * (weight_bias + weight[j])
// weight_bias is 0 for RMSNorm and 1 for Gemma's form. fp32 accumulation.
typedef struct fi_rmsnorm_args {
  fi_dtype dtype;
  int64_t rows, hidden;
  void* out;
  int64_t out_stride;
  const void* input;
  int64_t input_stride;
  const void* weight;
  float eps, weight_bias;
} fi_rmsnorm_args;
FI_API fi_status fi_rmsnorm(const fi_exec* exec, const fi_rmsnorm_args* args);

// residual += input (accumulated in fp32, stored rounded); input = rmsnorm(fp32 sum) as above.
typedef struct fi_fused_add_rmsnorm_args {
  fi_dtype dtype;
  int64_t rows, hidden;
  void* input;
  int64_t input_stride;
  void* residual;
  int64_t residual_stride;
  const void* weight;
  float eps, weight_bias;
} fi_fused_add_rmsnorm_args;
FI_API fi_status fi_fused_add_rmsnorm(const fi_exec* exec, const fi_fused_add_rmsnorm_args* args);

// out[i, j] = (input[i, j] - m) * rsqrt(mean_j((input[i, :] - m)^2) + eps) * gamma[j] + beta[j],
// m = mean_j(input[i, :]), in fp32, rounded once. gamma and beta are fp32 [hidden]. `out` may be
// `input`.
typedef struct fi_layernorm_args {
  fi_dtype dtype;
  int64_t rows, hidden;
  void* out;
  int64_t out_stride;
  const void* input;
  int64_t input_stride;
  const float* gamma;
  const float* beta;
  float eps;
} fi_layernorm_args;
FI_API fi_status fi_layernorm(const fi_exec* exec, const fi_layernorm_args* args);

// out = rmsnorm(input) as above, with weight_bias 0, times 1 / scale, in fp32, and rounded once, to
// an fp8: what is out of range, infinity too, becomes the largest number, and NaN stays one.
// 1 / scale is bounded by the largest fp32 number.
typedef struct fi_rmsnorm_quant_args {
  fi_dtype dtype;
  fi_dtype out_dtype;  // FI_FLOAT8_E4M3 or FI_FLOAT8_E5M2
  int64_t rows, hidden;
  void* out;
  int64_t out_stride;
  const void* input;
  int64_t input_stride;
  const void* weight;
  const float* scale;  // one number, where the tensors are, or NULL: the value
  float scale_value;
  float eps;
} fi_rmsnorm_quant_args;
FI_API fi_status fi_rmsnorm_quant(const fi_exec* exec, const fi_rmsnorm_quant_args* args);

// residual += input (accumulated in fp32, stored rounded); out = the fp32 sum, as above.
typedef struct fi_fused_add_rmsnorm_quant_args {
  fi_dtype dtype;
  fi_dtype out_dtype;
  int64_t rows, hidden;
  void* out;
  int64_t out_stride;
  const void* input;
  int64_t input_stride;
  void* residual;
  int64_t residual_stride;
  const void* weight;
  const float* scale;
  float scale_value;
  float eps;
} fi_fused_add_rmsnorm_quant_args;
FI_API fi_status fi_fused_add_rmsnorm_quant(const fi_exec* exec,
                                            const fi_fused_add_rmsnorm_quant_args* args);

// ---------------------------------------------------------------- activation
typedef enum fi_activation { FI_SILU = 0, FI_GELU = 1, FI_GELU_TANH = 2 } fi_activation;
// out[i, j] = act(input[i, j]) * input[i, d + j], j < d; computed in fp32, rounded once.
typedef struct fi_act_and_mul_args {
  fi_dtype dtype;
  fi_activation activation;
  int64_t rows, d;
  void* out;
  int64_t out_stride;
  const void* input;  // rows of 2 * d elements
  int64_t input_stride;
} fi_act_and_mul_args;
FI_API fi_status fi_act_and_mul(const fi_exec* exec, const fi_act_and_mul_args* args);

// ---------------------------------------------------------------- rope
// Rotates the first rotary_dim elements of every head; the rest is copied. In place where q_out ==
// q (likewise k). Angle of pair i at position p: p * f(i), f(i) = theta^(-2i/rotary_dim) / scale,
// smoothed between high and low frequencies when `llama31` is set:
//   wavelength-smooth s = clamp(f0 * smooth_a + smooth_b, 0, 1), f = (1-s) * f0 / scale + s * f0
//   with f0 = theta^(-2i/rotary_dim),
//   smooth_a = old_context_len / (2 pi (high_freq_factor - low_freq_factor)),
//   smooth_b = -low_freq_factor / (high_freq_factor - low_freq_factor).
// With cos_sin_cache, row p holds rotary_dim/2 cosines, then rotary_dim/2 sines, and the frequency
// fields are ignored. interleave: pairs are (2i, 2i+1); otherwise (i, i + rotary_dim/2).
typedef struct fi_rope_args {
  fi_dtype dtype;
  int64_t nnz, num_qo_heads, num_kv_heads, head_dim, rotary_dim;
  const void* q;
  const void* k;
  void* q_out;
  void* k_out;
  int64_t q_stride_n, q_stride_h, k_stride_n, k_stride_h;
  int64_t q_out_stride_n, q_out_stride_h, k_out_stride_n, k_out_stride_h;
  // Positions: pos_ids[nnz] of pos_ids_bits (32 or 64) where not NULL; otherwise row n of segment b
  // (indptr[b] <= n < indptr[b+1]) is at offsets[b] + n - indptr[b]. indptr has batch_size+1
  // entries.
  const void* pos_ids;
  int32_t pos_ids_bits;
  const int32_t* indptr;
  const int32_t* offsets;
  int64_t batch_size;
  int32_t interleave;
  int32_t llama31;
  float rope_scale, rope_theta, smooth_a, smooth_b;
  const float* cos_sin_cache;  // [max_position, rotary_dim] or NULL
  int64_t cos_sin_stride, max_position;
} fi_rope_args;
FI_API fi_status fi_rope(const fi_exec* exec, const fi_rope_args* args);

// ---------------------------------------------------------------- page
// Copies row n of append_key/append_value to entry positions[n] of request batch_indices[n]:
// page = kv_indices[kv_indptr[b] + positions[n] / page_size], slot = positions[n] % page_size.
// A copy of bytes: only the element size of the dtype matters. Strides of the cache are per
// dimension (page, slot in the page, head), whatever the layout.
// A row whose batch index is negative, or >= batch_size, is skipped (padding in CUDA graphs).
typedef struct fi_append_paged_kv_args {
  fi_dtype dtype;
  int64_t nnz, num_heads, head_dim, page_size, batch_size;
  const void* append_key;
  const void* append_value;
  int64_t key_stride_n, key_stride_h, value_stride_n, value_stride_h;
  const int32_t* batch_indices;
  const int32_t* positions;
  void* k_cache;
  void* v_cache;
  int64_t k_stride_page, k_stride_slot, k_stride_h, v_stride_page, v_stride_slot, v_stride_h;
  const int32_t* kv_indices;
  const int32_t* kv_indptr;
} fi_append_paged_kv_args;
FI_API fi_status fi_append_paged_kv(const fi_exec* exec, const fi_append_paged_kv_args* args);

// batch_indices[n] = b and positions[n] = seq_lens[b] - (append_indptr[b+1] - append_indptr[b]) +
// (n - append_indptr[b]) for append_indptr[b] <= n < append_indptr[b+1]. Entries from
// append_indptr[batch_size] up to nnz get batch index -1 and position 0.
typedef struct fi_batch_positions_args {
  int64_t batch_size, nnz;
  const int32_t* append_indptr;
  const int32_t* seq_lens;
  int32_t* batch_indices;
  int32_t* positions;
} fi_batch_positions_args;
FI_API fi_status fi_batch_positions(const fi_exec* exec, const fi_batch_positions_args* args);

// The keys of multi-head latent attention put together: k[n, h] is k_nope[n, h], and behind it
// k_rope[n], which all heads share. A copy of bytes: only the size of an element matters.
typedef struct fi_concat_mla_k_args {
  int64_t element_size;  // in bytes
  int64_t nnz, num_heads, nope_dim, rope_dim;
  void* k;  // [nnz, num_heads, nope_dim + rope_dim]
  int64_t k_stride_n, k_stride_h;
  const void* k_nope;  // [nnz, num_heads, nope_dim]
  int64_t nope_stride_n, nope_stride_h;
  const void* k_rope;  // [nnz, rope_dim]
  int64_t rope_stride_n;
} fi_concat_mla_k_args;
FI_API fi_status fi_concat_mla_k(const fi_exec* exec, const fi_concat_mla_k_args* args);

// ---------------------------------------------------------------- cascade
// The merge of two attention states (v, s), s the base-2 log-sum-exp:
//   v = (v_a 2^s_a + v_b 2^s_b) / (2^s_a + 2^s_b), s = log2(2^s_a + 2^s_b)
// computed against the larger of s_a and s_b, so that nothing overflows; two empty states
// (s = -inf) merge to v = 0, s = -inf. Contiguous [seq_len, num_heads(, head_dim)]. Outputs may be
// the inputs a. Rows with mask[n] == 0 are left as they are (mask may be NULL).
typedef struct fi_merge_state_args {
  fi_dtype dtype;
  int64_t seq_len, num_heads, head_dim;
  const void* v_a;
  const float* s_a;
  const void* v_b;
  const float* s_b;
  void* v_out;
  float* s_out;
  const uint8_t* mask;
} fi_merge_state_args;
FI_API fi_status fi_merge_state(const fi_exec* exec, const fi_merge_state_args* args);

// v [seq_len, num_states, num_heads, head_dim], s [seq_len, num_states, num_heads], contiguous.
typedef struct fi_merge_states_args {
  fi_dtype dtype;
  int64_t seq_len, num_states, num_heads, head_dim;
  const void* v;
  const float* s;
  void* v_out;
  float* s_out;
} fi_merge_states_args;
FI_API fi_status fi_merge_states(const fi_exec* exec, const fi_merge_states_args* args);

// ---------------------------------------------------------------- attention
// One operation for decode, append and prefill over contiguous, ragged and paged keys and values:
//   out[i, h] = v_scale * sum_j softmax_j(x[i, h, j]) v[j, h / group],  group = num_qo_heads /
//   num_kv_heads, x = bias(cap(sm_scale * q[i, h] . k[j, h / group])),  cap(x) = c tanh(x / c) for
//   c = logits_soft_cap > 0,
// with fp32 accumulation, and lse[i, h] = log2(sum_j e^x), base 2. No key left: out 0, lse -inf.
//
// Query token i of a request with qo_len queries and kv_len keys stands at position
// i + kv_len - qo_len. It sees key j where
//   FI_MASK_NONE: always; FI_MASK_CAUSAL: j <= position;
//   FI_MASK_CUSTOM: bit (i * kv_len + j), little-endian, of mask + mask_indptr[request] is set,
// and, with window_left >= 0, j >= position - window_left.
//
// FI_POS_ROPE_LLAMA turns q and k by RoPE (pairs (i, i + head_dim/2)) at their positions, in fp32.
// FI_POS_ALIBI adds slope(h) * (j - position): slope(h) = alibi_slopes[h], or where that is NULL
// Press et al.'s: with n the largest power of two <= num_qo_heads, 2^(-8 (h+1) / n) for h < n and
// 2^(-4 (2 (h-n) + 1) / n) for the others.
//
// Work is cut by a plan. A request's rows are its (token, head in group) pairs, row = token * group
// + head, for each KV head; `tile_rows` rows and a chunk of keys make an item. An item that has all
// keys writes out and lse; the others write a partial state to their slot, and a merge adds the
// slots of a tile up in order, so a result does not depend on what runs first.
typedef enum fi_pos_encoding {
  FI_POS_NONE = 0,
  FI_POS_ROPE_LLAMA = 1,
  FI_POS_ALIBI = 2
} fi_pos_encoding;
typedef enum fi_mask_mode { FI_MASK_NONE = 0, FI_MASK_CAUSAL = 1, FI_MASK_CUSTOM = 2 } fi_mask_mode;

typedef struct fi_attention_item {
  int32_t request;
  int32_t qo_begin;   // the request's first token in q, out and lse
  int32_t qo_len;     // its tokens
  int32_t kv_base;    // paged: its first entry in kv_indices; otherwise its first row in k and v
  int32_t kv_len;     // its keys
  int32_t row_begin;  // first row of the tile
  int32_t kv_begin, kv_end;  // the chunk
  int32_t slot;              // of the partial state, or -1: write out and lse
} fi_attention_item;

typedef struct fi_attention_merge {
  int32_t qo_begin, qo_len, row_begin;
  int32_t first_slot, num_slots;
} fi_attention_merge;

// A plan is an int32 buffer: two counts (items, merges), then item_capacity items from word
// FI_PLAN_HEADER on, then merge_capacity merges. In a CUDA graph the capacities are what the grid
// was captured with, and the counts are read on the device.
#define FI_PLAN_HEADER 4
#define FI_PLAN_ITEM ((int32_t)(sizeof(fi_attention_item) / sizeof(int32_t)))
#define FI_PLAN_MERGE ((int32_t)(sizeof(fi_attention_merge) / sizeof(int32_t)))

typedef struct fi_attention_plan_result {
  int64_t tile_rows, num_items, num_merges, num_slots;
  int64_t split_target;  // with max_slots given, num_items <= max(number of tiles, split_target)
} fi_attention_plan_result;

// Plans on the host; every pointer is a host pointer. exec->device tells for which device (-1 is
// the CPU): it is asked what it has room for, and loads the kernels that the plan can lead to, so
// that a later call may be captured.
typedef struct fi_attention_plan_args {
  int64_t batch_size, num_qo_heads, num_kv_heads, head_dim;
  const int32_t* qo_indptr;  // [batch_size + 1] tokens
  const int32_t* kv_base;    // [batch_size], see fi_attention_item
  const int32_t* kv_len;     // [batch_size]
  int64_t tile_rows;         // 0: choose; otherwise what an earlier plan chose (CUDA graphs)
  int64_t max_slots;         // partial states that the workspace holds; 0: do not split
  int64_t item_capacity, merge_capacity;
  int32_t* plan;  // FI_PLAN_HEADER + FI_PLAN_ITEM * item_capacity + FI_PLAN_MERGE * merge_capacity;
                  // NULL: only count
  fi_attention_plan_result* result;
} fi_attention_plan_args;
FI_API fi_status fi_attention_plan(const fi_exec* exec, const fi_attention_plan_args* args);

typedef struct fi_attention_args {
  fi_dtype q_dtype;   // of q and out: fp16, bf16, on the CPU also fp32
  fi_dtype kv_dtype;  // q_dtype or an fp8
  int64_t num_qo_heads, num_kv_heads, head_dim;
  const void* q;  // [nnz, num_qo_heads, head_dim]
  int64_t q_stride_n, q_stride_h;
  const void* k;
  const void* v;
  // Key j of a request: paged, page kv_indices[kv_base + j / page_size], slot j % page_size;
  // with kv_indices NULL row kv_base + j (stride_n), and page_size and stride_page are ignored.
  int64_t page_size;
  int64_t k_stride_page, k_stride_n, k_stride_h, v_stride_page, v_stride_n, v_stride_h;
  const int32_t* kv_indices;
  void* out;  // [nnz, num_qo_heads, head_dim]
  int64_t out_stride_n, out_stride_h;
  float* lse;  // [nnz, num_qo_heads], contiguous, or NULL
  const int32_t* plan;
  int64_t tile_rows, item_capacity, merge_capacity;
  float* partial_out;  // [slots, num_kv_heads, tile_rows, head_dim], normalised
  float* partial_lse;  // [slots, num_kv_heads, tile_rows]
  fi_mask_mode mask_mode;
  int32_t window_left;  // < 0: no window
  const uint8_t* mask;
  const int32_t* mask_indptr;  // bytes
  fi_pos_encoding pos_encoding;
  float sm_scale, logits_soft_cap, v_scale, rope_scale, rope_theta;
  const float* alibi_slopes;
} fi_attention_args;
FI_API fi_status fi_attention(const fi_exec* exec, const fi_attention_args* args);

// ---------------------------------------------------------------- upload_words
// out[i] = words[i], i < count. `words` is on the host, whatever the device, and is not read any
// more when the call returns. On CUDA they travel as arguments of kernels: the host does not wait,
// no pinned memory has to live on, and a graph replays them. For a plan of one request, of which
// every length needs another.
typedef struct fi_upload_words_args {
  int64_t count;
  const int32_t* words;
  int32_t* out;
} fi_upload_words_args;
FI_API fi_status fi_upload_words(const fi_exec* exec, const fi_upload_words_args* args);

// ---------------------------------------------------------------- mla
// Decode of multi-head latent attention (DeepSeek-V2) over a paged cache whose one row a key, ckv
// and kpe, serves all heads as key and as value:
//   out[i, h] = v_scale * sum_j softmax_j(x[i, h, j]) ckv[j],
//   x[i, h, j] = cap(sm_scale * (q_nope[i, h] . ckv[j] + turn(q_pe[i, h], position of i)
//   . turn(kpe[j], j))),
// with cap, lse, window_left and the positions of fi_attention, and no mask. turn is RoPE over
// pairs (2i, 2i+1) for FI_POS_ROPE_LLAMA, in fp32; nothing for FI_POS_NONE; there is no other.
//
// A plan is fi_attention_plan's with num_kv_heads 1 and head_dim = head_dim_ckv.
typedef struct fi_mla_decode_args {
  fi_dtype dtype;  // of q, cache and out: fp16, bf16, on the CPU also fp32
  int64_t num_qo_heads;
  int64_t head_dim_ckv, head_dim_kpe;  // on CUDA 512 and 64
  const void* q_nope;                  // [nnz, num_qo_heads, head_dim_ckv]
  int64_t q_nope_stride_n, q_nope_stride_h;
  const void* q_pe;  // [nnz, num_qo_heads, head_dim_kpe]
  int64_t q_pe_stride_n, q_pe_stride_h;
  // Key j of a request: page kv_indices[kv_base + j / page_size], slot j % page_size.
  const void* ckv;  // [pages, page_size, head_dim_ckv]
  int64_t ckv_stride_page, ckv_stride_n;
  const void* kpe;  // [pages, page_size, head_dim_kpe]
  int64_t kpe_stride_page, kpe_stride_n;
  int64_t page_size;
  const int32_t* kv_indices;
  void* out;  // [nnz, num_qo_heads, head_dim_ckv]
  int64_t out_stride_n, out_stride_h;
  float* lse;  // [nnz, num_qo_heads], contiguous, or NULL
  const int32_t* plan;
  int64_t tile_rows, item_capacity, merge_capacity;
  float* partial_out;   // [slots, tile_rows, head_dim_ckv], normalised
  float* partial_lse;   // [slots, tile_rows]
  int32_t window_left;  // < 0: no window
  fi_pos_encoding pos_encoding;
  float sm_scale, logits_soft_cap, v_scale, rope_scale, rope_theta;
} fi_mla_decode_args;
FI_API fi_status fi_mla_decode(const fi_exec* exec, const fi_mla_decode_args* args);

// ---------------------------------------------------------------- quantization
// Packs bools (bytes, non-zero is true) into bits. Segment b reads x[in_indptr[b]:in_indptr[b+1]]
// and writes the bytes y[out_indptr[b]:out_indptr[b+1]]; the last byte is padded with zeros. With
// in_indptr NULL, x[0:n] is one segment. little_endian: element 0 is bit 0; otherwise bit 7.
typedef struct fi_packbits_args {
  int64_t n, num_segments;
  const uint8_t* x;
  uint8_t* y;
  const int32_t* in_indptr;
  const int32_t* out_indptr;
  int64_t total_out;  // bytes in y
  int32_t little_endian;
} fi_packbits_args;
FI_API fi_status fi_packbits(const fi_exec* exec, const fi_packbits_args* args);

// ---------------------------------------------------------------- gemm
// Row r of segment s, seg_indptr[s] <= r < seg_indptr[s + 1], times the segment's matrix:
//   out[r, j] = sum_i x[r, i] * weights[w, i, j],  w = weight_indices[s], or s where that is NULL
// with fp32 accumulation, rounded once. seg_indptr starts with 0; rows from
// seg_indptr[num_segments] on become 0. Element (i, j) of a matrix is at i * w_stride_in + j *
// w_stride_out: one of the two is 1 (row-major: w_stride_out). On CUDA the values of
// seg_indptr and weight_indices are not checked.
typedef struct fi_segment_gemm_args {
  fi_dtype dtype;
  int64_t rows, num_segments, num_weights, d_in, d_out;
  const void* x;
  int64_t x_stride;
  const void* weights;
  int64_t w_stride_n, w_stride_in, w_stride_out;
  const int64_t* seg_indptr;      // [num_segments + 1]
  const int64_t* weight_indices;  // [num_segments] or NULL
  void* out;
  int64_t out_stride;
} fi_segment_gemm_args;
FI_API fi_status fi_segment_gemm(const fi_exec* exec, const fi_segment_gemm_args* args);

// out[b, i, j] = a_scale[b] * b_scale[b] * sum_l a[b, i, l] * b[b, l, j], of fp8 factors, with fp32
// accumulation, rounded once to out_dtype (fp16 or bf16, on the CPU also fp32). Both factors are
// contiguous along l: b is column-major. A scale's stride is 0 where one serves the whole batch.
typedef struct fi_bmm_fp8_args {
  fi_dtype a_dtype, b_dtype, out_dtype;
  int64_t batch, m, n, k;
  const void* a;
  int64_t a_stride_b, a_stride_m;
  const void* b;
  int64_t b_stride_b, b_stride_n;
  const float* a_scale;
  const float* b_scale;
  int64_t a_scale_stride, b_scale_stride;
  void* out;
  int64_t out_stride_b, out_stride_m;
} fi_bmm_fp8_args;
FI_API fi_status fi_bmm_fp8(const fi_exec* exec, const fi_bmm_fp8_args* args);
// ---------------------------------------------------------------- sampling
// Draws from, and renormalises, rows of probabilities p[0:vocab], vocab <= FI_MAX_VOCAB. A row need
// not sum to 1. NaN and negative entries count as 0 and infinity as the largest float.
//
// Sums are exact, so no result depends on the order in which threads add up, and the CPU and CUDA
// give the same ones: an entry has the integer weight
//   w[i] = min(round_to_even(p[i] 2^e), 2^43),  with e = 42 where that makes 2^41 <= W < 3 2^41,
// W = sum_i w[i], as for every row that sums to a number in [0.5, 1.5). Otherwise e is
// 22 - floor(log2(max_i p[i])), and if W is still not in that range, e + 41 - floor(log2(W)).
//
// The filters keep entry i where all of these hold; equal entries are kept or dropped together:
//   top-k:  #{j: p[j] > p[i]} < k
//   top-p:  sum_{j: p[j] > p[i]} w[j] < max(1, ceil(top_p 2^e)): top_p is a probability, not a
//           share of the row's sum. With top_k_first and top-k on, the sum is over the entries that
//           top-k keeps, and theirs takes the place of 2^e
//   min-p:  p[i] >= min_p * max_j p[j], the product rounded to fp32
// top_k NULL and top_k_value 0, top_p >= 1 and min_p <= 0 switch a filter off; k < 1 from an array
// counts as 1. Arrays have an element per row and, where not NULL, replace the value.
#define FI_MAX_VOCAB (1 << 20)

// samples[r] = the smallest i with sum_{j <= i} w[j] > floor(uniform[r] W), both sums over the
// entries kept, the product in fp64, clamped to 0..W-1. So it is an entry that is kept and
// positive, and its probability w[i] / W up to the resolution of `uniform`. A row with nothing
// positive gives 0, and 0 in `success`, which is 1 otherwise.
typedef struct fi_sample_args {
  int64_t rows, vocab;
  const float* probs;
  int64_t probs_stride;
  const float* uniform;  // [rows] in [0, 1)
  int32_t* samples;      // [rows]
  uint8_t* success;      // [rows] or NULL
  const int32_t* top_k;
  int64_t top_k_value;
  const float* top_p;
  float top_p_value;
  const float* min_p;
  float min_p_value;
  int32_t top_k_first;
} fi_sample_args;
FI_API fi_status fi_sample(const fi_exec* exec, const fi_sample_args* args);

// out[i] = p[i] / (W 2^-e) where the filters keep i, W the sum of what they keep, and 0 elsewhere.
typedef struct fi_renorm_probs_args {
  int64_t rows, vocab;
  const float* probs;
  int64_t probs_stride;
  float* out;
  int64_t out_stride;
  const int32_t* top_k;
  int64_t top_k_value;
  const float* top_p;
  float top_p_value;
} fi_renorm_probs_args;
FI_API fi_status fi_renorm_probs(const fi_exec* exec, const fi_renorm_probs_args* args);

// out[i] = logits[i] where top-k keeps i, and -inf elsewhere. A NaN counts as less than -inf.
typedef struct fi_mask_logits_args {
  int64_t rows, vocab;
  const float* logits;
  int64_t logits_stride;
  float* out;
  int64_t out_stride;
  const int32_t* top_k;
  int64_t top_k_value;
} fi_mask_logits_args;
FI_API fi_status fi_mask_logits(const fi_exec* exec, const fi_mask_logits_args* args);

// The k largest entries of every row, 1 <= k <= columns <= FI_MAX_VOCAB. NaN is larger than all
// else, -0 equals 0. Of the entries that equal the least chosen one, those of smaller indices are
// chosen, or of larger ones with `last`. They come by ascending index, or `sorted`: by descending
// value, equal ones by ascending index, or descending with `last`. On CUDA k is at most
// FI_MAX_SORTED where they are sorted.
#define FI_MAX_SORTED 4096
typedef struct fi_top_k_args {
  fi_dtype dtype;  // fp16, bf16 or fp32
  int64_t rows, columns, k;
  const void* input;
  int64_t input_stride;
  void* values;      // [rows, k] of the dtype, contiguous
  int64_t* indices;  // [rows, k]
  int32_t sorted, last;
} fi_top_k_args;
FI_API fi_status fi_top_k(const fi_exec* exec, const fi_top_k_args* args);

// out[i] = e^(s x[i]) / sum_j e^(s x[j]), x the logits and s = 1 / temperature, or 0 where that is
// 0, in fp32 and against the largest s x[j], so that nothing overflows. An entry of -inf gives 0,
// whatever s is, and a row of nothing else zeros; one with NaN, or with s x[i] = inf, is NaN
// throughout. `out` may be `logits`.
typedef struct fi_softmax_args {
  int64_t rows, vocab;
  const float* logits;
  int64_t logits_stride;
  float* out;
  int64_t out_stride;
  const float* temperature;  // [rows], or NULL: the value
  float temperature_value;
} fi_softmax_args;
FI_API fi_status fi_softmax(const fi_exec* exec, const fi_softmax_args* args);

// Speculative sampling (Leviathan et al., Chen et al.) over a chain of num_draft tokens. With p the
// draft's and q the target's probability of draft token i, it is accepted where uniform[i] p < q;
// an id outside the vocabulary is not. The chain ends at the first token that is not accepted;
// there one is drawn from max(q - p, 0), as by fi_sample with uniform[i + 1], or behind a chain
// without rejection from the target's last row with uniform[num_draft]. If max(q - p, 0) is 0
// everywhere, the draw is from q. Of the row drawn from, e stays 42 down to a sum of 2^-11.
// output[i] is -1 behind the drawn token.
//   emitted[r] += the length of the accepted chain
//   accepted[r] += how many draft tokens are accepted when each is looked at alone
// All contiguous.
typedef struct fi_chain_speculative_args {
  int64_t rows, num_draft, vocab;
  const float* draft_probs;        // [rows, num_draft, vocab]
  const int32_t* draft_token_ids;  // [rows, num_draft]
  const float* uniform;            // [rows, num_draft + 1]
  const float* target_probs;       // [rows, num_draft + 1, vocab]
  int32_t* output_token_ids;       // [rows, num_draft + 1]
  int32_t* output_accepted;        // [rows]
  int32_t* output_emitted;         // [rows]
} fi_chain_speculative_args;
FI_API fi_status fi_chain_speculative(const fi_exec* exec, const fi_chain_speculative_args* args);

#ifdef __cplusplus
}
#endif

#endif  // FLASHINFER_API_H_
