// Products of bf16 matrices by the instruction that adds two products of bf16 to an fp32 sum
// (AVX-512 BF16), which does twice the work of an fp32 one.
//
// A word holds two neighbours along the sum. b comes as words of one column each, side by side:
// pairs x columns. The instruction takes subnormal bf16 numbers for 0.
#ifndef FLASHINFER_CPU_KERNELS_BFLOAT16_PAIRS_H_
#define FLASHINFER_CPU_KERNELS_BFLOAT16_PAIRS_H_

#include "cpu/kernels/attention_direct.h"

#if defined(FLASHINFER_AVX512)

namespace flashinfer {
namespace cpu {
namespace {

// On top of what the file is compiled for; its functions run only where the CPU has it.
#define FLASHINFER_BFLOAT16_DOT __attribute__((target("avx512bf16")))

inline bool bfloat16_dot_supported() { return __builtin_cpu_supports("avx512bf16") != 0; }

// Rows of words, `stride` bytes from one to the next.
struct PairMatrix {
  const char* at;
  int64_t stride;
};
constexpr int64_t kPairBytes = 4;

template <int kRows, int kVectors>
FLASHINFER_BFLOAT16_DOT inline void multiply_pairs_block(PairMatrix a, PairMatrix b, Matrix c,
                                                         int64_t pairs) {
  __m512 sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = (__m512)load(c.at + r * c.stride + v * kLanes, Whole{});
    }
  }
  for (int64_t i = 0; i < pairs; ++i) {
    __m512bh columns[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      columns[v] = (__m512bh)_mm512_loadu_si512(b.at + i * b.stride + v * 64);
    }
    for (int r = 0; r < kRows; ++r) {
      int32_t word;
      std::memcpy(&word, a.at + r * a.stride + i * kPairBytes, sizeof(word));
      const __m512bh x = (__m512bh)_mm512_set1_epi32(word);
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, columns[v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      store(c.at + r * c.stride + v * kLanes, (F32)sums[r][v], Whole{});
    }
  }
}

template <int kVectors>
FLASHINFER_BFLOAT16_DOT inline void multiply_pairs_rows(PairMatrix a, PairMatrix b, Matrix c,
                                                        int64_t m, int64_t pairs) {
  for (; m >= kBlockRows; m -= kBlockRows) {
    multiply_pairs_block<kBlockRows, kVectors>(a, b, c, pairs);
    a.at += kBlockRows * a.stride;
    c.at += kBlockRows * c.stride;
  }
  switch (m) {
    case 5:
      return multiply_pairs_block<5, kVectors>(a, b, c, pairs);
    case 4:
      return multiply_pairs_block<4, kVectors>(a, b, c, pairs);
    case 3:
      return multiply_pairs_block<3, kVectors>(a, b, c, pairs);
    case 2:
      return multiply_pairs_block<2, kVectors>(a, b, c, pairs);
    case 1:
      return multiply_pairs_block<1, kVectors>(a, b, c, pairs);
    default:
      return;
  }
}

// C += A B for m rows and one panel of columns, whole vectors of it.
FLASHINFER_BFLOAT16_DOT inline __attribute__((noinline)) void multiply_pairs(
    PairMatrix a, PairMatrix panel, Matrix c, int64_t m, int64_t cols, int64_t pairs) {
  if (cols == kBlockVectors * kLanes) {
    return multiply_pairs_rows<kBlockVectors>(a, panel, c, m, pairs);
  }
  for (; cols > 0; cols -= kLanes, panel.at += 64, c.at += kLanes) {
    multiply_pairs_rows<1>(a, panel, c, m, pairs);
  }
}

// Words of columns i to i + kLanes from two neighbouring rows; `second` may be NULL for zeros.
template <class Count>
FLASHINFER_INLINE U32 pair_words(const BFloat16* first, const BFloat16* second, Count count) {
  const U32 low = bits_of(load(first, count)) >> 16;
  return second != nullptr ? low | bits_of(load(second, count)) : low;
}

// sums[r][j] = a[r] . lines[j] for kRows rows of a, padded with zeros to whole vectors, and four
// lines of `depth` numbers. `next`, if not NULL, has the lines to fetch meanwhile.
template <int kRows>
FLASHINFER_BFLOAT16_DOT inline void dot_pairs_block(PairMatrix a, const BFloat16* const* lines,
                                                    const BFloat16* const* next, int64_t depth,
                                                    Matrix sums) {
  constexpr int64_t kNumbers = 2 * kLanes;
  F32 dots[kRows][4];
// Unrolled early, or g++ keeps the sums in memory.
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < 4; ++j) dots[r][j] = F32{};
  }
  for (int64_t i = 0; i < depth; i += kNumbers) {
    const int64_t left = depth - i;
    const __mmask32 mask = left < kNumbers ? (1u << left) - 1 : 0xffffffffu;
    if (next != nullptr) {
      for (int j = 0; j < 4; ++j) __builtin_prefetch(next[j] + i, 0, 2);
    }
    __m512bh line[4];
    for (int j = 0; j < 4; ++j) line[j] = (__m512bh)_mm512_maskz_loadu_epi16(mask, lines[j] + i);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512bh x = (__m512bh)_mm512_loadu_si512(a.at + r * a.stride + i * 2);
      for (int j = 0; j < 4; ++j) {
        dots[r][j] = (F32)_mm512_dpbf16_ps((__m512)dots[r][j], x, line[j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    store_sums(sums.at + r * sums.stride, dots[r][0], dots[r][1], dots[r][2], dots[r][3]);
  }
}

// The same for m rows and `count` lines; `lines` has at least four more, and sums has room for a
// multiple of four.
FLASHINFER_BFLOAT16_DOT inline __attribute__((noinline)) void dot_pairs(
    PairMatrix a, const BFloat16* const* lines, int64_t m, int64_t count, int64_t depth,
    Matrix sums) {
  for (int64_t j = 0; j < count; j += 4) {
    const BFloat16* four[4];
    for (int64_t i = 0; i < 4; ++i) four[i] = lines[j + i < count ? j + i : count - 1];
    const BFloat16* const* next = lines + j + 4;  // for the first rows, which read the lines first
    int64_t r = 0;
    const auto rest = [&] { return PairMatrix{a.at + r * a.stride, a.stride}; };
    const auto to = [&] { return Matrix{sums.at + r * sums.stride + j, sums.stride}; };
    for (; r + kBlockRows <= m; r += kBlockRows) {
      dot_pairs_block<kBlockRows>(rest(), four, next, depth, to());
      next = nullptr;
    }
    switch (m - r) {
      case 5:
        dot_pairs_block<5>(rest(), four, next, depth, to());
        break;
      case 4:
        dot_pairs_block<4>(rest(), four, next, depth, to());
        break;
      case 3:
        dot_pairs_block<3>(rest(), four, next, depth, to());
        break;
      case 2:
        dot_pairs_block<2>(rest(), four, next, depth, to());
        break;
      case 1:
        dot_pairs_block<1>(rest(), four, next, depth, to());
        break;
      default:
        break;
    }
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_AVX512

#endif  // FLASHINFER_CPU_KERNELS_BFLOAT16_PAIRS_H_
