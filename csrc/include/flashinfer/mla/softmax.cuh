// From the scores of a tile to probabilities, through shared memory: each lane has four keys of one
// row, eight lanes a row.
#ifndef FLASHINFER_MLA_SOFTMAX_CUH_
#define FLASHINFER_MLA_SOFTMAX_CUH_

#include <cmath>
#include <cstdint>

#include "flashinfer/attention/output.cuh"
#include "flashinfer/attention/softmax.cuh"
#include "flashinfer/mla/traits.cuh"

namespace flashinfer {

__device__ __forceinline__ float octet_max(float x) {
  x = quad_max(x);
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 4));
}

// The running softmax of the lane's row; scores are in base 2. `row_sum` is what this lane has
// seen.
template <class Traits>
struct LatentSoftmax {
  int row;
  KeyRange keys;
  float row_max = -INFINITY;
  RunningSum row_sum;

  __device__ __forceinline__ LatentSoftmax(const MlaParams& p, const Rows& rows)
      : row(static_cast<int>(threadIdx.x) / Traits::kRowLanes),
        keys(rows.keys(p, rows.token(row < rows.count ? row : rows.count - 1))) {}

  // Adds up the scores that warps have parts of, writes the probabilities over them, and to
  // `factors` what takes the row's output so far to its new maximum.
  __device__ __forceinline__ void update(const MlaParams& p, int first_key, char* scores,
                                         float* factors) {
    using T = typename Traits::T;
    const int part = threadIdx.x % Traits::kRowLanes;
    const int key = first_key + part * Traits::kLaneKeys;
    float x[4] = {};
#pragma unroll
    for (int split = 0; split < Traits::kDimSplits; ++split) {
      float more[4];
      const char* from = scores + score_place<Traits>(split, row, part);
      load_shared(reinterpret_cast<const Vec<float, 4>*>(from)).widen(more);
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] += more[i];
    }
    float tile_max = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = p.cap > 0.0f ? cap_score(p, x[i]) : x[i] * p.scale;
      if (key + i < keys.begin || key + i >= keys.end) x[i] = -INFINITY;
      tile_max = fmaxf(tile_max, x[i]);
    }
    const float new_max = fmaxf(row_max, octet_max(tile_max));
    const float base = new_max == -INFINITY ? 0.0f : new_max;
    const float scores_scale = exp2_fast(row_max - base);
    row_max = new_max;
    float tile_sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = exp2_fast(x[i] - base);
      tile_sum += x[i];
    }
    row_sum.update(scores_scale, tile_sum);
    char* const to = scores + probability_place(row, part / 2) + part % 2 * 8;
    const uint2 words = make_uint2(narrow_word<T>(x), narrow_word<T>(x + 2));
    __syncwarp();  // all lanes of the row have read its scores
    store(reinterpret_cast<uint2*>(to), words);
    if (part == 0) store(factors + row, scores_scale);
  }

  // Writes the row's log-sum-exp, and to `factors` what its output is to be multiplied by.
  __device__ __forceinline__ void finish(const MlaParams& p, const Rows& rows, float* factors) {
    const float total = warp_sum(row_sum.sum, Traits::kRowLanes);
    if (threadIdx.x % Traits::kRowLanes != 0) return;
    store(factors + row, total > 0.0f ? reciprocal(total) : 0.0f);
    if (row < rows.count) write_lse(p, rows, row, log_sum(row_max, total));
  }
};

}  // namespace flashinfer

#endif  // FLASHINFER_MLA_SOFTMAX_CUH_
