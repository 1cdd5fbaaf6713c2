// RMSNorm, alone and fused with the residual addition, to any output (norm/output.cuh).
//
// The row stays in registers between the sum of squares and the scaling, so it is read once. Blocks
// are persistent (norm/rows.cuh): the weight is loaded once, and the next row is on its way while
// the threads of this one wait for their sum.
#ifndef FLASHINFER_NORM_CUH_
#define FLASHINFER_NORM_CUH_

#include <cstdint>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"
#include "flashinfer/arch/reduce.cuh"
#include "flashinfer/norm/output.cuh"
#include "flashinfer/norm/rows.cuh"

namespace flashinfer {

template <typename T, typename Out>
struct RmsnormParams {
  int64_t rows;
  int hidden;
  const T* input;
  int64_t input_stride;
  Out out;
  const T* weight;
  float eps, weight_bias;
};

template <typename T, typename Out>
struct FusedAddRmsnormParams {
  int64_t rows;
  int hidden;
  const T* input;
  int64_t input_stride;
  T* residual;  // gets the sum
  int64_t residual_stride;
  Out out;  // gets the normalised sum; may be the input
  const T* weight;
  float eps, weight_bias;
};

template <int N>
__device__ __forceinline__ float sum_of_squares(const float (&x)[N], float sum) {
#pragma unroll
  for (int i = 0; i < N; ++i) sum += x[i] * x[i];
  return sum;
}

// x becomes x * scale * (bias + weight), the last step of every form.
template <typename T, int N>
__device__ __forceinline__ void scale_by_weight(float (&x)[N], float scale, const Vec<T, N>& weight,
                                                float bias) {
  float w[N];
  weight.widen(w);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = x[i] * scale * (bias + w[i]);
}

template <typename T, int N, int K, typename Out>
__global__ void __launch_bounds__(kMaxThreads<K>) rmsnorm_kernel(const RmsnormParams<T, Out> p) {
  __shared__ float partial[2][kMaxWarps];
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  RowShare<T, N, K> weight, next;
  weight.load(p.weight, p.hidden);
  const float factor = p.out.factor();
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
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int column = thread_column<N>(k);
      if (column >= p.hidden) break;
      share.vectors[k].widen(x);
      scale_by_weight(x, scale, weight.vectors[k], p.weight_bias);
      p.out.store(row, column, x, factor);
    }
  }
}

// Two rows are on their way at once here, so the next ones are not loaded early.
template <typename T, int N, int K, typename Out>
__global__ void __launch_bounds__(kMaxThreads<K>)
    fused_add_rmsnorm_kernel(const FusedAddRmsnormParams<T, Out> p) {
  __shared__ float partial[2][kMaxWarps];
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  RowShare<T, N, K> weight;
  weight.load(p.weight, p.hidden);
  const float factor = p.out.factor();
  int parity = 0;
  for (; row - threadIdx.y < p.rows; row += step, parity ^= 1) {
    const bool active = row < p.rows;
    const T* input = p.input + row * p.input_stride;
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
      scale_by_weight(x[k], scale, weight.vectors[k], p.weight_bias);
      p.out.store(row, column, x[k], factor);
    }
  }
}

// Rows too long for the registers of a block are read twice; the second time mostly from L2.
template <typename T, int N, typename Out>
__global__ void __launch_bounds__(1024) rmsnorm_long_kernel(const RmsnormParams<T, Out> p) {
  __shared__ float partial[2][kMaxWarps];
  const int step = blockDim.x * N;
  const float factor = p.out.factor();
  int parity = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, parity ^= 1) {
    const T* input = p.input + row * p.input_stride;
    float x[N];
    float sum = 0.0f;
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      sum = sum_of_squares(x, sum);
    }
    sum = row_sum(sum, partial[parity]);
    const float scale = reciprocal_sqrt(sum / p.hidden + p.eps);
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      const Vec<T, N> weight = load_readonly(reinterpret_cast<const Vec<T, N>*>(p.weight + column));
      scale_by_weight(x, scale, weight, p.weight_bias);
      p.out.store(row, column, x, factor);
    }
  }
}

// The sum is computed twice too, both times from what was there, so that it stays in fp32.
template <typename T, int N, typename Out>
__global__ void __launch_bounds__(1024)
    fused_add_rmsnorm_long_kernel(const FusedAddRmsnormParams<T, Out> p) {
  __shared__ float partial[2][kMaxWarps];
  const int step = blockDim.x * N;
  const float factor = p.out.factor();
  int parity = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, parity ^= 1) {
    const T* input = p.input + row * p.input_stride;
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
    sum = row_sum(sum, partial[parity]);
    const float scale = reciprocal_sqrt(sum / p.hidden + p.eps);
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      load_columns<T, N>(residual, column, p.hidden).widen(y);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] += y[i];
      const Vec<T, N> weight = load_readonly(reinterpret_cast<const Vec<T, N>*>(p.weight + column));
      store_columns(residual, column, Vec<T, N>::narrow(x));
      scale_by_weight(x, scale, weight, p.weight_bias);
      p.out.store(row, column, x, factor);
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_NORM_CUH_
