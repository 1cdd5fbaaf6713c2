// The instantiations of the attention kernel, and how their tiles lie in shared memory.
#ifndef FLASHINFER_ATTENTION_SHAPE_CUH_
#define FLASHINFER_ATTENTION_SHAPE_CUH_

#include <cstdint>
#include <type_traits>

#include "flashinfer/arch/reduce.cuh"
#include "flashinfer/attention/params.cuh"

namespace flashinfer {

// With 16 rows in a block its warps share them, and each takes its part of the keys of a tile; with
// more, each has rows of its own, 16 or 32, and all keys. With 32 rows every fragment of K and V is
// used twice, which halves what is read from shared memory.
//
// kGeneral: knows custom masks, soft cap, ALiBi, RoPE and fp8, at the price of registers.
template <typename T_, int kHeadDim_, int kRows_, bool kGeneral_, bool kFp8_>
struct AttentionShape {
  static_assert(kGeneral_ || !kFp8_, "only the general build reads fp8");
  using T = T_;
  using Params = std::conditional_t<kGeneral_, GeneralAttentionParams, AttentionParams>;
  static constexpr int kHeadDim = kHeadDim_, kRows = kRows_;
  static constexpr bool kGeneral = kGeneral_, kFp8 = kFp8_;

  static constexpr int kKeys = kHeadDim <= 128 ? 64 : 32;  // in a tile
  static constexpr int kKeySplits = kRows == 16 ? kKeys / 16 : 1;
  static constexpr int kRowTiles = kRows == 128 ? 2 : 1;  // of 16 rows, in a warp
  static constexpr int kWarpRows = 16 * kRowTiles;
  // The keys of a tile that a warp has, and how many it takes at once: scores for more of them do
  // not fit into registers beside an output of 32 x 128.
  static constexpr int kSplitKeys = kKeys / kKeySplits;
  static constexpr int kWarpKeys = kRowTiles == 2 && kHeadDim > 64 ? 32 : kSplitKeys;
  static constexpr int kWarps = kRows / kWarpRows * kKeySplits;
  static constexpr int kThreads = kWarps * kWarpSize;

  // Blocks on a multiprocessor that registers are saved for. Without a number ptxas spills to get
  // below 128 registers.
  static constexpr int kMinBlocks = kRows == 128 ? 2 : 1;

  static constexpr int kStages = 2;
  static constexpr int kTileBytes = kKeys * kHeadDim * 2;           // of K or V, as T
  static constexpr int kStoredBytes = kTileBytes / (kFp8 ? 2 : 1);  // as they come from memory
  static constexpr int kChunks = kHeadDim * 2 / 16;                 // 16-byte parts of a row of T
  static constexpr int kStoredChunks = kChunks / (kFp8 ? 2 : 1);

  // Shared memory, from 0: Q; the stages, K and V each; the tiles converted from fp8; the RoPE
  // frequencies; a row's maximum and sum for each warp that shares it.
  static constexpr int kStageOffset = kRows * kHeadDim * 2;
  static constexpr int kConvertedOffset = kStageOffset + kStages * 2 * kStoredBytes;
  static constexpr int kRopeOffset = kConvertedOffset + (kFp8 ? 2 * kTileBytes : 0);
  static constexpr int kStatsOffset = kRopeOffset + (kGeneral ? kHeadDim * 4 : 0);
  static constexpr int kSharedBytes =
      kStatsOffset + (kKeySplits > 1 ? kKeySplits * 16 * 2 * static_cast<int>(sizeof(float)) : 0);
  static_assert(kSharedBytes <= 99 * 1024, "what a block may have on sm_86 and sm_89");
};

// The place of chunk `chunk` (16 bytes) of row `row` in a tile of T. The eight rows that one step
// of ldmatrix reads lie in different banks because the chunks of row r are permuted by r % 8.
template <int kChunks>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  return (row * kChunks + (chunk ^ (row & 7))) * 16;
}

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_SHAPE_CUH_
