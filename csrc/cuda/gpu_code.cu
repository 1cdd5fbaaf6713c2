// Asks the runtime which GPU a device is, and puts that beside what this library was built for.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <mutex>

#include "gpu_code.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kKnownDevices = 64;  // of others it is looked up every time
constexpr int kOldestMajor = 8;    // of a GPU that the kernels can be compiled for

// The value of a key of fi_build_info().
struct Value {
  char text[128] = "";

  explicit Value(const char* key) {
    const size_t length = std::strlen(key);
    for (const char* line = fi_build_info(); line != nullptr && *line != '\0';) {
      const char* end = std::strchr(line, '\n');
      if (std::strncmp(line, key, length) == 0 && line[length] == '=') {
        const char* from = line + length + 1;
        size_t size = end == nullptr ? std::strlen(from) : static_cast<size_t>(end - from);
        if (size >= sizeof(text)) size = sizeof(text) - 1;
        std::memcpy(text, from, size);
        text[size] = '\0';
        return;
      }
      line = end == nullptr ? nullptr : end + 1;
    }
  }
};

bool capability(int device, int* major, int* minor) {
  const bool known =
      cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess;
  if (!known) cudaGetLastError();
  return known;
}

bool look(int device) {
  int major = 0, minor = 0;
  if (!capability(device, &major, &minor)) return true;
  bool readable = false;
  const Code code = code_for(Value("archs").text, major, minor, &readable);
  return !readable || code != Code::kNone;
}

}  // namespace

bool has_code(int device) {
  enum : unsigned char { kUnknown, kNo, kYes };
  static unsigned char known[kKnownDevices];
  // Never destroyed, as other threads may still launch while the process ends.
  static auto& mutex = *new std::mutex;
  if (device < 0 || device >= kKnownDevices) return look(device);
  const std::lock_guard<std::mutex> lock(mutex);
  if (known[device] == kUnknown) known[device] = look(device) ? kYes : kNo;
  return known[device] == kYes;
}

fi_status no_code(const char* op, int device) {
  int major = 0, minor = 0, driver = 0;
  cudaDeviceProp properties{};
  if (!capability(device, &major, &minor) ||
      cudaGetDeviceProperties(&properties, device) != cudaSuccess ||
      cudaDriverGetVersion(&driver) != cudaSuccess) {
    cudaGetLastError();
  }
  bool readable = false;
  const Value archs("archs"), cuda("cuda"), version("version");
  const Code code = code_for(archs.text, major, minor, &readable);
  char advice[192] = "";
  if (code != Code::kNone) {  // and the runtime has refused it all the same
    std::snprintf(advice, sizeof(advice),
                  "The driver, for CUDA %d.%d, does not take it: update the driver", driver / 1000,
                  driver % 1000 / 10);
  } else if (major < kOldestMajor) {
    std::snprintf(advice, sizeof(advice),
                  "The kernels need compute capability %d.0 or newer: no package has them for it",
                  kOldestMajor);
  } else {
    std::snprintf(advice, sizeof(advice),
                  "Install the package that `python -m flashinfer.env` names, or build one with"
                  " FLASHINFER_CUDA_ARCH_LIST=%d.%d",
                  major, minor);
  }
  return fail(FI_UNSUPPORTED,
              "%s: no code for the GPU cuda:%d, %.64s of compute capability %d.%d: libflashinfer"
              " %.32s for CUDA %.16s was built for the architectures %.64s. %s",
              op, device, properties.name, major, minor, version.text, cuda.text, archs.text,
              advice);
}

}  // namespace cuda
}  // namespace flashinfer
