#include <algorithm>
#include <functional>

#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {
namespace {

// Here, and not among the kernels, which may have no function of std that another level has too.
void sort_descending(uint64_t* numbers, int64_t n) {
  std::sort(numbers, numbers + n, std::greater<uint64_t>());
}

}  // namespace

fi_status top_k(const fi_exec& exec, const fi_top_k_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("top_k", args.dtype, &table)) return status;
  if (args.rows <= 0 || args.columns <= 0) return FI_OK;
  if (args.columns > FI_MAX_VOCAB) {
    return fail(FI_INVALID_ARGUMENT, "top_k: columns must be at most %d, got %lld", FI_MAX_VOCAB,
                static_cast<long long>(args.columns));
  }
  if (args.k < 1 || args.k > args.columns) {
    return fail(FI_INVALID_ARGUMENT, "top_k: k must be in 1..%lld, got %lld",
                static_cast<long long>(args.columns), static_cast<long long>(args.k));
  }
  int32_t no_memory = 0;
  const TopKJob job{&args, sort_descending, &no_memory};
  for_ranges(exec, args.rows, 3 * args.columns, table->top_k[args.dtype], job);
  if (no_memory != 0) return fail(FI_INVALID_ARGUMENT, "top_k: no memory for scratch");
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
