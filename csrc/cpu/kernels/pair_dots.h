// Dot products of rows of bf16 with rows of another matrix as they lie, on the instructions of
// pairs.h.
#ifndef FLASHINFER_CPU_KERNELS_PAIR_DOTS_H_
#define FLASHINFER_CPU_KERNELS_PAIR_DOTS_H_

#include "cpu/kernels/attention_direct.h"
#include "cpu/kernels/pairs.h"

#if defined(FLASHINFER_BF16_PAIRS)

namespace flashinfer {
namespace cpu {
namespace {

// On top of what the file is compiled for; its functions run only where the CPU has it.
#define FLASHINFER_BFLOAT16_DOT __attribute__((target("avx512bf16")))

// sums[r][j] = a[r] . lines[j] for kRows rows of a, padded with zeros to whole vectors, and four
// lines of `depth` numbers. `next`, if not NULL, has the lines to fetch meanwhile.
template <int kRows>
FLASHINFER_BFLOAT16_DOT inline void dot_pairs_block(Matrix a, const BFloat16* const* lines,
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
      const __m512bh x = (__m512bh)_mm512_loadu_si512(a.at + r * a.stride + i / 2);
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
    Matrix a, const BFloat16* const* lines, int64_t m, int64_t count, int64_t depth, Matrix sums) {
  for (int64_t j = 0; j < count; j += 4) {
    const BFloat16* four[4];
    for (int64_t i = 0; i < 4; ++i) four[i] = lines[j + i < count ? j + i : count - 1];
    const BFloat16* const* next = lines + j + 4;  // for the first rows, which read the lines first
    int64_t r = 0;
    const auto rest = [&] { return Matrix{a.at + r * a.stride, a.stride}; };
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

#endif  // FLASHINFER_BF16_PAIRS

#endif  // FLASHINFER_CPU_KERNELS_PAIR_DOTS_H_
