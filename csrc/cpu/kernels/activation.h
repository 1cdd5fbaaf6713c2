// act(gate) * up on rows of [gate, up].
#ifndef FLASHINFER_CPU_KERNELS_ACTIVATION_H_
#define FLASHINFER_CPU_KERNELS_ACTIVATION_H_

#include "cpu/kernels/math.h"
#include "flashinfer/api.h"

namespace flashinfer {
namespace cpu {
namespace {

// A NaN comes through the factor x.
template <fi_activation kActivation>
FLASHINFER_INLINE F32 activate(F32 x) {
  if (kActivation == FI_SILU) return x * sigmoid(x);
  if (kActivation == FI_GELU) return x * normal_cdf(x);
  // (1 + tanh(u)) / 2 = sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
  constexpr float kTwiceSqrt2OverPi = 1.595769122f;
  const F32 cubic = fma(x * x, broadcast(0.044715f), broadcast(1.0f));
  return x * sigmoid(kTwiceSqrt2OverPi * x * cubic);
}

template <class T, fi_activation kActivation>
struct GatedRow {
  const T* gate;
  const T* up;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return activate<kActivation>(load(gate + i, count)) * load(up + i, count);
  }
};

template <class T, fi_activation kActivation>
void act_and_mul_rows(void* arg, int64_t begin, int64_t end) {
  const fi_act_and_mul_args& args = *static_cast<const fi_act_and_mul_args*>(arg);
  for (int64_t r = begin; r < end; ++r) {
    const T* gate = static_cast<const T*>(args.input) + r * args.input_stride;
    T* out = static_cast<T*>(args.out) + r * args.out_stride;
    store_each(out, args.d, GatedRow<T, kActivation>{gate, gate + args.d});
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_ACTIVATION_H_
