// The host emulator's interface, to the kernel sources and to the launchers.
//
// A kernel compiled for the host with these headers runs block after block; the threads of a block
// are fibers that switch at barriers and warp operations. Every memory access is checked: the
// compiler's -fsanitize=thread instrumentation calls the hooks of memory.cpp before it.
#ifndef FLASHINFER_TESTS_EMULATOR_H_
#define FLASHINFER_TESTS_EMULATOR_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace emulator {

struct Launch {
  const void* kernel;  // its address, for its name
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
  const void* call;  // passed to run_thread, once a thread
  size_t call_bytes;
  size_t params_bytes;
  void (*run_thread)(const void* call);
};

// Runs all blocks. The first fault stops the launch: the result is then cudaErrorEmulatedFault and
// cudaGetErrorString says what was wrong, where.
cudaError_t run(const Launch& launch);

// Accesses of arch/memory.cuh: checked as one access of `size` bytes with this alignment. A
// read-only (ld.global.nc) access must not meet any write of the same launch.
void on_vector_read(const void* address, size_t size, size_t alignment, bool read_only);
void on_vector_write(const void* address, size_t size, size_t alignment);

// An atomic addition of arch/integer.cuh; returns what was there. Atomics of several threads are
// not a race with each other; with other accesses they are.
uint32_t atomic_add(uint32_t* address, uint32_t value);

void* dynamic_shared();

// cp.async of arch/async_copy.cuh. From the copy to the wait that its thread makes for it, its
// bytes in shared memory may not be touched by anyone; the wait then counts as the write.
void copy_async(void* shared, const void* from, size_t size, bool valid);
void copy_async_commit();
void copy_async_wait(int groups_left);

// ldmatrix and mma of arch/mma.cuh: all lanes of a warp call them together.
void load_matrices(const void* row, uint32_t (&out)[4], bool transposed,
                   const char* file = __builtin_FILE(), int line = __builtin_LINE());
void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bool bfloat,
                  const char* file = __builtin_FILE(), int line = __builtin_LINE());

}  // namespace emulator

#endif  // FLASHINFER_TESTS_EMULATOR_H_
