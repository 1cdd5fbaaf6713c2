// Every kernel for AVX2, FMA and F16C (x86-64-v3).
//
// Headers with functions come before the pragma: an inline function of theirs compiled for the
// wider instruction set could otherwise be the copy the linker keeps for everyone.
#if defined(__x86_64__)

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/isa.h"

namespace flashinfer {
namespace cpu {

bool avx2_supported() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}

}  // namespace cpu
}  // namespace flashinfer

#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#define FLASHINFER_AVX2
#define FLASHINFER_VECTOR_BYTES 32
#include "cpu/kernels/table.h"

namespace flashinfer {
namespace cpu {

const Kernels kAvx2Kernels = kTable;

}  // namespace cpu
}  // namespace flashinfer

#endif  // __x86_64__
