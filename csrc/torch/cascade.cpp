#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

// One attention state: v [seq_len, num_heads, head_dim] and its log-sum-exp s [seq_len, num_heads].
void check_state(const Tensor& v, const Tensor& s, const Tensor& reference) {
  check_shape(v, {reference.size(0), reference.size(1), reference.size(2)});
  check_shape(s, {reference.size(0), reference.size(1)});
  check_same_dtype(v, reference);
  check_dtype(s, DType::kFloat);
  check_contiguous(v);
  check_contiguous(s);
}

void merge(const fi_exec& exec, const Tensor& v_a, const Tensor& s_a, const Tensor& v_b,
           const Tensor& s_b, const Tensor& v_out, const Tensor& s_out, const Tensor* mask) {
  check_shape(v_a, {-1, -1, -1});
  check_state(v_a, s_a, v_a);
  check_state(v_b, s_b, v_a);
  check_state(v_out, s_out, v_a);

  fi_merge_state_args args{};
  args.dtype = float_dtype(v_a);
  args.seq_len = v_a.size(0);
  args.num_heads = v_a.size(1);
  args.head_dim = v_a.size(2);
  args.v_a = v_a.data;
  args.s_a = s_a.as<const float>();
  args.v_b = v_b.data;
  args.s_b = s_b.as<const float>();
  args.v_out = v_out.data;
  args.s_out = s_out.as<float>();
  if (mask != nullptr) {
    if (mask->dtype != DType::kByte) check_dtype(*mask, DType::kBool);
    check_shape(*mask, {v_a.size(0)});
    check_contiguous(*mask);
    args.mask = mask->as<const uint8_t>();
  }
  if (args.seq_len == 0 || args.num_heads == 0) return;
  check_status(fi_merge_state(&exec, &args));
}

}  // namespace

void merge_state(const fi_exec& exec, const Tensor& v_a, const Tensor& s_a, const Tensor& v_b,
                 const Tensor& s_b, const Tensor& v_out, const Tensor& s_out) {
  merge(exec, v_a, s_a, v_b, s_b, v_out, s_out, nullptr);
}

void merge_state_inplace(const fi_exec& exec, const Tensor& v, const Tensor& s,
                         const Tensor& v_other, const Tensor& s_other, const Tensor* mask) {
  merge(exec, v, s, v_other, s_other, v, s, mask);
}

void merge_states(const fi_exec& exec, const Tensor& v, const Tensor& s, const Tensor& v_out,
                  const Tensor& s_out) {
  check_shape(v, {-1, -1, -1, -1});
  const int64_t seq_len = v.size(0), num_states = v.size(1), heads = v.size(2), dim = v.size(3);
  check_shape(s, {seq_len, num_states, heads});
  check_shape(v_out, {seq_len, heads, dim});
  check_shape(s_out, {seq_len, heads});
  check_same_dtype(v_out, v);
  check_dtype(s, DType::kFloat);
  check_dtype(s_out, DType::kFloat);
  check_contiguous(v);
  check_contiguous(s);
  check_contiguous(v_out);
  check_contiguous(s_out);

  fi_merge_states_args args{};
  args.dtype = float_dtype(v);
  args.seq_len = seq_len;
  args.num_states = num_states;
  args.num_heads = heads;
  args.head_dim = dim;
  args.v = v.data;
  args.s = s.as<const float>();
  args.v_out = v_out.data;
  args.s_out = s_out.as<float>();
  if (seq_len == 0 || heads == 0) return;
  check_status(fi_merge_states(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
