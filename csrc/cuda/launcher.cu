// The parts of Device that no kernel's type is needed for.
#include <map>
#include <mutex>
#include <tuple>

#include "gpu_code.h"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

// cuDevicePrimaryCtxGetState of the driver, which libflashinfer is not linked against.
using ContextState = int (*)(int device, unsigned* flags, int* active);

ContextState find_context_state() {
  void* found = nullptr;
  constexpr const char* kName = "cuDevicePrimaryCtxGetState";
#if CUDART_VERSION >= 12050
  constexpr unsigned kSince = 7000;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(kName, &found, kSince, cudaEnableDefault);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(kName, &found, cudaEnableDefault);
#endif
  if (error != cudaSuccess) cudaGetLastError();
  return error == cudaSuccess ? reinterpret_cast<ContextState>(found) : nullptr;
}

bool has_context(int device) {
  static const ContextState state = find_context_state();
  unsigned flags = 0;
  int active = 0;
  return state == nullptr || state(device, &flags, &active) != 0 || active != 0;
}

// A type of this file's own: the map's functions over types of std alone would be exported.
struct Occupancy {
  const void* kernel;
  int device;
  int threads;
  size_t shared_bytes;

  bool operator<(const Occupancy& other) const {
    return std::tie(kernel, device, threads, shared_bytes) <
           std::tie(other.kernel, other.device, other.threads, other.shared_bytes);
  }
};

}  // namespace

Device::Device(const fi_exec& exec)
    : stream_(static_cast<cudaStream_t>(exec.stream)), device_(exec.device) {
  int previous = 0;
  error_ = cudaGetDevice(&previous);
  if (error_ == cudaSuccess && previous != device_) {
    // A thread that has chosen no device is told that it is on 0. To make 0 current afterwards
    // would create a context there: hundreds of megabytes, and not allowed in a capture.
    const bool restore = has_context(previous);
    error_ = cudaSetDevice(device_);
    if (error_ == cudaSuccess && restore) previous_ = previous;
  }
  if (error_ == cudaSuccess) {
    error_ = cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device_);
  }
  if (error_ == cudaSuccess && !has_code(device_)) error_ = cudaErrorNoKernelImageForDevice;
}

Device::~Device() {
  if (previous_ >= 0) cudaSetDevice(previous_);
}

int64_t Device::resident_threads() {
  int threads = 0;
  if (error_ == cudaSuccess) {
    error_ = cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, device_);
  }
  return int64_t{multiprocessors_} * threads;
}

fi_status Device::status(const char* op) const {
  if (error_ == cudaSuccess) return FI_OK;
  cudaGetLastError();  // leave no error behind for the caller's next check
  // Said here, or by the runtime: of PTX that the driver is too old for, say.
  if (error_ == cudaErrorNoKernelImageForDevice || error_ == cudaErrorUnsupportedPtxVersion) {
    return no_code(op, device_);
  }
  return fail(FI_CUDA_ERROR, "%s: %s: %s", op, cudaGetErrorName(error_),
              cudaGetErrorString(error_));
}

void Device::allow_shared(const void* kernel, size_t bytes) {
  if (error_ == cudaSuccess && bytes > kDefaultSharedBytes) {
    error_ = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes));
  }
}

int Device::blocks_per_multiprocessor(const void* kernel, int threads, size_t shared_bytes) {
  // Asked for once: a launch should not take longer for it. Never destroyed, as other threads may
  // still launch while the process ends.
  static auto& mutex = *new std::mutex;
  static auto& known = *new std::map<Occupancy, int>;
  const Occupancy key{kernel, device_, threads, shared_bytes};
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = known.find(key);
    if (found != known.end()) return found->second;
  }
  int blocks = 0;
  allow_shared(kernel, shared_bytes);
  if (error_ == cudaSuccess) {
    error_ = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes);
  }
  blocks = std::max(blocks, 1);
  if (error_ == cudaSuccess) {
    const std::lock_guard<std::mutex> lock(mutex);
    known.emplace(key, blocks);
  }
  return blocks;
}

}  // namespace cuda
}  // namespace flashinfer
