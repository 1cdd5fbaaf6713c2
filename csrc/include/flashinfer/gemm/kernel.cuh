// The product of matrices on the tensor cores: rows of a times a matrix, fp32 sums.
//
// A block makes a tile of the result. The factors come in tiles of 64 along the sum, through stages
// that cp.async fills ahead; one barrier a tile. In the thin shape four warps share the tile and
// each adds up a quarter of every 64, in the end in the order of the warps.
#ifndef FLASHINFER_GEMM_KERNEL_CUH_
#define FLASHINFER_GEMM_KERNEL_CUH_

#include <cstdint>

#include "flashinfer/arch/launch.cuh"
#include "flashinfer/arch/mma.cuh"
#include "flashinfer/gemm/load.cuh"
#include "flashinfer/gemm/output.cuh"

namespace flashinfer {

template <class Traits>
using GemmSums = float[Traits::kRowTiles][Traits::kColTiles][4];

// What one step of 16 along the sum reads, as fragments. Step and places are those of the warp.
template <class Traits>
struct GemmFragments {
  uint32_t a[Traits::kRowTiles][4];
  uint32_t b[Traits::kColTiles / 2][4];

  __device__ __forceinline__ void read(const char* a_tile, const char* b_tile, int warp_row,
                                       int warp_col, int step, const GemmParams& p) {
    const int lane = threadIdx.x % kWarpSize;
    if constexpr (Traits::kFp8) {
      // Lane (g, t) has bytes 4t to 4t + 3 of its rows where a fragment wants 2t, 2t + 1, 2t + 8
      // and 2t + 9: the same change of order in both factors, which a sum does not see.
      const int g = lane / 4, byte = lane % 4 * 4;
#pragma unroll
      for (int m = 0; m < Traits::kRowTiles; ++m) {
        const uint2 upper = widen(a_tile, warp_row + m * 16 + g, step, byte, p.a_e5m2);
        const uint2 lower = widen(a_tile, warp_row + m * 16 + g + 8, step, byte, p.a_e5m2);
        a[m][0] = upper.x;
        a[m][1] = lower.x;
        a[m][2] = upper.y;
        a[m][3] = lower.y;
      }
#pragma unroll
      for (int n = 0; n < Traits::kColTiles / 2; ++n) {
        const uint2 left = widen(b_tile, warp_col + n * 16 + g, step, byte, p.b_e5m2);
        const uint2 right = widen(b_tile, warp_col + n * 16 + g + 8, step, byte, p.b_e5m2);
        b[n][0] = left.x;
        b[n][1] = left.y;
        b[n][2] = right.x;
        b[n][3] = right.y;
      }
    } else {
#pragma unroll
      for (int m = 0; m < Traits::kRowTiles; ++m) {
        const int row = warp_row + m * 16 + lane % 16;
        load_matrices(a_tile + chunk_place<Traits::kAChunks>(row, 2 * step + lane / 16), a[m]);
      }
#pragma unroll
      for (int n = 0; n < Traits::kColTiles / 2; ++n) {
        const int col = warp_col + n * 16;
        if constexpr (Traits::kColumns) {
          const int line = col + lane / 16 * 8 + lane % 8, chunk = 2 * step + lane / 8 % 2;
          load_matrices(b_tile + chunk_place<Traits::kBChunks>(line, chunk), b[n]);
        } else {
          const int line = step * 16 + lane % 16, chunk = col / 8 + lane / 16;
          load_matrices_transposed(b_tile + chunk_place<Traits::kBChunks>(line, chunk), b[n]);
        }
      }
    }
  }

 private:
  __device__ __forceinline__ static uint2 widen(const char* tile, int row, int step, int byte,
                                                bool e5m2) {
    const char* address = tile + chunk_place<Traits::kAChunks>(row, step) + byte;
    return widen_fp8(load_shared(reinterpret_cast<const uint32_t*>(address)), e5m2);
  }
};

template <class Traits>
__device__ __forceinline__ void multiply_stage(const char* stage, int warp_row, int warp_col,
                                               int first_step, const GemmParams& p,
                                               GemmSums<Traits>& sums) {
#pragma unroll
  for (int step = 0; step < Traits::kSteps; ++step) {
    GemmFragments<Traits> fragments;
    fragments.read(stage, stage + Traits::kABytes, warp_row, warp_col, first_step + step, p);
#pragma unroll
    for (int m = 0; m < Traits::kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < Traits::kColTiles / 2; ++n) {
        const uint32_t (&b)[4] = fragments.b[n];
        multiply_add<typename Traits::T>(sums[m][2 * n], fragments.a[m], b[0], b[1]);
        multiply_add<typename Traits::T>(sums[m][2 * n + 1], fragments.a[m], b[2], b[3]);
      }
    }
  }
}

// Calls use(row, col, x, y) for the pairs of a warp's sums, by their places in the warp's part.
template <class Traits, typename Use>
__device__ __forceinline__ void for_each_pair(const GemmSums<Traits>& sums, const Use& use) {
  const int lane = threadIdx.x % kWarpSize;
#pragma unroll
  for (int m = 0; m < Traits::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < Traits::kColTiles; ++n) {
      const int row = m * 16 + lane / 4, col = n * 8 + lane % 4 * 2;
      use(row, col, sums[m][n][0], sums[m][n][1]);
      use(row + 8, col, sums[m][n][2], sums[m][n][3]);
    }
  }
}

// The warps' partial sums of one tile, added up through shared memory.
template <class Traits>
__device__ __forceinline__ void store_split(const GemmSums<Traits>& sums, float* partial,
                                            int first_col, const Output<Traits>& output) {
  constexpr int kTile = Traits::kRows * Traits::kCols;
  float* const mine = partial + threadIdx.x / kWarpSize * kTile;
  __syncthreads();  // the stages are read
  for_each_pair<Traits>(sums, [&](int row, int col, float x, float y) {
    store(reinterpret_cast<float2*>(mine + row * Traits::kCols + col), float2{x, y});
  });
  __syncthreads();
  for (int i = threadIdx.x * 2; i < kTile; i += Traits::kThreads * 2) {
    float x = 0.0f, y = 0.0f;
#pragma unroll
    for (int warp = 0; warp < Traits::kSplits; ++warp) {
      const float2 part = load_shared(reinterpret_cast<const float2*>(partial + warp * kTile + i));
      x += part.x;
      y += part.y;
    }
    output.store_pair(i / Traits::kCols, first_col + i % Traits::kCols, x, y);
  }
}

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads) gemm_kernel(const GemmParams p) {
  const GemmBlock block = find_block<Traits::kRows>(p);
  if (block.rows <= 0) return;
  const int first_col = static_cast<int>(blockIdx.y) * Traits::kCols;
  const char* const a = p.a + (block.batch_of_out * p.a_stride_batch + block.row * p.a_stride_row) *
                                  static_cast<int64_t>(sizeof(typename Traits::Stored));
  const char* const b =
      p.b + block.batch * p.b_stride_batch * static_cast<int64_t>(sizeof(typename Traits::Stored));

  char* const stages = dynamic_shared<char>();
  const int tiles = (block.depth + Traits::kDepth - 1) / Traits::kDepth;
  const auto load = [&](int tile) {
    if (tile < tiles) {
      load_stage<Traits>(stages + tile % Traits::kStages * Traits::kStageBytes, a, p.a_stride_row,
                         block.rows, b, p.b_stride_line, first_col, p.cols, tile, block.depth);
    }
    copy_async_commit();  // also of nothing, so that groups and tiles are counted alike
  };

  const int warp = threadIdx.x / kWarpSize;
  const int split = warp % Traits::kSplits, part = warp / Traits::kSplits;
  const int warp_row = part / Traits::kWarpsN * Traits::kWarpRows;
  const int warp_col = part % Traits::kWarpsN * Traits::kWarpCols;
  GemmSums<Traits> sums = {};
#pragma unroll
  for (int tile = 0; tile < Traits::kStages - 1; ++tile) load(tile);
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    copy_async_wait<Traits::kStages - 2>();
    __syncthreads();  // the tile is there, and the stage that is filled next has been read
    load(tile + Traits::kStages - 1);
    multiply_stage<Traits>(stages + tile % Traits::kStages * Traits::kStageBytes, warp_row,
                           warp_col, split * Traits::kSteps, p, sums);
  }

  const Output<Traits> output(p, block);
  if constexpr (Traits::kSplits > 1) {
    store_split<Traits>(sums, reinterpret_cast<float*>(stages), first_col, output);
  } else {
    for_each_pair<Traits>(sums, [&](int row, int col, float x, float y) {
      output.store_pair(warp_row + row, first_col + warp_col + col, x, y);
    });
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_GEMM_KERNEL_CUH_
