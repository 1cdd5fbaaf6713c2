// Sums and maxima over the threads that share a row.
#ifndef FLASHINFER_ARCH_REDUCE_CUH_
#define FLASHINFER_ARCH_REDUCE_CUH_

#include <cuda_runtime.h>

#include <cmath>

namespace flashinfer {

constexpr int kWarpSize = 32;
constexpr int kMaxWarps = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Sum over aligned groups of `group` lanes, a power of two up to 32; every lane gets it.
// Every lane of the warp takes part.
__device__ __forceinline__ float warp_sum(float value, int group) {
  for (int distance = group / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// The largest, likewise; a NaN is left out.
__device__ __forceinline__ float warp_max(float value, int group) {
  for (int distance = group / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// The lowest of the lanes whose bits are set; `lanes` is not 0.
__device__ __forceinline__ int lowest_lane(unsigned lanes) {
#ifdef FLASHINFER_EMULATE
  return __builtin_ctz(lanes);
#else
  return __ffs(static_cast<int>(lanes)) - 1;
#endif
}

// Sum over the threads with the same threadIdx.y: blockDim.x is a power of two up to 32, or a
// multiple of 32 in a block with one row. `partial` holds a float per warp. Only one barrier: a
// caller that sums again must alternate between two `partial` arrays, then no thread can write
// the one another thread still reads.
__device__ __forceinline__ float row_sum(float value, float* partial) {
  const int threads = blockDim.x;
  if (threads <= kWarpSize) return warp_sum(value, threads);
  value = warp_sum(value, kWarpSize);
  const int lane = threadIdx.x % kWarpSize;
  if (lane == 0) partial[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  return warp_sum(lane < threads / kWarpSize ? partial[lane] : 0.0f, kWarpSize);
}

// The largest, likewise; a NaN is left out.
__device__ __forceinline__ float row_max(float value, float* partial) {
  const int threads = blockDim.x;
  if (threads <= kWarpSize) return warp_max(value, threads);
  value = warp_max(value, kWarpSize);
  const int lane = threadIdx.x % kWarpSize;
  if (lane == 0) partial[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  return warp_max(lane < threads / kWarpSize ? partial[lane] : value, kWarpSize);
}

}  // namespace flashinfer

#endif  // FLASHINFER_ARCH_REDUCE_CUH_
