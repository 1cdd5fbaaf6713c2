#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>

#include "backend.h"

namespace flashinfer {
namespace cpu {
namespace {

struct Level {
  const char* name;
  const Kernels* kernels;
  bool supported;
};

// What FLASHINFER_CPU_ISA asks for. `wanted` is a copy: the environment may change later.
struct Choice {
  char wanted[32] = "";
  Level level{nullptr, nullptr, false};  // kernels is NULL where no level has that name

  Choice() {
#if defined(__x86_64__)
    const Level levels[] = {{"avx512", &kAvx512Kernels, avx512_supported()},
                            {"avx2", &kAvx2Kernels, avx2_supported()},
                            {"baseline", &kBaselineKernels, true}};
#else
    const Level levels[] = {{"baseline", &kBaselineKernels, true}};
#endif
    if (const char* value = std::getenv("FLASHINFER_CPU_ISA")) {
      std::strncpy(wanted, value, sizeof(wanted) - 1);
    }
    for (const Level& candidate : levels) {
      if (*wanted ? std::strcmp(wanted, candidate.name) == 0 : candidate.supported) {
        level = candidate;
        return;
      }
    }
  }
};

}  // namespace

fi_status choose_kernels(const Kernels** table) {
  static const Choice choice;
  if (choice.level.kernels == nullptr) {
    return fail(FI_INVALID_ARGUMENT,
                "FLASHINFER_CPU_ISA=%s is not a level of this build; "
                "set baseline, avx2 or avx512, or unset it",
                choice.wanted);
  }
  if (!choice.level.supported) {
    return fail(FI_UNSUPPORTED,
                "FLASHINFER_CPU_ISA=%s asks for instructions that this CPU does not have; unset it",
                choice.wanted);
  }
  *table = choice.level.kernels;
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
