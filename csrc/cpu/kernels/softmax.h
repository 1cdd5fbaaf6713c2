// Softmax with a temperature, a row at a time: the maximum, the exponentials and their sum, and,
// from the cache, what they are divided by.
#ifndef FLASHINFER_CPU_KERNELS_SOFTMAX_H_
#define FLASHINFER_CPU_KERNELS_SOFTMAX_H_

#include <cfloat>
#include <cmath>

#include "cpu/kernels/math.h"
#include "cpu/kernels/sums.h"
#include "flashinfer/api.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

// Logits, or with a negative temperature their opposites: the largest is where the exponent is
// largest.
struct OrderedRow {
  const float* logits;
  uint32_t sign;  // 0, or the bit to change
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return float_of(bits_of(load(logits + i, count)) ^ sign);
  }
};

// The largest entry; NaN is left out.
FLASHINFER_INLINE float largest(const OrderedRow& row, int64_t n) {
  constexpr int kChains = 4;
  F32 most[kChains];
  for (F32& part : most) part = broadcast(kMinusInfinity);
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
    for (int c = 0; c < kChains; ++c) {
      const F32 y = row.at(i + c * kLanes, Whole{});
      most[c] = select(y > most[c], y, most[c]);
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    const F32 y = row.at(i, Whole{});
    most[0] = select(y > most[0], y, most[0]);
  }
  float top = kMinusInfinity;
  for (; i < n; ++i) {
    const float y = row.sign != 0 ? -row.logits[i] : row.logits[i];
    top = y > top ? y : top;
  }
  for (const F32& part : most) {
    float lanes[kLanes];
    std::memcpy(lanes, &part, sizeof(lanes));
    for (const float lane : lanes) top = lane > top ? lane : top;
  }
  return top;
}

// 2^(factor (y - most)), written to `out` and added up. -inf is 0 beside a `most` that is -inf too,
// and with a factor of 0.
struct Exponentials {
  OrderedRow row;
  float factor, most;
  float* out;

  template <class Count>
  FLASHINFER_INLINE F32 of(int64_t i, Count count) const {
    const F32 y = row.at(i, count);
    return select(y == kMinusInfinity, F32{}, exp2_nonpositive((y - most) * factor));
  }
  template <class Count>
  FLASHINFER_INLINE F32 add(F32 sum, int64_t i, Count count) const {
    const F32 power = of(i, count);
    store(out + i, power, count);
    return sum + only(power, count);
  }
};

struct TimesFactor {
  const float* row;
  float factor;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return load(row + i, count) * factor;
  }
};

void softmax_rows(void* arg, int64_t begin, int64_t end) {
  const fi_softmax_args& args = *static_cast<const fi_softmax_args*>(arg);
  for (int64_t r = begin; r < end; ++r) {
    const float temperature =
        args.temperature == nullptr ? args.temperature_value : args.temperature[r];
    const float s = temperature == 0.0f ? 0.0f : 1.0f / temperature;
    const OrderedRow row{args.logits + r * args.logits_stride, s < 0.0f ? 0x80000000u : 0u};
    float factor = (s < 0.0f ? -s : s) * 1.44269504f;  // log2(e)
    // Infinity times the 0 of the largest entry would be NaN; a NaN stays one.
    if (factor > FLT_MAX) factor = FLT_MAX;
    float* out = args.out + r * args.out_stride;
    const Exponentials powers{row, factor, largest(row, args.vocab), out};
    const float sum = sum_each(args.vocab, powers);
    store_each(out, args.vocab, TimesFactor{out, sum == 0.0f ? 0.0f : 1.0f / sum});
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_SOFTMAX_H_
