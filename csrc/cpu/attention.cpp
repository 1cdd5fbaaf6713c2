#include <algorithm>
#include <cmath>
#include <memory>
#include <new>

#include "attention_plan.h"
#include "cpu/attention_job.h"
#include "cpu/check.h"
#include "cpu/parallel.h"
#include "cpu/rope_turns.h"

namespace flashinfer {
namespace cpu {
namespace {

// (item, KV head) pairs that keep as many threads busy as a machine may have.
constexpr int64_t kParallelUnits = 128;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

fi_status check(const fi_attention_args& args) {
  const auto wrong = [](const char* name, int64_t value, const char* expected) {
    return fail(FI_INVALID_ARGUMENT, "attention: %s is %lld, expected %s", name,
                static_cast<long long>(value), expected);
  };
  const bool fp8 = args.kv_dtype == FI_FLOAT8_E4M3 || args.kv_dtype == FI_FLOAT8_E5M2;
  if (!fp8 && args.kv_dtype != args.q_dtype) {
    return wrong("kv_dtype", static_cast<int32_t>(args.kv_dtype), "q_dtype or an fp8 type");
  }
  if (args.head_dim < 8 || args.head_dim > kMaxHeadDim || args.head_dim % 8 != 0) {
    return wrong("head_dim", args.head_dim, "a multiple of 8 up to 256");
  }
  if (args.num_kv_heads < 1) return wrong("num_kv_heads", args.num_kv_heads, "1 or more");
  if (args.num_qo_heads < 1 || args.num_qo_heads % args.num_kv_heads != 0) {
    return wrong("num_qo_heads", args.num_qo_heads, "a multiple of num_kv_heads");
  }
  if (args.tile_rows < 1) return wrong("tile_rows", args.tile_rows, "1 or more");
  if (args.kv_indices != nullptr && args.page_size < 1) {
    return wrong("page_size", args.page_size, "1 or more");
  }
  if (args.mask_mode < FI_MASK_NONE || args.mask_mode > FI_MASK_CUSTOM) {
    return wrong("mask_mode", static_cast<int32_t>(args.mask_mode), "one of fi_mask_mode");
  }
  if (args.mask_mode == FI_MASK_CUSTOM && (args.mask == nullptr || args.mask_indptr == nullptr)) {
    return fail(FI_INVALID_ARGUMENT, "attention: mask or mask_indptr is NULL for FI_MASK_CUSTOM");
  }
  if (args.pos_encoding < FI_POS_NONE || args.pos_encoding > FI_POS_ALIBI) {
    return wrong("pos_encoding", static_cast<int32_t>(args.pos_encoding), "one of fi_pos_encoding");
  }
  return FI_OK;
}

// The numbers of an item that an address is computed from, and the pages of its keys.
fi_status check_item(const char* op, const fi_attention_args& args, const fi_attention_item& item,
                     int64_t i) {
  const auto wrong = [op, i](const char* name, int64_t value, int64_t from, int64_t to) {
    return fail(FI_INVALID_ARGUMENT, "%s: %s of item %lld is %lld, expected %lld to %lld", op, name,
                static_cast<long long>(i), static_cast<long long>(value),
                static_cast<long long>(from), static_cast<long long>(to));
  };
  constexpr int64_t kLargest = INT32_MAX;
  if (item.request < 0) return wrong("request", item.request, 0, kLargest);
  if (item.qo_begin < 0) return wrong("qo_begin", item.qo_begin, 0, kLargest);
  if (item.qo_len < 0) return wrong("qo_len", item.qo_len, 0, kLargest);
  if (item.row_begin < 0) return wrong("row_begin", item.row_begin, 0, kLargest);
  if (item.kv_base < 0) return wrong("kv_base", item.kv_base, 0, kLargest);
  if (item.kv_end < 0 || item.kv_end > item.kv_len) {
    return wrong("kv_end", item.kv_end, 0, item.kv_len);
  }
  if (item.kv_begin < 0 || item.kv_begin > item.kv_end) {
    return wrong("kv_begin", item.kv_begin, 0, item.kv_end);
  }
  if (item.slot >= 0 && (args.partial_out == nullptr || args.partial_lse == nullptr)) {
    return fail(FI_INVALID_ARGUMENT,
                "%s: partial_out or partial_lse is NULL, but item %lld writes to slot %d", op,
                static_cast<long long>(i), item.slot);
  }
  if (args.kv_indices == nullptr) return FI_OK;
  const int64_t last = item.kv_base + ceil_div(item.kv_end, args.page_size);
  for (int64_t entry = item.kv_base + item.kv_begin / args.page_size; entry < last; ++entry) {
    if (args.kv_indices[entry] < 0) {
      return fail(FI_INVALID_ARGUMENT, "%s: kv_indices[%lld] is %d, expected 0 or more", op,
                  static_cast<long long>(entry), args.kv_indices[entry]);
    }
  }
  return FI_OK;
}

fi_status check_merge(const char* op, const fi_attention_merge& merge, int64_t i) {
  const int32_t values[] = {merge.qo_begin, merge.qo_len, merge.row_begin, merge.first_slot,
                            merge.num_slots};
  for (const int32_t value : values) {
    if (value < 0) {
      return fail(FI_INVALID_ARGUMENT, "%s: merge %lld of the plan has a negative number %d", op,
                  static_cast<long long>(i), value);
    }
  }
  return FI_OK;
}

// Slopes as fi_pos_encoding has them, times log2(e). exp2l: see fill_turns on pow.
void fill_slopes(const fi_attention_args& args, float* slopes) {
  constexpr long double kLog2E = 1.44269504088896340736L;
  int64_t power = 1;
  while (2 * power <= args.num_qo_heads) power *= 2;
  const long double n = static_cast<long double>(power);
  for (int64_t h = 0; h < args.num_qo_heads; ++h) {
    const long double exponent = h < power
                                     ? -8.0L * static_cast<long double>(h + 1) / n
                                     : -4.0L * static_cast<long double>(2 * (h - power) + 1) / n;
    const long double slope =
        args.alibi_slopes != nullptr ? args.alibi_slopes[h] : std::exp2(exponent);
    slopes[h] = static_cast<float>(slope * kLog2E);
  }
}

}  // namespace

fi_status open_plan(const char* op, const fi_attention_args& args, AttentionJob* job) {
  const int64_t num_items = args.plan[0], num_merges = args.plan[1];
  if (num_items < 0 || num_items > args.item_capacity || num_merges < 0 ||
      num_merges > args.merge_capacity) {
    return fail(FI_INVALID_ARGUMENT,
                "%s: the plan has %lld items and %lld merges, expected up to %lld and %lld", op,
                static_cast<long long>(num_items), static_cast<long long>(num_merges),
                static_cast<long long>(args.item_capacity),
                static_cast<long long>(args.merge_capacity));
  }
  const void* first_item = args.plan + FI_PLAN_HEADER;
  const void* first_merge = args.plan + FI_PLAN_HEADER + FI_PLAN_ITEM * args.item_capacity;
  job->args = &args;
  job->items = static_cast<const fi_attention_item*>(first_item);
  job->merges = static_cast<const fi_attention_merge*>(first_merge);
  job->num_items = num_items;
  job->num_merges = num_merges;
  for (int64_t i = 0; i < num_items; ++i) {
    if (const fi_status status = check_item(op, args, job->items[i], i)) return status;
  }
  for (int64_t i = 0; i < num_merges; ++i) {
    if (const fi_status status = check_merge(op, job->merges[i], i)) return status;
  }
  return FI_OK;
}

int64_t unit_elements(const AttentionJob& job) {
  const fi_attention_args& args = *job.args;
  const fi_attention_item* items = job.items;
  const int64_t n = job.num_items;
  const int64_t group = args.num_qo_heads / args.num_kv_heads;
  int64_t elements = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t rows = std::min(args.tile_rows, items[i].qo_len * group - items[i].row_begin);
    elements += 2 * (items[i].kv_end - items[i].kv_begin) * (1 + rows / 8) + 2 * rows;
  }
  return n > 0 ? elements * args.head_dim / n : 0;
}

fi_status attention_plan(const fi_exec&, const fi_attention_plan_args& args) {
  // No number here may depend on the threads: a result would depend on them too.
  PlanShape shape{};
  const int64_t rows = average_rows(args);
  shape.tile_rows = args.tile_rows > 0 ? args.tile_rows : rows <= 16 ? 16 : rows <= 32 ? 32 : 64;
  shape.kv_granularity = 64;
  shape.min_chunk = 512;
  const int64_t heads = std::max<int64_t>(args.num_kv_heads, 1);
  shape.parallel_items = ceil_div(kParallelUnits, heads);
  return plan_attention(args, shape);
}

fi_status attention(const fi_exec& exec, const fi_attention_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("attention", args.q_dtype, &table)) return status;
  if (const fi_status status = check(args)) return status;
  int64_t next_unit = 0;
  int32_t no_memory = 0;
  AttentionJob job{};
  job.next_unit = &next_unit;
  job.no_memory = &no_memory;
  if (const fi_status status = open_plan("attention", args, &job)) return status;

  double turns[kMaxHeadDim / 2];
  if (args.pos_encoding == FI_POS_ROPE_LLAMA) {
    fi_rope_args rope{};
    rope.rotary_dim = args.head_dim;
    rope.rope_scale = args.rope_scale;
    rope.rope_theta = args.rope_theta;
    fill_turns(rope, turns);
    job.turns = turns;
  }
  std::unique_ptr<float[]> slopes;
  if (args.pos_encoding == FI_POS_ALIBI) {
    slopes.reset(new (std::nothrow) float[static_cast<size_t>(args.num_qo_heads)]);
    if (slopes == nullptr) no_memory = 1;
    if (slopes != nullptr) fill_slopes(args, slopes.get());
    job.slopes = slopes.get();
  }
  if (no_memory == 0) {
    for_ranges(exec, job.num_items * args.num_kv_heads, unit_elements(job),
               table->attention_units[args.kv_dtype], job);
  }
  if (no_memory != 0) return fail(FI_INVALID_ARGUMENT, "attention: no memory for scratch");
  for_ranges(exec, job.num_merges * args.num_kv_heads, 4 * args.tile_rows * args.head_dim,
             table->attention_merges, job);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
