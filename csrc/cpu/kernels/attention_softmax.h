// Scores of a tile of keys to probabilities: soft cap, bias, mask and the online softmax, base 2.
#ifndef FLASHINFER_CPU_KERNELS_ATTENTION_SOFTMAX_H_
#define FLASHINFER_CPU_KERNELS_ATTENTION_SOFTMAX_H_

#include "cpu/kernels/math.h"
#include "cpu/kernels/matmul.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr float kLog2E = 1.44269504f;

// What a row adds up while it goes through the keys.
struct RowState {
  F32 total;  // of the probabilities, lane by lane
  F32 lost;   // what rounding took from `total` (Kahan's summation): over many keys it adds up
  float top;  // the largest score so far; -inf before any key
};

// What happens to a row's scores in one tile. Keys are counted from the tile's first.
struct RowRules {
  float cap;            // base-2 units; 0: none. Then scores come divided by the cap
  float slope;          // ALiBi, base 2: slope * (key + distance) is added
  float distance;       // the tile's first key less the row's position
  int32_t begin, end;   // the keys that the row sees, if no mask says otherwise
  const uint8_t* mask;  // NULL, or the bytes with the bit of the tile's first key
  int32_t mask_shift;   // that bit in the first byte
  int32_t mask_bytes;   // how many bytes may be read
};

FLASHINFER_INLINE float largest(F32 x) {
  float lanes[kLanes];
  std::memcpy(lanes, &x, sizeof(lanes));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  }
  return lanes[0];
}

FLASHINFER_INLINE F32 tanh(F32 x) {
  const F32 e = exp_nonpositive(-2.0f * abs(x));
  const F32 magnitude = (1.0f - e) / (1.0f + e);
  const F32 signed_value = float_of(bits_of(magnitude) | (bits_of(x) & 0x80000000u));
  return select(x == x, signed_value, x);
}

// Bits [i, i + kLanes) of the row's mask, one a lane.
FLASHINFER_INLINE I32 mask_lanes(const RowRules& rules, int64_t i) {
  const int64_t bit = i + rules.mask_shift;
  const int64_t first = bit / 8;
  uint32_t word = 0;
  for (int64_t byte = 0; byte < 4 && first + byte < rules.mask_bytes; ++byte) {
    word |= static_cast<uint32_t>(rules.mask[first + byte]) << (8 * byte);
  }
  word >>= bit % 8;
  I32 lane_bit;
  for (int lane = 0; lane < kLanes; ++lane) lane_bit[lane] = 1 << lane;
  return ((I32{} + static_cast<int32_t>(word)) & lane_bit) != 0;
}

// The score as it goes into the softmax.
FLASHINFER_INLINE F32 final_score(F32 x, int64_t i, const RowRules& rules) {
  I32 lane;
  for (int j = 0; j < kLanes; ++j) lane[j] = j;
  const I32 key = lane + static_cast<int32_t>(i);
  if (rules.cap > 0.0f) x = tanh(x) * rules.cap;
  if (rules.slope != 0.0f) {
    x = fma(__builtin_convertvector(key, F32) + rules.distance, broadcast(rules.slope), x);
  }
  I32 seen = (key >= rules.begin) & (key < rules.end);
  if (rules.mask != nullptr) seen &= mask_lanes(rules, i);
  return select(seen, x, broadcast(-__builtin_inff()));
}

// Nothing happens to these scores.
struct PlainScores {
  FLASHINFER_INLINE F32 operator()(F32 x, int64_t) const { return x; }
};
struct RuledScores {
  const RowRules& rules;
  FLASHINFER_INLINE F32 operator()(F32 x, int64_t i) const { return final_score(x, i, rules); }
};

// Turns `count` scores into probabilities against the row's new top, and returns the factor that
// takes what the row has added up to that top.
template <class Score>
FLASHINFER_INLINE float softmax_row(float* scores, int64_t count, const Score& score,
                                    RowState& state) {
  F32 top = broadcast(state.top);
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32 x = score(load(scores + i, Whole{}), i);
    store(scores + i, x, Whole{});
    top = select(x > top, x, top);
  }
  const float new_top = largest(top);
  const F32 base = broadcast(new_top == -__builtin_inff() ? 0.0f : new_top);
  const float factor = exp2_nonpositive(broadcast(state.top) - base)[0];
  F32 tile = F32{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32 p = exp2_nonpositive(load(scores + i, Whole{}) - base);
    store(scores + i, p, Whole{});
    tile += p;
  }
  const F32 before = state.total * factor;
  const F32 more = tile - state.lost * factor;
  const F32 total = before + more;
  state = {total, (total - before) - more, new_top};
  return factor;
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_ATTENTION_SOFTMAX_H_
