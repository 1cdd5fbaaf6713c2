// RMSNorm, alone and fused with the residual addition.
//
// A block is blockDim.y rows of blockDim.x threads; thread x of a row has the vectors x,
// x + blockDim.x, ... of it. A vector has N elements and hidden is a multiple of N. The row stays
// in registers between the sum of squares and the scaling, so it is read once. Blocks are
// persistent: the weight is loaded once, and the next row is on its way while the threads of this
// one wait for their sum.
#ifndef FLASHINFER_NORM_CUH_
#define FLASHINFER_NORM_CUH_

#include <cstdint>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"
#include "flashinfer/arch/reduce.cuh"

namespace flashinfer {

template <typename T>
struct RmsnormParams {
  int64_t rows;
  int hidden;
  const T* input;
  int64_t input_stride;
  T* out;  // may be the input
  int64_t out_stride;
  const T* weight;
  float eps, weight_bias;
};

template <typename T>
struct FusedAddRmsnormParams {
  int64_t rows;
  int hidden;
  T* input;  // gets the normalised sum
  int64_t input_stride;
  T* residual;  // gets the sum
  int64_t residual_stride;
  const T* weight;
  float eps, weight_bias;
};

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

template <int N>
__device__ __forceinline__ float sum_of_squares(const float (&x)[N], float sum) {
#pragma unroll
  for (int i = 0; i < N; ++i) sum += x[i] * x[i];
  return sum;
}

// x * scale * (bias + weight), the last step of every form.
template <typename T, int N>
__device__ __forceinline__ Vec<T, N> scale_by_weight(const float (&x)[N], float scale,
                                                     const Vec<T, N>& weight, float bias) {
  float y[N];
  weight.widen(y);
#pragma unroll
  for (int i = 0; i < N; ++i) y[i] = x[i] * scale * (bias + y[i]);
  return Vec<T, N>::narrow(y);
}

// Blocks of 1024 threads have 64 registers a thread: two vectors of the row, of the weight and of
// the next row. More vectors a thread are for rows of a single warp, in blocks of 256 threads.
template <int K>
constexpr int kMaxThreads = K <= 2 ? 1024 : 256;

template <typename T, int N, int K>
__global__ void __launch_bounds__(kMaxThreads<K>) rmsnorm_kernel(const RmsnormParams<T> p) {
  __shared__ float partial[2][kMaxWarps];
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  RowShare<T, N, K> weight, next;
  weight.load(p.weight, p.hidden);
  if (row < p.rows) next.load(p.input + row * p.input_stride, p.hidden);
  int parity = 0;
  // Every thread of the block goes round equally often, for the sake of the barrier.
  for (; row - threadIdx.y < p.rows; row += step, parity ^= 1) {
    const RowShare<T, N, K> share = next;
    if (row + step < p.rows) next.load(p.input + (row + step) * p.input_stride, p.hidden);
    float x[N];
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      share.vectors[k].widen(x);
      sum = sum_of_squares(x, sum);
    }
    sum = row_sum(sum, partial[parity]);
    if (row >= p.rows) continue;
    const float scale = reciprocal_sqrt(sum / p.hidden + p.eps);
    T* out = p.out + row * p.out_stride;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int column = thread_column<N>(k);
      if (column >= p.hidden) break;
      share.vectors[k].widen(x);
      store_columns(out, column, scale_by_weight(x, scale, weight.vectors[k], p.weight_bias));
    }
  }
}

// Two rows are on their way at once here, so the next ones are not loaded early.
template <typename T, int N, int K>
__global__ void __launch_bounds__(kMaxThreads<K>)
    fused_add_rmsnorm_kernel(const FusedAddRmsnormParams<T> p) {
  __shared__ float partial[2][kMaxWarps];
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  RowShare<T, N, K> weight;
  weight.load(p.weight, p.hidden);
  int parity = 0;
  for (; row - threadIdx.y < p.rows; row += step, parity ^= 1) {
    const bool active = row < p.rows;
    T* input = p.input + row * p.input_stride;
    T* residual = p.residual + row * p.residual_stride;
    RowShare<T, N, K> a, b;
    a.load(input, active ? p.hidden : 0);
    b.load(residual, active ? p.hidden : 0);
    float x[K][N];
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      float addend[N];
      a.vectors[k].widen(x[k]);
      b.vectors[k].widen(addend);
#pragma unroll
      for (int i = 0; i < N; ++i) x[k][i] += addend[i];
      sum = sum_of_squares(x[k], sum);
    }
    sum = row_sum(sum, partial[parity]);
    if (!active) continue;
    const float scale = reciprocal_sqrt(sum / p.hidden + p.eps);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int column = thread_column<N>(k);
      if (column >= p.hidden) break;
      store_columns(residual, column, Vec<T, N>::narrow(x[k]));
      store_columns(input, column, scale_by_weight(x[k], scale, weight.vectors[k], p.weight_bias));
    }
  }
}

// Rows too long for the registers of a block are read twice; the second time mostly from L2.
template <typename T, int N>
__global__ void __launch_bounds__(1024) rmsnorm_long_kernel(const RmsnormParams<T> p) {
  __shared__ float partial[2][kMaxWarps];
  const int step = blockDim.x * N;
  int parity = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, parity ^= 1) {
    const T* input = p.input + row * p.input_stride;
    T* out = p.out + row * p.out_stride;
    float x[N];
    float sum = 0.0f;
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      sum = sum_of_squares(x, sum);
    }
    const float scale = reciprocal_sqrt(row_sum(sum, partial[parity]) / p.hidden + p.eps);
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      const Vec<T, N> weight = load_readonly(reinterpret_cast<const Vec<T, N>*>(p.weight + column));
      store_columns(out, column, scale_by_weight(x, scale, weight, p.weight_bias));
    }
  }
}

// The sum is computed twice too, both times from what was there, so that it stays in fp32.
template <typename T, int N>
__global__ void __launch_bounds__(1024)
    fused_add_rmsnorm_long_kernel(const FusedAddRmsnormParams<T> p) {
  __shared__ float partial[2][kMaxWarps];
  const int step = blockDim.x * N;
  int parity = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, parity ^= 1) {
    T* input = p.input + row * p.input_stride;
    T* residual = p.residual + row * p.residual_stride;
    float x[N], y[N];
    float sum = 0.0f;
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      load_columns<T, N>(residual, column, p.hidden).widen(y);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] += y[i];
      sum = sum_of_squares(x, sum);
    }
    const float scale = reciprocal_sqrt(row_sum(sum, partial[parity]) / p.hidden + p.eps);
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      load_columns<T, N>(residual, column, p.hidden).widen(y);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] += y[i];
      const Vec<T, N> weight = load_readonly(reinterpret_cast<const Vec<T, N>*>(p.weight + column));
      store_columns(residual, column, Vec<T, N>::narrow(x));
      store_columns(input, column, scale_by_weight(x, scale, weight, p.weight_bias));
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_NORM_CUH_
