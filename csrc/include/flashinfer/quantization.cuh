// Packing bools into bits.
#ifndef FLASHINFER_QUANTIZATION_CUH_
#define FLASHINFER_QUANTIZATION_CUH_

#include <cstdint>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/search.cuh"

namespace flashinfer {

struct PackbitsParams {
  int64_t n;
  const uint8_t* x;
  uint8_t* y;
  const int32_t* in_indptr;  // num_segments + 1, as out_indptr
  const int32_t* out_indptr;
  int num_segments;
  int64_t total_out;
  int little_endian;
};

// The bits of eight bools, the first in the lowest byte of `bools`.
__device__ __forceinline__ uint32_t pack_eight(uint64_t bools, bool little_endian) {
  // Bit 0 of every byte: whether the byte is not zero. A byte's low seven bits carry into its
  // bit 7.
  constexpr uint64_t kLowSeven = 0x7f7f7f7f7f7f7f7full;
  const uint64_t flags = ((((bools & kLowSeven) + kLowSeven) | bools) & ~kLowSeven) >> 7;
  // The product moves the flag of byte i to bit 56 + i, or to 63 - i. No two partial products
  // meet, so nothing carries.
  constexpr uint64_t kToBitI = 0x0102040810204080ull;
  constexpr uint64_t kToBit7MinusI = 0x8040201008040201ull;
  return static_cast<uint32_t>((flags * (little_endian ? kToBitI : kToBit7MinusI)) >> 56);
}

// Eight bools from `address`, of which the first `count` exist; the others are false.
__device__ __forceinline__ uint64_t load_bools(const uint8_t* address, int64_t count) {
  if (count >= 8 && reinterpret_cast<uintptr_t>(address) % 8 == 0) {
    return load_once(reinterpret_cast<const uint64_t*>(address));
  }
  uint64_t bools = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (i < count) bools |= static_cast<uint64_t>(address[i]) << (8 * i);
  }
  return bools;
}

// One segment: x aligned to 16 bytes, y to 2. A thread turns 16 bools into two bytes.
__global__ void __launch_bounds__(256) packbits_kernel(const PackbitsParams p) {
  const bool little_endian = p.little_endian != 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * 16;
  for (int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 16;
       first < p.n; first += step) {
    if (first + 16 <= p.n) {
      const uint4 bools = load_once(reinterpret_cast<const uint4*>(p.x + first));
      const uint64_t low = static_cast<uint64_t>(bools.y) << 32 | bools.x;
      const uint64_t high = static_cast<uint64_t>(bools.w) << 32 | bools.z;
      store(reinterpret_cast<uint16_t*>(p.y + first / 8),
            static_cast<uint16_t>(pack_eight(high, little_endian) << 8 |
                                  pack_eight(low, little_endian)));
    } else {
      for (int64_t i = first; i < p.n; i += 8) {
        p.y[i / 8] = static_cast<uint8_t>(pack_eight(load_bools(p.x + i, p.n - i), little_endian));
      }
    }
  }
}

// One segment that starts anywhere.
__global__ void __launch_bounds__(256) unaligned_packbits_kernel(const PackbitsParams p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * 8;
  for (int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
       first < p.n; first += step) {
    const uint64_t bools = load_bools(p.x + first, p.n - first);
    p.y[first / 8] = static_cast<uint8_t>(pack_eight(bools, p.little_endian != 0));
  }
}

// Consecutive output bytes of one thread, so that it looks for its segment once.
constexpr int kPackedBytesPerThread = 4;

__global__ void __launch_bounds__(256) segment_packbits_kernel(const PackbitsParams p) {
  const bool little_endian = p.little_endian != 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kPackedBytesPerThread;
  for (int64_t first =
           (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPackedBytesPerThread;
       first < p.total_out; first += step) {
    int segment = last_at_most(p.out_indptr, p.num_segments, first);
    for (int64_t byte = first; byte < first + kPackedBytesPerThread && byte < p.total_out; ++byte) {
      while (segment + 1 < p.num_segments && p.out_indptr[segment + 1] <= byte) ++segment;
      if (byte < p.out_indptr[segment] || byte >= p.out_indptr[segment + 1]) continue;
      const int64_t begin = p.in_indptr[segment] + (byte - p.out_indptr[segment]) * 8;
      const int64_t count = p.in_indptr[segment + 1] - begin;
      p.y[byte] = static_cast<uint8_t>(pack_eight(load_bools(p.x + begin, count), little_endian));
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_QUANTIZATION_CUH_
