// The emulated CUDA runtime: no time passes, every launch completes at once. Devices 0 and 1 are
// like sm_86, which has the least; device 2 has the threads of sm_80 and sm_90. Device 3 is older
// than any code, and device 4 runs PTX, which its driver may refuse.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "state.h"

namespace emulator {

const char* last_fault();

namespace {

constexpr int kDevices = 5;
constexpr int kThreads[kDevices] = {1536, 1536, 2048, 1024, 1536};  // of a multiprocessor
constexpr int kCapability[kDevices] = {86, 86, 90, 75, 120};
constexpr int kOfPtx = 4;
constexpr int kRegisters = 65536;        // of a multiprocessor
constexpr int kKernelRegisters = 32;     // of a thread, of every kernel
constexpr size_t kReservedBytes = 1024;  // of shared memory, that the system takes for a block
thread_local int current_device = 0;
std::atomic<int> multiprocessors{4};
std::atomic<int> driver{13000};
std::atomic<bool> refuses_ptx{false};
std::atomic<int64_t> capabilities_asked{0};
std::atomic<int64_t> launches{0};
std::atomic<void*> last_stream{nullptr};
std::atomic<int> last_device{-1};
std::atomic<int64_t> last_blocks{0};
std::mutex mutex;                              // of what follows
std::map<const void*, size_t> shared_limits;   // of kernels that have asked
std::set<std::pair<const void*, int>> loaded;  // kernels on devices
int64_t loads_by_launches = 0;
bool contexts[kDevices] = {};

void load(const void* kernel, bool by_launch) {
  const std::lock_guard<std::mutex> lock(mutex);
  contexts[current_device] = true;
  if (loaded.insert({kernel, current_device}).second && by_launch) ++loads_by_launches;
}

// cuDevicePrimaryCtxGetState
int context_state(int device, unsigned* flags, int* active) {
  const std::lock_guard<std::mutex> lock(mutex);
  *flags = 0;
  *active = contexts[device];
  return 0;
}

}  // namespace

cudaError_t load_error() {
  return refuses_ptx && current_device == kOfPtx ? cudaErrorUnsupportedPtxVersion : cudaSuccess;
}

void count_launch(const Launch& launch) {
  load(launch.kernel, true);
  ++launches;
  last_blocks = int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  last_stream = launch.stream;
  last_device = current_device;
}

size_t shared_limit(const void* kernel) {
  const std::lock_guard<std::mutex> lock(mutex);
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
  const std::lock_guard<std::mutex> lock(emulator::mutex);
  emulator::contexts[device] = true;  // since CUDA 12
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= emulator::kDevices) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = emulator::multiprocessors;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = emulator::kThreads[device];
      break;
    case cudaDevAttrComputeCapabilityMajor:
      ++emulator::capabilities_asked;
      *value = emulator::kCapability[device] / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = emulator::kCapability[device] % 10;
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= emulator::kDevices) return cudaErrorInvalidDevice;
  strcpy(properties->name, "Emulated GPU");
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = emulator::driver;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || static_cast<size_t>(value) > emulator::kMaxSharedBytes) {
    return cudaErrorInvalidValue;
  }
  const std::lock_guard<std::mutex> lock(emulator::mutex);
  emulator::shared_limits[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int threads, size_t shared_bytes) {
  if (shared_bytes > emulator::shared_limit(kernel)) return cudaErrorInvalidValue;
  const cudaError_t error = emulator::load_error();
  if (error != cudaSuccess) return error;
  emulator::load(kernel, false);
  const size_t shared = (emulator::kMaxSharedBytes + emulator::kReservedBytes) /
                        (shared_bytes + emulator::kReservedBytes);
  *blocks =
      std::min({static_cast<int>(shared), emulator::kThreads[emulator::current_device] / threads,
                emulator::kRegisters / (emulator::kKernelRegisters * threads)});
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long) {
  if (strcmp(symbol, "cuDevicePrimaryCtxGetState") != 0) return cudaErrorInvalidValue;
  *function = reinterpret_cast<void*>(emulator::context_state);
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
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    case cudaErrorUnsupportedPtxVersion:
      return "cudaErrorUnsupportedPtxVersion";
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
EXPORT void fi_emulator_set_driver(int version, bool refuses_ptx) {
  emulator::driver = version;
  emulator::refuses_ptx = refuses_ptx;
}
EXPORT int64_t fi_emulator_capabilities_asked() { return emulator::capabilities_asked; }
EXPORT int64_t fi_emulator_last_blocks() { return emulator::last_blocks; }
EXPORT int64_t fi_emulator_loads_by_launches() { return emulator::loads_by_launches; }
EXPORT void fi_emulator_set_context(int device, bool active) {
  emulator::contexts[device] = active;
}
EXPORT bool fi_emulator_context(int device) { return emulator::contexts[device]; }
EXPORT void fi_emulator_set_device(int device) { emulator::current_device = device; }
EXPORT int64_t fi_emulator_launches() { return emulator::launches; }
EXPORT void* fi_emulator_last_stream() { return emulator::last_stream; }
EXPORT int fi_emulator_last_device() { return emulator::last_device; }
EXPORT int fi_emulator_current_device() { return emulator::current_device; }
