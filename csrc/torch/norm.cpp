#include "ops.h"

namespace flashinfer {
namespace binding {

void rmsnorm(const fi_exec& exec, const Tensor& out, const Tensor& input, const Tensor& weight,
             double eps, double weight_bias) {
  check_shape(input, {-1, -1});
  const int64_t rows = input.size(0), hidden = input.size(1);
  check_shape(out, {rows, hidden});
  check_shape(weight, {hidden});
  check_same_dtype(out, input);
  check_same_dtype(weight, input);
  check_inner_contiguous(input);
  check_inner_contiguous(out);
  check_contiguous(weight);

  fi_rmsnorm_args args{};
  args.dtype = float_dtype(input);
  args.rows = rows;
  args.hidden = hidden;
  args.out = out.data;
  args.out_stride = out.stride(0);
  args.input = input.data;
  args.input_stride = input.stride(0);
  args.weight = weight.data;
  args.eps = static_cast<float>(eps);
  args.weight_bias = static_cast<float>(weight_bias);
  if (rows == 0 || hidden == 0) return;
  check_status(fi_rmsnorm(&exec, &args));
}

void fused_add_rmsnorm(const fi_exec& exec, const Tensor& input, const Tensor& residual,
                       const Tensor& weight, double eps, double weight_bias) {
  check_shape(input, {-1, -1});
  const int64_t rows = input.size(0), hidden = input.size(1);
  check_shape(residual, {rows, hidden});
  check_shape(weight, {hidden});
  check_same_dtype(residual, input);
  check_same_dtype(weight, input);
  check_inner_contiguous(input);
  check_inner_contiguous(residual);
  check_contiguous(weight);

  fi_fused_add_rmsnorm_args args{};
  args.dtype = float_dtype(input);
  args.rows = rows;
  args.hidden = hidden;
  args.input = input.data;
  args.input_stride = input.stride(0);
  args.residual = residual.data;
  args.residual_stride = residual.stride(0);
  args.weight = weight.data;
  args.eps = static_cast<float>(eps);
  args.weight_bias = static_cast<float>(weight_bias);
  if (rows == 0 || hidden == 0) return;
  check_status(fi_fused_add_rmsnorm(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
