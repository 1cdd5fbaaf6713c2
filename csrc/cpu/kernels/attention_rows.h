// The query rows of an item: where they stand, how they come in and how their results go out.
#ifndef FLASHINFER_CPU_KERNELS_ATTENTION_ROWS_H_
#define FLASHINFER_CPU_KERNELS_ATTENTION_ROWS_H_

#include "cpu/isa.h"
#include "cpu/kernels/attention_softmax.h"
#include "cpu/kernels/attention_tile.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr int64_t kBlockOfRows = 64;  // query rows that go through the keys together

template <class Body>
FLASHINFER_INLINE void with_float_type(fi_dtype dtype, const Body& body) {
  switch (dtype) {
    case FI_FLOAT16:
      return body(Half{});
    case FI_BFLOAT16:
      return body(BFloat16{});
    default:
      return body(float{});
  }
}

// A block of query rows of one item and KV head: which token and head each is, and where it stands.
struct QueryRows {
  const fi_attention_args& args;
  const fi_attention_item& item;
  int64_t kv_head, first, count;
  struct Row {
    int64_t token, head, position;
  } row[kBlockOfRows];

  QueryRows(const fi_attention_args& arguments, const fi_attention_item& of, int64_t kv_head_of,
            int64_t first_row, int64_t rows)
      : args(arguments), item(of), kv_head(kv_head_of), first(first_row), count(rows) {
    const int64_t group = args.num_qo_heads / args.num_kv_heads;
    for (int64_t r = 0; r < count; ++r) {
      const int64_t token = (first + r) / group;
      row[r] = {token, kv_head * group + (first + r) % group, token + item.kv_len - item.qo_len};
    }
  }

  // The keys that a row may see, as far as causal mask and window say.
  int64_t key_begin(int64_t r) const {
    const int64_t first_key = args.window_left < 0 ? 0 : row[r].position - args.window_left;
    return first_key > item.kv_begin ? first_key : item.kv_begin;
  }
  int64_t key_end(int64_t r) const {
    const int64_t end = row[r].position + 1;
    return args.mask_mode == FI_MASK_CAUSAL && end < item.kv_end ? end : item.kv_end;
  }
};

FLASHINFER_INLINE void scale_row(float* row, int64_t size, float factor) {
  for (int64_t i = 0; i < size; i += kLanes) {
    store(row + i, load(row + i, Whole{}) * factor, Whole{});
  }
}

// q in fp32, turned and scaled.
__attribute__((noinline)) void load_queries(const QueryRows& rows, const double* turns, float scale,
                                            Matrix to) {
  const fi_attention_args& args = rows.args;
  with_float_type(args.q_dtype, [&](auto type) {
    for (int64_t r = 0; r < rows.count; ++r) {
      const auto* q = static_cast<const decltype(type)*>(args.q) +
                      (rows.item.qo_begin + rows.row[r].token) * args.q_stride_n +
                      rows.row[r].head * args.q_stride_h;
      float* row = to.at + r * to.stride;
      copy_row(q, row, args.head_dim);
      if (turns != nullptr) {
        turn_row(row, args.head_dim, static_cast<double>(rows.row[r].position), turns);
      }
      scale_row(row, to.stride, scale);
    }
  });
}

// Of a sum of weights against `top`; no weight at all: the sums are 0, the log is -inf.
FLASHINFER_INLINE float inverse_of(float total) { return total == 0.0f ? 0.0f : 1.0f / total; }
FLASHINFER_INLINE float log_sum(float total, float top) {
  return total == 0.0f ? -__builtin_inff() : top + log2_from_one(broadcast(total))[0];
}

struct FinishedRow {
  const float* row;
  float factor;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return load(row + i, count) * factor;
  }
};

// Writes one row's result: the sums by the total of their weights, all against `top`.
FLASHINFER_INLINE void store_result(const fi_attention_args& args, int64_t token, int64_t head,
                                    const float* sums, float total, float top) {
  if (args.lse != nullptr) args.lse[token * args.num_qo_heads + head] = log_sum(total, top);
  const FinishedRow row{sums, inverse_of(total) * args.v_scale};
  with_float_type(args.q_dtype, [&](auto type) {
    auto* out = static_cast<decltype(type)*>(args.out) + token * args.out_stride_n +
                head * args.out_stride_h;
    store_each(out, args.head_dim, row);
  });
}

// Writes the results of a block, or its partial states where the item has a slot.
__attribute__((noinline)) void store_rows(const QueryRows& rows, const RowState* states,
                                          Matrix out) {
  const fi_attention_args& args = rows.args;
  for (int64_t r = 0; r < rows.count; ++r) {
    const float total = sum(states[r].total), top = states[r].top;
    const float* sums = out.at + r * out.stride;
    if (rows.item.slot < 0) {
      store_result(args, rows.item.qo_begin + rows.row[r].token, rows.row[r].head, sums, total,
                   top);
      continue;
    }
    const int64_t at = (rows.item.slot * args.num_kv_heads + rows.kv_head) * args.tile_rows +
                       rows.first - rows.item.row_begin + r;
    args.partial_lse[at] = log_sum(total, top);
    store_each(args.partial_out + at * args.head_dim, args.head_dim,
               FinishedRow{sums, inverse_of(total)});
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_ATTENTION_ROWS_H_
