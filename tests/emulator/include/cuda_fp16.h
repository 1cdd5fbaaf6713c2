// Stand-in for the CUDA toolkit's header: binary16 storage and its conversions, rounding to nearest
// even as the hardware does.
#ifndef FLASHINFER_TESTS_CUDA_FP16_H_
#define FLASHINFER_TESTS_CUDA_FP16_H_

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};

inline float __half2float(__half h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000u) << 16;
  const uint32_t exponent = (h.bits >> 10) & 0x1fu, fraction = h.bits & 0x3ffu;
  float value;
  if (exponent == 0) {
    value = static_cast<float>(fraction) * 0x1p-24f;  // zero or subnormal
  } else {
    const uint32_t magnitude = ((exponent == 31 ? 255u : exponent + 112u) << 23) | (fraction << 13);
    memcpy(&value, &magnitude, 4);
  }
  return sign != 0 ? -value : value;
}

inline __half __float2half_rn(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {0x7fff};  // NaN
  // The spacing of binary16 numbers here: 2^(exponent - 10), 2^-24 among the subnormals.
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  if (exponent > 15) return {static_cast<uint16_t>(sign | 0x7c00u)};
  const int shift = exponent < -14 ? -1 - exponent : 13;
  if (shift > 25) return {sign};
  const uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
  const uint32_t kept = significand >> shift;
  const uint32_t rest = significand & ((1u << shift) - 1), half = 1u << (shift - 1);
  const uint32_t rounded = kept + (rest > half || (rest == half && (kept & 1u)));
  // `rounded` has the leading one where the number is normal: it adds 1 to the exponent field.
  const uint32_t field = exponent < -14 ? 0 : static_cast<uint32_t>(exponent + 14) << 10;
  return {static_cast<uint16_t>(sign | (field + rounded))};
}

inline __half2 __floats2half2_rn(float a, float b) {
  return {__float2half_rn(a), __float2half_rn(b)};
}
inline __half2 __hmul2(__half2 a, __half2 b) {
  return {__float2half_rn(__half2float(a.x) * __half2float(b.x)),
          __float2half_rn(__half2float(a.y) * __half2float(b.y))};
}
inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }

#endif  // FLASHINFER_TESTS_CUDA_FP16_H_
