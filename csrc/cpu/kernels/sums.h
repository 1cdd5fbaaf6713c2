// Sums over a row, whatever its terms are, to a few roundings.
#ifndef FLASHINFER_CPU_KERNELS_SUMS_H_
#define FLASHINFER_CPU_KERNELS_SUMS_H_

#include "cpu/kernels/vec.h"

namespace flashinfer {
namespace cpu {
namespace {

// The sum over 0 <= i < n of what terms.add(sum, i, lanes) adds; it adds 0 in lanes past the end.
template <class Terms>
FLASHINFER_INLINE float sum_each(int64_t n, const Terms& terms) {
  constexpr int kChains = 4;  // independent sums, to hide the latency of an addition
  constexpr int64_t kStep = kChains * kLanes;
  // As many terms have a sum of their own: one for all would be the worse the longer the row.
  constexpr int64_t kBlock = 32 * kStep;
  F32 total = F32{};
  F32 sums[kChains] = {};
  int64_t i = 0;
  while (i + kStep <= n) {
    const int64_t end = n - i < kBlock ? n : i + kBlock;
    for (F32& sum : sums) sum = F32{};
    for (; i + kStep <= end; i += kStep) {
      for (int c = 0; c < kChains; ++c) {
        sums[c] = terms.add(sums[c], i + c * kLanes, Whole{});
      }
    }
    total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
  sums[0] = sums[1] = F32{};
  for (; i + kLanes <= n; i += kLanes) sums[0] = terms.add(sums[0], i, Whole{});
  if (i < n) sums[1] = terms.add(sums[1], i, Part{n - i});
  return sum(total + (sums[0] + sums[1]));
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_SUMS_H_
