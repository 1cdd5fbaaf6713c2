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
template <class Shape>
using WarpScores = float[Shape::kRowTiles][Shape::kWarpKeys / 8][4];
template <class Shape>
using WarpSoftmax = Softmax<Shape::kHeadDim / 8>[Shape::kRowTiles];

template <class Shape>
__device__ __forceinline__ void multiply_qk(const char* q, const char* k, int warp_row,
                                            int warp_key, WarpScores<Shape>& scores) {
  const int lane = threadIdx.x % kWarpSize;
  const int q_row = warp_row + lane % 16, q_chunk = lane / 16;
  const int k_row = warp_key + lane / 16 * 8 + lane % 8, k_chunk = lane / 8 % 2;
#pragma unroll
  for (int m = 0; m < Shape::kRowTiles; ++m) {
#pragma unroll
    for (int tile = 0; tile < Shape::kWarpKeys / 8; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[m][tile][i] = 0.0f;
    }
  }
#pragma unroll
  for (int step = 0; step < Shape::kHeadDim / 16; ++step) {
    uint32_t a[Shape::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; ++m) {
      load_matrices(q + swizzled<Shape::kChunks>(q_row + m * 16, 2 * step + q_chunk), a[m]);
    }
#pragma unroll
    for (int n = 0; n < Shape::kWarpKeys / 16; ++n) {
      uint32_t b[4];
      load_matrices(k + swizzled<Shape::kChunks>(k_row + n * 16, 2 * step + k_chunk), b);
#pragma unroll
      for (int m = 0; m < Shape::kRowTiles; ++m) {
        multiply_add<typename Shape::T>(scores[m][2 * n], a[m], b[0], b[1]);
        multiply_add<typename Shape::T>(scores[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// out += P V.
template <class Shape>
__device__ __forceinline__ void multiply_pv(const WarpScores<Shape>& p, const char* v, int warp_key,
                                            WarpSoftmax<Shape>& softmax) {
  using T = typename Shape::T;
  const int lane = threadIdx.x % kWarpSize;
  const int v_row = warp_key + lane % 16, v_chunk = lane / 16;
#pragma unroll
  for (int step = 0; step < Shape::kWarpKeys / 16; ++step) {
    uint32_t a[Shape::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[m][i] = narrow_word<T>(p[m][2 * step + i / 2] + i % 2 * 2);
    }
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 16; ++n) {
      uint32_t b[4];
      load_matrices_transposed(v + swizzled<Shape::kChunks>(v_row + step * 16, 2 * n + v_chunk), b);
#pragma unroll
      for (int m = 0; m < Shape::kRowTiles; ++m) {
        multiply_add<T>(softmax[m].out[2 * n], a[m], b[0], b[1]);
        multiply_add<T>(softmax[m].out[2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kMinBlocks)
    attention_kernel(const typename Shape::Params p) {
  constexpr bool kGeneral = Shape::kGeneral;
  if (static_cast<int>(blockIdx.x) >= load_readonly(p.plan)) return;  // padding of the grid
  const Rows rows = block_rows<Shape::kRows>(p);
  if (rows.count <= 0) return;

  char* const q = dynamic_shared<char>();
  char* const stages = q + Shape::kStageOffset;
  char* const converted = q + Shape::kConvertedOffset;
  float* const frequencies = reinterpret_cast<float*>(q + Shape::kRopeOffset);
  const int warp = threadIdx.x / kWarpSize;
  const int warp_row = Shape::kKeySplits > 1 ? 0 : warp * Shape::kWarpRows;
  const int warp_key = Shape::kKeySplits > 1 ? warp * Shape::kSplitKeys : 0;

  // The ranges of rows move up with the rows: these bound what any of them sees, and all.
  const KeyRange low = rows.keys(p, rows.token(0)), high = rows.keys(p, rows.token(rows.count - 1));
  LaneRows lane{};
  static_assert(!kGeneral || Shape::kRowTiles == 1, "one pair of rows a lane");
  if constexpr (kGeneral) lane = lane_rows<Shape>(p, rows, warp_row);
  KvLoader<Shape> loader(p, rows.item, rows.kv_head, high.end);
  float scale = p.scale;  // what is left to do to scores in the softmax
  bool rope = false;
  if constexpr (kGeneral) {
    scale = 1.0f;
    rope = p.rope;
  }

  WarpSoftmax<Shape> softmax;
  const auto stage_of = [&](int stage) { return stages + stage * 2 * Shape::kStoredBytes; };
  if (low.begin < high.end) {
    load_q<Shape>(p, rows, q);
    loader.locate(low.begin);
    loader.load(low.begin, stage_of(0), stage_of(0) + Shape::kStoredBytes);
    copy_async_commit();
    loader.locate(low.begin + Shape::kKeys);
    if constexpr (kGeneral) {
      if (rope) {
        copy_frequencies<Shape>(p, frequencies);
        copy_async_wait<0>();
        __syncthreads();  // Q and the frequencies are there
        rotate_q<Shape>(frequencies, rows, q);
      }
    }
  }
  int stage = 0;
#pragma unroll 1
  for (int first_key = low.begin; first_key < high.end; first_key += Shape::kKeys, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the one before any more
    const int next_key = first_key + Shape::kKeys;
    if (next_key < high.end) {
      loader.load(next_key, stage_of(stage ^ 1), stage_of(stage ^ 1) + Shape::kStoredBytes);
      copy_async_commit();
      loader.locate(next_key + Shape::kKeys);
    }
    char* k = stage_of(stage);
    char* v = k + Shape::kStoredBytes;
    if constexpr (kGeneral) {
      char* const k_stored = k;
      if constexpr (Shape::kFp8) {
        k = converted;
        convert_tile<Shape>(v, converted + Shape::kTileBytes, p.e5m2);
        v = converted + Shape::kTileBytes;
      }
      if (rope) {
        rotate_k<Shape>(frequencies, first_key, k_stored, k, p.e5m2);
      } else if (Shape::kFp8) {
        convert_tile<Shape>(k_stored, k, p.e5m2);
      }
      if (rope || Shape::kFp8) __syncthreads();
    }

    // Only at the ends of a range are there keys that a row does not see.
    const bool ends = first_key < high.begin || next_key > low.end;
#pragma unroll 1
    for (int part = 0; part < Shape::kSplitKeys; part += Shape::kWarpKeys) {
      WarpScores<Shape> scores;
      multiply_qk<Shape>(q, k, warp_row, warp_key + part, scores);
      const int key = first_key + warp_key + part;
#pragma unroll
      for (int m = 0; m < Shape::kRowTiles; ++m) {
        if constexpr (kGeneral) {
          transform_scores(p, lane, key, scores[m]);
          if (p.mask != nullptr) {
            mask_scores_by_bits(lane, key, scores[m]);
          } else if (ends) {
            mask_scores(lane, key, scores[m]);
          }
        } else if (ends) {
          // Found anew, not kept in registers: it is rare.
          mask_scores(lane_rows<Shape>(p, rows, warp_row + m * 16), key, scores[m]);
        }
        softmax[m].update(scores[m], scale);
      }
      multiply_pv<Shape>(scores, v, warp_key + part, softmax);
    }
  }

#pragma unroll
  for (int m = 0; m < Shape::kRowTiles; ++m) {
    softmax[m].finish();
    if constexpr (Shape::kKeySplits > 1) {
      merge_warps<Shape>(p, rows, reinterpret_cast<float*>(q + Shape::kStatsOffset),
                         reinterpret_cast<float*>(stages), softmax[m]);
    } else {
      // Where a warp has 32 rows, there is no register to keep this in: it is read again.
      const Rows end_rows = Shape::kRowTiles > 1 ? block_rows<Shape::kRows>(p) : rows;
      write_rows<Shape>(p, end_rows, q, warp_row + m * 16, softmax[m]);
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_KERNEL_CUH_
