// Small products of fp32 matrices in memory: C [m x n] = A [m x k] B [k x n], a block of C in
// registers at a time. Columns come in whole vectors.
#ifndef FLASHINFER_CPU_KERNELS_MATMUL_H_
#define FLASHINFER_CPU_KERNELS_MATMUL_H_

#include "cpu/kernels/vec.h"

namespace flashinfer {
namespace cpu {
namespace {

// 6 x 4 accumulators, 4 vectors of B and one of A make 29 of AVX-512's 32 registers; with 16
// registers it is 6 x 2.
#if defined(FLASHINFER_AVX512)
constexpr int kBlockVectors = 4;
#else
constexpr int kBlockVectors = 2;
#endif
constexpr int kBlockRows = 6;

struct Matrix {
  float* at;
  int64_t stride;
};

namespace floats {
#define FLASHINFER_PRODUCT fma
#include "cpu/kernels/matmul_loops.inc"
#undef FLASHINFER_PRODUCT
}  // namespace floats
using floats::multiply;

// to [kLanes x kLanes] = the transpose of the vectors row(0), row(1), ...
template <class Row>
FLASHINFER_INLINE void transpose_square(const Row& row, float* to, int64_t to_stride) {
  I32 low, high;
  for (int i = 0; i < kLanes; ++i) {
    low[i] = i / 2 + (i % 2) * kLanes;
    high[i] = low[i] + kLanes / 2;
  }
  F32 x[kLanes];
  for (int i = 0; i < kLanes; ++i) x[i] = row(i);
  // Each step interleaves the first half of the vectors with the second: log2 of them transpose.
  for (int step = 1; step < kLanes; step *= 2) {
    F32 y[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      y[2 * i] = __builtin_shuffle(x[i], x[i + kLanes / 2], low);
      y[2 * i + 1] = __builtin_shuffle(x[i], x[i + kLanes / 2], high);
    }
    for (int i = 0; i < kLanes; ++i) x[i] = y[i];
  }
  for (int i = 0; i < kLanes; ++i) store(to + i * to_stride, x[i], Whole{});
}

// to [columns x kLanes] = the transpose of kLanes rows; columns is a multiple of kLanes.
FLASHINFER_INLINE void transpose_rows(const float* from, int64_t from_stride, float* to,
                                      int64_t to_stride, int64_t columns) {
  for (int64_t d = 0; d < columns; d += kLanes) {
    const auto row = [&](int i) { return load(from + i * from_stride + d, Whole{}); };
    transpose_square(row, to + d * to_stride, to_stride);
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_MATMUL_H_
