// Copies alone: memcpy is as fast as it gets, so there is nothing to compile per instruction set.
#include <cstring>

#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {
namespace {

void concat_rows(void* arg, int64_t begin, int64_t end) {
  const fi_concat_mla_k_args& args = *static_cast<const fi_concat_mla_k_args*>(arg);
  const int64_t size = args.element_size;
  const size_t nope_bytes = static_cast<size_t>(args.nope_dim * size);
  const size_t rope_bytes = static_cast<size_t>(args.rope_dim * size);
  for (int64_t n = begin; n < end; ++n) {
    char* k = static_cast<char*>(args.k) + n * args.k_stride_n * size;
    const char* nope = static_cast<const char*>(args.k_nope) + n * args.nope_stride_n * size;
    const char* rope = static_cast<const char*>(args.k_rope) + n * args.rope_stride_n * size;
    for (int64_t h = 0; h < args.num_heads; ++h) {
      char* head = k + h * args.k_stride_h * size;
      std::memcpy(head, nope + h * args.nope_stride_h * size, nope_bytes);
      std::memcpy(head + nope_bytes, rope, rope_bytes);
    }
  }
}

}  // namespace

fi_status concat_mla_k(const fi_exec& exec, const fi_concat_mla_k_args& args) {
  if (args.num_heads <= 0 || args.nope_dim + args.rope_dim <= 0) return FI_OK;
  if (args.element_size <= 0) {
    return fail(FI_INVALID_ARGUMENT, "concat_mla_k: element_size is %lld, expected 1 or more",
                static_cast<long long>(args.element_size));
  }
  for_ranges(exec, args.nnz, 2 * args.num_heads * (args.nope_dim + args.rope_dim), concat_rows,
             args);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
