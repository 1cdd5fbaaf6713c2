// How the threads of a block share rows that are normed.
//
// A block is blockDim.y rows of blockDim.x threads; thread x of a row has the vectors x,
// x + blockDim.x, ... of it. A vector has N elements and hidden is a multiple of N. Blocks are
// persistent: they walk down the rows.
#ifndef FLASHINFER_NORM_ROWS_CUH_
#define FLASHINFER_NORM_ROWS_CUH_

#include "flashinfer/arch/memory.cuh"

namespace flashinfer {

// The first column of this thread's vector k.
template <int N>
__device__ __forceinline__ int thread_column(int k) {
  return (k * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
}

// This thread's share of a row: K vectors of N elements, zero past the end.
template <typename T, int N, int K>
struct RowShare {
  Vec<T, N> vectors[K];

  __device__ __forceinline__ void load(const T* row, int hidden) {
#pragma unroll
    for (int k = 0; k < K; ++k) vectors[k] = load_columns<T, N>(row, thread_column<N>(k), hidden);
  }
};

// Blocks of 1024 threads have 64 registers a thread: two vectors of the row, of the weight and of
// the next row. More vectors a thread are for rows of a single warp, in blocks of 256 threads.
template <int K>
constexpr int kMaxThreads = K <= 2 ? 1024 : 256;

}  // namespace flashinfer

#endif  // FLASHINFER_NORM_ROWS_CUH_
