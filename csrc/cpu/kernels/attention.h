// Attention, a unit at a time: one item of the plan and one KV head. Tiles of keys go through the
// online softmax in fp32. With few query rows the scores and sums come straight from the stored
// rows of K and V; with many, a tile is first copied to fp32, K transposed.
#ifndef FLASHINFER_CPU_KERNELS_ATTENTION_H_
#define FLASHINFER_CPU_KERNELS_ATTENTION_H_

#include "cpu/isa.h"
#include "cpu/kernels/attention_direct.h"
#include "cpu/kernels/attention_rows.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr int64_t kFewRows = 4;  // up to which a tile is read without copying it

// Scratch of one thread, 272 KB at head_dim 256: it stays in the second-level cache.
struct Scratch {
  float* memory;
  Matrix q, out;  // [kBlockOfRows x d]
  Matrix scores;  // [kBlockOfRows x kTileKeys]
  Matrix rows;    // [kTileKeys x d]: K before it is transposed, then V
  Matrix keys;    // [d x kTileKeys]: K transposed

  explicit Scratch(int64_t d) {
    const int64_t stride = (d + kLanes - 1) / kLanes * kLanes;
    const int64_t sizes[] = {kBlockOfRows * stride, kBlockOfRows * stride, kBlockOfRows * kTileKeys,
                             kTileKeys * stride, kTileKeys * stride};
    int64_t total = 0;
    for (const int64_t size : sizes) total += size;
    memory = static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(total) * 4));
    if (memory == nullptr) return;
    float* at = memory;
    Matrix* const parts[] = {&q, &out, &scores, &rows, &keys};
    for (int i = 0; i < 5; ++i) {
      *parts[i] = {at, i == 2 || i == 4 ? kTileKeys : stride};
      at += sizes[i];
    }
  }
  ~Scratch() { std::free(memory); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

FLASHINFER_INLINE int32_t within(int64_t x, int64_t count) {
  return static_cast<int32_t>(x < 0 ? 0 : x > count ? count : x);
}

// One tile's scores to probabilities; what the rows added up so far is scaled to their new tops.
__attribute__((noinline)) void softmax_tile(const AttentionJob& job, const QueryRows& rows,
                                            int64_t begin, int64_t count, RowState* states,
                                            Matrix scores, Matrix out) {
  const fi_attention_args& args = rows.args;
  RowRules rules = {};
  rules.cap = args.logits_soft_cap > 0.0f ? args.logits_soft_cap * kLog2E : 0.0f;
  const bool plain = args.logits_soft_cap <= 0.0f && job.slopes == nullptr &&
                     args.mask_mode != FI_MASK_CUSTOM && count % kLanes == 0;
  for (int64_t r = 0; r < rows.count; ++r) {
    const QueryRows::Row& row = rows.row[r];
    float* const row_scores = scores.at + r * scores.stride;
    rules.begin = within(rows.key_begin(r) - begin, count);
    rules.end = within(rows.key_end(r) - begin, count);
    float factor;
    if (plain && rules.begin == 0 && rules.end == count) {
      factor = softmax_row(row_scores, count, PlainScores{}, states[r]);
    } else {
      rules.slope = job.slopes != nullptr ? job.slopes[row.head] : 0.0f;
      rules.distance = static_cast<float>(begin - row.position);
      if (args.mask_mode == FI_MASK_CUSTOM) {
        const int64_t bit = row.token * rows.item.kv_len + begin;
        rules.mask = args.mask + args.mask_indptr[rows.item.request] + bit / 8;
        rules.mask_shift = static_cast<int32_t>(bit % 8);
        rules.mask_bytes = static_cast<int32_t>((bit % 8 + count + 7) / 8);
      }
      factor = softmax_row(row_scores, count, RuledScores{rules}, states[r]);
    }
    if (factor != 1.0f) scale_row(out.at + r * out.stride, out.stride, factor);
  }
}

// Rows [first, first + count) of an item through the keys that any of them sees.
template <class T>
FLASHINFER_INLINE void attend(const AttentionJob& job, const QueryRows& rows, Scratch& scratch) {
  const fi_attention_args& args = rows.args;
  const int64_t d = args.head_dim;
  const bool few = rows.count <= kFewRows;
  load_queries(
      rows, job.turns,
      args.logits_soft_cap > 0.0f ? args.sm_scale / args.logits_soft_cap : args.sm_scale * kLog2E,
      scratch.q);
  RowState states[kBlockOfRows];
  for (int64_t r = 0; r < rows.count; ++r) states[r] = {F32{}, F32{}, -__builtin_inff()};
  std::memset(scratch.out.at, 0, static_cast<size_t>(rows.count * scratch.out.stride) * 4);

  TileRows<T> tiles[2];
  const int64_t end = rows.key_end(rows.count - 1);
  const auto keys_from = [end](int64_t j) { return end - j < kTileKeys ? end - j : kTileKeys; };
  int64_t j = rows.key_begin(0);
  if (j < end) find_rows(args, rows.item, rows.kv_head, j, keys_from(j), tiles[0]);
  for (int i = 0; j < end; j += kTileKeys, i ^= 1) {
    const TileRows<T>& tile = tiles[i];
    const bool last = j + kTileKeys >= end;
    if (!last) {
      find_rows(args, rows.item, rows.kv_head, j + kTileKeys, keys_from(j + kTileKeys),
                tiles[i ^ 1]);
    }
    const TileRows<T>& next = tiles[last ? i : i ^ 1];
    const int64_t count = keys_from(j);
    if (few && job.turns == nullptr) {
      direct_scores(scratch.q, tile.k, next.k, rows.count, count, d, scratch.scores);
    } else {
      copy_rows(tile.k, next.k, count, scratch.rows, d);
      if (job.turns != nullptr) turn_rows(scratch.rows, count, d, j, job.turns);
      transpose(scratch.rows, scratch.keys, count, scratch.rows.stride);
      multiply<false>(scratch.q, scratch.keys, scratch.scores, rows.count,
                      (count + kLanes - 1) / kLanes * kLanes, d);
    }
    softmax_tile(job, rows, j, count, states, scratch.scores, scratch.out);
    if (few) {
      direct_sums(scratch.scores, tile.v, next.v, rows.count, count, d, scratch.out);
    } else {
      copy_rows(tile.v, next.v, count, scratch.rows, d);
      multiply<true>(scratch.scores, scratch.rows, scratch.out, rows.count, scratch.rows.stride,
                     count);
    }
  }
  store_rows(rows, states, scratch.out);
}

// The range says only how many threads there are: each takes the next unit until none is left, so
// that long and short units spread evenly.
template <class T>
void attention_units(void* arg, int64_t, int64_t) {
  const AttentionJob& job = *static_cast<const AttentionJob*>(arg);
  const fi_attention_args& args = *job.args;
  const int64_t group = args.num_qo_heads / args.num_kv_heads;
  Scratch scratch(args.head_dim);
  if (scratch.memory == nullptr) {
    __atomic_store_n(job.no_memory, 1, __ATOMIC_RELAXED);
    return;
  }
  for (;;) {
    const int64_t unit = __atomic_fetch_add(job.next_unit, 1, __ATOMIC_RELAXED);
    if (unit >= job.num_items * args.num_kv_heads) return;
    const fi_attention_item& item = job.items[unit / args.num_kv_heads];
    const int64_t item_end = item.row_begin + args.tile_rows;
    const int64_t all = item.qo_len * group;
    const int64_t end = item_end < all ? item_end : all;
    for (int64_t first = item.row_begin; first < end; first += kBlockOfRows) {
      const int64_t count = end - first < kBlockOfRows ? end - first : kBlockOfRows;
      attend<T>(job, QueryRows(args, item, unit % args.num_kv_heads, first, count), scratch);
    }
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_ATTENTION_H_
