// Every kernel for AVX-512 F, BW, DQ and VL (x86-64-v4).
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

bool avx512_supported() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}

}  // namespace cpu
}  // namespace flashinfer

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2")
#define FLASHINFER_AVX512
#define FLASHINFER_VECTOR_BYTES 64
#include "cpu/kernels/table.h"

namespace flashinfer {
namespace cpu {

const Kernels kAvx512Kernels = kTable;

}  // namespace cpu
}  // namespace flashinfer

#endif  // __x86_64__
