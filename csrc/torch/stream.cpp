#include <dlfcn.h>

#include "host.h"
#include "tensor.h"

namespace flashinfer {
namespace binding {

namespace {

// torch exports this C function since 2.2 (torch/csrc/inductor/aoti_torch/c/shim.h), with one
// signature up to 2.15, and looks it up in no header of CUDA. It lives in libtorch_cuda.so, which a
// CPU torch does not have, so it cannot be linked against: the library is found among those already
// loaded. The C++ ways are narrower: c10::Stream::native_handle() came with 2.11, and
// c10/cuda/CUDAStream.h needs CUDA's headers and libc10_cuda.so.
using CurrentStream = int32_t (*)(int32_t device_index, void** stream);

CurrentStream find_current_stream() {
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  return reinterpret_cast<CurrentStream>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
}

}  // namespace

void* current_cuda_stream(int32_t device) {
  static const CurrentStream current_stream = find_current_stream();
  if (current_stream == nullptr) {
    throw ArgumentError(ErrorKind::kRuntime,
                        "the tensors are on CUDA, but torch's libtorch_cuda.so is not loaded or has"
                        " no aoti_torch_get_current_cuda_stream");
  }
  void* stream = nullptr;
  if (current_stream(device, &stream) != 0) {
    throw ArgumentError(ErrorKind::kRuntime, "torch could not tell its current CUDA stream");
  }
  return stream;
}

}  // namespace binding
}  // namespace flashinfer
