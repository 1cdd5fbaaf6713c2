// The instantiations of the matrix product kernel, and how their tiles lie in shared memory.
#ifndef FLASHINFER_GEMM_TRAITS_CUH_
#define FLASHINFER_GEMM_TRAITS_CUH_

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "flashinfer/arch/reduce.cuh"

namespace flashinfer {

// How the second factor lies in memory: the elements of a column side by side, or of a row.
enum class BLayout { kColumnMajor, kRowMajor };

// How a block cuts its tile of the result over its warps. kSplits warps share the same rows and
// columns, each with a part of the sum.
template <int kRows_, int kCols_, int kWarpsM_, int kWarpsN_, int kSplits_, int kStages_>
struct GemmTile {
  static constexpr int kRows = kRows_, kCols = kCols_;
  static constexpr int kWarpsM = kWarpsM_, kWarpsN = kWarpsN_, kSplits = kSplits_;
  static constexpr int kStages = kStages_;
};
// Few rows: the time is that of reading the second factor, so many blocks read narrow strips of it.
using ThinTile = GemmTile<16, 64, 1, 1, 4, 4>;
using MiddleTile = GemmTile<64, 128, 2, 2, 1, 3>;
using LargeTile = GemmTile<128, 128, 2, 2, 1, 3>;

// kFp8: both factors are fp8, column-major; T is then what the tensor cores multiply, __half, which
// holds every fp8 number. kVectors: 16 bytes of a factor at a time, which its strides allow.
template <typename T_, class Tile_, BLayout kLayout_, bool kFp8_, bool kVectors_>
struct GemmTraits : Tile_ {
  using T = T_;
  using Tile = Tile_;
  using Stored = std::conditional_t<kFp8_, uint8_t, T_>;
  static constexpr BLayout kLayout = kLayout_;
  static constexpr bool kFp8 = kFp8_, kVectors = kVectors_;
  static_assert(!kFp8 || (std::is_same<T, __half>::value && kLayout == BLayout::kColumnMajor),
                "fp8 is widened to fp16, along the sum");

  static constexpr int kDepth = 64;  // of the sum, in a tile
  static constexpr int kSteps = kDepth / 16 / Tile_::kSplits;
  static constexpr int kWarps = Tile_::kWarpsM * Tile_::kWarpsN * Tile_::kSplits;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kWarpRows = Tile_::kRows / Tile_::kWarpsM;
  static constexpr int kWarpCols = Tile_::kCols / Tile_::kWarpsN;
  static constexpr int kRowTiles = kWarpRows / 16;  // of fragments
  static constexpr int kColTiles = kWarpCols / 8;
  static_assert(kWarpRows % 16 == 0 && kWarpCols % 16 == 0 && kSteps >= 1, "whole fragments");

  // 16-byte parts of a tile's row. The rows of B's tile are columns where it is column-major.
  static constexpr int kChunkSize = 16 / sizeof(Stored);
  static constexpr int kAChunks = kDepth / kChunkSize;
  static constexpr bool kColumns = kLayout == BLayout::kColumnMajor;
  static constexpr int kBRows = kColumns ? Tile_::kCols : kDepth;
  static constexpr int kBChunks = (kColumns ? kDepth : Tile_::kCols) / kChunkSize;

  static constexpr int kABytes = Tile_::kRows * kAChunks * 16;
  static constexpr int kStageBytes = kABytes + kBRows * kBChunks * 16;
  static constexpr int kPartialBytes =  // of all warps, where they share a sum
      Tile_::kSplits > 1 ? kWarps * kWarpRows * kWarpCols * static_cast<int>(sizeof(float)) : 0;
  static constexpr int kLoadBytes = Tile_::kStages * kStageBytes;
  static constexpr int kSharedBytes = kLoadBytes > kPartialBytes ? kLoadBytes : kPartialBytes;
  static_assert(kSharedBytes <= 99 * 1024, "what a block may have on sm_86 and sm_89");
};

// The place of chunk `chunk` of row `row` in a tile. The rows that are read together lie in
// different banks: eight with 128 bytes or more each, or eight with 64 bytes, two to a bank line.
template <int kChunks>
__device__ __forceinline__ int chunk_place(int row, int chunk) {
  static_assert(kChunks % 8 == 0 || kChunks == 4, "rows of 64 bytes or a multiple of 128");
  const int turn = kChunks == 4 ? row >> 1 & 3 : row & 7;
  return (row * kChunks + (chunk ^ turn)) * 16;
}

}  // namespace flashinfer

#endif  // FLASHINFER_GEMM_TRAITS_CUH_
