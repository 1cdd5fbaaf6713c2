// Tensor cores (mma.sync, sm_80) and the loads that fill their fragments.
//
// All lanes of a warp call these together. With g = lane / 4 and t = lane % 4, the words of lane
// hold, each word two neighbours:
//   A [16 x 16]  0: row g, columns 2t    1: row g + 8    2: row g, columns 2t + 8    3: both
//   B [16 x 8]   0: rows 2t, column g    1: rows 2t + 8
//   C [16 x 8]   0, 1: row g, columns 2t and 2t + 1    2, 3: row g + 8      (fp32, one a register)
#ifndef FLASHINFER_ARCH_MMA_CUH_
#define FLASHINFER_ARCH_MMA_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "flashinfer/arch/async_copy.cuh"

namespace flashinfer {

// Four 8 x 8 matrices of 16-bit elements. Lane 8 i + r gives the address of row r of matrix i: 16
// bytes, aligned. Word i of a lane is row g, columns 2t and 2t + 1 of matrix i.
__device__ __forceinline__ void load_matrices(const void* row, uint32_t (&out)[4]) {
#ifdef FLASHINFER_EMULATE
  emulator::load_matrices(row, out, false);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// The same, transposed: word i of a lane is rows 2t and 2t + 1, column g of matrix i.
__device__ __forceinline__ void load_matrices_transposed(const void* row, uint32_t (&out)[4]) {
#ifdef FLASHINFER_EMULATE
  emulator::load_matrices(row, out, true);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// c += a * b, products exact, sums in fp32.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  static_assert(std::is_same<T, __half>::value || std::is_same<T, __nv_bfloat16>::value,
                "a type that the tensor cores multiply");
#ifdef FLASHINFER_EMULATE
  emulator::multiply_add(c, a, b0, b1, std::is_same<T, __nv_bfloat16>::value);
#else
  if constexpr (std::is_same<T, __half>::value) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

}  // namespace flashinfer

#endif  // FLASHINFER_ARCH_MMA_CUH_
