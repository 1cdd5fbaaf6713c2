// The end of a block: from the fragments of its warps to out and lse, or to a partial state.
#ifndef FLASHINFER_ATTENTION_OUTPUT_CUH_
#define FLASHINFER_ATTENTION_OUTPUT_CUH_

#include <cstdint>

#include "flashinfer/attention/softmax.cuh"

namespace flashinfer {

template <typename T>
__device__ __forceinline__ T* out_row(const AttentionParams& p, const Rows& rows, int row) {
  const int64_t token = static_cast<int64_t>(rows.item.qo_begin) + rows.token(row);
  return static_cast<T*>(p.out) + token * p.out_stride_n + rows.head(row) * p.out_stride_h;
}

__device__ __forceinline__ void write_lse(const AttentionParams& p, const Rows& rows, int row,
                                          float lse) {
  if (rows.item.slot >= 0) {
    store(p.partial_lse + rows.partial(p, row), lse);
  } else if (p.lse != nullptr) {
    const int64_t token = static_cast<int64_t>(rows.item.qo_begin) + rows.token(row);
    store(p.lse + token * p.num_qo_heads + rows.head(row), lse);
  }
}

// Eight columns of a row.
template <typename T>
__device__ __forceinline__ void write_columns(const AttentionParams& p, const Rows& rows, int row,
                                              int column, int head_dim, float (&x)[8]) {
  if (rows.item.slot >= 0) {
    float* to = p.partial_out + rows.partial(p, row) * head_dim + column;
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      const float four[4] = {x[i], x[i + 1], x[i + 2], x[i + 3]};
      store(reinterpret_cast<Vec<float, 4>*>(to + i), Vec<float, 4>::narrow(four));
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] *= p.v_scale;
    store_columns(out_row<T>(p, rows, row), column, Vec<T, 8>::narrow(x));
  }
}

// 16 rows, from `warp_row` on, that are this warp's alone. `q` is no longer needed: the warp's part
// of it takes the result, so that whole vectors of a row can be stored.
template <class Traits, int kOutTiles>
__device__ __forceinline__ void write_rows(const AttentionParams& p, const Rows& rows, char* q,
                                           int warp_row, const Softmax<kOutTiles>& softmax) {
  using T = typename Traits::T;
  const int lane = threadIdx.x % kWarpSize;
  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = warp_row + lane / 4 + 8 * i;
    factor[i] = softmax.row_sum[i].sum > 0.0f ? reciprocal(softmax.row_sum[i].sum) : 0.0f;
    if (lane % 4 == 0 && row < rows.count) {
      write_lse(p, rows, row, log_sum(softmax.row_max[i], softmax.row_sum[i].sum));
    }
  }
  if (rows.item.slot >= 0) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = warp_row + lane / 4 + 8 * i;
      if (row >= rows.count) continue;
      float* to = p.partial_out + rows.partial(p, row) * Traits::kHeadDim + lane % 4 * 2;
#pragma unroll
      for (int tile = 0; tile < kOutTiles; ++tile) {
        const float two[2] = {softmax.out[tile][2 * i] * factor[i],
                              softmax.out[tile][2 * i + 1] * factor[i]};
        store(reinterpret_cast<Vec<float, 2>*>(to + tile * 8), Vec<float, 2>::narrow(two));
      }
    }
    return;
  }
  __syncwarp();  // all lanes have read Q
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = warp_row + lane / 4 + 8 * i;
#pragma unroll
    for (int tile = 0; tile < kOutTiles; ++tile) {
      const float two[2] = {softmax.out[tile][2 * i] * factor[i] * p.v_scale,
                            softmax.out[tile][2 * i + 1] * factor[i] * p.v_scale};
      char* to = q + swizzled<Traits::kChunks>(row, tile) + lane % 4 * 4;
      store(reinterpret_cast<uint32_t*>(to), narrow_word<T>(two));
    }
  }
  __syncwarp();
#pragma unroll 4
  for (int i = lane; i < 16 * Traits::kChunks; i += kWarpSize) {
    const int row = warp_row + i / Traits::kChunks, chunk = i % Traits::kChunks;
    if (row >= rows.count) break;
    const char* from = q + swizzled<Traits::kChunks>(row, chunk);
    store_columns(out_row<T>(p, rows, row), chunk * 8,
                  load_shared(reinterpret_cast<const Vec<T, 8>*>(from)));
  }
}

// The warps share the 16 rows, each with keys of its own. `stats` holds their maxima and sums, and
// `tiles`, where K and V were, their outputs.
template <class Traits, int kOutTiles>
__device__ __forceinline__ void merge_warps(const AttentionParams& p, const Rows& rows,
                                            float* stats, float* tiles,
                                            Softmax<kOutTiles>& softmax) {
  constexpr int kStride = Traits::kHeadDim + 8;  // rows of a fragment in different banks
  static_assert(Traits::kKeySplits * 16 * kStride * sizeof(float) <=
                    Traits::kRopeOffset - Traits::kStageOffset,
                "fits where K and V were");
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  float* sums = stats + Traits::kKeySplits * 16;
  if (lane % 4 == 0) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      store(stats + warp * 16 + lane / 4 + 8 * i, softmax.row_max[i]);
      store(sums + warp * 16 + lane / 4 + 8 * i, softmax.row_sum[i].sum);
    }
  }
  __syncthreads();  // the stats are there, and nobody reads K and V any more
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + 8 * i;
    float row_max = -INFINITY, row_sum = 0.0f;
#pragma unroll
    for (int w = 0; w < Traits::kKeySplits; ++w) {
      row_max = fmaxf(row_max, load_shared(stats + w * 16 + row));
    }
    const float base = row_max == -INFINITY ? 0.0f : row_max;
#pragma unroll
    for (int w = 0; w < Traits::kKeySplits; ++w) {
      row_sum +=
          load_shared(sums + w * 16 + row) * exp2_fast(load_shared(stats + w * 16 + row) - base);
    }
    const float share = exp2_fast(softmax.row_max[i] - base);
    const float factor = row_sum > 0.0f ? share * reciprocal(row_sum) : 0.0f;
    float* to = tiles + (warp * 16 + row) * kStride + lane % 4 * 2;
#pragma unroll
    for (int tile = 0; tile < kOutTiles; ++tile) {
      const float two[2] = {softmax.out[tile][2 * i] * factor,
                            softmax.out[tile][2 * i + 1] * factor};
      store(reinterpret_cast<Vec<float, 2>*>(to + tile * 8), Vec<float, 2>::narrow(two));
    }
    if (warp == 0 && lane % 4 == 0 && row < rows.count) {
      write_lse(p, rows, row, log_sum(row_max, row_sum));
    }
  }
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < 16 * Traits::kChunks; i += Traits::kThreads) {
    const int row = i / Traits::kChunks, column = i % Traits::kChunks * 8;
    if (row >= rows.count) break;
    float x[8] = {};
#pragma unroll
    for (int w = 0; w < Traits::kKeySplits; ++w) {
      const float* from = tiles + (w * 16 + row) * kStride + column;
#pragma unroll
      for (int part = 0; part < 8; part += 4) {
        float four[4];
        load_shared(reinterpret_cast<const Vec<float, 4>*>(from + part)).widen(four);
#pragma unroll
        for (int j = 0; j < 4; ++j) x[part + j] += four[j];
      }
    }
    write_columns<typename Traits::T>(p, rows, row, column, Traits::kHeadDim, x);
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_OUTPUT_CUH_
