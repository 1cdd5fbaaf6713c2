// Layer norm: the mean of a row, then the variance about it, then the result.
//
// The row stays in registers, so it is read once, and the deviations are exact to fp32. Weights are
// fp32 and would take more registers than the row: they come from L1 for every row.
#ifndef FLASHINFER_LAYERNORM_CUH_
#define FLASHINFER_LAYERNORM_CUH_

#include <cstdint>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"
#include "flashinfer/arch/reduce.cuh"
#include "flashinfer/norm/rows.cuh"

namespace flashinfer {

template <typename T>
struct LayernormParams {
  int64_t rows;
  int hidden;
  const T* input;
  int64_t input_stride;
  T* out;  // may be the input
  int64_t out_stride;
  const float* gamma;
  const float* beta;
  float eps;
};

template <int N>
__device__ __forceinline__ float add_up(const float (&x)[N], float sum) {
#pragma unroll
  for (int i = 0; i < N; ++i) sum += x[i];
  return sum;
}

template <int N>
__device__ __forceinline__ float add_squares_about(float mean, const float (&x)[N], float sum) {
#pragma unroll
  for (int i = 0; i < N; ++i) sum += (x[i] - mean) * (x[i] - mean);
  return sum;
}

// Writes a vector of the result. Its weights come 16 bytes at a time, as there is room for no more.
template <typename T, int N>
__device__ __forceinline__ void store_normed(const LayernormParams<T>& p, T* out, int column,
                                             float mean, float scale, float (&x)[N]) {
  constexpr int kPart = N < 4 ? N : 4;
  typedef Vec<float, kPart> Part;
#pragma unroll
  for (int i = 0; i < N; i += kPart) {
    float gamma[kPart], beta[kPart];
    load_readonly(reinterpret_cast<const Part*>(p.gamma + column + i)).widen(gamma);
    load_readonly(reinterpret_cast<const Part*>(p.beta + column + i)).widen(beta);
#pragma unroll
    for (int j = 0; j < kPart; ++j) x[i + j] = (x[i + j] - mean) * scale * gamma[j] + beta[j];
  }
  store_columns(out, column, Vec<T, N>::narrow(x));
}

template <typename T, int N, int K>
__global__ void __launch_bounds__(kMaxThreads<K>, 1) layernorm_kernel(const LayernormParams<T> p) {
  // Two sums a row, each with an array: a thread that writes one again has passed the barrier of
  // the other, behind which nobody reads it any more.
  __shared__ float partial[2][kMaxWarps];
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  RowShare<T, N, K> next{};
  if (row < p.rows) next.load(p.input + row * p.input_stride, p.hidden);
  // Every thread of the block goes round equally often, for the sake of the barriers.
  for (; row - threadIdx.y < p.rows; row += step) {
    const RowShare<T, N, K> share = next;
    if (row + step < p.rows) next.load(p.input + (row + step) * p.input_stride, p.hidden);
    float x[N];
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      share.vectors[k].widen(x);
      sum = add_up(x, sum);
    }
    const float mean = row_sum(sum, partial[0]) / p.hidden;
    sum = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      share.vectors[k].widen(x);
      // The zeros past the end are not of the row.
      if (thread_column<N>(k) < p.hidden) sum = add_squares_about(mean, x, sum);
    }
    const float variance = row_sum(sum, partial[1]) / p.hidden;
    if (row >= p.rows) continue;
    const float scale = reciprocal_sqrt(variance + p.eps);
    T* out = p.out + row * p.out_stride;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int column = thread_column<N>(k);
      if (column >= p.hidden) break;
      share.vectors[k].widen(x);
      store_normed(p, out, column, mean, scale, x);
    }
  }
}

// Rows too long for the registers of a block are read three times; again mostly from L2.
template <typename T, int N>
__global__ void __launch_bounds__(1024) layernorm_long_kernel(const LayernormParams<T> p) {
  __shared__ float partial[2][kMaxWarps];
  const int step = blockDim.x * N;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const T* input = p.input + row * p.input_stride;
    T* out = p.out + row * p.out_stride;
    float x[N];
    float sum = 0.0f;
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      sum = add_up(x, sum);
    }
    const float mean = row_sum(sum, partial[0]) / p.hidden;
    sum = 0.0f;
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      sum = add_squares_about(mean, x, sum);
    }
    const float scale = reciprocal_sqrt(row_sum(sum, partial[1]) / p.hidden + p.eps);
    for (int column = threadIdx.x * N; column < p.hidden; column += step) {
      load_columns<T, N>(input, column, p.hidden).widen(x);
      store_normed(p, out, column, mean, scale, x);
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_LAYERNORM_CUH_
