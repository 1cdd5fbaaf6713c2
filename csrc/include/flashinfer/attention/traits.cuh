// The instantiations of the attention kernel, and how their tiles lie in shared memory.
#ifndef FLASHINFER_ATTENTION_TRAITS_CUH_
#define FLASHINFER_ATTENTION_TRAITS_CUH_

#include <cstdint>
#include <type_traits>

#include "flashinfer/arch/reduce.cuh"
#include "flashinfer/attention/params.cuh"
#include "flashinfer/attention/tile_sizes.cuh"

namespace flashinfer {

// kGeneral: knows custom masks, soft cap, ALiBi, RoPE and fp8, at the price of registers.
template <typename T_, int kHeadDim_, int kRows_, bool kGeneral_, bool kFp8_>
struct AttentionTraits {
  static_assert(kGeneral_ || !kFp8_, "only the general instantiation reads fp8");
  using T = T_;
  using Params = std::conditional_t<kGeneral_, GeneralAttentionParams, KvAttentionParams>;
  static constexpr int kHeadDim = kHeadDim_, kRows = kRows_;
  static constexpr bool kGeneral = kGeneral_, kFp8 = kFp8_;

  static_assert(has_tile(kHeadDim, kRows), "see the table");
  static constexpr TileSizes kTile = tile_sizes(kHeadDim, kRows);
  static constexpr int kKeys = kTile.keys, kKeySplits = kTile.key_splits;
  static constexpr int kRowTiles = kTile.row_tiles, kWarpKeys = kTile.warp_keys;
  static constexpr int kMinBlocks = kTile.min_blocks;
  static constexpr int kWarpRows = 16 * kRowTiles;
  static constexpr int kSplitKeys = kKeys / kKeySplits;  // of a tile, that a warp has
  static constexpr int kWarps = kRows / kWarpRows * kKeySplits;
  static constexpr int kThreads = kWarps * kWarpSize;

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

#endif  // FLASHINFER_ATTENTION_TRAITS_CUH_
