// Vectors of fp32 at the width of the instruction set being compiled, and their loads and stores
// from fp16, bf16 and fp32 memory.
//
// Arithmetic is GCC's vector extension, so one source serves every width. Intrinsics appear where
// an instruction set has a conversion that the extension cannot express; everything else falls back
// to bit arithmetic. The isa_*.cpp say which intrinsics there are, in FLASHINFER_SSE2, _AVX2 or
// _AVX512: g++ does not define __AVX2__ and its like for a target pragma. All of it has internal
// linkage: each isa_*.cpp gets its own copy.
#ifndef FLASHINFER_CPU_KERNELS_VEC_H_
#define FLASHINFER_CPU_KERNELS_VEC_H_

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#ifndef FLASHINFER_VECTOR_BYTES
#error "include this from an isa_*.cpp, which sets FLASHINFER_VECTOR_BYTES"
#endif
#define FLASHINFER_INLINE inline __attribute__((always_inline))

namespace flashinfer {
namespace cpu {
namespace {

constexpr int kLanes = FLASHINFER_VECTOR_BYTES / 4;
typedef float F32 __attribute__((vector_size(FLASHINFER_VECTOR_BYTES)));
typedef int32_t I32 __attribute__((vector_size(FLASHINFER_VECTOR_BYTES)));
typedef uint32_t U32 __attribute__((vector_size(FLASHINFER_VECTOR_BYTES)));
typedef uint16_t U16 __attribute__((vector_size(FLASHINFER_VECTOR_BYTES / 2)));
typedef int16_t I16 __attribute__((vector_size(FLASHINFER_VECTOR_BYTES / 2)));
typedef uint8_t U8 __attribute__((vector_size(FLASHINFER_VECTOR_BYTES / 4)));

#if defined(FLASHINFER_AVX512)
// The unmasked forms of these conversions draw g++ 12's -Wmaybe-uninitialized; a full mask is free.
constexpr __mmask16 kAllLanes = 0xffff;
#endif

// Storage types; fp32 is float itself.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
struct Float8E4M3 {  // 0x7f and 0xff are NaN; there is no infinity
  uint8_t bits;
};
struct Float8E5M2 {
  uint8_t bits;
};

// How many lanes a load or store touches: all of them, or the first n of a row's tail.
struct Whole {};
struct Part {
  int64_t n;  // 0 < n < kLanes
};

// n rounded up to whole vectors.
FLASHINFER_INLINE int64_t whole_vectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

FLASHINFER_INLINE F32 broadcast(float x) { return x - F32{}; }
FLASHINFER_INLINE U32 bits_of(F32 x) { return (U32)x; }
FLASHINFER_INLINE F32 float_of(U32 x) { return (F32)x; }
FLASHINFER_INLINE U32 select(I32 mask, U32 yes, U32 no) { return mask ? yes : no; }
FLASHINFER_INLINE F32 select(I32 mask, F32 yes, F32 no) { return mask ? yes : no; }
// x, with 0 in the lanes that are not touched.
FLASHINFER_INLINE F32 only(F32 x, Whole) { return x; }
FLASHINFER_INLINE F32 only(F32 x, Part part) {
  I32 lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return select(lanes < static_cast<int32_t>(part.n), x, F32{});
}
FLASHINFER_INLINE F32 abs(F32 x) { return float_of(bits_of(x) & 0x7fffffffu); }

// a * b + c, rounded once where the instruction set has FMA.
FLASHINFER_INLINE F32 fma(F32 a, F32 b, F32 c) {
#if defined(FLASHINFER_AVX512)
  return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(FLASHINFER_AVX2)
  return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

FLASHINFER_INLINE float sum(F32 x) {
  float lanes[kLanes];
  std::memcpy(lanes, &x, sizeof(lanes));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// kLanes 16-bit words, zero-extended.
FLASHINFER_INLINE U32 load_words(const void* from) {
#if defined(FLASHINFER_AVX512)
  return (U32)_mm512_maskz_cvtepu16_epi32(kAllLanes,
                                          _mm256_loadu_si256(static_cast<const __m256i*>(from)));
#elif defined(FLASHINFER_AVX2)
  return (U32)_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
#elif defined(FLASHINFER_SSE2)
  const __m128i words = _mm_loadl_epi64(static_cast<const __m128i*>(from));
  return (U32)_mm_unpacklo_epi16(words, _mm_setzero_si128());
#else
  U16 words;
  std::memcpy(&words, from, sizeof(words));
  return __builtin_convertvector(words, U32);
#endif
}

// The low 16 bits of every lane; the high bits must be zero.
FLASHINFER_INLINE void store_words(void* to, U32 words) {
#if defined(FLASHINFER_AVX512)
  _mm256_storeu_si256(static_cast<__m256i*>(to),
                      _mm512_maskz_cvtepi32_epi16(kAllLanes, (__m512i)words));
#elif defined(FLASHINFER_AVX2)
  const __m256i packed = _mm256_packus_epi32((__m256i)words, (__m256i)words);
  _mm_storeu_si128(static_cast<__m128i*>(to),
                   _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#elif defined(FLASHINFER_SSE2)
  // SSE2 packs with signed saturation only: sign-extend, so that nothing saturates.
  const __m128i extended = _mm_srai_epi32(_mm_slli_epi32((__m128i)words, 16), 16);
  _mm_storel_epi64(static_cast<__m128i*>(to), _mm_packs_epi32(extended, extended));
#else
  const U16 narrow = __builtin_convertvector(words, U16);
  std::memcpy(to, &narrow, sizeof(narrow));
#endif
}

FLASHINFER_INLINE F32 load(const float* from, Whole) {
  F32 x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

FLASHINFER_INLINE F32 load(const BFloat16* from, Whole) { return float_of(load_words(from) << 16); }

#if defined(FLASHINFER_AVX512)
FLASHINFER_INLINE F32 half_value(U16 words) {
  return (F32)_mm512_maskz_cvtph_ps(kAllLanes, (__m256i)words);
}
#elif defined(FLASHINFER_AVX2)
FLASHINFER_INLINE F32 half_value(U16 words) { return (F32)_mm256_cvtph_ps((__m128i)words); }
#else
// fp16 in the low half of every lane.
FLASHINFER_INLINE F32 half_value(U32 half) {
  const U32 sign = (half & 0x8000u) << 16;
  // Mantissa and exponent moved into place; the exponent bias differs by 127 - 15.
  const U32 moved = (half & 0x7fffu) << 13;
  const U32 normal = moved + (112u << 23);
  const U32 special = moved + (224u << 23);  // inf and NaN: exponent 31 becomes 255
  // Subnormal m * 2^-24: as the mantissa of 2^-14 + m * 2^-24, less 2^-14.
  const F32 offset = float_of(U32{} + (113u << 23));
  const U32 subnormal = bits_of(float_of(moved + (113u << 23)) - offset);
  const U32 rest = select((I32)moved < (0x0400 << 13), subnormal, normal);
  return float_of(sign | select((I32)moved >= (0x7c00 << 13), special, rest));
}
FLASHINFER_INLINE F32 half_value(U16 words) {
  return half_value(__builtin_convertvector(words, U32));
}
#endif

FLASHINFER_INLINE F32 load(const Half* from, Whole) {
#if defined(FLASHINFER_AVX512) || defined(FLASHINFER_AVX2)
  U16 words;
  std::memcpy(&words, from, sizeof(words));
  return half_value(words);
#else
  return half_value(load_words(from));
#endif
}

// kLanes bytes, each the upper half of a 16-bit word.
FLASHINFER_INLINE U16 load_upper_bytes(const void* from) {
#if defined(FLASHINFER_AVX512)
  return (U16)_mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(from))) << 8;
#elif defined(FLASHINFER_AVX2)
  return (U16)_mm_cvtepu8_epi16(_mm_loadl_epi64(static_cast<const __m128i*>(from))) << 8;
#else
  U8 bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return __builtin_convertvector(bytes, U16) << 8;
#endif
}

// e5m2 is the upper half of an fp16 number.
FLASHINFER_INLINE F32 load(const Float8E5M2* from, Whole) {
  return half_value(load_upper_bytes(from));
}

// e4m3, with one more bit of exponent, is the upper half of an fp16 number too, of 2^-8 its value.
FLASHINFER_INLINE F32 load(const Float8E4M3* from, Whole) {
  const U16 half = (U16)((I16)load_upper_bytes(from) >> 1) & 0xbfffu;  // >> copies the sign
  // 0x7f, the NaN: adding to its last bit carries into the exponent, and all ones is fp16's NaN.
  return half_value(half | ((half + 0x0080u) & 0x4000u)) * 256.0f;
}

FLASHINFER_INLINE void store(float* to, F32 x, Whole) { std::memcpy(to, &x, sizeof(x)); }

// bf16, in the low half of every lane: rounded to nearest even on the upper half of the word. A NaN
// is not rounded, which could carry it into the sign; results of arithmetic are quiet NaNs, so its
// upper half still is one.
FLASHINFER_INLINE U32 bfloat16_words(F32 x) {
  const U32 bits = bits_of(x);
  const U32 rounding = 0x7fffu + ((bits >> 16) & 1u);
  return (bits + (rounding & (U32)(x == x))) >> 16;
}

FLASHINFER_INLINE void store(BFloat16* to, F32 x, Whole) { store_words(to, bfloat16_words(x)); }

FLASHINFER_INLINE void store(Half* to, F32 x, Whole) {
#if defined(FLASHINFER_AVX512)
  _mm256_storeu_si256(
      static_cast<__m256i*>(static_cast<void*>(to)),
      _mm512_maskz_cvtps_ph(kAllLanes, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(FLASHINFER_AVX2)
  _mm_storeu_si128(static_cast<__m128i*>(static_cast<void*>(to)),
                   _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  const U32 bits = bits_of(x);
  const U32 magnitude = bits & 0x7fffffffu;
  const I32 ordered = (I32)magnitude;
  const U32 normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 the unit is 2^-24, which is the last bit of numbers at 0.5: the sum rounds there.
  const F32 anchor = broadcast(0.5f);
  const U32 subnormal = bits_of(float_of(magnitude) + anchor) - bits_of(anchor);
  const U32 nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  U32 half = select(ordered < (113 << 23), subnormal, normal);
  half = select(ordered >= 0x477ff000, U32{} + 0x7c00u, half);  // 65520 and up round to inf
  half = select(ordered > 0x7f800000, nan, half);
  store_words(to, half | ((bits >> 16) & 0x8000u));
#endif
}

// fp8 in the low byte of every lane: the nearest number, ties to even. What is out of range becomes
// the largest number, infinity too, and NaN stays one.
template <int kMantissa, int kBias, uint32_t kMost>
FLASHINFER_INLINE U32 fp8_bytes(F32 x) {
  constexpr int kShift = 23 - kMantissa;
  const U32 bits = bits_of(x);
  const U32 absolute = bits & 0x7fffffffu;
  const U32 magnitude =
      select((I32)absolute < static_cast<int32_t>(kMost), absolute, U32{} + kMost);
  const U32 rounding = ((1u << (kShift - 1)) - 1) + ((magnitude >> kShift) & 1u);
  const U32 normal = ((magnitude + rounding) >> kShift) - ((127u - kBias) << kMantissa);
  // Among the subnormals the unit is the last bit of numbers at `anchor`: the sum rounds there.
  const U32 anchor = U32{} + ((128u - kBias + kShift) << 23);
  const U32 subnormal = bits_of(float_of(magnitude) + float_of(anchor)) - anchor;
  const U32 byte = select((I32)magnitude < ((128 - kBias) << 23), subnormal, normal);
  return select((I32)absolute > 0x7f800000, U32{} + 0x7fu, byte) | ((bits >> 24) & 0x80u);
}

// The low 8 bits of every lane.
FLASHINFER_INLINE void store_bytes(void* to, U32 bytes) {
  const U8 narrow = __builtin_convertvector(bytes, U8);
  std::memcpy(to, &narrow, sizeof(narrow));
}

FLASHINFER_INLINE void store(Float8E4M3* to, F32 x, Whole) {
  store_bytes(to, fp8_bytes<3, 7, 0x43e00000>(x));  // 448
}
FLASHINFER_INLINE void store(Float8E5M2* to, F32 x, Whole) {
  store_bytes(to, fp8_bytes<2, 15, 0x47600000>(x));  // 57344
}

// Two vectors side by side.
template <class T>
FLASHINFER_INLINE void store_pair(T* to, F32 first, F32 second) {
  store(to, first, Whole{});
  store(to + kLanes, second, Whole{});
}

// bf16 packs two vectors as cheaply as one.
FLASHINFER_INLINE void store_pair(BFloat16* to, F32 first, F32 second) {
  const U32 low = bfloat16_words(first), high = bfloat16_words(second);
#if defined(FLASHINFER_AVX2)
  const __m256i packed = _mm256_packus_epi32((__m256i)low, (__m256i)high);
  _mm256_storeu_si256(static_cast<__m256i*>(static_cast<void*>(to)),
                      _mm256_permute4x64_epi64(packed, 0xd8));
#elif defined(FLASHINFER_SSE2)
  const __m128i packed = _mm_packs_epi32(_mm_srai_epi32(_mm_slli_epi32((__m128i)low, 16), 16),
                                         _mm_srai_epi32(_mm_slli_epi32((__m128i)high, 16), 16));
  _mm_storeu_si128(static_cast<__m128i*>(static_cast<void*>(to)), packed);
#else
  store_words(to, low);
  store_words(to + kLanes, high);
#endif
}

template <class T>
FLASHINFER_INLINE F32 load(const T* from, Part part) {
  T lanes[kLanes] = {};
  std::memcpy(lanes, from, static_cast<size_t>(part.n) * sizeof(T));
  return load(lanes, Whole{});
}

template <class T>
FLASHINFER_INLINE void store(T* to, F32 x, Part part) {
  T lanes[kLanes];
  store(lanes, x, Whole{});
  std::memcpy(to, lanes, static_cast<size_t>(part.n) * sizeof(T));
}

// out[i] = values.at(i, lanes) for i < n; two vectors at a time, then one, then the tail.
template <class T, class Values>
FLASHINFER_INLINE void store_each(T* out, int64_t n, const Values& values) {
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    store_pair(out + i, values.at(i, Whole{}), values.at(i + kLanes, Whole{}));
  }
  for (; i + kLanes <= n; i += kLanes) store(out + i, values.at(i, Whole{}), Whole{});
  if (i < n) store(out + i, values.at(i, Part{n - i}), Part{n - i});
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_VEC_H_
