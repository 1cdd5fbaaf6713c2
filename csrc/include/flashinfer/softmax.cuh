// Softmax of rows of logits, with a temperature.
//
// A block has a row. Rows of up to 32,768 entries (8192 without vectors) stay in registers from the
// maximum to the result. Longer ones are read twice: the first time with a running maximum and sum,
// the second time, mostly from L2, to be written.
#ifndef FLASHINFER_SOFTMAX_CUH_
#define FLASHINFER_SOFTMAX_CUH_

#include <cfloat>
#include <cstdint>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"
#include "flashinfer/arch/reduce.cuh"

namespace flashinfer {

constexpr int kSoftmaxThreads = 1024;
constexpr int kSoftmaxVectors = 8;  // of a row that stays in registers, at most, a thread

struct SoftmaxParams {
  int vocab;
  const float* logits;
  int64_t logits_stride;
  float* out;  // may be the logits
  int64_t out_stride;
  const float* temperature;  // an element per row, or NULL
  float temperature_value;
};

// e^(s x) against the largest of a row, as 2^(factor (y - most)). y is x, or -x for s < 0, so that
// the largest y is where s x is largest, for any s.
class Exponential {
 public:
  __device__ __forceinline__ Exponential(const SoftmaxParams& p, int64_t row) {
    const float temperature = p.temperature == nullptr ? p.temperature_value : p.temperature[row];
    const float s = temperature == 0.0f ? 0.0f : 1.0f / temperature;
    negative_ = s < 0.0f;
    const float factor = fabsf(s) * 1.44269504f;  // log2(e)
    // Infinity times the 0 of the largest entry would be NaN; a NaN stays one.
    factor_ = factor > FLT_MAX ? FLT_MAX : factor;
  }

  __device__ __forceinline__ float ordered(float x) const { return negative_ ? -x : x; }

  // Of an ordered entry. -inf is 0 beside a `most` that is -inf too, and with a factor of 0.
  __device__ __forceinline__ float operator()(float y, float most) const {
    return y == kMinusInfinity ? 0.0f : exp2_fast(factor_ * (y - most));
  }

  static constexpr float kMinusInfinity = -INFINITY;

 private:
  float factor_;
  bool negative_;
};

// What exponentials with this sum are multiplied by: 0 for the row that has nothing above -inf.
__device__ __forceinline__ float one_by_sum(float sum) { return sum == 0.0f ? 0.0f : 1.0f / sum; }

// The first column of this thread's vector k.
template <int N>
__device__ __forceinline__ int softmax_column(int k) {
  return (k * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
}

// N ordered entries from `column` on, -inf past the end of the row.
template <int N>
__device__ __forceinline__ void load_ordered(const float* row, int column, int vocab,
                                             const Exponential& exponential, float (&y)[N]) {
  load_columns<float, N>(row, column, vocab).widen(y);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    y[i] = column < vocab ? exponential.ordered(y[i]) : Exponential::kMinusInfinity;
  }
}

template <int N>
__global__ void __launch_bounds__(kSoftmaxThreads) softmax_kernel(const SoftmaxParams p) {
  __shared__ float partial[2][kMaxWarps];
  const int64_t row = blockIdx.x;
  const float* logits = p.logits + row * p.logits_stride;
  float* out = p.out + row * p.out_stride;
  const Exponential exponential(p, row);
  float y[kSoftmaxVectors][N];
  float most = Exponential::kMinusInfinity;
#pragma unroll
  for (int k = 0; k < kSoftmaxVectors; ++k) {
    load_ordered(logits, softmax_column<N>(k), p.vocab, exponential, y[k]);
  }
#pragma unroll
  for (int k = 0; k < kSoftmaxVectors; ++k) {
#pragma unroll
    for (int i = 0; i < N; ++i) most = fmaxf(most, y[k][i]);
  }
  most = row_max(most, partial[0]);
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < kSoftmaxVectors; ++k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      y[k][i] = exponential(y[k][i], most);
      sum += y[k][i];
    }
  }
  const float factor = one_by_sum(row_sum(sum, partial[1]));
#pragma unroll
  for (int k = 0; k < kSoftmaxVectors; ++k) {
    const int column = softmax_column<N>(k);
    if (column >= p.vocab) break;
#pragma unroll
    for (int i = 0; i < N; ++i) y[k][i] *= factor;
    store_columns(out, column, Vec<float, N>::narrow(y[k]));
  }
}

// What a thread has seen: the largest entry, and the sum of exponentials against it.
struct RunningSoftmax {
  float most = Exponential::kMinusInfinity, sum = 0.0f;

  template <int N>
  __device__ __forceinline__ void add(const float (&y)[N], const Exponential& exponential) {
    float next = most;
#pragma unroll
    for (int i = 0; i < N; ++i) next = fmaxf(next, y[i]);
    if (next > most) {
      sum *= exponential(most, next);
      most = next;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) sum += exponential(y[i], most);
  }
};

constexpr int kSoftmaxInFlight = 4;  // vectors that a thread loads before it looks at one

template <int N>
__global__ void __launch_bounds__(kSoftmaxThreads) softmax_long_kernel(const SoftmaxParams p) {
  __shared__ float partial[2][kMaxWarps];
  const int64_t row = blockIdx.x;
  const float* logits = p.logits + row * p.logits_stride;
  float* out = p.out + row * p.out_stride;
  const Exponential exponential(p, row);
  RunningSoftmax seen;
  for (int k = 0; softmax_column<N>(k) < p.vocab; k += kSoftmaxInFlight) {
    float y[kSoftmaxInFlight][N];
#pragma unroll
    for (int j = 0; j < kSoftmaxInFlight; ++j) {
      load_ordered(logits, softmax_column<N>(k + j), p.vocab, exponential, y[j]);
    }
#pragma unroll
    for (int j = 0; j < kSoftmaxInFlight; ++j) seen.add(y[j], exponential);
  }
  const float most = row_max(seen.most, partial[0]);
  // A thread that has seen -inf alone has a sum of 0, or of NaN, which stays one.
  const float factor = one_by_sum(row_sum(seen.sum * exponential(seen.most, most), partial[1]));
  for (int k = 0; softmax_column<N>(k) < p.vocab; k += kSoftmaxInFlight) {
    float y[kSoftmaxInFlight][N];
#pragma unroll
    for (int j = 0; j < kSoftmaxInFlight; ++j) {
      load_ordered(logits, softmax_column<N>(k + j), p.vocab, exponential, y[j]);
    }
#pragma unroll
    for (int j = 0; j < kSoftmaxInFlight; ++j) {
      const int column = softmax_column<N>(k + j);
      if (column >= p.vocab) break;
#pragma unroll
      for (int i = 0; i < N; ++i) y[j][i] = exponential(y[j][i], most) * factor;
      store_columns(out, column, Vec<float, N>::narrow(y[j]));
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_SOFTMAX_CUH_
