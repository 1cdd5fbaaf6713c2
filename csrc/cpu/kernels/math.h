// exp, 2^x, log2, sine and cosine on vectors, to a few fp32 roundings. The polynomials are minimax
// fits of the relative error, made by fit_polynomials.py.
#ifndef FLASHINFER_CPU_KERNELS_MATH_H_
#define FLASHINFER_CPU_KERNELS_MATH_H_

#include "cpu/kernels/vec.h"

namespace flashinfer {
namespace cpu {
namespace {

// c[0] + c[1] x + ... + c[N-1] x^(N-1), summed in pairs of pairs (Estrin's scheme): half the
// latency of Horner's, and latency is what limits these loops.
template <int N>
FLASHINFER_INLINE F32 polynomial(F32 x, const float (&c)[N]) {
  F32 terms[N];
  for (int i = 0; i < N; ++i) terms[i] = broadcast(c[i]);
  F32 power = x;
  for (int count = N; count > 1; count = (count + 1) / 2) {
    for (int i = 0; i < count / 2; ++i) terms[i] = fma(terms[2 * i + 1], power, terms[2 * i]);
    if (count % 2 == 1) terms[count / 2] = terms[count - 1];
    power *= power;
  }
  return terms[0];
}

// Adding 1.5 * 2^23 rounds |x| < 2^22 to an integer (nearest even), left in the low bits.
constexpr float kRounder = 12582912.0f;

// p 2^n, 0.7 < p < 1.5, from rounded = n + kRounder: n is added to p's exponent, and the result
// must be a normal number.
FLASHINFER_INLINE F32 scale_by_power(F32 p, F32 rounded) {
  return float_of(bits_of(p) + (bits_of(rounded) << 23));
}

// e^r for |r| <= ln(2) / 2, relative error 1.7e-8.
FLASHINFER_INLINE F32 exp_reduced(F32 r) {
  static constexpr float kExp[] = {1.0f,
                                   1.0f,
                                   4.999999106e-01f,
                                   1.666641980e-01f,
                                   4.166822508e-02f,
                                   8.374824189e-03f,
                                   1.383683528e-03f};
  return polynomial(r, kExp);
}

// e^(x + low) for x <= 0 and small `low`; 0 below the smallest normal number, any value for NaN.
template <class... Low>
FLASHINFER_INLINE F32 exp_nonpositive(F32 x, Low... low) {
  constexpr float kLog2E = 1.44269504f;
  // ln 2 in two parts, the first short enough that n times it is exact.
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  const F32 rounded = fma(x, broadcast(kLog2E), broadcast(kRounder));
  const F32 n = rounded - kRounder;
  const F32 r = (fma(n, broadcast(-kLn2Low), fma(n, broadcast(-kLn2High), x)) + ... + low);
  return select(x < -87.3f, F32{}, scale_by_power(exp_reduced(r), rounded));
}

// 2^x for x <= 0; 0 below the smallest normal number, NaN for NaN.
FLASHINFER_INLINE F32 exp2_nonpositive(F32 x) {
  constexpr float kLn2 = 0.693147181f;
  const F32 rounded = x + kRounder;
  const F32 r = (x - (rounded - kRounder)) * kLn2;
  const F32 power = select(x < -126.0f, F32{}, scale_by_power(exp_reduced(r), rounded));
  return select(x == x, power, x);
}

// log2(x) for finite x >= 1; NaN for NaN.
FLASHINFER_INLINE F32 log2_from_one(F32 x) {
  // x = m 2^e with sqrt(1/2) <= m < sqrt(2); log2(m) is odd in f = (m - 1) / (m + 1).
  static constexpr float kLog2[] = {2.885390043f, 9.617988467e-01f, 5.767142177e-01f,
                                    4.317399263e-01f};
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  const I32 exponent = ((I32)x - kSqrtHalf) >> 23;
  const F32 m = (F32)((I32)x - (exponent << 23));
  const F32 f = (m - 1.0f) / (m + 1.0f);
  const F32 log2 = fma(f, polynomial(f * f, kLog2), __builtin_convertvector(exponent, F32));
  return select(x == x, log2, x);
}

// 1 / (1 + e^-x) with full relative accuracy on both sides; any value for NaN.
FLASHINFER_INLINE F32 sigmoid(F32 x) {
  const F32 e = exp_nonpositive(float_of(bits_of(x) | 0x80000000u));
  return select((I32)x < 0, e, broadcast(1.0f)) / (1.0f + e);
}

// The normal distribution's Phi(x) = (1 + erf(x / sqrt(2))) / 2, to full relative accuracy where it
// is a normal number. With a = |x|: Phi(-a) = e^(-a^2/2) g((a - 4) / (a + 4)) / (a + 4), g a
// polynomial; e^(-a^2/2) takes a^2 in two parts, as rounding a^2 alone would cost 2^-24 a^2/2. Any
// value for NaN.
FLASHINFER_INLINE F32 normal_cdf(F32 x) {
  static constexpr float kMills[] = {
      7.552851439e-01f,  -6.078966260e-01f, 3.871368766e-01f, -1.865231991e-01f, 6.040414423e-02f,
      -7.526726928e-03f, -3.514982527e-03f, 1.571858767e-03f, 1.846299419e-04f,  -1.295283000e-04f};
  const F32 magnitude = abs(x);
  const F32 a = select(magnitude > 14.0f, broadcast(14.0f), magnitude);
  const F32 high = float_of(bits_of(a) & 0xfffff000u);  // 12 bits: its square is exact
  const F32 e = exp_nonpositive(-0.5f * high * high, -0.5f * (a - high) * (a + high));
  const F32 inverse = 1.0f / (a + 4.0f);
  const F32 tail = e * inverse * polynomial((a - 4.0f) * inverse, kMills);
  return select((I32)x < 0, tail, 1.0f - tail);
}

// sin and cos of 2 pi t, |t| <= 1/2. Absolute error below 1e-7.
FLASHINFER_INLINE void sincos_turns(F32 t, F32& sine, F32& cosine) {
  static constexpr float kSin[] = {6.283185482f, -4.134165955e+01f, 8.159234619e+01f,
                                   -7.539330292e+01f};
  static constexpr float kCos[] = {1.0f, -1.973920822e+01f, 6.493930817e+01f, -8.544229126e+01f,
                                   5.920258713e+01f};
  // t = q / 4 + r, |r| <= 1/8, both exact.
  const F32 rounded = fma(t, broadcast(4.0f), broadcast(kRounder));
  const U32 q = bits_of(rounded);
  const F32 r = fma(rounded - kRounder, broadcast(-0.25f), t);
  const F32 s = r * polynomial(r * r, kSin);
  const F32 c = polynomial(r * r, kCos);
  const I32 odd = (I32)(q & 1u) != 0;
  sine = float_of(bits_of(select(odd, c, s)) ^ ((q & 2u) << 30));
  cosine = float_of(bits_of(select(odd, s, c)) ^ (((q + 1u) & 2u) << 30));
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_MATH_H_
