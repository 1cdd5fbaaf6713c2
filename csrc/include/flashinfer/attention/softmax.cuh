// From scores to probabilities, in the registers of a warp: mask, the general instantiation's
// options, and the softmax that is carried from tile to tile.
//
// Scores are in base 2. A lane holds rows g = lane / 4 and g + 8 of the warp's 16, and of every
// eight keys the two from 2 (lane % 4) on: the fragment C of arch/mma.cuh.
#ifndef FLASHINFER_ATTENTION_SOFTMAX_CUH_
#define FLASHINFER_ATTENTION_SOFTMAX_CUH_

#include <cmath>
#include <cstdint>

#include "flashinfer/attention/traits.cuh"

namespace flashinfer {

// What a lane knows of its two rows.
struct LaneRows {
  KeyRange keys[2];
  // The general instantiation:
  int position[2];
  float slope[2];        // of ALiBi, in base 2, or 0
  const uint8_t* mask;   // of the request, or NULL
  int64_t first_bit[2];  // of the row in it
};

__device__ __forceinline__ float alibi_slope(const GeneralAttentionParams& p, int head) {
  constexpr float kLog2e = 1.4426950408889634f;
  if (p.alibi_slopes != nullptr) return load_readonly(p.alibi_slopes + head) * kLog2e;
  const int n = p.alibi_heads;
  const int steps = head < n ? 8 * (head + 1) : 4 * (2 * (head - n) + 1);
  return exp2_fast(static_cast<float>(-steps) / static_cast<float>(n)) * kLog2e;
}

// `warp_row` is the first row of the warp. Rows past the end are taken for the last one.
template <class Traits>
__device__ __forceinline__ LaneRows lane_rows(const typename Traits::Params& p, const Rows& rows,
                                              int warp_row) {
  LaneRows lane{};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    int row = warp_row + static_cast<int>(threadIdx.x) % kWarpSize / 4 + 8 * i;
    row = row < rows.count ? row : rows.count - 1;
    const int token = rows.token(row);
    lane.keys[i] = rows.keys(p, token);
    if constexpr (Traits::kGeneral) {
      lane.position[i] = rows.position(token);
      if (p.alibi) lane.slope[i] = alibi_slope(p, rows.head(row));
      if (p.mask != nullptr) {
        lane.mask = p.mask + load_readonly(p.mask_indptr + rows.item.request);
        lane.first_bit[i] = static_cast<int64_t>(token) * rows.item.kv_len;
      }
    }
  }
  return lane;
}

// cap * tanh(score * sm_scale / cap), in base 2: tanh(y) = 1 - 2 / (e^2y + 1).
template <class Params>
__device__ __forceinline__ float cap_score(const Params& p, float score) {
  return p.cap * (1.0f - 2.0f * reciprocal(exp2_fast(score * p.cap_scale) + 1.0f));
}

// Calls body(score, row 0 or 1, key) for each score of the lane.
template <int kTiles, typename Body>
__device__ __forceinline__ void for_each_score(float (&scores)[kTiles][4], int first_key,
                                               const Body& body) {
  const int key = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) body(scores[tile][i], i / 2, key + tile * 8 + i % 2);
  }
}

// Cap and bias of dot products; what the lean instantiation does in one multiplication later.
template <int kTiles>
__device__ __forceinline__ void transform_scores(const GeneralAttentionParams& p,
                                                 const LaneRows& lane, int first_key,
                                                 float (&scores)[kTiles][4]) {
  if (p.cap > 0.0f) {
    for_each_score(scores, first_key, [&](float& x, int, int) { x = cap_score(p, x); });
  } else {
    for_each_score(scores, first_key, [&](float& x, int, int) { x *= p.scale; });
  }
  if (p.alibi) {
    for_each_score(scores, first_key, [&](float& x, int row, int key) {
      x = fmaf(lane.slope[row], static_cast<float>(key - lane.position[row]), x);
    });
  }
}

// -inf for the keys that a row does not see.
template <int kTiles>
__device__ __forceinline__ void mask_scores(const LaneRows& lane, int first_key,
                                            float (&scores)[kTiles][4]) {
  for_each_score(scores, first_key, [&](float& x, int row, int key) {
    if (key < lane.keys[row].begin || key >= lane.keys[row].end) x = -INFINITY;
  });
}

template <int kTiles>
__device__ __forceinline__ void mask_scores_by_bits(const LaneRows& lane, int first_key,
                                                    float (&scores)[kTiles][4]) {
  for_each_score(scores, first_key, [&](float& x, int row, int key) {
    bool seen = key >= lane.keys[row].begin && key < lane.keys[row].end;
    if (seen) {
      const int64_t bit = lane.first_bit[row] + key;
      seen = lane.mask[bit / 8] >> (bit % 8) & 1;
    }
    if (!seen) x = -INFINITY;
  });
}

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// A sum over many tiles, with what rounding took from it (Kahan's summation). Without that, a
// tile's sum is rounded at the size of the whole: for tiles that are alike always in the same
// direction.
struct RunningSum {
  float sum = 0.0f, lost = 0.0f;

  // sum * rescale + more
  __device__ __forceinline__ void update(float rescale, float more) {
    const float mended = fmaf(-lost, rescale, more);
    const float now = fmaf(sum, rescale, mended);
    lost = fmaf(-sum, rescale, now) - mended;
    sum = now;
  }
};

// The running softmax of a lane's two rows. `out` are the fragments of the sum of p * v, `row_sum`
// is what this lane alone has seen. The largest score so far, in base 2, is -inf as long as no key
// was seen. It is kept as it is subtracted, scaled and rounded: what the earlier tiles are
// multiplied by is then exactly 1 where the maximum stays. Any other number near 1 would re-weigh
// them a little with every tile.
template <int kOutTiles>
struct Softmax {
  float row_max[2] = {-INFINITY, -INFINITY};
  RunningSum row_sum[2];
  float out[kOutTiles][4] = {};

  // Makes probabilities of scores, which `scale` (positive) turns to base 2, and takes what was
  // summed up to the new maximum.
  template <int kTiles>
  __device__ __forceinline__ void update(float (&scores)[kTiles][4], float scale) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float tile_max = scores[0][2 * row];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        tile_max = fmaxf(tile_max, fmaxf(scores[tile][2 * row], scores[tile][2 * row + 1]));
      }
      const float new_max = fmaxf(row_max[row], quad_max(tile_max) * scale);
      const bool moved = new_max != row_max[row];
      const float base = new_max == -INFINITY ? 0.0f : new_max;
      const float scores_scale = exp2_fast(row_max[row] - base);
      row_max[row] = new_max;
      if (__ballot_sync(kAllLanes, moved) != 0) {  // rare after the first tiles
#pragma unroll
        for (int tile = 0; tile < kOutTiles; ++tile) {
          out[tile][2 * row] *= scores_scale;
          out[tile][2 * row + 1] *= scores_scale;
        }
      }
      float tile_sum = 0.0f;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 2 * row; i < 2 * row + 2; ++i) {
          scores[tile][i] = exp2_fast(fmaf(scores[tile][i], scale, -base));
          tile_sum += scores[tile][i];
        }
      }
      row_sum[row].update(scores_scale, tile_sum);
    }
  }

  // The lanes of a row add their sums up.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int row = 0; row < 2; ++row) row_sum[row].sum = warp_sum(row_sum[row].sum, 4);
  }
};

// The base-2 log-sum-exp of a row from its largest score and sum.
__device__ __forceinline__ float log_sum(float row_max, float row_sum) {
  return row_sum > 0.0f ? row_max + log2f(row_sum) : -INFINITY;
}

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_SOFTMAX_CUH_
