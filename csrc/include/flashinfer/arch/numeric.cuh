// Conversions between the storage types and fp32, and the fast functions of the special unit.
#ifndef FLASHINFER_ARCH_NUMERIC_CUH_
#define FLASHINFER_ARCH_NUMERIC_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace flashinfer {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void round_to(float x, float* out) { *out = x; }
__device__ __forceinline__ void round_to(float x, __half* out) { *out = __float2half_rn(x); }
__device__ __forceinline__ void round_to(float x, __nv_bfloat16* out) {
  *out = __float2bfloat16_rn(x);
}

// The same bits as another type of that size.
template <typename To, typename From>
__device__ __forceinline__ To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "a change of type, not of size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// A 32-bit register holds one float or two neighbours of a 16-bit type, the first in the low half.
template <typename T>
constexpr int kPerWord = 4 / sizeof(T);

template <typename T>
__device__ __forceinline__ void widen_word(uint32_t word, float* out);
template <>
__device__ __forceinline__ void widen_word<float>(uint32_t word, float* out) {
  out[0] = bits_as<float>(word);
}
template <>
__device__ __forceinline__ void widen_word<__half>(uint32_t word, float* out) {
  const float2 pair = __half22float2(bits_as<__half2>(word));
  out[0] = pair.x;
  out[1] = pair.y;
}
template <>
__device__ __forceinline__ void widen_word<__nv_bfloat16>(uint32_t word, float* out) {
  out[0] = bits_as<float>(word << 16);
  out[1] = bits_as<float>(word & 0xffff0000u);
}

template <typename T>
__device__ __forceinline__ uint32_t narrow_word(const float* x);
template <>
__device__ __forceinline__ uint32_t narrow_word<float>(const float* x) {
  return bits_as<uint32_t>(x[0]);
}
template <>
__device__ __forceinline__ uint32_t narrow_word<__half>(const float* x) {
  return bits_as<uint32_t>(__floats2half2_rn(x[0], x[1]));
}
template <>
__device__ __forceinline__ uint32_t narrow_word<__nv_bfloat16>(const float* x) {
  return bits_as<uint32_t>(__floats2bfloat162_rn(x[0], x[1]));
}

// Four fp8 numbers, a byte each, as four fp16 ones, exactly. An e5m2 is the upper byte of its fp16.
// An e4m3 has its exponent, with a bias of 7, where fp16 has one of 15: moved there, the number is
// 2^-8 times too small, subnormals too. The NaNs of e4m3 become +-480.
__device__ __forceinline__ uint2 widen_fp8(uint32_t bytes, bool e5m2) {
  const int shift = e5m2 ? 0 : 1;
  const __half2 factor = bits_as<__half2>(e5m2 ? 0x3c003c00u : 0x5c005c00u);  // 1 or 2^8
  const uint32_t pairs[2] = {(bytes & 0xffu) << 8 | (bytes & 0xff00u) << 16,
                             (bytes & 0xff0000u) >> 8 | (bytes & 0xff000000u)};
  uint32_t words[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t moved = (pairs[i] & 0x80008000u) | (pairs[i] & 0x7f007f00u) >> shift;
    words[i] = bits_as<uint32_t>(__hmul2(bits_as<__half2>(moved), factor));
  }
  return make_uint2(words[0], words[1]);
}

// The nearest fp8 number, ties to even, as a byte; what is out of range becomes the largest number,
// infinity too, and NaN stays one.
__device__ __forceinline__ uint32_t narrow_fp8_by_bits(float x, bool e5m2) {
  const int mantissa = e5m2 ? 2 : 3, bias = e5m2 ? 15 : 7;
  const uint32_t bits = bits_as<uint32_t>(x), sign = bits >> 24 & 0x80u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fu;
  const uint32_t most = bits_as<uint32_t>(e5m2 ? 57344.0f : 448.0f);
  magnitude = magnitude < most ? magnitude : most;
  const int shift = 23 - mantissa;
  if (magnitude < static_cast<uint32_t>(128 - bias) << 23) {
    // Subnormal: the unit is the last bit of fp32 numbers at `anchor`, so the sum rounds there.
    const float anchor = bits_as<float>(static_cast<uint32_t>(128 - bias + shift) << 23);
    return sign |
           (bits_as<uint32_t>(bits_as<float>(magnitude) + anchor) - bits_as<uint32_t>(anchor));
  }
  const uint32_t half = (1u << (shift - 1)) - 1 + (magnitude >> shift & 1u);
  return sign | (((magnitude + half) >> shift) - (static_cast<uint32_t>(127 - bias) << mantissa));
}

// Two of them, the first in the low byte.
__device__ __forceinline__ uint32_t narrow_fp8(float first, float second, bool e5m2) {
#if !defined(FLASHINFER_EMULATE) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  unsigned short pair;
  if (e5m2) {
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
  }
  return pair;
#else
  return narrow_fp8_by_bits(first, e5m2) | narrow_fp8_by_bits(second, e5m2) << 8;
#endif
}

// Two fp16 numbers in a word as two of T.
template <typename T>
__device__ __forceinline__ uint32_t from_half_pair(uint32_t pair) {
  float x[2];
  widen_word<__half>(pair, x);
  return narrow_word<T>(x);
}
template <>
__device__ __forceinline__ uint32_t from_half_pair<__half>(uint32_t pair) {
  return pair;
}

// 2^x; relative error 2^-22, 0 for x = -inf.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef FLASHINFER_EMULATE
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// 1 / x, relative error 2^-23; 0 for x = inf.
__device__ __forceinline__ float reciprocal(float x) {
#ifdef FLASHINFER_EMULATE
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

__device__ __forceinline__ float reciprocal_sqrt(float x) {
#ifdef FLASHINFER_EMULATE
  return 1.0f / std::sqrt(x);
#else
  return rsqrtf(x);
#endif
}

// a * b rounded to fp32, never contracted into a fused multiply-add.
__device__ __forceinline__ float multiply_rounded(float a, float b) {
#ifdef FLASHINFER_EMULATE
  volatile float product = a * b;
  return product;
#else
  return __fmul_rn(a, b);
#endif
}

// Sine and cosine of an angle in turns (1 is a full circle). Exact range reduction, so no slow
// path and no local memory, unlike sincosf.
__device__ __forceinline__ void sincos_turns(float turns, float* sine, float* cosine) {
#ifdef FLASHINFER_EMULATE
  const double angle = 6.283185307179586476925 * static_cast<double>(turns);
  *sine = static_cast<float>(std::sin(angle));
  *cosine = static_cast<float>(std::cos(angle));
#else
  sincospif(2.0f * turns, sine, cosine);
#endif
}

}  // namespace flashinfer

#endif  // FLASHINFER_ARCH_NUMERIC_CUH_
