// Stand-in for the CUDA toolkit's header: the part of the language and of the runtime that the
// kernels and launchers use, for a C++ compiler and the emulator.
#ifndef FLASHINFER_TESTS_CUDA_RUNTIME_H_
#define FLASHINFER_TESTS_CUDA_RUNTIME_H_

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

// ---------------------------------------------------------------- the language
#define __global__
#define __device__
#define __host__
#define __shared__ static  // one block runs at a time, so a static variable is the block's own
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
template <typename T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

namespace emulator {
uint3 thread_index();
uint3 block_index();
dim3 block_size();
dim3 grid_size();
}  // namespace emulator
#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())

// ---------------------------------------------------------------- barriers and warp operations
namespace emulator {

// Where in the source a thread waits; all threads of a barrier must wait at the same place.
struct Site {
  const char* file;
  int line;
};

enum class WarpOp { kSync, kShuffle, kShuffleUp, kShuffleDown, kShuffleXor, kBallot, kExchange };

void barrier(Site site);
// Returns the value of the lane that the operation selects, for a ballot the mask of the lanes
// whose value is not 0.
uint64_t warp_operation(WarpOp op, unsigned mask, uint64_t value, int operand, int width,
                        Site site);

template <typename T>
T shuffle(WarpOp op, unsigned mask, T value, int operand, int width, Site site) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8, "one or two registers");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = warp_operation(op, mask, bits, operand, width, site);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulator

#define EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATOR_SITE) { emulator::barrier({file, line}); }
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_SITE) {
  emulator::warp_operation(emulator::WarpOp::kSync, mask, 0, 0, 32, {file, line});
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle(emulator::WarpOp::kShuffle, mask, value, lane, width, {file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle(emulator::WarpOp::kShuffleUp, mask, value, delta, width, {file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle(emulator::WarpOp::kShuffleDown, mask, value, delta, width, {file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle(emulator::WarpOp::kShuffleXor, mask, value, lanes, width, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return static_cast<unsigned>(emulator::warp_operation(emulator::WarpOp::kBallot, mask,
                                                        predicate != 0, 0, 32, {file, line}));
}

// ---------------------------------------------------------------- the runtime
typedef void* cudaStream_t;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorEmulatedFault = 10000,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaDeviceProp {
  char name[256];
};

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int threads, size_t shared_bytes);
constexpr unsigned long long cudaEnableDefault = 0;
cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long flags);
cudaError_t cudaGetLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);

#endif  // FLASHINFER_TESTS_CUDA_RUNTIME_H_
