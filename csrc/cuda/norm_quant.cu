// Launchers of the norms whose results are fp8.
#include "rmsnorm_launch.cuh"

namespace flashinfer {
namespace cuda {
namespace {

template <typename Args>
fi_status check(const char* op, const Args& args) {
  if (args.out_dtype != FI_FLOAT8_E4M3 && args.out_dtype != FI_FLOAT8_E5M2) {
    return fail(FI_INVALID_ARGUMENT, "%s: out must be float8_e4m3 or float8_e5m2, got fi_dtype %d",
                op, static_cast<int>(args.out_dtype));
  }
  return check_hidden(op, args.hidden);
}

template <typename Args>
Fp8Rows fp8_rows(const Args& args) {
  return {static_cast<uint8_t*>(args.out), args.out_stride, args.scale, args.scale_value,
          args.out_dtype == FI_FLOAT8_E5M2};
}

// A vector of 16 bytes of T is stored in as many bytes of fp8 as it has elements.
template <typename T, typename Args>
bool vectors_fit(const Args& args) {
  return pointers_aligned(16, {args.input, args.weight}) &&
         sizes_aligned(16, sizeof(T),
                       {args.hidden, stride_for_alignment(args.rows, args.input_stride)}) &&
         pointers_aligned(kVecSize<T>, {args.out}) &&
         sizes_aligned(kVecSize<T>, 1, {stride_for_alignment(args.rows, args.out_stride)});
}

}  // namespace

fi_status rmsnorm_quant(const fi_exec& exec, const fi_rmsnorm_quant_args& args) {
  if (args.rows <= 0 || args.hidden <= 0) return FI_OK;
  if (const fi_status status = check("rmsnorm_quant", args)) return status;
  return with_float_type("rmsnorm_quant", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RmsnormParams<T, Fp8Rows> p{args.rows,
                                      static_cast<int>(args.hidden),
                                      static_cast<const T*>(args.input),
                                      args.input_stride,
                                      fp8_rows(args),
                                      static_cast<const T*>(args.weight),
                                      args.eps,
                                      0.0f};
    return launch_rmsnorm("rmsnorm_quant", exec, p, vectors_fit<T>(args));
  });
}

fi_status fused_add_rmsnorm_quant(const fi_exec& exec,
                                  const fi_fused_add_rmsnorm_quant_args& args) {
  if (args.rows <= 0 || args.hidden <= 0) return FI_OK;
  if (const fi_status status = check("fused_add_rmsnorm_quant", args)) return status;
  return with_float_type("fused_add_rmsnorm_quant", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const FusedAddRmsnormParams<T, Fp8Rows> p{args.rows,
                                              static_cast<int>(args.hidden),
                                              static_cast<const T*>(args.input),
                                              args.input_stride,
                                              static_cast<T*>(args.residual),
                                              args.residual_stride,
                                              fp8_rows(args),
                                              static_cast<const T*>(args.weight),
                                              args.eps,
                                              0.0f};
    const bool vectors =
        vectors_fit<T>(args) && pointers_aligned(16, {args.residual}) &&
        sizes_aligned(16, sizeof(T), {stride_for_alignment(args.rows, args.residual_stride)});
    return launch_fused_add_rmsnorm("fused_add_rmsnorm_quant", exec, p, vectors);
  });
}

}  // namespace cuda
}  // namespace flashinfer
