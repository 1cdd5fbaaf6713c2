// Copies from global to shared memory that run beside the thread (cp.async, sm_80).
//
// A copy belongs to the group that the next copy_async_commit() of its thread closes. What it
// wrote may be read by its own thread after copy_async_wait, and by others after a barrier too.
#ifndef FLASHINFER_ARCH_ASYNC_COPY_CUH_
#define FLASHINFER_ARCH_ASYNC_COPY_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#ifdef FLASHINFER_EMULATE
#include "emulator.h"
#endif

namespace flashinfer {

// The address of shared memory as PTX takes it.
#ifndef FLASHINFER_EMULATE
__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
#endif

// 16 bytes, both addresses aligned to 16; zeros, and `from` is not read, where not `valid`.
__device__ __forceinline__ void copy_async_16(void* shared, const void* from, bool valid) {
#ifdef FLASHINFER_EMULATE
  emulator::copy_async(shared, from, 16, valid);
#else
  asm volatile(
      "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
      "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0)
      : "memory");
#endif
}

__device__ __forceinline__ void copy_async_commit() {
#ifdef FLASHINFER_EMULATE
  emulator::copy_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for all groups of this thread but the `kLeft` that were closed last.
template <int kLeft>
__device__ __forceinline__ void copy_async_wait() {
#ifdef FLASHINFER_EMULATE
  emulator::copy_async_wait(kLeft);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

}  // namespace flashinfer

#endif  // FLASHINFER_ARCH_ASYNC_COPY_CUH_
