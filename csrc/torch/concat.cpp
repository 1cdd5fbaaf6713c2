#include "ops.h"

namespace flashinfer {
namespace binding {

void concat_mla_k(const fi_exec& exec, const Tensor& k, const Tensor& k_nope,
                  const Tensor& k_rope) {
  check_shape(k_nope, {-1, -1, -1});
  fi_concat_mla_k_args args{};
  args.nnz = k_nope.size(0);
  args.num_heads = k_nope.size(1);
  args.nope_dim = k_nope.size(2);
  check_shape(k_rope, {args.nnz, 1, -1});
  args.rope_dim = k_rope.size(2);
  check_shape(k, {args.nnz, args.num_heads, args.nope_dim + args.rope_dim});
  check_same_dtype(k_nope, k);
  check_same_dtype(k_rope, k);
  for (const Tensor* t : {&k, &k_nope, &k_rope}) check_inner_contiguous(*t);
  args.element_size = k.element_size;
  args.k = k.data;
  args.k_stride_n = k.stride(0);
  args.k_stride_h = k.stride(1);
  args.k_nope = k_nope.data;
  args.nope_stride_n = k_nope.stride(0);
  args.nope_stride_h = k_nope.stride(1);
  args.k_rope = k_rope.data;
  args.rope_stride_n = k_rope.stride(0);
  if (args.nnz == 0 || args.num_heads == 0 || k.size(2) == 0) return;
  check_status(fi_concat_mla_k(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
