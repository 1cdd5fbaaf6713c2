// Merging attention states (v, s), s the base-2 log-sum-exp of the scores that v averages over.
#ifndef FLASHINFER_CASCADE_CUH_
#define FLASHINFER_CASCADE_CUH_

#include <cmath>
#include <cstdint>

#include "flashinfer/arch/launch.cuh"
#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"
#include "flashinfer/arch/reduce.cuh"

namespace flashinfer {

// 2^(s - largest), which is 0 for an empty state, also where all states are empty.
__device__ __forceinline__ float state_weight(float s, float largest) {
  return s == -INFINITY ? 0.0f : exp2_fast(s - largest);
}

// acc += weight * v. A state of weight 0 adds nothing whatever its v holds: the attention that
// left the state empty may not have written v at all.
template <typename T, int N>
__device__ __forceinline__ void add_weighted(float (&acc)[N], float weight, const Vec<T, N>& v) {
  float x[N];
  v.widen(x);
#pragma unroll
  for (int i = 0; i < N; ++i) acc[i] += weight == 0.0f ? 0.0f : weight * x[i];
}

template <typename T>
struct MergeStateParams {
  int64_t rows;  // seq_len * num_heads
  int num_heads;
  int head_dim;
  const T* v_a;
  const float* s_a;
  const T* v_b;
  const float* s_b;
  T* v_out;      // may be v_a
  float* s_out;  // may be s_a
  const uint8_t* mask;
};

// blockDim.x lanes, a power of two up to 32, share a row; blockDim.y rows are in a block.
template <typename T, int N>
__global__ void __launch_bounds__(256) merge_state_kernel(const MergeStateParams<T> p) {
  using Vector = Vec<T, N>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  // Every thread of the block goes round equally often, for the sake of __syncwarp.
  for (; row - threadIdx.y < p.rows; row += step) {
    const bool active = row < p.rows && (p.mask == nullptr || p.mask[row / p.num_heads] != 0);
    float s_a = 0.0f, s_b = 0.0f;
    if (active) {
      s_a = p.s_a[row];
      s_b = p.s_b[row];
    }
    __syncwarp();  // s_out may be s_a: every lane has read it before one lane writes
    if (!active) continue;
    const float largest = fmaxf(s_a, s_b);
    float weight_a = state_weight(s_a, largest), weight_b = state_weight(s_b, largest);
    const float sum = weight_a + weight_b;
    const float scale = sum > 0.0f ? reciprocal(sum) : 0.0f;
    weight_a *= scale;
    weight_b *= scale;
    if (threadIdx.x == 0) p.s_out[row] = sum > 0.0f ? largest + log2f(sum) : -INFINITY;
    const int64_t base = row * p.head_dim;
    for (int column = threadIdx.x * N; column < p.head_dim; column += blockDim.x * N) {
      const Vector a = load_once(reinterpret_cast<const Vector*>(p.v_a + base + column));
      const Vector b = load_once(reinterpret_cast<const Vector*>(p.v_b + base + column));
      float merged[N] = {};
      add_weighted(merged, weight_a, a);
      add_weighted(merged, weight_b, b);
      store_columns(p.v_out + base, column, Vector::narrow(merged));
    }
  }
}

template <typename T>
struct MergeStatesParams {
  int64_t rows;  // seq_len * num_heads
  int num_states, num_heads, head_dim;
  const T* v;
  const float* s;
  T* v_out;
  float* s_out;
};

constexpr int kMergeThreads = 256;

// blockDim = (lanes, rows, splits): a row's lanes have N elements each of a part of head_dim, given
// by blockIdx.y; its splits take every splits-th state each, in fp32, and the first split adds
// their sums up in a fixed order. Lanes are a power of two up to 32.
template <typename T, int N>
__global__ void __launch_bounds__(kMergeThreads) merge_states_kernel(const MergeStatesParams<T> p) {
  __shared__ float split_largest[kMergeThreads], split_sum[kMergeThreads];
  __shared__ float split_acc[kMergeThreads * N];
  const int splits = blockDim.z;
  const int column = (blockIdx.y * blockDim.x + threadIdx.x) * N;
  const int split_threads = blockDim.x * blockDim.y;
  const int thread = threadIdx.z * split_threads + threadIdx.y * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  for (; row - threadIdx.y < p.rows; row += step) {
    const bool active = row < p.rows && column < p.head_dim;
    // State j of this row is element (token * num_states + j) * num_heads + head of s.
    const int64_t token = row / p.num_heads;
    const int64_t state0 = token * p.num_states * p.num_heads + (row - token * p.num_heads);
    float largest = -INFINITY, sum = 0.0f;
    float acc[N] = {};
    if (active) {
      for (int j = threadIdx.z; j < p.num_states; j += splits) {
        largest = fmaxf(largest, p.s[state0 + static_cast<int64_t>(j) * p.num_heads]);
      }
#pragma unroll 4
      for (int j = threadIdx.z; j < p.num_states; j += splits) {
        const int64_t state = state0 + static_cast<int64_t>(j) * p.num_heads;
        const float weight = state_weight(p.s[state], largest);
        sum += weight;
        add_weighted(
            acc, weight,
            load_once(reinterpret_cast<const Vec<T, N>*>(p.v + state * p.head_dim + column)));
      }
    }
    if (splits > 1) {
      split_largest[thread] = largest;
      split_sum[thread] = sum;
#pragma unroll
      for (int i = 0; i < N; ++i) split_acc[i * kMergeThreads + thread] = acc[i];
      __syncthreads();
      if (threadIdx.z == 0) {
        for (int k = 1; k < splits; ++k) {
          largest = fmaxf(largest, split_largest[thread + k * split_threads]);
        }
        const float own = state_weight(split_largest[thread], largest);
        sum *= own;
#pragma unroll
        for (int i = 0; i < N; ++i) acc[i] *= own;
        for (int k = 1; k < splits; ++k) {
          const int other = thread + k * split_threads;
          const float weight = state_weight(split_largest[other], largest);
          sum += weight * split_sum[other];
#pragma unroll
          for (int i = 0; i < N; ++i) acc[i] += weight * split_acc[i * kMergeThreads + other];
        }
      }
      __syncthreads();
    }
    if (!active || threadIdx.z != 0) continue;
    const float scale = sum > 0.0f ? reciprocal(sum) : 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) acc[i] *= scale;
    store_columns(p.v_out + row * p.head_dim, column, Vec<T, N>::narrow(acc));
    if (column == 0) p.s_out[row] = sum > 0.0f ? largest + log2f(sum) : -INFINITY;
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_CASCADE_CUH_
