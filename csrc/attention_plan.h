// The planner of fi_attention: cuts requests into items of tile_rows rows and a chunk of keys.
//
// Host code, the same for both backends; they differ in the numbers of PlanShape. A plan knows
// nothing of mask, cap or window, which a caller may still change when it runs.
#ifndef FLASHINFER_ATTENTION_PLAN_H_
#define FLASHINFER_ATTENTION_PLAN_H_

#include "flashinfer/api.h"

namespace flashinfer {

// What a device wants of a plan.
struct PlanShape {
  int64_t tile_rows;       // rows of an item
  int64_t kv_granularity;  // chunks of keys are multiples of this, but for the last one
  int64_t min_chunk;       // keys below which a chunk is not worth its merge
  int64_t parallel_items;  // items that fill the device
};

// The rows of an average request, which tile_rows is chosen by: (token, head in group) pairs.
int64_t average_rows(const fi_attention_plan_args& args);

// Checks the arguments, fills args.result and, where it is not NULL, args.plan. Items are sorted by
// cost, the largest first; for one request a later tile comes first (it is longer under a causal
// mask). Splits until shape.parallel_items are reached and max_slots allow; a tile that is split
// has chunks of one size, in consecutive slots.
fi_status plan_attention(const fi_attention_plan_args& args, const PlanShape& shape);

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_PLAN_H_
