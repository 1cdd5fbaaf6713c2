#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

void check_long_index(const Tensor& t, int64_t size) {
  check_dtype(t, DType::kLong);
  check_shape(t, {size});
  check_contiguous(t);
}

// One scale for all of a batch, or one for each matrix of it.
int64_t check_scale(const Tensor& scale, int64_t batch) {
  check_dtype(scale, DType::kFloat);
  check_shape(scale, {-1});
  check_contiguous(scale);
  if (scale.size(0) == 1) return 0;
  check_shape(scale, {batch});
  return 1;
}

}  // namespace

void segment_gemm(const fi_exec& exec, const Tensor& x, const Tensor& weights,
                  const Tensor& seg_indptr, const Tensor* weight_indices, const Tensor& out,
                  bool weight_column_major) {
  check_shape(x, {-1, -1});
  check_shape(weights, {-1, -1, -1});
  const int in = weight_column_major ? 2 : 1, of_out = 3 - in;
  const int64_t rows = x.size(0), d_in = x.size(1), d_out = weights.size(of_out);
  check_shape(weights,
              {-1, weight_column_major ? d_out : d_in, weight_column_major ? d_in : d_out});
  check_shape(out, {rows, d_out});
  check_same_dtype(weights, x);
  check_same_dtype(out, x);
  check_inner_contiguous(x);
  check_inner_contiguous(weights);
  check_inner_contiguous(out);
  check_long_index(seg_indptr, -1);
  if (seg_indptr.size(0) < 1) value_error("%s is empty, expected a 0 at least", seg_indptr.name);
  const int64_t segments = seg_indptr.size(0) - 1;
  if (weight_indices != nullptr) {
    check_long_index(*weight_indices, segments);
  } else if (weights.size(0) < segments) {
    value_error("%s has %lld matrices for %lld segments, expected as many, or weight_indices",
                weights.name, static_cast<long long>(weights.size(0)),
                static_cast<long long>(segments));
  }

  fi_segment_gemm_args args{};
  args.dtype = float_dtype(x);
  args.rows = rows;
  args.num_segments = segments;
  args.num_weights = weights.size(0);
  args.d_in = d_in;
  args.d_out = d_out;
  args.x = x.data;
  args.x_stride = x.stride(0);
  args.weights = weights.data;
  args.w_stride_n = weights.stride(0);
  // A dimension of one element may have any stride.
  args.w_stride_in = d_in > 1 ? weights.stride(in) : 1;
  args.w_stride_out = d_out > 1 ? weights.stride(of_out) : 1;
  args.seg_indptr = seg_indptr.as<const int64_t>();
  args.weight_indices = weight_indices != nullptr ? weight_indices->as<const int64_t>() : nullptr;
  args.out = out.data;
  args.out_stride = out.stride(0);
  if (rows == 0 || d_out == 0) return;
  check_status(fi_segment_gemm(&exec, &args));
}

void bmm_fp8(const fi_exec& exec, const Tensor& a, const Tensor& b, const Tensor& a_scale,
             const Tensor& b_scale, const Tensor& out) {
  check_shape(a, {-1, -1, -1});
  const int64_t batch = a.size(0), m = a.size(1), k = a.size(2);
  check_shape(b, {batch, k, -1});
  const int64_t n = b.size(2);
  check_shape(out, {batch, m, n});
  check_inner_contiguous(a);
  check_inner_contiguous(out);
  if (k > 1 && b.stride(1) != 1) {
    value_error("%s has stride %lld along its rows, expected 1: column-major", b.name,
                static_cast<long long>(b.stride(1)));
  }
  const auto fp8 = [](const Tensor& t) {
    if (t.dtype != DType::kE5M2) check_dtype(t, DType::kE4M3);
    return float_dtype(t, true);
  };

  fi_bmm_fp8_args args{};
  args.a_dtype = fp8(a);
  args.b_dtype = fp8(b);
  args.out_dtype = float_dtype(out);
  args.batch = batch;
  args.m = m;
  args.n = n;
  args.k = k;
  args.a = a.data;
  args.a_stride_b = a.stride(0);
  args.a_stride_m = a.stride(1);
  args.b = b.data;
  args.b_stride_b = b.stride(0);
  args.b_stride_n = b.stride(2);
  args.a_scale = a_scale.as<const float>();
  args.b_scale = b_scale.as<const float>();
  args.a_scale_stride = check_scale(a_scale, batch);
  args.b_scale_stride = check_scale(b_scale, batch);
  args.out = out.data;
  args.out_stride_b = out.stride(0);
  args.out_stride_m = out.stride(1);
  if (batch == 0 || m == 0 || n == 0) return;
  check_status(fi_bmm_fp8(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
