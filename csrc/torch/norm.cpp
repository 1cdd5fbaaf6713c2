#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

// What all norms have in common, after it was checked.
template <typename Args>
void set_rows(const Tensor& input, double eps, Args* args) {
  args->dtype = float_dtype(input);
  args->rows = input.size(0);
  args->hidden = input.size(1);
  args->input = input.data;
  args->input_stride = input.stride(0);
  args->eps = static_cast<float>(eps);
}

// The fp8 output, and what it is divided by.
template <typename Args>
void set_quantisation(const Tensor& out, const Tensor* scale, double scale_value, Args* args) {
  if (out.dtype != DType::kE4M3 && out.dtype != DType::kE5M2) {
    type_error("%s has dtype %s, expected Float8_e4m3fn or Float8_e5m2", out.name, out.dtype_name);
  }
  args->out_dtype = float_dtype(out, /*fp8=*/true);
  args->out = out.data;
  args->out_stride = out.stride(0);
  args->scale_value = static_cast<float>(scale_value);
  if (scale == nullptr) return;
  check_dtype(*scale, DType::kFloat);
  check_shape(*scale, {1});
  args->scale = scale->as<const float>();
}

}  // namespace

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
  set_rows(input, eps, &args);
  args.out = out.data;
  args.out_stride = out.stride(0);
  args.weight = weight.data;
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
  set_rows(input, eps, &args);
  args.residual = residual.data;
  args.residual_stride = residual.stride(0);
  args.weight = weight.data;
  args.weight_bias = static_cast<float>(weight_bias);
  if (rows == 0 || hidden == 0) return;
  check_status(fi_fused_add_rmsnorm(&exec, &args));
}

void layernorm(const fi_exec& exec, const Tensor& out, const Tensor& input, const Tensor& gamma,
               const Tensor& beta, double eps) {
  check_shape(input, {-1, -1});
  const int64_t rows = input.size(0), hidden = input.size(1);
  check_shape(out, {rows, hidden});
  check_same_dtype(out, input);
  check_inner_contiguous(input);
  check_inner_contiguous(out);
  for (const Tensor* t : {&gamma, &beta}) {
    check_dtype(*t, DType::kFloat);
    check_shape(*t, {hidden});
    check_contiguous(*t);
  }

  fi_layernorm_args args{};
  set_rows(input, eps, &args);
  args.out = out.data;
  args.out_stride = out.stride(0);
  args.gamma = gamma.as<const float>();
  args.beta = beta.as<const float>();
  if (rows == 0 || hidden == 0) return;
  check_status(fi_layernorm(&exec, &args));
}

void rmsnorm_quant(const fi_exec& exec, const Tensor& out, const Tensor& input,
                   const Tensor& weight, const Tensor* scale, double scale_value, double eps) {
  check_shape(input, {-1, -1});
  const int64_t rows = input.size(0), hidden = input.size(1);
  check_shape(out, {rows, hidden});
  check_shape(weight, {hidden});
  check_same_dtype(weight, input);
  check_inner_contiguous(input);
  check_inner_contiguous(out);
  check_contiguous(weight);

  fi_rmsnorm_quant_args args{};
  set_rows(input, eps, &args);
  args.weight = weight.data;
  set_quantisation(out, scale, scale_value, &args);
  if (rows == 0 || hidden == 0) return;
  check_status(fi_rmsnorm_quant(&exec, &args));
}

void fused_add_rmsnorm_quant(const fi_exec& exec, const Tensor& out, const Tensor& input,
                             const Tensor& residual, const Tensor& weight, const Tensor* scale,
                             double scale_value, double eps) {
  check_shape(input, {-1, -1});
  const int64_t rows = input.size(0), hidden = input.size(1);
  check_shape(out, {rows, hidden});
  check_shape(residual, {rows, hidden});
  check_shape(weight, {hidden});
  check_same_dtype(residual, input);
  check_same_dtype(weight, input);
  check_inner_contiguous(input);
  check_inner_contiguous(residual);
  check_inner_contiguous(out);
  check_contiguous(weight);

  fi_fused_add_rmsnorm_quant_args args{};
  set_rows(input, eps, &args);
  args.residual = residual.data;
  args.residual_stride = residual.stride(0);
  args.weight = weight.data;
  set_quantisation(out, scale, scale_value, &args);
  if (rows == 0 || hidden == 0) return;
  check_status(fi_fused_add_rmsnorm_quant(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
