// Starting a kernel: the CUDA runtime's call, or the host emulator's (tests/emulator).
#ifndef FLASHINFER_ARCH_LAUNCH_CUH_
#define FLASHINFER_ARCH_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstddef>

#ifdef FLASHINFER_EMULATE
#include <tuple>

#include "emulator.h"
#endif

namespace flashinfer {

#ifdef FLASHINFER_EMULATE

template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Args... args) {
  struct Call {
    void (*kernel)(Params...);
    std::tuple<Params...> params;
  } call{kernel, std::tuple<Params...>(args...)};
  emulator::Launch launch{};
  launch.kernel = reinterpret_cast<const void*>(kernel);
  launch.grid = grid;
  launch.block = block;
  launch.shared_bytes = shared_bytes;
  launch.stream = stream;
  launch.call = &call;
  launch.call_bytes = sizeof(call);
  launch.params_bytes = (sizeof(Params) + ... + 0);
  launch.run_thread = [](const void* pointer) {
    const Call& thread_call = *static_cast<const Call*>(pointer);
    std::apply(thread_call.kernel, thread_call.params);
  };
  return emulator::run(launch);
}

// The dynamic shared memory of the block, aligned to 16 bytes.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  return static_cast<T*>(emulator::dynamic_shared());
}

#else

// The launch's own error, not one left behind by somebody else's call, is returned.
template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Args... args) {
  const auto call = [&](Params... params) {
    void* pointers[] = {static_cast<void*>(&params)...};
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers,
                            shared_bytes, stream);
  };
  return call(args...);
}

template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ uint4 flashinfer_dynamic_shared[];
  return reinterpret_cast<T*>(flashinfer_dynamic_shared);
}

#endif

}  // namespace flashinfer

#endif  // FLASHINFER_ARCH_LAUNCH_CUH_
