// The C interface: checks the pointers every call needs, then dispatches on the device.
#include "flashinfer/api.h"

#include <cstdarg>
#include <cstdio>

#include "backend.h"

namespace flashinfer {

namespace {
thread_local char last_error[512] = "";
}

fi_status fail(fi_status status, const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::vsnprintf(last_error, sizeof(last_error), format, args);
  va_end(args);
  return status;
}

}  // namespace flashinfer

extern "C" const char* fi_last_error(void) { return flashinfer::last_error; }

#ifdef FLASHINFER_WITH_CUDA
#define FLASHINFER_CUDA_CALL(op) flashinfer::cuda::op(*exec, *args)
#else
#define FLASHINFER_CUDA_CALL(op)                                               \
  flashinfer::fail(FI_UNSUPPORTED,                                             \
                   "fi_" #op                                                   \
                   ": this is the CPU build of libflashinfer, and the tensors" \
                   " are on CUDA device %d",                                   \
                   static_cast<int>(exec->device))
#endif

#define FLASHINFER_DEFINE(op, args_type)                                                    \
  extern "C" fi_status fi_##op(const fi_exec* exec, const args_type* args) {                \
    if (exec == nullptr || args == nullptr) {                                               \
      return flashinfer::fail(FI_INVALID_ARGUMENT, "fi_" #op ": exec or args is NULL");     \
    }                                                                                       \
    return exec->device < 0 ? flashinfer::cpu::op(*exec, *args) : FLASHINFER_CUDA_CALL(op); \
  }
FLASHINFER_FOR_EACH_OP(FLASHINFER_DEFINE)
