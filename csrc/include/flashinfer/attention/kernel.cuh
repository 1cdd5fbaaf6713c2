// The attention kernel: FlashAttention-2's order of work on mma.sync, for every length of queries.
//
// A block has an item of the plan and a KV head: some rows, (token, head in group) pairs, and a
// chunk of keys. K and V come tile by tile, the next one while this one is computed. Scores stay
// in registers: as fragment C of Q K^T they are, rounded to T, fragment A of P V.
#ifndef FLASHINFER_ATTENTION_KERNEL_CUH_
#define FLASHINFER_ATTENTION_KERNEL_CUH_

#include <cstdint>

#include "flashinfer/arch/launch.cuh"
#include "flashinfer/arch/mma.cuh"
#include "flashinfer/attention/convert.cuh"
#include "flashinfer/attention/load.cuh"
#include "flashinfer/attention/output.cuh"
#include "flashinfer/attention/softmax.cuh"

namespace flashinfer {

// scores = Q K^T of the warp's rows and kWarpKeys keys.
template <class Traits>
using WarpScores = float[Traits::kRowTiles][Traits::kWarpKeys / 8][4];
template <class Traits>
using WarpSoftmax = Softmax<Traits::kHeadDim / 8>[Traits::kRowTiles];

template <class Traits>
__device__ __forceinline__ void multiply_qk(const char* q, const char* k, int warp_row,
                                            int warp_key, WarpScores<Traits>& scores) {
  const int lane = threadIdx.x % kWarpSize;
  const int q_row = warp_row + lane % 16, q_chunk = lane / 16;
  const int k_row = warp_key + lane / 16 * 8 + lane % 8, k_chunk = lane / 8 % 2;
#pragma unroll
  for (int m = 0; m < Traits::kRowTiles; ++m) {
#pragma unroll
    for (int tile = 0; tile < Traits::kWarpKeys / 8; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[m][tile][i] = 0.0f;
    }
  }
#pragma unroll
  for (int step = 0; step < Traits::kHeadDim / 16; ++step) {
    uint32_t a[Traits::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < Traits::kRowTiles; ++m) {
      load_matrices(q + swizzled<Traits::kChunks>(q_row + m * 16, 2 * step + q_chunk), a[m]);
    }
#pragma unroll
    for (int n = 0; n < Traits::kWarpKeys / 16; ++n) {
      uint32_t b[4];
      load_matrices(k + swizzled<Traits::kChunks>(k_row + n * 16, 2 * step + k_chunk), b);
#pragma unroll
      for (int m = 0; m < Traits::kRowTiles; ++m) {
        multiply_add<typename Traits::T>(scores[m][2 * n], a[m], b[0], b[1]);
        multiply_add<typename Traits::T>(scores[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// out += P V.
template <class Traits>
__device__ __forceinline__ void multiply_pv(const WarpScores<Traits>& p, const char* v,
                                            int warp_key, WarpSoftmax<Traits>& softmax) {
  using T = typename Traits::T;
  const int lane = threadIdx.x % kWarpSize;
  const int v_row = warp_key + lane % 16, v_chunk = lane / 16;
#pragma unroll
  for (int step = 0; step < Traits::kWarpKeys / 16; ++step) {
    uint32_t a[Traits::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < Traits::kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[m][i] = narrow_word<T>(p[m][2 * step + i / 2] + i % 2 * 2);
    }
#pragma unroll
    for (int n = 0; n < Traits::kHeadDim / 16; ++n) {
      uint32_t b[4];
      load_matrices_transposed(v + swizzled<Traits::kChunks>(v_row + step * 16, 2 * n + v_chunk),
                               b);
#pragma unroll
      for (int m = 0; m < Traits::kRowTiles; ++m) {
        multiply_add<T>(softmax[m].out[2 * n], a[m], b[0], b[1]);
        multiply_add<T>(softmax[m].out[2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinBlocks)
    attention_kernel(const typename Traits::Params p) {
  constexpr bool kGeneral = Traits::kGeneral;
  if (static_cast<int>(blockIdx.x) >= load_readonly(p.plan)) return;  // padding of the grid
  const Rows rows = block_rows<Traits::kRows>(p);
  if (rows.count <= 0) return;

  char* const q = dynamic_shared<char>();
  char* const stages = q + Traits::kStageOffset;
  char* const converted = q + Traits::kConvertedOffset;
  float* const frequencies = reinterpret_cast<float*>(q + Traits::kRopeOffset);
  const int warp = threadIdx.x / kWarpSize;
  const int warp_row = Traits::kKeySplits > 1 ? 0 : warp * Traits::kWarpRows;
  const int warp_key = Traits::kKeySplits > 1 ? warp * Traits::kSplitKeys : 0;

  // The ranges of rows move up with the rows: these bound what any of them sees, and all.
  const KeyRange low = rows.keys(p, rows.token(0)), high = rows.keys(p, rows.token(rows.count - 1));
  LaneRows lane{};
  static_assert(!kGeneral || Traits::kRowTiles == 1, "one pair of rows a lane");
  if constexpr (kGeneral) lane = lane_rows<Traits>(p, rows, warp_row);
  KvLoader<Traits> loader(p, rows.item, rows.kv_head, high.end);
  float scale = p.scale;  // what is left to do to scores in the softmax
  bool rope = false;
  if constexpr (kGeneral) {
    scale = 1.0f;
    rope = p.rope;
  }

  WarpSoftmax<Traits> softmax;
  const auto stage_of = [&](int stage) { return stages + stage * 2 * Traits::kStoredBytes; };
  if (low.begin < high.end) {
    load_q<Traits>(p, rows, q);
    loader.locate(low.begin);
    loader.load(low.begin, stage_of(0), stage_of(0) + Traits::kStoredBytes);
    copy_async_commit();
    loader.locate(low.begin + Traits::kKeys);
    if constexpr (kGeneral) {
      if (rope) {
        copy_frequencies<Traits>(p, frequencies);
        copy_async_wait<0>();
        __syncthreads();  // Q and the frequencies are there
        rotate_q<Traits>(frequencies, rows, q);
      }
    }
  }
  int stage = 0;
#pragma unroll 1
  for (int first_key = low.begin; first_key < high.end; first_key += Traits::kKeys, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the one before any more
    const int next_key = first_key + Traits::kKeys;
    if (next_key < high.end) {
      loader.load(next_key, stage_of(stage ^ 1), stage_of(stage ^ 1) + Traits::kStoredBytes);
      copy_async_commit();
      loader.locate(next_key + Traits::kKeys);
    }
    char* k = stage_of(stage);
    char* v = k + Traits::kStoredBytes;
    if constexpr (kGeneral) {
      char* const k_stored = k;
      if constexpr (Traits::kFp8) {
        k = converted;
        convert_tile<Traits>(v, converted + Traits::kTileBytes, p.e5m2);
        v = converted + Traits::kTileBytes;
      }
      if (rope) {
        rotate_k<Traits>(frequencies, first_key, k_stored, k, p.e5m2);
      } else if (Traits::kFp8) {
        convert_tile<Traits>(k_stored, k, p.e5m2);
      }
      if (rope || Traits::kFp8) __syncthreads();
    }

    // Only at the ends of a range are there keys that a row does not see.
    const bool ends = first_key < high.begin || next_key > low.end;
#pragma unroll 1
    for (int part = 0; part < Traits::kSplitKeys; part += Traits::kWarpKeys) {
      WarpScores<Traits> scores;
      multiply_qk<Traits>(q, k, warp_row, warp_key + part, scores);
      const int key = first_key + warp_key + part;
#pragma unroll
      for (int m = 0; m < Traits::kRowTiles; ++m) {
        if constexpr (kGeneral) {
          transform_scores(p, lane, key, scores[m]);
          if (p.mask != nullptr) {
            mask_scores_by_bits(lane, key, scores[m]);
          } else if (ends) {
            mask_scores(lane, key, scores[m]);
          }
        } else if (ends) {
          // Found anew, not kept in registers: it is rare.
          mask_scores(lane_rows<Traits>(p, rows, warp_row + m * 16), key, scores[m]);
        }
        softmax[m].update(scores[m], scale);
      }
      multiply_pv<Traits>(scores, v, warp_key + part, softmax);
    }
  }

#pragma unroll
  for (int m = 0; m < Traits::kRowTiles; ++m) {
    softmax[m].finish();
    if constexpr (Traits::kKeySplits > 1) {
      merge_warps<Traits>(p, rows, reinterpret_cast<float*>(q + Traits::kStatsOffset),
                          reinterpret_cast<float*>(stages), softmax[m]);
    } else {
      // Where a warp has 32 rows, there is no register to keep this in: it is read again.
      const Rows end_rows = Traits::kRowTiles > 1 ? block_rows<Traits::kRows>(p) : rows;
      write_rows<Traits>(p, end_rows, q, warp_row + m * 16, softmax[m]);
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_KERNEL_CUH_
