// Adds up the partial states of tiles whose keys were split.
#ifndef FLASHINFER_CPU_KERNELS_ATTENTION_MERGE_H_
#define FLASHINFER_CPU_KERNELS_ATTENTION_MERGE_H_

#include "cpu/kernels/attention_rows.h"

namespace flashinfer {
namespace cpu {
namespace {

// row[0..d) += weight * v
FLASHINFER_INLINE void add_state(float* row, const float* v, float weight, int64_t d) {
  const auto add = [&](int64_t i, auto count) {
    store(row + i, fma(load(v + i, count), broadcast(weight), load(row + i, Whole{})), Whole{});
  };
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) add(i, Whole{});
  if (i < d) add(i, Part{d - i});
}

// One row of a tile and KV head: the states in slots first_slot.. are added up in their order. A
// state of weight 0 is not read.
FLASHINFER_INLINE void merge_row(const fi_attention_args& args, const fi_attention_merge& merge,
                                 int64_t kv_head, int64_t r) {
  const int64_t group = args.num_qo_heads / args.num_kv_heads;
  const int64_t stride = args.num_kv_heads * args.tile_rows;  // between slots, in rows
  const int64_t first = merge.first_slot * stride + kv_head * args.tile_rows + r;
  const float* lse = args.partial_lse + first;
  float top = -__builtin_inff();
  for (int64_t i = 0; i < merge.num_slots; ++i) {
    top = top > lse[i * stride] ? top : lse[i * stride];
  }
  const float base = top == -__builtin_inff() ? 0.0f : top;
  float total = 0.0f;
  float sums[kMaxLatentDim + kLanes] = {};  // the widest that there is
  for (int64_t i = 0; i < merge.num_slots; ++i) {
    const float weight = exp2_nonpositive(broadcast(lse[i * stride] - base))[0];
    if (weight == 0.0f) continue;
    total += weight;
    add_state(sums, args.partial_out + (first + i * stride) * args.head_dim, weight, args.head_dim);
  }
  const int64_t row = merge.row_begin + r;
  store_result(args, merge.qo_begin + row / group, kv_head * group + row % group, sums, total, top);
}

void attention_merges(void* arg, int64_t begin, int64_t end) {
  const AttentionJob& job = *static_cast<const AttentionJob*>(arg);
  const fi_attention_args& args = *job.args;
  for (int64_t unit = begin; unit < end; ++unit) {
    const fi_attention_merge& merge = job.merges[unit / args.num_kv_heads];
    const int64_t all = merge.qo_len * (args.num_qo_heads / args.num_kv_heads);
    const int64_t left = all - merge.row_begin;
    const int64_t count = left < args.tile_rows ? left : args.tile_rows;
    for (int64_t r = 0; r < count; ++r) merge_row(args, merge, unit % args.num_kv_heads, r);
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_ATTENTION_MERGE_H_
