// From a row to one of its entries: sums of tiles, then the tile, then the entry.
#ifndef FLASHINFER_SAMPLING_DRAW_CUH_
#define FLASHINFER_SAMPLING_DRAW_CUH_

#include <cstdint>

#include "flashinfer/sampling/scan.cuh"
#include "flashinfer/sampling/weights.cuh"

namespace flashinfer {

struct TileSums {
  uint32_t high[kMaxTiles], low[kMaxTiles];
  BlockShared block;

  __device__ __forceinline__ uint64_t of(int tile) const { return joined(high[tile], low[tile]); }

  __device__ __forceinline__ void set(int tile, uint64_t sum) {
    high[tile] = static_cast<uint32_t>(sum >> kLowBits);
    low[tile] = static_cast<uint32_t>(sum) & kLowMask;
  }
};

__device__ __forceinline__ uint64_t warp_sum(uint64_t value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// The sum of every tile over the entries with a key of `least` or more. Returns what the thread has
// seen, in all of the row: the sum, and the largest key, which only these go into.
template <typename Row>
__device__ __forceinline__ uint64_t sum_tiles(const Row& row, const Tiling& tiling, uint32_t least,
                                              const Scale& scale, TileSums* tiles, uint32_t* most) {
  constexpr int kSize = Row::kSize;
  const int warps = blockDim.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  uint64_t mine = 0;
  for (int tile = threadIdx.x / kWarpSize; tile < tiling.tiles; tile += warps) {
    uint64_t sum = 0;
    const int end = min((tile + 1) * tiling.tile, tiling.vocab);
    for (int begin = tile * tiling.tile; begin < end; begin += kStep<kSize>) {
      uint32_t keys[kVectors][kSize];
      row.keys(begin, keys);
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
          if (keys[v][i] < least) continue;
          *most = max(*most, keys[v][i]);
          sum += weight_of(keys[v][i], scale);
        }
      }
    }
    mine += sum;
    sum = warp_sum(sum);
    if (lane == 0) tiles->set(tile, sum);
  }
  return mine;
}

// Sums the tiles of a whole row with the exponent that api.h tells, and returns the row's sum.
// `most` becomes the largest key; the sums of tiles hold behind the next barrier.
template <typename Row>
__device__ __forceinline__ uint64_t weigh_row(const Row& row, const Tiling& tiling,
                                              uint64_t least_total, TileSums* tiles, int* exponent,
                                              uint32_t* most) {
  *exponent = kExponent;
  for (int attempt = 0;; ++attempt) {
    uint32_t seen = 0;
    const uint64_t mine = sum_tiles(row, tiling, kLeastKey, Scale(*exponent), tiles, &seen);
    const uint64_t total = block_sum(mine, &tiles->block);
    *most = block_max(seen, &tiles->block);
    if (*most == 0 || attempt == 2 || (total >= least_total && total < kMostTotal)) return total;
    *exponent = next_exponent(attempt, *exponent, total, *most);
  }
}

// The entry at which the running sum over the keys of `least` or more exceeds `target`, found by
// one warp in the tile in which it does. One lane gets it, the others -1.
template <typename Row>
__device__ __forceinline__ int find_in_tile(const Row& row, const Tiling& tiling, int tile,
                                            uint32_t least, const Scale& scale, uint64_t target) {
  constexpr int kSize = Row::kSize;
  uint64_t before = 0;
  int index = -1;
  for (int begin = tile * tiling.tile; begin < tiling.vocab; begin += kStep<kSize>) {
    uint32_t keys[kVectors][kSize];
    row.keys(begin, keys);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      uint64_t weights[kSize], sum = 0;
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        weights[i] = keys[v][i] >= least ? weight_of(keys[v][i], scale) : 0;
        sum += weights[i];
      }
      const uint64_t inclusive = warp_inclusive_sum(sum);
      uint64_t running = before + inclusive - sum;
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const bool here = running <= target && target < running + weights[i];
        if (here) index = lane_column<kSize>(begin, v) + i;
        running += weights[i];
      }
      before += __shfl_sync(kAllLanes, inclusive, kWarpSize - 1);
    }
    if (before > target) break;
  }
  return index;
}

// Draws from the tiles' sums, which are over the keys of `least` or more, and writes the sample.
// One thread writes.
template <typename Row>
__device__ __forceinline__ void draw(const Row& row, const Tiling& tiling, uint32_t least,
                                     const Scale& scale, float uniform, TileSums* tiles,
                                     int32_t* sample, uint8_t* success) {
  const auto sum_of = [tiles](int tile) { return tiles->of(tile); };
  const Scan scan = block_scan(tiling.tiles, sum_of, &tiles->block);
  const uint64_t total = scan.total;
  const uint64_t target = total == 0 ? 0 : draw_target(uniform, total);
  const Crossing crossing = block_crossing(scan, target + 1, sum_of, &tiles->block);
  if (threadIdx.x == 0) {
    if (success != nullptr) *success = total != 0;
    if (total == 0) *sample = 0;
  }
  if (threadIdx.x < kWarpSize && total != 0) {
    const int index =
        find_in_tile(row, tiling, crossing.index, least, scale, target - crossing.before);
    if (index >= 0) *sample = index;
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_SAMPLING_DRAW_CUH_
