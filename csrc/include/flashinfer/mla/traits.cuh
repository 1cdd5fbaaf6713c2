// The instantiations of the MLA kernel, how its warps share the work, and its shared memory.
#ifndef FLASHINFER_MLA_TRAITS_CUH_
#define FLASHINFER_MLA_TRAITS_CUH_

#include <cstdint>

#include "flashinfer/attention/traits.cuh"
#include "flashinfer/mla/params.cuh"

namespace flashinfer {

// A block has 16 or 32 rows (heads) and goes through tiles of 32 keys. Each of the three steps on a
// tile is cut another way:
//   scores   four warps share the 576 products of a score, 144 each, so that a warp's part of Q
//            stays in its registers; with 32 rows there are two such groups, of 16 keys each;
//   softmax  a warp has four rows, eight lanes each;
//   output   a warp has a part of the 512 columns.
// So of the cache every element is read from global memory once, and from shared memory once for
// the scores and once for the output.
template <typename T_, int kRows_>
struct MlaTraits {
  static_assert(kRows_ == 16 || kRows_ == 32, "one or two row tiles");
  using T = T_;
  static constexpr int kRows = kRows_;
  static constexpr int kKeys = 32;
  static constexpr int kDim = kCkvDim + kKpeDim;

  static constexpr int kRowTiles = kRows / 16;
  static constexpr int kDimSplits = 4;
  static constexpr int kKeySplits = kRowTiles;
  static constexpr int kWarps = kDimSplits * kKeySplits;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kSteps = kDim / kDimSplits / 16;  // of 16 products
  static constexpr int kWarpKeys = kKeys / kKeySplits;
  static constexpr int kWarpColumns = kCkvDim / kWarps;
  static constexpr int kRowLanes = kThreads / kRows;  // in the softmax
  static constexpr int kLaneKeys = kKeys / kRowLanes;
  static_assert(kRowLanes == 8 && kLaneKeys == 4, "16 bytes of scores a lane");

  static constexpr int kMinBlocks = kRows == 16 ? 2 : 1;

  static constexpr int kStages = 2;
  static constexpr int kChunks = kDim * 2 / 16;  // of a row: 64 of ckv, then 8 of kpe
  static constexpr int kCkvChunks = kCkvDim * 2 / 16;
  static constexpr int kTileBytes = kKeys * kChunks * 16;
  static constexpr int kScoreBytes = kRows * kKeys * static_cast<int>(sizeof(float));
  static_assert(kRows <= kKeys, "Q, and at the end the output, fit where a tile was");

  // Shared memory, from 0: the stages, in the second of which Q comes; the scores, as each of the
  // warps that share them has them, where the probabilities come too; a factor for each row.
  static constexpr int kScoresOffset = kStages * kTileBytes;
  static constexpr int kFactorsOffset = kScoresOffset + kDimSplits * kScoreBytes;
  static constexpr int kSharedBytes = kFactorsOffset + kRows * static_cast<int>(sizeof(float));
  static_assert(kSharedBytes <= 99 * 1024, "what a block may have on sm_86 and sm_89");
  static_assert(kMinBlocks * (kSharedBytes + 1024) <= 164 * 1024, "what sm_80 has for its blocks");
};

// Four floats of a row of scores, eight such parts a row. Lanes that write pairs of neighbours in
// four rows, and lanes that read a whole row, meet different banks.
template <class Traits>
__device__ __forceinline__ int score_place(int split, int row, int part) {
  return ((split * Traits::kRows + row) * (Traits::kKeys / 4) + (part ^ (2 * row & 7))) * 16;
}

// Chunk `chunk` of four (16 bytes, eight keys) of a row of probabilities. They lie where the row's
// first scores were; the eight rows that a step of ldmatrix reads are in different banks.
__device__ __forceinline__ int probability_place(int row, int chunk) {
  return (row * 8 + (chunk ^ (row & 7))) * 16;
}

}  // namespace flashinfer

#endif  // FLASHINFER_MLA_TRAITS_CUH_
