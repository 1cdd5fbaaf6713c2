// RMSNorm, alone and with the residual add, a row at a time.
//
// A row is read twice: once for its sum of squares and once, from the cache, to scale it. Nothing
// is kept between the two, so any hidden size works without a buffer.
#ifndef FLASHINFER_CPU_KERNELS_NORM_H_
#define FLASHINFER_CPU_KERNELS_NORM_H_

#include <cmath>

#include "cpu/kernels/sums.h"
#include "flashinfer/api.h"

namespace flashinfer {
namespace cpu {
namespace {

template <class T>
struct InputRow {
  const T* input;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return load(input + i, count);
  }
};

template <class T>
struct AddedRow {
  const T* input;
  const T* residual;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return load(input + i, count) + load(residual + i, count);
  }
};

template <class Row>
struct Squares {
  const Row& row;
  template <class Count>
  FLASHINFER_INLINE F32 add(F32 sum, int64_t i, Count count) const {
    const F32 x = row.at(i, count);
    return fma(x, x, sum);
  }
};

// rsqrt(mean(row^2) + eps)
template <class Row>
FLASHINFER_INLINE float inverse_rms(const Row& row, int64_t hidden, float eps) {
  const float squares = sum_each(hidden, Squares<Row>{row});
  return 1.0f / std::sqrt(squares / static_cast<float>(hidden) + eps);
}

// x * scale * (weight + bias)
template <class T>
struct Scaling {
  const T* weight;
  float scale, bias;
  template <class Count>
  FLASHINFER_INLINE F32 of(F32 x, int64_t i, Count count) const {
    return x * scale * (load(weight + i, count) + bias);
  }
};

template <class T>
struct ScaledRow {
  InputRow<T> row;
  Scaling<T> scaling;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return scaling.of(row.at(i, count), i, count);
  }
};

template <class T>
void rmsnorm_rows(void* arg, int64_t begin, int64_t end) {
  const fi_rmsnorm_args& args = *static_cast<const fi_rmsnorm_args*>(arg);
  const T* weight = static_cast<const T*>(args.weight);
  for (int64_t r = begin; r < end; ++r) {
    const InputRow<T> row{static_cast<const T*>(args.input) + r * args.input_stride};
    T* out = static_cast<T*>(args.out) + r * args.out_stride;
    const float scale = inverse_rms(row, args.hidden, args.eps);
    store_each(out, args.hidden, ScaledRow<T>{row, {weight, scale, args.weight_bias}});
  }
}

template <class T>
void fused_add_rmsnorm_rows(void* arg, int64_t begin, int64_t end) {
  const fi_fused_add_rmsnorm_args& args = *static_cast<const fi_fused_add_rmsnorm_args*>(arg);
  const int64_t hidden = args.hidden;
  const T* weight = static_cast<const T*>(args.weight);
  for (int64_t r = begin; r < end; ++r) {
    T* input = static_cast<T*>(args.input) + r * args.input_stride;
    T* residual = static_cast<T*>(args.residual) + r * args.residual_stride;
    const AddedRow<T> row{input, residual};
    const float scale = inverse_rms(row, hidden, args.eps);
    const Scaling<T> scaling{weight, scale, args.weight_bias};
    int64_t i = 0;
    for (; i + 2 * kLanes <= hidden; i += 2 * kLanes) {
      const F32 x = row.at(i, Whole{}), y = row.at(i + kLanes, Whole{});
      store_pair(residual + i, x, y);
      store_pair(input + i, scaling.of(x, i, Whole{}), scaling.of(y, i + kLanes, Whole{}));
    }
    for (; i < hidden; i += kLanes) {
      if (hidden - i >= kLanes) {
        const F32 x = row.at(i, Whole{});
        store(residual + i, x, Whole{});
        store(input + i, scaling.of(x, i, Whole{}), Whole{});
      } else {
        const Part tail{hidden - i};
        const F32 x = row.at(i, tail);
        store(residual + i, x, tail);
        store(input + i, scaling.of(x, i, tail), tail);
      }
    }
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_NORM_H_
