// Products of matrices of bf16 on the instructions that multiply two of them at once (AVX512_BF16),
// where the CPU has these. A word, moved about as a float, is a pair of neighbours along the sum:
// products are exact, sums in fp32.
#ifndef FLASHINFER_CPU_KERNELS_PAIRS_H_
#define FLASHINFER_CPU_KERNELS_PAIRS_H_

#include "cpu/kernels/matmul.h"

#if defined(FLASHINFER_AVX512) && __GNUC__ >= 11
#define FLASHINFER_BF16_PAIRS
#endif

namespace flashinfer {
namespace cpu {
namespace {

#if defined(FLASHINFER_BF16_PAIRS)

// After avx512_supported(), which has initialised what this reads.
FLASHINFER_INLINE bool pairs_supported() { return __builtin_cpu_supports("avx512bf16"); }

#pragma GCC push_options
#pragma GCC target("avx512bf16")
namespace pairs {

FLASHINFER_INLINE F32 add_products(F32 a, F32 b, F32 sum) {
  return (F32)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

#define FLASHINFER_PRODUCT add_products
#include "cpu/kernels/matmul_loops.inc"
#undef FLASHINFER_PRODUCT

}  // namespace pairs
#pragma GCC pop_options

#else

FLASHINFER_INLINE bool pairs_supported() { return false; }

namespace pairs {
template <bool>
void multiply(Matrix, Matrix, Matrix, int64_t, int64_t, int64_t) {}
}  // namespace pairs

#endif

// Two rows of bf16, `second` NULL for zeros, to one of pairs along the columns; d is a multiple of
// kLanes.
FLASHINFER_INLINE void pair_rows(const BFloat16* first, const BFloat16* second, float* to,
                                 int64_t d) {
  for (int64_t i = 0; i < d; i += kLanes) {
    const U32 high = second != nullptr ? load_words(second + i) << 16 : U32{};
    store(to + i, float_of(load_words(first + i) | high), Whole{});
  }
}

// A row of floats to bf16 in place; n is a multiple of kLanes.
FLASHINFER_INLINE void narrow_row(float* row, int64_t n) {
  auto* to = static_cast<BFloat16*>(static_cast<void*>(row));
  for (int64_t i = 0; i < n; i += kLanes) store(to + i, load(row + i, Whole{}), Whole{});
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_PAIRS_H_
