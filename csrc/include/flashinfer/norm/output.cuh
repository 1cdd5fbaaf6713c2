// What becomes of normed rows: rounded to their own type, or divided by a scale and rounded to fp8.
#ifndef FLASHINFER_NORM_OUTPUT_CUH_
#define FLASHINFER_NORM_OUTPUT_CUH_

#include <cfloat>
#include <cstdint>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"

namespace flashinfer {

template <typename T>
struct RoundedRows {
  T* rows;  // may be the input
  int64_t stride;

  // What `store` is to multiply by: nothing.
  __device__ __forceinline__ float factor() const { return 1.0f; }

  template <int N>
  __device__ __forceinline__ void store(int64_t row, int column, const float (&y)[N], float) const {
    store_columns(rows + row * stride, column, Vec<T, N>::narrow(y));
  }
};

struct Fp8Rows {
  uint8_t* rows;
  int64_t stride;
  const float* scale;  // on the device, or NULL: the value
  float scale_value;
  bool e5m2;

  // Bounded: an infinite one would make NaN of zeros.
  __device__ __forceinline__ float factor() const {
    const float divisor = scale == nullptr ? scale_value : load_readonly(scale);
    const float inverse = 1.0f / divisor;
    if (inverse > FLT_MAX) return FLT_MAX;
    return inverse < -FLT_MAX ? -FLT_MAX : inverse;
  }

  template <int N>
  __device__ __forceinline__ void store(int64_t row, int column, const float (&y)[N],
                                        float factor) const {
    float z[N];
#pragma unroll
    for (int i = 0; i < N; ++i) z[i] = y[i] * factor;
    Vec<uint8_t, N> out;
    if constexpr (N == 1) {
      out.element = static_cast<uint8_t>(narrow_fp8(z[0], 0.0f, e5m2));
    } else {
#pragma unroll
      for (int i = 0; i < N / 4; ++i) {
        out.words[i] = narrow_fp8(z[4 * i], z[4 * i + 1], e5m2) |
                       narrow_fp8(z[4 * i + 2], z[4 * i + 3], e5m2) << 16;
      }
    }
    store_columns(rows + row * stride, column, out);
  }
};

}  // namespace flashinfer

#endif  // FLASHINFER_NORM_OUTPUT_CUH_
