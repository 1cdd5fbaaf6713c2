// Every kernel for any x86-64 (SSE2), or for the instruction set the compiler was told to assume.
#include "cpu/isa.h"

#if defined(__SSE2__)
#define FLASHINFER_SSE2
#endif
#define FLASHINFER_VECTOR_BYTES 16
#include "cpu/kernels/table.h"

namespace flashinfer {
namespace cpu {

const Kernels kBaselineKernels = kTable;

}  // namespace cpu
}  // namespace flashinfer
