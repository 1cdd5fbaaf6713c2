// The emulated CUDA runtime: two devices, no time passes, every launch completes at once.
#include <atomic>
#include <map>
#include <mutex>

#include "state.h"

namespace emulator {

const char* last_fault();

namespace {

constexpr int kDevices = 2;
thread_local int current_device = 0;
std::atomic<int> multiprocessors{4};
std::atomic<int64_t> launches{0};
std::atomic<void*> last_stream{nullptr};
std::atomic<int> last_device{-1};
std::map<const void*, size_t> shared_limits;  // of kernels that have asked
std::mutex shared_limits_mutex;

}  // namespace

void count_launch(const Launch& launch) {
  ++launches;
  last_stream = launch.stream;
  last_device = current_device;
}

size_t shared_limit(const void* kernel) {
  const std::lock_guard<std::mutex> lock(shared_limits_mutex);
  const auto found = shared_limits.find(kernel);
  return found == shared_limits.end() ? kDefaultSharedBytes : found->second;
}

}  // namespace emulator

cudaError_t cudaGetDevice(int* device) {
  *device = emulator::current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulator::kDevices) return cudaErrorInvalidDevice;
  emulator::current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= emulator::kDevices) return cudaErrorInvalidDevice;
  *value = attribute == cudaDevAttrMultiProcessorCount
               ? emulator::multiprocessors.load()
               : static_cast<int>(emulator::kMaxSharedBytes + 1024);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || static_cast<size_t>(value) > emulator::kMaxSharedBytes) {
    return cudaErrorInvalidValue;
  }
  const std::lock_guard<std::mutex> lock(emulator::shared_limits_mutex);
  emulator::shared_limits[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorEmulatedFault:
      return "cudaErrorEmulatedFault";
  }
  return "unknown";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorEmulatedFault:
      return emulator::last_fault();
    default:
      return "error";
  }
}

// ---------------------------------------------------------------- for the tests
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT void fi_emulator_set_multiprocessors(int count) { emulator::multiprocessors = count; }
EXPORT int64_t fi_emulator_launches() { return emulator::launches; }
EXPORT void* fi_emulator_last_stream() { return emulator::last_stream; }
EXPORT int fi_emulator_last_device() { return emulator::last_device; }
EXPORT int fi_emulator_current_device() { return emulator::current_device; }
