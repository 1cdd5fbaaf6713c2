#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

// Positions index the cache, so on the CPU, where looking costs nothing, they are looked at. On the
// GPU that would be a synchronisation.
template <typename Index>
void check_positions(const Tensor& pos_ids, int64_t nnz, int64_t max_position) {
  const Index* values = pos_ids.as<const Index>();
  for (int64_t n = 0; n < nnz; ++n) {
    if (values[n] < 0 || values[n] >= max_position) {
      value_error("pos_ids[%lld] is %lld, expected 0 <= position < %lld, the rows of cos_sin_cache",
                  static_cast<long long>(n), static_cast<long long>(values[n]),
                  static_cast<long long>(max_position));
    }
  }
}

void check_segments(const Tensor& indptr, int64_t batch_size, int64_t nnz) {
  const int32_t* values = indptr.as<const int32_t>();
  for (int64_t b = 0; b < batch_size; ++b) {
    if (values[b] < 0 || values[b + 1] < values[b] || values[b + 1] > nnz) {
      value_error("indptr[%lld:%lld] is (%d, %d), expected non-decreasing values in 0..%lld",
                  static_cast<long long>(b), static_cast<long long>(b + 2), values[b],
                  values[b + 1], static_cast<long long>(nnz));
    }
  }
}

}  // namespace

void rope(const fi_exec& exec, const Tensor& q, const Tensor& k, const Tensor& q_out,
          const Tensor& k_out, const Tensor* pos_ids, const Tensor* indptr, const Tensor* offsets,
          const Tensor* cos_sin_cache, int64_t rotary_dim, bool interleave, bool llama31,
          double rope_scale, double rope_theta, double smooth_a, double smooth_b) {
  check_shape(q, {-1, -1, -1});
  const int64_t nnz = q.size(0), head_dim = q.size(2);
  check_shape(k, {nnz, -1, head_dim});
  check_shape(q_out, {nnz, q.size(1), head_dim});
  check_shape(k_out, {nnz, k.size(1), head_dim});
  check_same_dtype(k, q);
  check_same_dtype(q_out, q);
  check_same_dtype(k_out, q);
  check_inner_contiguous(q);
  check_inner_contiguous(k);
  check_inner_contiguous(q_out);
  check_inner_contiguous(k_out);
  if (rotary_dim <= 0 || rotary_dim % 2 != 0 || rotary_dim > head_dim) {
    value_error("rotary_dim is %lld, expected an even number in 2..%lld, the head dimension",
                static_cast<long long>(rotary_dim), static_cast<long long>(head_dim));
  }

  fi_rope_args args{};
  args.dtype = float_dtype(q);
  args.nnz = nnz;
  args.num_qo_heads = q.size(1);
  args.num_kv_heads = k.size(1);
  args.head_dim = head_dim;
  args.rotary_dim = rotary_dim;
  args.q = q.data;
  args.k = k.data;
  args.q_out = q_out.data;
  args.k_out = k_out.data;
  args.q_stride_n = q.stride(0);
  args.q_stride_h = q.stride(1);
  args.k_stride_n = k.stride(0);
  args.k_stride_h = k.stride(1);
  args.q_out_stride_n = q_out.stride(0);
  args.q_out_stride_h = q_out.stride(1);
  args.k_out_stride_n = k_out.stride(0);
  args.k_out_stride_h = k_out.stride(1);
  args.interleave = interleave;
  args.llama31 = llama31;
  args.rope_scale = static_cast<float>(rope_scale);
  args.rope_theta = static_cast<float>(rope_theta);
  args.smooth_a = static_cast<float>(smooth_a);
  args.smooth_b = static_cast<float>(smooth_b);

  if (cos_sin_cache != nullptr) {
    check_dtype(*cos_sin_cache, DType::kFloat);
    check_shape(*cos_sin_cache, {-1, rotary_dim});
    check_inner_contiguous(*cos_sin_cache);
    args.cos_sin_cache = cos_sin_cache->as<const float>();
    args.cos_sin_stride = cos_sin_cache->stride(0);
    args.max_position = cos_sin_cache->size(0);
  }
  if (pos_ids != nullptr) {
    check_shape(*pos_ids, {nnz});
    check_contiguous(*pos_ids);
    if (pos_ids->dtype != DType::kInt && pos_ids->dtype != DType::kLong) {
      type_error("%s has dtype %s, expected int32 or int64", pos_ids->name, pos_ids->dtype_name);
    }
    const bool wide = pos_ids->dtype == DType::kLong;
    args.pos_ids = pos_ids->data;
    args.pos_ids_bits = wide ? 64 : 32;
    if (cos_sin_cache != nullptr && on_cpu(exec)) {
      wide ? check_positions<int64_t>(*pos_ids, nnz, args.max_position)
           : check_positions<int32_t>(*pos_ids, nnz, args.max_position);
    }
  } else if (indptr != nullptr && offsets != nullptr && cos_sin_cache == nullptr) {
    check_index(*indptr, -1);
    args.batch_size = indptr->size(0) - 1;
    if (args.batch_size < 0) value_error("indptr is empty, expected [batch_size + 1]");
    check_index(*offsets, args.batch_size);
    args.indptr = indptr->as<const int32_t>();
    args.offsets = offsets->as<const int32_t>();
    if (on_cpu(exec)) check_segments(*indptr, args.batch_size, nnz);
  } else {
    value_error("rope needs pos_ids, or both indptr and offsets and no cos_sin_cache");
  }
  if (nnz == 0 || head_dim == 0) return;
  check_status(fi_rope(&exec, &args));
}

void rope_inplace(const fi_exec& exec, const Tensor& q, const Tensor& k, const Tensor* pos_ids,
                  const Tensor* indptr, const Tensor* offsets, const Tensor* cos_sin_cache,
                  int64_t rotary_dim, bool interleave, bool llama31, double rope_scale,
                  double rope_theta, double smooth_a, double smooth_b) {
  rope(exec, q, k, q, k, pos_ids, indptr, offsets, cos_sin_cache, rotary_dim, interleave, llama31,
       rope_scale, rope_theta, smooth_a, smooth_b);
}

}  // namespace binding
}  // namespace flashinfer
