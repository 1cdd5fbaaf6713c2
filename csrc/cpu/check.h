// What the families check alike before they choose a kernel.
#ifndef FLASHINFER_CPU_CHECK_H_
#define FLASHINFER_CPU_CHECK_H_

#include "backend.h"
#include "cpu/isa.h"

namespace flashinfer {
namespace cpu {

// FI_OK, and the kernels of this CPU in *table, if `dtype` is one with arithmetic.
inline fi_status choose(const char* op, fi_dtype dtype, const Kernels** table) {
  if (dtype < 0 || dtype >= kFloatTypes) {
    return fail(FI_INVALID_ARGUMENT, "%s: dtype %d is not fp16, bf16 or fp32", op,
                static_cast<int>(dtype));
  }
  return choose_kernels(table);
}

// FI_OK if indptr[0..n] starts at 0 or more, never goes down and ends at `limit` or less.
inline fi_status check_indptr(const char* op, const char* name, const int32_t* indptr, int64_t n,
                              int64_t limit) {
  int64_t before = 0;
  for (int64_t i = 0; i <= n; ++i) {
    if (indptr[i] < before || indptr[i] > limit) {
      return fail(FI_INVALID_ARGUMENT, "%s: %s[%lld] is %d, expected %lld to %lld", op, name,
                  static_cast<long long>(i), indptr[i], static_cast<long long>(before),
                  static_cast<long long>(limit));
    }
    before = indptr[i];
  }
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_CHECK_H_
