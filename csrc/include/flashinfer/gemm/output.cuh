// From fragments of sums to the result.
#ifndef FLASHINFER_GEMM_OUTPUT_CUH_
#define FLASHINFER_GEMM_OUTPUT_CUH_

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/gemm/problem.cuh"
#include "flashinfer/gemm/traits.cuh"

namespace flashinfer {

// Two neighbours of a row of the result; `count` is how many of them exist.
template <typename T>
__device__ __forceinline__ void store_two(char* row, int col, float x, float y, int count,
                                          bool pairs) {
  T* to = reinterpret_cast<T*>(row) + col;
  const float both[2] = {x, y};
  const Vec<T, 2> value = Vec<T, 2>::narrow(both);
  if (pairs && count >= 2) {
    store(reinterpret_cast<Vec<T, 2>*>(to), value);
    return;
  }
  T elements[2];
  memcpy(elements, &value, sizeof(value));
  for (int i = 0; i < count && i < 2; ++i) to[i] = elements[i];
}

// Writes sums to rows of the block's tile of the result.
template <class Traits>
class Output {
 public:
  __device__ __forceinline__ Output(const GemmParams& p, const GemmBlock& block)
      : p_(p), rows_(block.rows) {
    constexpr int64_t kSize = 2;  // of fp16 and bf16
    out_ = p.out + (block.batch_of_out * p.out_stride_batch + block.row * p.out_stride_row) * kSize;
    if constexpr (Traits::kFp8) {
      scale_ = load_readonly(p.a_scale + block.batch * p.a_scale_stride) *
               load_readonly(p.b_scale + block.batch * p.b_scale_stride);
    }
  }

  // Columns col and col + 1 of row `row` of the tile.
  __device__ __forceinline__ void store_pair(int row, int col, float x, float y) const {
    if (row >= rows_ || col >= p_.cols) return;
    char* const to = out_ + row * p_.out_stride_row * 2;
    const int count = p_.cols - col;
    if constexpr (Traits::kFp8) {
      if (p_.out_bf16) {
        store_two<__nv_bfloat16>(to, col, x * scale_, y * scale_, count, p_.out_pairs);
      } else {
        store_two<__half>(to, col, x * scale_, y * scale_, count, p_.out_pairs);
      }
    } else {
      store_two<typename Traits::T>(to, col, x, y, count, p_.out_pairs);
    }
  }

 private:
  const GemmParams& p_;
  char* out_;
  int rows_;
  float scale_ = 1.0f;
};

}  // namespace flashinfer

#endif  // FLASHINFER_GEMM_OUTPUT_CUH_
