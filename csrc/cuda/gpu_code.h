// Which GPUs the code in this library runs on, and what a call says on any other.
#ifndef FLASHINFER_CUDA_GPU_CODE_H_
#define FLASHINFER_CUDA_GPU_CODE_H_

#include <cstdlib>

#include "backend.h"

namespace flashinfer {
namespace cuda {

enum class Code { kNone, kPtx, kNative };

// The best that a list of architectures, such as "8.0+PTX;9.0a", has for a GPU of this compute
// capability. Code runs on its major version from its minor on, PTX on everything from its own
// version on; those of an `a` run on that version alone, and PTX of an `f` on its major version.
// The CUDA Programming Guide, "Compute Capabilities"; flashinfer/_gpu_code.py has the same rule.
// `readable` becomes false where an entry is of no form that is known here.
inline Code code_for(const char* archs, int major, int minor, bool* readable) {
  const auto separates = [](char c) {
    return c == ';' || c == ',' || c == ' ' || c == '\t' || c == '\n';
  };
  Code best = Code::kNone;
  int entries = 0;
  *readable = true;
  for (const char* p = archs; *p != '\0';) {
    if (separates(*p)) {
      ++p;
      continue;
    }
    ++entries;
    char* end = nullptr;
    const long entry_major = std::strtol(p, &end, 10);
    const bool number = end != p && end[0] == '.' && end[1] >= '0' && end[1] <= '9';
    const int entry_minor = number ? end[1] - '0' : 0;
    p = number ? end + 2 : end;
    const char suffix = *p == 'a' || *p == 'f' ? *p++ : '\0';
    bool ptx = false;
    if (p[0] == '+' && p[1] == 'P' && p[2] == 'T' && p[3] == 'X') {
      ptx = true;
      p += 4;
    }
    if (!number || (*p != '\0' && !separates(*p))) {
      *readable = false;
      return Code::kNone;
    }
    const bool same_major = major == entry_major;
    const bool exact = same_major && minor == entry_minor;
    const bool newer = same_major && minor >= entry_minor;
    if (suffix == 'a' ? exact : newer) return Code::kNative;
    if (ptx && suffix == '\0' && (newer || major > entry_major)) best = Code::kPtx;
  }
  *readable = entries != 0;
  return best;
}

// Whether there is code for a device; looks once, and never waits for it. What cannot be told is
// left to the runtime.
bool has_code(int device);

// FI_UNSUPPORTED, with the GPU, what the library has, and what to install, for `op`.
fi_status no_code(const char* op, int device);

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_GPU_CODE_H_
