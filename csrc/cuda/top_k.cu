// Launcher of the kernel that finds the largest entries.
#include <type_traits>

#include "flashinfer/top_k.cuh"
#include "sampling_launch.h"

namespace flashinfer {
namespace cuda {

static_assert(kMaxSorted == FI_MAX_SORTED, "what api.h says");

fi_status top_k(const fi_exec& exec, const fi_top_k_args& args) {
  if (args.rows <= 0 || args.columns <= 0) return FI_OK;
  if (const fi_status status = check_vocab("top_k", args.rows, args.columns)) return status;
  const int64_t most =
      args.sorted != 0 ? std::min<int64_t>(args.columns, kMaxSorted) : args.columns;
  if (args.k < 1 || args.k > most) {
    return fail(FI_INVALID_ARGUMENT, "top_k: k must be in 1..%lld, got %lld",
                static_cast<long long>(most), static_cast<long long>(args.k));
  }
  return with_float_type("top_k", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    TopKParams<T> p{};
    p.input = static_cast<const T*>(args.input);
    p.input_stride = args.input_stride;
    p.k = static_cast<int>(args.k);
    p.values = static_cast<T*>(args.values);
    p.indices = args.indices;
    p.sorted = args.sorted != 0;
    p.last = args.last != 0;
    const bool vectors =
        pointers_aligned(16, {args.input}) &&
        sizes_aligned(16, sizeof(T),
                      {args.columns, stride_for_alignment(args.rows, args.input_stride)});
    Device device(exec);
    const auto run = [&](auto size) {
      constexpr int N = decltype(size)::value;
      return launch_vocab<N>("top_k", device, top_k_kernel<T, N>, args.rows, args.columns,
                             sizeof(SelectShared), p, kTopKThreads<T>);
    };
    return vectors ? run(std::integral_constant<int, kVecSize<T>>())
                   : run(std::integral_constant<int, 1>());
  });
}

}  // namespace cuda
}  // namespace flashinfer
