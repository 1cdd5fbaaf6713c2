// What an attention kernel is told, and which rows and keys a block has.
#ifndef FLASHINFER_ATTENTION_PARAMS_CUH_
#define FLASHINFER_ATTENTION_PARAMS_CUH_

#include <cmath>
#include <cstdint>

#include "flashinfer/api.h"
#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"

namespace flashinfer {

// Keys or values. Strides are in bytes.
struct KvTensor {
  const char* data;
  int64_t page_stride, row_stride, head_stride;
};

// What every attention has: its queries, results and plan.
struct AttentionParams {
  const void* q;
  int64_t q_stride_n, q_stride_h;
  const int32_t* kv_indices;  // or NULL: rows
  int page_size;
  void* out;
  int64_t out_stride_n, out_stride_h;
  float* lse;  // or NULL
  const int32_t* plan;
  float* partial_out;
  float* partial_lse;
  int num_qo_heads, num_kv_heads, group;
  int tile_rows;  // of the plan: a multiple of the rows of a block
  bool causal;
  int window_left;
  float scale;  // of scores in base 2: sm_scale * log2(e)
  float v_scale;
};

constexpr int kMaxRopePairs = 128;

// And keys and values of heads.
struct KvAttentionParams : AttentionParams {
  KvTensor k, v;
};

// The options that only the general instantiation knows.
struct GeneralAttentionParams : KvAttentionParams {
  const uint8_t* mask;  // or NULL
  const int32_t* mask_indptr;
  float cap;        // logits_soft_cap * log2(e), or 0
  float cap_scale;  // of a score, to the exponent in cap_score()
  bool alibi;
  const float* alibi_slopes;  // or NULL: the usual ones
  int alibi_heads;            // the largest power of two that is at most num_qo_heads
  bool e5m2;                  // what an fp8 is
  bool rope;
  float rope_high[kMaxRopePairs], rope_low[kMaxRopePairs];  // see RopeFrequencies
};

__device__ __forceinline__ fi_attention_item read_item(const int32_t* plan, int64_t index) {
  const int32_t* words = plan + FI_PLAN_HEADER + index * FI_PLAN_ITEM;
  return {words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7], words[8]};
}

// Keys [begin, end), empty where end <= begin.
struct KeyRange {
  int begin, end;
};

// The rows of a block: rows [first, first + count) of the request, row = token * group + head.
struct Rows {
  fi_attention_item item;
  int group, kv_head;
  int first, count;
  int in_tile;  // of the first row, in the plan's tile

  __device__ __forceinline__ int token(int row) const { return (first + row) / group; }
  __device__ __forceinline__ int head(int row) const {
    return kv_head * group + (first + row) % group;
  }
  __device__ __forceinline__ int position(int token) const {
    return token + item.kv_len - item.qo_len;
  }
  // The keys of the chunk that a token sees; a custom mask may hide more.
  __device__ __forceinline__ KeyRange keys(const AttentionParams& p, int token) const {
    KeyRange range{item.kv_begin, item.kv_end};
    const int64_t last = position(token);
    if (p.causal && last < range.end) range.end = static_cast<int>(last + 1);
    if (p.window_left >= 0 && last - p.window_left > range.begin) {
      const int64_t left = last - p.window_left;
      range.begin = left < item.kv_end ? static_cast<int>(left) : item.kv_end;
    }
    return range;
  }
  // Where a row's partial state is.
  __device__ __forceinline__ int64_t partial(const AttentionParams& p, int row) const {
    return (static_cast<int64_t>(item.slot) * p.num_kv_heads + kv_head) * p.tile_rows + in_tile +
           row;
  }
};

// The rows of the running block, none where its tile has no more.
template <int kRows>
__device__ __forceinline__ Rows block_rows(const AttentionParams& p) {
  Rows rows{};
  rows.item = read_item(p.plan, blockIdx.x);
  rows.group = p.group;
  rows.kv_head = blockIdx.y;
  rows.in_tile = static_cast<int>(blockIdx.z) * kRows;
  rows.first = rows.item.row_begin + rows.in_tile;
  const int left = rows.item.qo_len * p.group - rows.first;
  rows.count = left < kRows ? left : kRows;
  return rows;
}

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_PARAMS_CUH_
