// Launchers of the norm kernels.
#include "rmsnorm_launch.cuh"

namespace flashinfer {
namespace cuda {

fi_status rmsnorm(const fi_exec& exec, const fi_rmsnorm_args& args) {
  if (args.rows <= 0 || args.hidden <= 0) return FI_OK;
  if (const fi_status status = check_hidden("rmsnorm", args.hidden)) return status;
  return with_float_type("rmsnorm", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RmsnormParams<T, RoundedRows<T>> p{args.rows,
                                             static_cast<int>(args.hidden),
                                             static_cast<const T*>(args.input),
                                             args.input_stride,
                                             {static_cast<T*>(args.out), args.out_stride},
                                             static_cast<const T*>(args.weight),
                                             args.eps,
                                             args.weight_bias};
    const bool vectors =
        pointers_aligned(16, {args.input, args.out, args.weight}) &&
        sizes_aligned(16, sizeof(T),
                      {args.hidden, stride_for_alignment(args.rows, args.input_stride),
                       stride_for_alignment(args.rows, args.out_stride)});
    return launch_rmsnorm("rmsnorm", exec, p, vectors);
  });
}

fi_status fused_add_rmsnorm(const fi_exec& exec, const fi_fused_add_rmsnorm_args& args) {
  if (args.rows <= 0 || args.hidden <= 0) return FI_OK;
  if (const fi_status status = check_hidden("fused_add_rmsnorm", args.hidden)) return status;
  return with_float_type("fused_add_rmsnorm", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* input = static_cast<T*>(args.input);
    const FusedAddRmsnormParams<T, RoundedRows<T>> p{args.rows,
                                                     static_cast<int>(args.hidden),
                                                     input,
                                                     args.input_stride,
                                                     static_cast<T*>(args.residual),
                                                     args.residual_stride,
                                                     {input, args.input_stride},
                                                     static_cast<const T*>(args.weight),
                                                     args.eps,
                                                     args.weight_bias};
    const bool vectors =
        pointers_aligned(16, {args.input, args.residual, args.weight}) &&
        sizes_aligned(16, sizeof(T),
                      {args.hidden, stride_for_alignment(args.rows, args.input_stride),
                       stride_for_alignment(args.rows, args.residual_stride)});
    return launch_fused_add_rmsnorm("fused_add_rmsnorm", exec, p, vectors);
  });
}

}  // namespace cuda
}  // namespace flashinfer
