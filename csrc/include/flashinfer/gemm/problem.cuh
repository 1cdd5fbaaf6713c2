// What a block of the matrix product kernel has to do: its rows, its columns, its factors.
#ifndef FLASHINFER_GEMM_PROBLEM_CUH_
#define FLASHINFER_GEMM_PROBLEM_CUH_

#include <cstdint>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/reduce.cuh"

namespace flashinfer {

// Strides are in elements. Block x has a tile of rows, block y a tile of columns.
struct GemmParams {
  int rows;  // of a: of all segments together, or of one matrix of a batch
  int cols, depth;
  const char* a;
  int64_t a_stride_batch, a_stride_row;
  const char* b;
  int64_t b_stride_batch, b_stride_line;  // a line is a column or a row, whichever is contiguous
  char* out;
  int64_t out_stride_batch, out_stride_row;
  // Segments; num_segments < 0: a batch, with row_tiles tiles of rows in each matrix.
  int num_segments, row_tiles;
  const int64_t* seg_indptr;
  const int64_t* weight_indices;
  // fp8 only.
  bool a_e5m2, b_e5m2, out_bf16;
  const float* a_scale;
  const float* b_scale;
  int64_t a_scale_stride, b_scale_stride;
  // 16-bit pairs of the result may be stored as words.
  bool out_pairs;
};

// The part of the result that a block makes. No rows: there is nothing to do. No depth: zeros.
struct GemmBlock {
  int64_t row;           // the first one, in a and in the result
  int64_t batch;         // which matrix is the second factor
  int64_t batch_of_out;  // which is the first factor and the result; 0 for segments
  int rows, depth;
};

// Tiles of kRows rows, numbered through all segments; the rows after the last segment are one more,
// whose sum has no terms. Every warp finds the block's tile by itself.
template <int kRows>
__device__ __forceinline__ GemmBlock find_segment(const GemmParams& p, int tile) {
  const int lane = threadIdx.x % kWarpSize;
  int before = 0;  // tiles of the segments that were looked at
  for (int first = 0; first <= p.num_segments; first += kWarpSize) {
    const int segment = first + lane;
    int64_t begin = 0, end = 0;
    if (segment <= p.num_segments) {
      begin = load_readonly(p.seg_indptr + segment);
      end = segment < p.num_segments ? load_readonly(p.seg_indptr + segment + 1) : p.rows;
    }
    const int tiles = end > begin ? static_cast<int>((end - begin + kRows - 1) / kRows) : 0;
    int sum = tiles;  // of this lane's and the lower ones' tiles
#pragma unroll
    for (int distance = 1; distance < kWarpSize; distance *= 2) {
      const int lower = __shfl_up_sync(kAllLanes, sum, distance);
      if (lane >= distance) sum += lower;
    }
    const unsigned reached = __ballot_sync(kAllLanes, before + sum > tile);
    if (reached != 0) {
      const int owner = lowest_lane(reached);
      const int inside = tile - before - __shfl_sync(kAllLanes, sum - tiles, owner);
      const int64_t row = __shfl_sync(kAllLanes, begin, owner) + int64_t{inside} * kRows;
      const int64_t left = __shfl_sync(kAllLanes, end, owner) - row;
      const int found = first + owner;
      const bool weighted = found < p.num_segments;
      const int64_t matrix =
          weighted && p.weight_indices != nullptr ? load_readonly(p.weight_indices + found) : found;
      return {row, weighted ? matrix : 0, 0, static_cast<int>(left < kRows ? left : kRows),
              weighted ? p.depth : 0};
    }
    before += __shfl_sync(kAllLanes, sum, kWarpSize - 1);
  }
  return {0, 0, 0, 0, 0};  // padding of the grid
}

template <int kRows>
__device__ __forceinline__ GemmBlock find_block(const GemmParams& p) {
  const int tile = static_cast<int>(blockIdx.x);
  if (p.num_segments >= 0) return find_segment<kRows>(p, tile);
  const int batch = tile / p.row_tiles;
  const int row = (tile - batch * p.row_tiles) * kRows;
  const int left = p.rows - row;
  return {row, batch, batch, left < kRows ? left : kRows, p.depth};
}

}  // namespace flashinfer

#endif  // FLASHINFER_GEMM_PROBLEM_CUH_
