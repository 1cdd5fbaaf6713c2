#include "attention_plan_args.h"
#include "ops.h"

namespace flashinfer {
namespace binding {

void mla_decode(const fi_exec& exec, const Tensor& q_nope, const Tensor& q_pe, const Tensor& ckv,
                const Tensor& kpe, const Tensor& kv_indices, const Tensor& out, const Tensor* lse,
                const Tensor& plan, const Tensor& workspace, int64_t tile_rows,
                int64_t item_capacity, int64_t merge_capacity, int64_t num_slots,
                int64_t window_left, std::string_view pos_encoding, double sm_scale,
                double logits_soft_cap, double v_scale, double rope_scale, double rope_theta) {
  check_shape(q_nope, {-1, -1, -1});
  const int64_t nnz = q_nope.size(0), heads = q_nope.size(1), dim = q_nope.size(2);
  check_shape(q_pe, {nnz, heads, -1});
  check_shape(ckv, {-1, -1, dim});
  check_shape(kpe, {ckv.size(0), ckv.size(1), q_pe.size(2)});
  check_shape(out, {nnz, heads, dim});
  fi_mla_decode_args args{};
  args.dtype = float_dtype(q_nope);
  for (const Tensor* tensor : {&q_nope, &q_pe, &ckv, &kpe, &out}) {
    check_same_dtype(*tensor, q_nope);
    check_inner_contiguous(*tensor);
  }
  if (ckv.size(1) == 0) value_error("%s has pages of 0 entries", ckv.name);
  check_index(kv_indices, -1);
  if (lse != nullptr) {
    check_dtype(*lse, DType::kFloat);
    check_shape(*lse, {nnz, heads});
    check_contiguous(*lse);
    args.lse = lse->as<float>();
  }
  args.num_qo_heads = heads;
  args.head_dim_ckv = dim;
  args.head_dim_kpe = q_pe.size(2);
  args.q_nope = q_nope.data;
  args.q_nope_stride_n = q_nope.stride(0);
  args.q_nope_stride_h = q_nope.stride(1);
  args.q_pe = q_pe.data;
  args.q_pe_stride_n = q_pe.stride(0);
  args.q_pe_stride_h = q_pe.stride(1);
  args.ckv = ckv.data;
  args.ckv_stride_page = ckv.stride(0);
  args.ckv_stride_n = ckv.stride(1);
  args.kpe = kpe.data;
  args.kpe_stride_page = kpe.stride(0);
  args.kpe_stride_n = kpe.stride(1);
  args.page_size = ckv.size(1);
  args.kv_indices = kv_indices.as<const int32_t>();
  args.out = out.data;
  args.out_stride_n = out.stride(0);
  args.out_stride_h = out.stride(1);

  // The plan's part of the arguments is attention's, with one KV head.
  fi_attention_args planned{};
  planned.num_qo_heads = heads;
  planned.num_kv_heads = 1;
  planned.head_dim = dim;
  planned.page_size = args.page_size;
  planned.kv_indices = args.kv_indices;
  read_plan(plan, workspace, tile_rows, item_capacity, merge_capacity, num_slots, &planned);
  args.plan = planned.plan;
  args.tile_rows = planned.tile_rows;
  args.item_capacity = planned.item_capacity;
  args.merge_capacity = planned.merge_capacity;
  args.partial_out = planned.partial_out;
  args.partial_lse = planned.partial_lse;

  args.window_left = window_size(window_left);
  args.pos_encoding = parse_pos_encoding(pos_encoding);
  args.sm_scale = static_cast<float>(sm_scale);
  args.logits_soft_cap = static_cast<float>(logits_soft_cap);
  args.v_scale = static_cast<float>(v_scale);
  args.rope_scale = static_cast<float>(rope_scale);
  args.rope_theta = static_cast<float>(rope_theta);
  if (nnz == 0 || heads == 0 || dim == 0) return;
  if (on_cpu(exec)) {
    Extents has{};
    has.tokens = nnz;
    has.slots = num_slots;
    has.keys = ckv.size(0);
    has.indices = kv_indices.size(0);
    check_plan(planned, has);
  }
  check_status(fi_mla_decode(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
