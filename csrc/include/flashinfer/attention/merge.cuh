// Adding up the partial states of the tiles that a plan has split.
#ifndef FLASHINFER_ATTENTION_MERGE_CUH_
#define FLASHINFER_ATTENTION_MERGE_CUH_

#include <cmath>
#include <cstdint>

#include "flashinfer/attention/output.cuh"

namespace flashinfer {

struct AttentionMergeParams {
  AttentionParams attention;
  int head_dim;
  int64_t item_capacity;
};

constexpr int kAttentionMergeThreads = 128;
constexpr int kMergeBatch = 4;  // slots whose loads are on their way together

// How many groups of threads share the slots of a row. Few slots: none do, and a block has more
// rows. Nor are many groups needed where a tile has many rows to fill the device with.
__host__ __device__ constexpr int merge_groups(int num_slots, int head_dim, int tile_rows) {
  const int limit = tile_rows <= 16 ? 8 : 2;
  int groups = 1;
  while (groups < limit && groups * kMergeBatch < num_slots &&
         groups * 2 * (head_dim / 8) <= kAttentionMergeThreads) {
    groups *= 2;
  }
  return groups;
}

// The rows of a block, at the least.
constexpr int min_merge_rows(int head_dim, int tile_rows) {
  return kAttentionMergeThreads / (head_dim / 8 * merge_groups(1 << 30, head_dim, tile_rows));
}

// Eight columns of a state that is being added up: `out` and `row_sum` are relative to 2^row_max.
struct MergedState {
  float row_max = -INFINITY, row_sum = 0.0f;
  float out[8] = {};

  __device__ __forceinline__ void scale_to(float now) {
    const float rescale = row_max == -INFINITY ? 0.0f : exp2_fast(row_max - now);
    row_max = now;
    row_sum *= rescale;
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] *= rescale;
  }

  __device__ __forceinline__ void add(float lse, float more_sum, const float (&more)[8]) {
    if (lse == -INFINITY) return;
    const float weight = exp2_fast(lse - row_max);
    row_sum += weight * more_sum;
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = fmaf(weight, more[i], out[i]);
  }
};

// Slots first, first + step, ... below num_slots, a batch at a time.
__device__ __forceinline__ MergedState merge_slots(const float* lse, const float* out,
                                                   int64_t slot_rows, int head_dim, int first,
                                                   int step, int num_slots) {
  MergedState state;
#pragma unroll 1
  for (int slot = first; slot < num_slots; slot += kMergeBatch * step) {
    float lses[kMergeBatch], outs[kMergeBatch][8] = {};
    float now = state.row_max;
#pragma unroll
    for (int i = 0; i < kMergeBatch; ++i) {
      const int64_t row = (slot + static_cast<int64_t>(i) * step) * slot_rows;
      lses[i] = -INFINITY;
      if (slot + i * step >= num_slots) continue;
      lses[i] = load_once(lse + row);
#pragma unroll
      for (int part = 0; part < 8; part += 4) {
        const auto* four = reinterpret_cast<const Vec<float, 4>*>(out + row * head_dim + part);
        const Vec<float, 4> loaded = load_once(four);
#pragma unroll
        for (int j = 0; j < 4; ++j) outs[i][part + j] = bits_as<float>(loaded.words[j]);
      }
    }
#pragma unroll
    for (int i = 0; i < kMergeBatch; ++i) now = fmaxf(now, lses[i]);
    state.scale_to(now);
#pragma unroll
    for (int i = 0; i < kMergeBatch; ++i) state.add(lses[i], 1.0f, outs[i]);
  }
  return state;
}

// A block has a merge of the plan, a KV head and some rows of the tile. A thread has eight columns
// of a row, and every merge_groups()-th slot. All orders are fixed, so the result is always the
// same.
template <typename T>
__global__ void __launch_bounds__(kAttentionMergeThreads)
    attention_merge_kernel(const AttentionMergeParams merge) {
  __shared__ float outs[kAttentionMergeThreads][8];
  __shared__ float lses[kAttentionMergeThreads], sums[kAttentionMergeThreads];
  const AttentionParams& p = merge.attention;
  if (static_cast<int>(blockIdx.x) >= load_readonly(p.plan + 1)) return;
  const int32_t* words = p.plan + FI_PLAN_HEADER + merge.item_capacity * FI_PLAN_ITEM +
                         static_cast<int64_t>(blockIdx.x) * FI_PLAN_MERGE;
  Rows rows{};
  rows.group = p.group;
  rows.kv_head = blockIdx.y;
  rows.item.qo_begin = load_readonly(words);
  rows.item.qo_len = load_readonly(words + 1);
  rows.first = load_readonly(words + 2);
  rows.item.slot = load_readonly(words + 3);
  const int num_slots = load_readonly(words + 4);
  const int rows_left = rows.item.qo_len * p.group - rows.first;
  rows.count = rows_left < p.tile_rows ? rows_left : p.tile_rows;

  const int row_threads = merge.head_dim / 8;
  const int groups = merge_groups(num_slots, merge.head_dim, p.tile_rows);
  const int block_rows = kAttentionMergeThreads / (row_threads * groups);
  if (static_cast<int>(blockIdx.z) * block_rows >= rows.count) return;
  const int thread = threadIdx.x, group = thread / row_threads % groups;
  const int row = static_cast<int>(blockIdx.z) * block_rows + thread / row_threads / groups;
  const int column = thread % row_threads * 8;

  MergedState state;
  if (row < rows.count) {
    const int64_t first_row = rows.partial(p, row);
    state =
        merge_slots(p.partial_lse + first_row, p.partial_out + first_row * merge.head_dim + column,
                    static_cast<int64_t>(p.num_kv_heads) * p.tile_rows, merge.head_dim, group,
                    groups, num_slots);
  }
  if (groups > 1) {
    lses[thread] = state.row_max;
    sums[thread] = state.row_sum;
#pragma unroll
    for (int i = 0; i < 8; ++i) outs[thread][i] = state.out[i];
    __syncthreads();
    if (group > 0 || row >= rows.count) return;
    float now = state.row_max;
    for (int g = 1; g < groups; ++g) now = fmaxf(now, lses[thread + g * row_threads]);
    state.scale_to(now);
    for (int g = 1; g < groups; ++g) {
      const int other = thread + g * row_threads;
      state.add(lses[other], sums[other], outs[other]);
    }
  } else if (row >= rows.count) {
    return;
  }
  const float factor = state.row_sum > 0.0f ? reciprocal(state.row_sum) : 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) state.out[i] *= factor;
  rows.item.slot = -1;  // the whole now
  write_columns<T>(p, rows, row, column, merge.head_dim, state.out);
  if (column == 0) write_lse(p, rows, row, log_sum(state.row_max, state.row_sum));
}

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_MERGE_CUH_
