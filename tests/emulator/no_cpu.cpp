// The CPU side of the C interface is tested by itself; here it only has to exist.
#include "backend.h"

namespace flashinfer {
namespace cpu {
#define FLASHINFER_NO_CPU(op, args_type)                                             \
  fi_status op(const fi_exec&, const args_type&) {                                   \
    return fail(FI_UNSUPPORTED, #op ": this library has the emulated kernels only"); \
  }
FLASHINFER_FOR_EACH_OP(FLASHINFER_NO_CPU)
}  // namespace cpu
}  // namespace flashinfer
