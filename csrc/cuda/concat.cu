// Launcher of the kernel that puts keys together.
#include <climits>

#include "flashinfer/concat.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// Strides count only where there is more than one row or head.
bool vectors_fit(int bytes, const fi_concat_mla_k_args& args) {
  const auto by_row = [&](int64_t stride) { return stride_for_alignment(args.nnz, stride); };
  const auto by_head = [&](int64_t stride) { return stride_for_alignment(args.num_heads, stride); };
  return pointers_aligned(bytes, {args.k, args.k_nope, args.k_rope}) &&
         sizes_aligned(
             bytes, args.element_size,
             {args.nope_dim, args.rope_dim, by_row(args.k_stride_n), by_head(args.k_stride_h),
              by_row(args.nope_stride_n), by_head(args.nope_stride_h), by_row(args.rope_stride_n)});
}

template <typename V>
fi_status launch_concat(const fi_exec& exec, const fi_concat_mla_k_args& args) {
  const int64_t size = args.element_size, width = sizeof(V);
  const int64_t nope_units = args.nope_dim * size / width;
  const int64_t head_units = nope_units + args.rope_dim * size / width;
  if (head_units > INT_MAX || args.num_heads > (INT_MAX - kThreads) / head_units) {
    return fail(FI_INVALID_ARGUMENT,
                "concat_mla_k: num_heads * (nope_dim + rope_dim) must be below 2^31 - %d",
                kThreads);
  }
  ConcatMlaParams p{};
  p.nnz = args.nnz;
  p.nope_units = static_cast<int>(nope_units);
  p.head_units = static_cast<int>(head_units);
  p.row_units = static_cast<int>(args.num_heads * head_units);
  p.k = static_cast<char*>(args.k);
  p.k_stride_n = args.k_stride_n * size;
  p.k_stride_h = args.k_stride_h * size;
  p.k_nope = static_cast<const char*>(args.k_nope);
  p.nope_stride_n = args.nope_stride_n * size;
  p.nope_stride_h = args.nope_stride_h * size;
  p.k_rope = static_cast<const char*>(args.k_rope);
  p.rope_stride_n = args.rope_stride_n * size;

  Device device(exec);
  return launch_row_units(device, "concat_mla_k", concat_mla_k_kernel<V>, kThreads, p);
}

}  // namespace

fi_status concat_mla_k(const fi_exec& exec, const fi_concat_mla_k_args& args) {
  if (args.nnz <= 0 || args.num_heads <= 0 || args.nope_dim + args.rope_dim <= 0) return FI_OK;
  if (args.element_size <= 0) {
    return fail(FI_INVALID_ARGUMENT, "concat_mla_k: element_size must be positive, got %lld",
                static_cast<long long>(args.element_size));
  }
  if (vectors_fit(16, args)) return launch_concat<uint4>(exec, args);
  if (vectors_fit(4, args)) return launch_concat<uint32_t>(exec, args);
  if (vectors_fit(2, args)) return launch_concat<uint16_t>(exec, args);
  return launch_concat<uint8_t>(exec, args);
}

}  // namespace cuda
}  // namespace flashinfer
