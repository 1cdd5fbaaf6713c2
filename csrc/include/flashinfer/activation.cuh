// act(gate) * up, for the two halves of a row that a fused linear layer has written.
#ifndef FLASHINFER_ACTIVATION_CUH_
#define FLASHINFER_ACTIVATION_CUH_

#include <cmath>
#include <cstdint>

#include "flashinfer/api.h"
#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"

namespace flashinfer {

// x / (1 + e^-y); 0 where y is so low that e^-y is infinite.
__device__ __forceinline__ float times_sigmoid(float x, float y) {
  constexpr float kLog2E = 1.4426950408889634f;
  return x * reciprocal(1.0f + exp2_fast(-kLog2E * y));
}

template <fi_activation kActivation>
__device__ __forceinline__ float activate(float x) {
  if constexpr (kActivation == FI_SILU) {
    return times_sigmoid(x, x);
  } else if constexpr (kActivation == FI_GELU) {
    constexpr float kSqrtHalf = 0.70710678118654752f;
    return 0.5f * x * (1.0f + erff(x * kSqrtHalf));
  } else {
    // 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): no tanh needed, and
    // no cancellation for large negative x.
    constexpr float kTwoSqrtTwoOverPi = 1.5957691216057308f;
    return times_sigmoid(x, kTwoSqrtTwoOverPi * (x + 0.044715f * x * x * x));
  }
}

template <typename T>
struct ActAndMulParams {
  int64_t rows;
  int64_t d;
  const T* input;  // rows of 2 d: the gate, then the factor
  int64_t input_stride;
  T* out;
  int64_t out_stride;
};

// The rows whose loads one thread has in flight together.
constexpr int kRowsInFlight = 2;

// A thread keeps its column and walks down the rows, so that there is no division.
template <typename T, int N, fi_activation kActivation>
__global__ void __launch_bounds__(256) act_and_mul_kernel(const ActAndMulParams<T> p) {
  using Vector = Vec<T, N>;
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (column >= p.d) return;
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.y;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
  for (int64_t row = first; row < p.rows; row += kRowsInFlight * step) {
    Vector gate[kRowsInFlight], up[kRowsInFlight];
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      if (row + r * step >= p.rows) break;
      const T* input = p.input + (row + r * step) * p.input_stride + column;
      gate[r] = load_once(reinterpret_cast<const Vector*>(input));
      up[r] = load_once(reinterpret_cast<const Vector*>(input + p.d));
    }
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      if (row + r * step >= p.rows) break;
      float x[N], factor[N];
      gate[r].widen(x);
      up[r].widen(factor);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = activate<kActivation>(x[i]) * factor[i];
      T* out = p.out + (row + r * step) * p.out_stride + column;
      store(reinterpret_cast<Vector*>(out), Vector::narrow(x));
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_ACTIVATION_CUH_
