// RMSNorm, alone and with the residual add, and layer norm, a row at a time.
//
// A row is read twice: once for its sum of squares and once, from the cache, to scale it. Nothing
// is kept between the two, so any hidden size works without a buffer.
#ifndef FLASHINFER_CPU_KERNELS_NORM_H_
#define FLASHINFER_CPU_KERNELS_NORM_H_

#include <cfloat>
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

// The same, times 1 / scale of fp8.
template <class T>
struct Quantisation {
  Scaling<T> scaling;
  float factor;
  template <class Count>
  FLASHINFER_INLINE F32 of(F32 x, int64_t i, Count count) const {
    return scaling.of(x, i, count) * factor;
  }
};

template <class T, class Step>
struct ScaledRow {
  InputRow<T> row;
  Step step;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return step.of(row.at(i, count), i, count);
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
    const Scaling<T> scaling{weight, scale, args.weight_bias};
    store_each(out, args.hidden, ScaledRow<T, Scaling<T>>{row, scaling});
  }
}

// residual becomes the row, and out the scaled row; both may be what the row is made of.
template <class T, class Step, class Out>
FLASHINFER_INLINE void store_sum_and_norm(const AddedRow<T>& row, const Step& step, int64_t hidden,
                                          T* residual, Out* out) {
  int64_t i = 0;
  for (; i + 2 * kLanes <= hidden; i += 2 * kLanes) {
    const F32 x = row.at(i, Whole{}), y = row.at(i + kLanes, Whole{});
    store_pair(residual + i, x, y);
    store_pair(out + i, step.of(x, i, Whole{}), step.of(y, i + kLanes, Whole{}));
  }
  for (; i < hidden; i += kLanes) {
    if (hidden - i >= kLanes) {
      const F32 x = row.at(i, Whole{});
      store(residual + i, x, Whole{});
      store(out + i, step.of(x, i, Whole{}), Whole{});
    } else {
      const Part tail{hidden - i};
      const F32 x = row.at(i, tail);
      store(residual + i, x, tail);
      store(out + i, step.of(x, i, tail), tail);
    }
  }
}

template <class T>
void fused_add_rmsnorm_rows(void* arg, int64_t begin, int64_t end) {
  const fi_fused_add_rmsnorm_args& args = *static_cast<const fi_fused_add_rmsnorm_args*>(arg);
  const T* weight = static_cast<const T*>(args.weight);
  for (int64_t r = begin; r < end; ++r) {
    T* input = static_cast<T*>(args.input) + r * args.input_stride;
    T* residual = static_cast<T*>(args.residual) + r * args.residual_stride;
    const AddedRow<T> row{input, residual};
    const Scaling<T> scaling{weight, inverse_rms(row, args.hidden, args.eps), args.weight_bias};
    store_sum_and_norm(row, scaling, args.hidden, residual, input);
  }
}

// 1 / scale, bounded: an infinite one would make NaN of zeros.
template <class Args>
FLASHINFER_INLINE float quantisation_factor(const Args& args) {
  const float inverse = 1.0f / (args.scale == nullptr ? args.scale_value : *args.scale);
  if (inverse > FLT_MAX) return FLT_MAX;
  return inverse < -FLT_MAX ? -FLT_MAX : inverse;
}

template <class T, class Out>
void rmsnorm_quant_rows(void* arg, int64_t begin, int64_t end) {
  const fi_rmsnorm_quant_args& args = *static_cast<const fi_rmsnorm_quant_args*>(arg);
  const T* weight = static_cast<const T*>(args.weight);
  const float factor = quantisation_factor(args);
  for (int64_t r = begin; r < end; ++r) {
    const InputRow<T> row{static_cast<const T*>(args.input) + r * args.input_stride};
    Out* out = static_cast<Out*>(args.out) + r * args.out_stride;
    const float scale = inverse_rms(row, args.hidden, args.eps);
    const Quantisation<T> quantisation{{weight, scale, 0.0f}, factor};
    store_each(out, args.hidden, ScaledRow<T, Quantisation<T>>{row, quantisation});
  }
}

template <class T, class Out>
void fused_add_rmsnorm_quant_rows(void* arg, int64_t begin, int64_t end) {
  const fi_fused_add_rmsnorm_quant_args& args =
      *static_cast<const fi_fused_add_rmsnorm_quant_args*>(arg);
  const T* weight = static_cast<const T*>(args.weight);
  const float factor = quantisation_factor(args);
  for (int64_t r = begin; r < end; ++r) {
    T* residual = static_cast<T*>(args.residual) + r * args.residual_stride;
    const AddedRow<T> row{static_cast<const T*>(args.input) + r * args.input_stride, residual};
    const float scale = inverse_rms(row, args.hidden, args.eps);
    const Quantisation<T> quantisation{{weight, scale, 0.0f}, factor};
    store_sum_and_norm(row, quantisation, args.hidden, residual,
                       static_cast<Out*>(args.out) + r * args.out_stride);
  }
}

template <class T>
struct Elements {
  InputRow<T> row;
  template <class Count>
  FLASHINFER_INLINE F32 add(F32 sum, int64_t i, Count count) const {
    return sum + row.at(i, count);
  }
};

template <class T>
struct SquaresAbout {
  InputRow<T> row;
  float mean;
  template <class Count>
  FLASHINFER_INLINE F32 add(F32 sum, int64_t i, Count count) const {
    const F32 deviation = only(row.at(i, count) - mean, count);
    return fma(deviation, deviation, sum);
  }
};

template <class T>
struct StandardRow {
  InputRow<T> row;
  float mean, scale;
  const float* gamma;
  const float* beta;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return fma((row.at(i, count) - mean) * scale, load(gamma + i, count), load(beta + i, count));
  }
};

template <class T>
void layernorm_rows(void* arg, int64_t begin, int64_t end) {
  const fi_layernorm_args& args = *static_cast<const fi_layernorm_args*>(arg);
  const float hidden = static_cast<float>(args.hidden);
  for (int64_t r = begin; r < end; ++r) {
    const InputRow<T> row{static_cast<const T*>(args.input) + r * args.input_stride};
    const float mean = sum_each(args.hidden, Elements<T>{row}) / hidden;
    const float variance = sum_each(args.hidden, SquaresAbout<T>{row, mean}) / hidden;
    const float scale = 1.0f / std::sqrt(variance + args.eps);
    store_each(static_cast<T*>(args.out) + r * args.out_stride, args.hidden,
               StandardRow<T>{row, mean, scale, args.gamma, args.beta});
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_NORM_H_
