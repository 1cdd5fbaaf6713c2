// Stands in for isa_avx512.cpp: the same kernels at the same 64-byte width, without AVX-512
// instructions, so that the 16-lane code runs on any CPU. What this leaves out is the few
// intrinsics of vec.h and quantization.h under FLASHINFER_AVX512.
#include "cpu/isa.h"

#define FLASHINFER_VECTOR_BYTES 64
#include "cpu/kernels/table.h"

namespace flashinfer {
namespace cpu {

bool avx512_supported() { return true; }
const Kernels kAvx512Kernels = kTable;

}  // namespace cpu
}  // namespace flashinfer
