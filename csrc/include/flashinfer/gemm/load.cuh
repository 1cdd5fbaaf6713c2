// Bringing tiles of the two factors into shared memory.
#ifndef FLASHINFER_GEMM_LOAD_CUH_
#define FLASHINFER_GEMM_LOAD_CUH_

#include <cstdint>

#include "flashinfer/arch/async_copy.cuh"
#include "flashinfer/arch/memory.cuh"
#include "flashinfer/gemm/traits.cuh"

namespace flashinfer {

// A window of a matrix in memory: kLines lines of kChunks times 16 bytes, the elements of a line
// side by side. What lies past `lines` or `columns` becomes zeros.
template <class Traits, int kLines, int kChunks>
__device__ __forceinline__ void load_window(char* tile, const char* matrix, int64_t stride,
                                            int first_line, int lines, int first_column,
                                            int columns) {
  using Stored = typename Traits::Stored;
  constexpr int kSize = Traits::kChunkSize;
  const Stored* from = reinterpret_cast<const Stored*>(matrix);
#pragma unroll 4
  for (int i = threadIdx.x; i < kLines * kChunks; i += Traits::kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int line = first_line + row, column = first_column + chunk * kSize;
    const bool valid = line < lines && column < columns;
    const Stored* address = from + (valid ? line * stride + column : 0);
    char* to = tile + chunk_place<kChunks>(row, chunk);
    if constexpr (Traits::kVectors) {
      copy_async_16(to, address, valid);
    } else {
      Stored elements[kSize];
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        elements[j] = valid && column + j < columns ? address[j] : Stored{};
      }
      store(reinterpret_cast<uint4*>(to), bits_as<uint4>(elements));
    }
  }
}

// Tile `index` along the sum, of both factors, into a stage.
template <class Traits>
__device__ __forceinline__ void load_stage(char* stage, const char* a, int64_t a_stride, int rows,
                                           const char* b, int64_t b_stride, int first_col, int cols,
                                           int index, int depth) {
  const int at = index * Traits::kDepth;
  load_window<Traits, Traits::kRows, Traits::kAChunks>(stage, a, a_stride, 0, rows, at, depth);
  char* const b_tile = stage + Traits::kABytes;
  if constexpr (Traits::kColumns) {
    load_window<Traits, Traits::kBRows, Traits::kBChunks>(b_tile, b, b_stride, first_col, cols, at,
                                                          depth);
  } else {
    load_window<Traits, Traits::kBRows, Traits::kBChunks>(b_tile, b, b_stride, at, depth, first_col,
                                                          cols);
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_GEMM_LOAD_CUH_
