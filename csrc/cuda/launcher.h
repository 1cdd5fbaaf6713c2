// What every launcher does around its kernel: choose the device, choose types and vector width,
// turn a CUDA error into a status.
#ifndef FLASHINFER_CUDA_LAUNCHER_H_
#define FLASHINFER_CUDA_LAUNCHER_H_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "backend.h"
#include "flashinfer/arch/launch.cuh"

namespace flashinfer {
namespace cuda {

constexpr size_t kDefaultSharedBytes = 48 * 1024;  // what a kernel may have without asking

// Makes exec.device current for one scope and knows what it has room for. No call here
// synchronises, so it may be used while a graph is captured.
class Device {
 public:
  explicit Device(const fi_exec& exec);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int multiprocessors() const { return multiprocessors_; }

  // Threads that the multiprocessors have together: 2048 each, but 1536 on sm_86 and sm_89.
  int64_t resident_threads();

  // How many blocks of a kernel a multiprocessor has at once, at least 1: what the kernel's
  // registers and shared memory, and the device's threads, leave. To ask loads the kernel.
  template <typename... Params>
  int blocks_per_multiprocessor(void (*kernel)(Params...), int threads, size_t shared_bytes = 0) {
    return blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), threads, shared_bytes);
  }
  // The same for all multiprocessors together.
  template <typename... Params>
  int64_t resident_blocks(void (*kernel)(Params...), int threads, size_t shared_bytes = 0) {
    return int64_t{multiprocessors_} * blocks_per_multiprocessor(kernel, threads, shared_bytes);
  }

  // FI_CUDA_ERROR with the runtime's words, for `op`, if one of the calls so far was refused; but
  // FI_UNSUPPORTED, with what to install, if the library has no code for this GPU.
  fi_status status(const char* op) const;

  // The status of `op` whose kernel is launched by this call.
  template <typename... Params, typename... Args>
  fi_status launch(const char* op, void (*kernel)(Params...), dim3 grid, dim3 block,
                   size_t shared_bytes, const Args&... args) {
    allow_shared(reinterpret_cast<const void*>(kernel), shared_bytes);
    if (error_ == cudaSuccess) {
      error_ = flashinfer::launch(kernel, grid, block, shared_bytes, stream_, args...);
    }
    return status(op);
  }

 private:
  void allow_shared(const void* kernel, size_t bytes);
  int blocks_per_multiprocessor(const void* kernel, int threads, size_t shared_bytes);

  cudaStream_t stream_;
  int device_;
  cudaError_t error_;
  int previous_ = -1;  // to make current at the end
  int multiprocessors_ = 1;
};

constexpr int64_t kMaxGridY = 65535;  // limits of the hardware
constexpr int kMaxBlockZ = 64;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The smallest power of two that is at least `value`, within [1, limit].
inline int power_of_two_at_least(int64_t value, int limit) {
  int power = 1;
  while (power < limit && power < value) power *= 2;
  return power;
}

// Whether everything that a vector access adds up is a multiple of `bytes`.
inline bool pointers_aligned(int bytes, std::initializer_list<const void*> pointers) {
  return std::all_of(pointers.begin(), pointers.end(), [bytes](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
  });
}
inline bool sizes_aligned(int bytes, int64_t element_size, std::initializer_list<int64_t> sizes) {
  return std::all_of(sizes.begin(), sizes.end(), [bytes, element_size](int64_t size) {
    return size * element_size % bytes == 0;
  });
}

// Strides do not matter where there is one row: it may then be vectorised whatever they are.
inline int64_t stride_for_alignment(int64_t rows, int64_t stride) { return rows > 1 ? stride : 0; }

// Calls body(T()) with the C++ type of a dtype in which the kernels compute.
template <typename Body>
fi_status with_float_type(const char* op, fi_dtype dtype, const Body& body) {
  switch (dtype) {
    case FI_FLOAT16:
      return body(__half());
    case FI_BFLOAT16:
      return body(__nv_bfloat16());
    case FI_FLOAT32:
      return body(float());
    default:
      return fail(FI_UNSUPPORTED, "%s: dtype must be float16, bfloat16 or float32, got fi_dtype %d",
                  op, static_cast<int>(dtype));
  }
}

// Launches a kernel whose threads each move one unit of p.row_units of one row at a time: columns
// of blocks side by side over a row, as many below one another as run at once, which walk down
// p.nnz rows.
template <typename Params>
fi_status launch_row_units(Device& device, const char* op, void (*kernel)(Params),
                           int block_threads, const Params& p) {
  const int threads = power_of_two_at_least(p.row_units, block_threads);
  const dim3 block(threads, block_threads / threads);
  const int64_t unit_blocks = ceil_div(p.row_units, threads);
  const int64_t resident = device.resident_blocks(kernel, block_threads);
  const int64_t row_blocks = std::min(
      {ceil_div(p.nnz, block.y), std::max<int64_t>(1, ceil_div(resident, unit_blocks)), kMaxGridY});
  const dim3 grid(static_cast<unsigned>(unit_blocks), static_cast<unsigned>(row_blocks));
  return device.launch(op, kernel, grid, block, 0, p);
}

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_LAUNCHER_H_
