// Bools to bits, 64 at a time.
#ifndef FLASHINFER_CPU_KERNELS_QUANTIZATION_H_
#define FLASHINFER_CPU_KERNELS_QUANTIZATION_H_

#include "cpu/kernels/vec.h"
#include "flashinfer/api.h"

namespace flashinfer {
namespace cpu {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a mask's byte i holds elements 8i..8i+7");

// Bit i is x[i] != 0, i < 64.
FLASHINFER_INLINE uint64_t mask_of_64(const uint8_t* x) {
#if defined(FLASHINFER_AVX512)
  const __m512i bytes = _mm512_loadu_si512(x);
  return _mm512_test_epi8_mask(bytes, bytes);
#elif defined(FLASHINFER_AVX2)
  uint64_t mask = 0;
  for (int i = 0; i < 2; ++i) {
    const void* from = x + 32 * i;
    const __m256i zero = _mm256_cmpeq_epi8(_mm256_loadu_si256(static_cast<const __m256i*>(from)),
                                           _mm256_setzero_si256());
    mask |= static_cast<uint64_t>(static_cast<uint32_t>(~_mm256_movemask_epi8(zero))) << (32 * i);
  }
  return mask;
#elif defined(FLASHINFER_SSE2)
  uint64_t zeros = 0;
  for (int i = 0; i < 4; ++i) {
    const void* from = x + 16 * i;
    const __m128i zero =
        _mm_cmpeq_epi8(_mm_loadu_si128(static_cast<const __m128i*>(from)), _mm_setzero_si128());
    zeros |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(zero))) << (16 * i);
  }
  return ~zeros;
#else
  constexpr uint64_t kSevenBits = 0x7f7f7f7f7f7f7f7fu;
  uint64_t mask = 0;
  for (int i = 0; i < 8; ++i) {
    uint64_t bytes;
    std::memcpy(&bytes, x + 8 * i, sizeof(bytes));
    const uint64_t ones = ((((bytes & kSevenBits) + kSevenBits) | bytes) & ~kSevenBits) >> 7;
    // The product moves byte j's bit to bit 56 + j without carries.
    mask |= ((ones * 0x0102040810204080u) >> 56) << (8 * i);
  }
  return mask;
#endif
}

// Reverses the bits inside every byte.
FLASHINFER_INLINE uint64_t reversed_bytes(uint64_t x) {
  x = ((x >> 1) & 0x5555555555555555u) | ((x & 0x5555555555555555u) << 1);
  x = ((x >> 2) & 0x3333333333333333u) | ((x & 0x3333333333333333u) << 2);
  return ((x >> 4) & 0x0f0f0f0f0f0f0f0fu) | ((x & 0x0f0f0f0f0f0f0f0fu) << 4);
}

// y[0, bytes) from x[0, n): elements past n are zero.
FLASHINFER_INLINE void pack_run(const uint8_t* x, int64_t n, uint8_t* y, int64_t bytes,
                                bool little_endian) {
  int64_t i = 0;  // the byte of y; its elements are x[8 i, 8 i + 8)
  for (; 8 * i + 64 <= n && i + 8 <= bytes; i += 8) {
    const uint64_t mask = mask_of_64(x + 8 * i);
    const uint64_t bits = little_endian ? mask : reversed_bytes(mask);
    std::memcpy(y + i, &bits, sizeof(bits));
  }
  for (; i < bytes; i += 8) {
    const int64_t left = n - 8 * i;
    if (left <= 0) {
      std::memset(y + i, 0, static_cast<size_t>(bytes - i));
      return;
    }
    uint8_t tail[64] = {};
    std::memcpy(tail, x + 8 * i, static_cast<size_t>(left < 64 ? left : 64));
    const uint64_t mask = mask_of_64(tail);
    const uint64_t bits = little_endian ? mask : reversed_bytes(mask);
    std::memcpy(y + i, &bits, static_cast<size_t>(bytes - i < 8 ? bytes - i : 8));
  }
}

// The range counts bytes of output; bytes between segments are left alone.
void packbits_bytes(void* arg, int64_t begin, int64_t end) {
  const fi_packbits_args& args = *static_cast<const fi_packbits_args*>(arg);
  const bool little_endian = args.little_endian != 0;
  if (args.in_indptr == nullptr) {
    pack_run(args.x + 8 * begin, args.n - 8 * begin, args.y + begin, end - begin, little_endian);
    return;
  }
  // The first segment that ends after `begin`.
  int64_t low = 0, high = args.num_segments;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (args.out_indptr[middle + 1] <= begin) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (int64_t b = low; b < args.num_segments && args.out_indptr[b] < end; ++b) {
    const int64_t from = args.out_indptr[b] > begin ? args.out_indptr[b] : begin;
    const int64_t to = args.out_indptr[b + 1] < end ? args.out_indptr[b + 1] : end;
    if (from >= to) continue;
    const int64_t skipped = 8 * (from - args.out_indptr[b]);
    const int64_t n = args.in_indptr[b + 1] - args.in_indptr[b];
    const uint8_t* x = args.x + args.in_indptr[b];
    pack_run(x + (skipped < n ? skipped : n), n - skipped, args.y + from, to - from, little_endian);
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_QUANTIZATION_H_
