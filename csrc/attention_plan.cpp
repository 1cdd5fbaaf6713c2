#include "attention_plan.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <vector>

#include "backend.h"

namespace flashinfer {
namespace {

constexpr const char* kOp = "attention_plan";

struct Tile {
  int32_t request;
  int32_t row_begin;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

fi_status check(const fi_attention_plan_args& args) {
  if (args.batch_size < 0) {
    return fail(FI_INVALID_ARGUMENT, "%s: batch_size is %lld, expected 0 or more", kOp,
                static_cast<long long>(args.batch_size));
  }
  if (args.num_kv_heads <= 0 || args.num_qo_heads <= 0 ||
      args.num_qo_heads % args.num_kv_heads != 0) {
    return fail(
        FI_INVALID_ARGUMENT, "%s: %lld query heads and %lld KV heads, expected a positive multiple",
        kOp, static_cast<long long>(args.num_qo_heads), static_cast<long long>(args.num_kv_heads));
  }
  if (args.result == nullptr || args.max_slots < 0 || args.tile_rows < 0) {
    return fail(FI_INVALID_ARGUMENT, "%s: result is NULL, or max_slots or tile_rows negative", kOp);
  }
  if (args.batch_size > 0 && args.qo_indptr[0] != 0) {
    return fail(FI_INVALID_ARGUMENT, "%s: qo_indptr[0] is %d, expected 0", kOp, args.qo_indptr[0]);
  }
  const int64_t group = args.num_qo_heads / args.num_kv_heads;
  for (int64_t b = 0; b < args.batch_size; ++b) {
    if (args.qo_indptr[b + 1] < args.qo_indptr[b]) {
      return fail(FI_INVALID_ARGUMENT, "%s: qo_indptr[%lld] is %d, expected %d or more", kOp,
                  static_cast<long long>(b + 1), args.qo_indptr[b + 1], args.qo_indptr[b]);
    }
    if (args.kv_len[b] < 0 || args.kv_base[b] < 0) {
      return fail(FI_INVALID_ARGUMENT, "%s: request %lld has %d keys from %d on", kOp,
                  static_cast<long long>(b), args.kv_len[b], args.kv_base[b]);
    }
    const int64_t rows = (int64_t{args.qo_indptr[b + 1]} - args.qo_indptr[b]) * group;
    if (rows > INT_MAX) {
      return fail(FI_INVALID_ARGUMENT, "%s: request %lld has %lld rows, more than 2^31", kOp,
                  static_cast<long long>(b), static_cast<long long>(rows));
    }
  }
  return FI_OK;
}

std::vector<Tile> cut_rows(const fi_attention_plan_args& args, int64_t tile_rows) {
  const int64_t group = args.num_qo_heads / args.num_kv_heads;
  std::vector<Tile> tiles;
  for (int64_t b = 0; b < args.batch_size; ++b) {
    const int64_t rows = (int64_t{args.qo_indptr[b + 1]} - args.qo_indptr[b]) * group;
    for (int64_t row = 0; row < rows; row += tile_rows) {
      tiles.push_back({static_cast<int32_t>(b), static_cast<int32_t>(row)});
    }
  }
  return tiles;
}

// The number of items, and of slots, where no chunk is longer than `chunk` keys.
struct Counts {
  int64_t items = 0, slots = 0, merges = 0;
};
Counts count(const fi_attention_plan_args& args, const std::vector<Tile>& tiles, int64_t chunk) {
  Counts counts;
  for (const Tile& tile : tiles) {
    const int64_t chunks = std::max<int64_t>(1, ceil_div(args.kv_len[tile.request], chunk));
    counts.items += chunks;
    if (chunks > 1) {
      counts.slots += chunks;
      ++counts.merges;
    }
  }
  return counts;
}

// The shortest chunk, in steps of the granularity, that makes neither more items than fill the
// device nor more slots than there are.
int64_t choose_chunk(const fi_attention_plan_args& args, const std::vector<Tile>& tiles,
                     const PlanShape& shape) {
  int64_t longest = 1;
  for (const Tile& tile : tiles) longest = std::max<int64_t>(longest, args.kv_len[tile.request]);
  const int64_t step = shape.kv_granularity;
  int64_t fits = ceil_div(longest, step);  // no split at all
  int64_t low = std::max<int64_t>(1, ceil_div(shape.min_chunk, step));
  if (static_cast<int64_t>(tiles.size()) >= shape.parallel_items) return fits * step;
  while (low < fits) {
    const int64_t middle = low + (fits - low) / 2;
    const Counts counts = count(args, tiles, middle * step);
    if (counts.items <= shape.parallel_items && counts.slots <= args.max_slots) {
      fits = middle;
    } else {
      low = middle + 1;
    }
  }
  return fits * step;
}

}  // namespace

int64_t average_rows(const fi_attention_plan_args& args) {
  if (args.batch_size <= 0 || args.num_kv_heads <= 0) return 0;  // checked later
  const int64_t group = args.num_qo_heads / args.num_kv_heads;
  return ceil_div(int64_t{args.qo_indptr[args.batch_size]} * group, args.batch_size);
}

fi_status plan_attention(const fi_attention_plan_args& args, const PlanShape& shape) {
  if (const fi_status status = check(args)) return status;
  const std::vector<Tile> tiles = cut_rows(args, shape.tile_rows);
  const int64_t chunk_limit = choose_chunk(args, tiles, shape);
  const Counts counts = count(args, tiles, chunk_limit);
  *args.result = {shape.tile_rows, counts.items, counts.merges, counts.slots, shape.parallel_items};
  if (args.plan == nullptr) return FI_OK;
  if (counts.items > args.item_capacity || counts.merges > args.merge_capacity) {
    return fail(FI_INVALID_ARGUMENT,
                "%s: %lld items and %lld merges do not fit into a plan for %lld and %lld", kOp,
                static_cast<long long>(counts.items), static_cast<long long>(counts.merges),
                static_cast<long long>(args.item_capacity),
                static_cast<long long>(args.merge_capacity));
  }
  std::vector<fi_attention_item> items;
  std::vector<fi_attention_merge> merges;
  items.reserve(static_cast<size_t>(counts.items));
  int32_t slot = 0;
  for (auto tile = tiles.rbegin(); tile != tiles.rend(); ++tile) {
    const int32_t b = tile->request, kv_len = args.kv_len[b];
    const int32_t qo_begin = args.qo_indptr[b], qo_len = args.qo_indptr[b + 1] - qo_begin;
    const int64_t chunks = std::max<int64_t>(1, ceil_div(kv_len, chunk_limit));
    // Chunks of one size: with the limit itself the last one could be a remainder of a few keys.
    const int64_t chunk =
        std::max<int64_t>(1, round_up(ceil_div(kv_len, chunks), shape.kv_granularity));
    if (chunks > 1) {
      merges.push_back({qo_begin, qo_len, tile->row_begin, slot, static_cast<int32_t>(chunks)});
    }
    for (int64_t i = 0; i < chunks; ++i) {
      const int64_t begin = std::min<int64_t>(kv_len, i * chunk);
      const int64_t end = chunks == 1 ? kv_len : std::min<int64_t>(kv_len, begin + chunk);
      items.push_back({b, qo_begin, qo_len, args.kv_base[b], kv_len, tile->row_begin,
                       static_cast<int32_t>(begin), static_cast<int32_t>(end),
                       chunks > 1 ? slot++ : -1});
    }
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const fi_attention_item& a, const fi_attention_item& b) {
                     return a.kv_end - a.kv_begin > b.kv_end - b.kv_begin;
                   });
  int32_t* to = args.plan;
  const int32_t header[FI_PLAN_HEADER] = {static_cast<int32_t>(items.size()),
                                          static_cast<int32_t>(merges.size())};
  std::memcpy(to, header, sizeof(header));
  to += FI_PLAN_HEADER;
  if (!items.empty()) std::memcpy(to, items.data(), items.size() * sizeof(items[0]));
  to += FI_PLAN_ITEM * args.item_capacity;
  if (!merges.empty()) std::memcpy(to, merges.data(), merges.size() * sizeof(merges[0]));
  return FI_OK;
}

}  // namespace flashinfer
