// Running sums over a block, and the place where one reaches a number.
//
// Every thread of the block calls these together. blockDim.x is a multiple of 32, up to 1024.
#ifndef FLASHINFER_SAMPLING_SCAN_CUH_
#define FLASHINFER_SAMPLING_SCAN_CUH_

#include <cstdint>

#include "flashinfer/arch/reduce.cuh"

namespace flashinfer {

struct BlockShared {
  uint64_t partial[kMaxWarps];
  uint64_t before;
  uint32_t most[kMaxWarps];
  int found;
};

template <typename T>
__device__ __forceinline__ T warp_inclusive_sum(T value) {
  const int lane = threadIdx.x % kWarpSize;
#pragma unroll
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const T other = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += other;
  }
  return value;
}

// This thread's part of a sequence of n numbers, and the sums of the part, of all before it, of
// all.
struct Scan {
  int first, last;
  uint64_t before, sum, total;
};

// Begins with a barrier: `value` may read what other threads have just written.
template <typename Value>
__device__ __forceinline__ Scan block_scan(int n, Value value, BlockShared* shared) {
  const int thread = threadIdx.x, warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int each = (n + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
  Scan scan{};
  scan.first = min(thread * each, n);
  scan.last = min(scan.first + each, n);
  __syncthreads();
  for (int i = scan.first; i < scan.last; ++i) scan.sum += value(i);
  const uint64_t inclusive = warp_inclusive_sum(scan.sum);
  if (lane == kWarpSize - 1) shared->partial[warp] = inclusive;
  if (thread == 0) shared->found = -1;
  __syncthreads();
  const int warps = blockDim.x / kWarpSize;
  const uint64_t warp_sums = warp_inclusive_sum(lane < warps ? shared->partial[lane] : uint64_t{0});
  scan.total = __shfl_sync(kAllLanes, warp_sums, kWarpSize - 1);
  const uint64_t earlier = __shfl_sync(kAllLanes, warp_sums, max(warp - 1, 0));
  scan.before = (warp > 0 ? earlier : 0) + inclusive - scan.sum;
  return scan;
}

// The first i with value(0) + ... + value(i) >= need > 0, and the sum before it; -1 if there is
// none.
struct Crossing {
  int index;
  uint64_t before;
};

// Once for each scan.
template <typename Value>
__device__ __forceinline__ Crossing block_crossing(const Scan& scan, uint64_t need, Value value,
                                                   BlockShared* shared) {
  if (scan.before < need && need <= scan.before + scan.sum) {
    uint64_t before = scan.before;
    int i = scan.first;
    for (uint64_t step; before + (step = value(i)) < need; ++i) before += step;
    shared->found = i;
    shared->before = before;
  }
  __syncthreads();
  Crossing crossing{shared->found, 0};
  if (crossing.index >= 0) crossing.before = shared->before;
  return crossing;
}

__device__ __forceinline__ uint64_t block_sum(uint64_t value, BlockShared* shared) {
  return block_scan(static_cast<int>(blockDim.x), [value](int) { return value; }, shared).total;
}

__device__ __forceinline__ uint32_t block_max(uint32_t value, BlockShared* shared) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  const int lane = threadIdx.x % kWarpSize;
  __syncthreads();
  if (lane == 0) shared->most[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = lane < static_cast<int>(blockDim.x) / kWarpSize ? shared->most[lane] : 0;
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

}  // namespace flashinfer

#endif  // FLASHINFER_SAMPLING_SCAN_CUH_
