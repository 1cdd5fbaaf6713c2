// Launcher of the layer norm kernels.
#include "flashinfer/layernorm.cuh"
#include "norm_launch.h"

namespace flashinfer {
namespace cuda {

fi_status layernorm(const fi_exec& exec, const fi_layernorm_args& args) {
  if (args.rows <= 0 || args.hidden <= 0) return FI_OK;
  if (const fi_status status = check_hidden("layernorm", args.hidden)) return status;
  return with_float_type("layernorm", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const LayernormParams<T> p{args.rows,
                               static_cast<int>(args.hidden),
                               static_cast<const T*>(args.input),
                               args.input_stride,
                               static_cast<T*>(args.out),
                               args.out_stride,
                               args.gamma,
                               args.beta,
                               args.eps};
    const bool vectors =
        pointers_aligned(16, {args.input, args.out, args.gamma, args.beta}) &&
        sizes_aligned(16, sizeof(T),
                      {args.hidden, stride_for_alignment(args.rows, args.input_stride),
                       stride_for_alignment(args.rows, args.out_stride)});
    return launch_norm<T>(exec, "layernorm", p, vectors, [](auto n, auto k) {
      constexpr int N = decltype(n)::value, K = decltype(k)::value;
      if constexpr (K == 0) {
        return layernorm_long_kernel<T, N>;
      } else {
        return layernorm_kernel<T, N, K>;
      }
    });
  });
}

}  // namespace cuda
}  // namespace flashinfer
