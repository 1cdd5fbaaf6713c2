#include <algorithm>

#include "attention_plan_args.h"
#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

static_assert(sizeof(fi_attention_plan_result) == 5 * sizeof(int64_t), "result is int64[5]");

long long wide(int64_t value) { return value; }

// The number of pages, or of rows where there are none, that k and v have.
int64_t describe_keys(const Tensor& k, const Tensor& v, bool paged, bool hnd,
                      fi_attention_args* args) {
  const int64_t dim = args->head_dim;
  const int heads = (paged ? 2 : 1) - (hnd ? 1 : 0), entry = (paged ? 1 : 0) + (hnd ? 1 : 0);
  if (paged) {
    check_shape(k, {-1, -1, -1, dim});
    check_shape(v, {k.size(0), k.size(1), k.size(2), dim});
    args->page_size = k.size(entry);
    args->k_stride_page = k.stride(0);
    args->v_stride_page = v.stride(0);
    if (args->page_size == 0) value_error("%s has pages of 0 entries", k.name);
  } else {
    check_shape(k, {-1, -1, dim});
    check_shape(v, {k.size(0), k.size(1), dim});
  }
  check_same_dtype(v, k);
  args->kv_dtype = float_dtype(k, /*fp8=*/true);
  if (k.dtype != DType::kE4M3 && k.dtype != DType::kE5M2 && args->kv_dtype != args->q_dtype) {
    type_error("%s has dtype %s, expected the dtype of q, float8_e4m3fn or float8_e5m2", k.name,
               k.dtype_name);
  }
  check_inner_contiguous(k);
  check_inner_contiguous(v);
  args->num_kv_heads = k.size(heads);
  args->k_stride_n = k.stride(entry);
  args->k_stride_h = k.stride(heads);
  args->v_stride_n = v.stride(entry);
  args->v_stride_h = v.stride(heads);
  args->k = k.data;
  args->v = v.data;
  if (args->num_kv_heads <= 0 || args->num_qo_heads % args->num_kv_heads != 0) {
    value_error("%s has %lld heads, expected a divisor of the %lld heads of q", k.name,
                wide(args->num_kv_heads), wide(args->num_qo_heads));
  }
  return k.size(paged ? 0 : entry);
}

void check_item(const fi_attention_args& args, const fi_attention_item& item, const Extents& has) {
  if (int64_t{item.qo_begin} + item.qo_len > has.tokens) {
    value_error("q has %lld tokens, expected %lld or more: the plan's last token", wide(has.tokens),
                wide(int64_t{item.qo_begin} + item.qo_len));
  }
  if (item.slot >= has.slots) {
    value_error("num_slots is %lld, expected more than %d: the plan's slot", wide(has.slots),
                item.slot);
  }
  if (args.kv_indices == nullptr) {
    if (int64_t{item.kv_base} + item.kv_len > has.keys) {
      value_error("k has %lld rows, expected %lld or more: the keys of request %d", wide(has.keys),
                  wide(int64_t{item.kv_base} + item.kv_len), item.request);
    }
  } else {
    const int64_t last =
        item.kv_base + (int64_t{item.kv_end} + args.page_size - 1) / args.page_size;
    if (last > has.indices) {
      value_error("kv_indices has %lld entries, expected %lld or more: the pages of request %d",
                  wide(has.indices), wide(last), item.request);
    }
    for (int64_t entry = item.kv_base + item.kv_begin / args.page_size; entry < last; ++entry) {
      const int64_t page = args.kv_indices[entry];
      if (page < 0 || page >= has.keys) {
        value_error("kv_indices[%lld] is %lld, expected a page in 0..%lld", wide(entry), wide(page),
                    wide(has.keys - 1));
      }
    }
  }
  if (args.mask_mode != FI_MASK_CUSTOM) return;
  if (item.request >= has.mask_requests) {
    value_error("mask_indptr has %lld entries, expected %d or more", wide(has.mask_requests + 1),
                item.request + 2);
  }
  const int64_t begin = args.mask_indptr[item.request];
  const int64_t bytes = (int64_t{item.qo_len} * item.kv_len + 7) / 8;
  if (begin < 0 || begin + bytes > has.mask_bytes) {
    value_error("mask has %lld bytes, expected %lld from byte %lld on for request %d",
                wide(has.mask_bytes), wide(bytes), wide(begin), item.request);
  }
}

int64_t plan_words(int64_t item_capacity, int64_t merge_capacity) {
  return FI_PLAN_HEADER + FI_PLAN_ITEM * item_capacity + FI_PLAN_MERGE * merge_capacity;
}

}  // namespace

fi_pos_encoding parse_pos_encoding(std::string_view name) {
  if (name == "NONE") return FI_POS_NONE;
  if (name == "ROPE_LLAMA") return FI_POS_ROPE_LLAMA;
  if (name == "ALIBI") return FI_POS_ALIBI;
  value_error("pos_encoding is '%.*s', expected NONE, ROPE_LLAMA or ALIBI",
              static_cast<int>(name.size()), name.data());
}

void check_plan(const fi_attention_args& args, const Extents& has) {
  if (args.plan[0] < 0 || args.plan[0] > args.item_capacity || args.plan[1] < 0 ||
      args.plan[1] > args.merge_capacity) {
    value_error("plan has %d items and %d merges, expected at most %lld and %lld", args.plan[0],
                args.plan[1], wide(args.item_capacity), wide(args.merge_capacity));
  }
  const auto* items = reinterpret_cast<const fi_attention_item*>(args.plan + FI_PLAN_HEADER);
  for (int32_t i = 0; i < args.plan[0]; ++i) check_item(args, items[i], has);
  const auto* merges = reinterpret_cast<const fi_attention_merge*>(
      args.plan + FI_PLAN_HEADER + FI_PLAN_ITEM * args.item_capacity);
  for (int32_t i = 0; i < args.plan[1]; ++i) {
    const int64_t end = int64_t{merges[i].first_slot} + merges[i].num_slots;
    if (end > has.slots || int64_t{merges[i].qo_begin} + merges[i].qo_len > has.tokens) {
      value_error(
          "plan merges slots up to %lld, expected at most %lld, the slots of the workspace,"
          " and tokens of q",
          wide(end), wide(has.slots));
    }
  }
}

void read_plan(const Tensor& plan, const Tensor& workspace, int64_t tile_rows,
               int64_t item_capacity, int64_t merge_capacity, int64_t num_slots,
               fi_attention_args* args) {
  if (tile_rows <= 0 || item_capacity < 0 || merge_capacity < 0 || num_slots < 0) {
    value_error(
        "tile_rows is %lld, item_capacity %lld, merge_capacity %lld, num_slots %lld,"
        " expected what a plan was made with",
        wide(tile_rows), wide(item_capacity), wide(merge_capacity), wide(num_slots));
  }
  check_index(plan, plan_words(item_capacity, merge_capacity));
  args->plan = plan.as<const int32_t>();
  args->tile_rows = tile_rows;
  args->item_capacity = item_capacity;
  args->merge_capacity = merge_capacity;
  // The outputs of all slots, then their log-sum-exps.
  check_dtype(workspace, DType::kFloat);
  check_shape(workspace, {-1});
  check_contiguous(workspace);
  const int64_t slot_rows = num_slots * args->num_kv_heads * tile_rows;
  if (workspace.size(0) < slot_rows * (args->head_dim + 1)) {
    value_error("%s has %lld floats, expected %lld or more for %lld partial states", workspace.name,
                wide(workspace.size(0)), wide(slot_rows * (args->head_dim + 1)), wide(num_slots));
  }
  if (num_slots > 0) {
    args->partial_out = workspace.as<float>();
    args->partial_lse = args->partial_out + slot_rows * args->head_dim;
  }
}

int32_t window_size(int64_t window_left) {
  // A window wider than any sequence is none; it need not fit into 32 bits.
  return window_left < 0 || window_left > INT32_MAX ? -1 : static_cast<int32_t>(window_left);
}

void attention_plan(const fi_exec& exec, const Tensor& qo_indptr, const Tensor& kv_base,
                    const Tensor& kv_len, int64_t num_qo_heads, int64_t num_kv_heads,
                    int64_t head_dim, int64_t device, int64_t tile_rows, int64_t max_slots,
                    int64_t item_capacity, int64_t merge_capacity, const Tensor* plan,
                    const Tensor& result) {
  if (!on_cpu(exec)) value_error("%s is on CUDA, expected host tensors", qo_indptr.name);
  check_index(qo_indptr, -1);
  const int64_t batch_size = qo_indptr.size(0) - 1;
  if (batch_size < 0) value_error("%s is empty, expected [batch_size + 1]", qo_indptr.name);
  check_index(kv_base, batch_size);
  check_index(kv_len, batch_size);
  if (item_capacity < 0 || merge_capacity < 0) {
    value_error("item_capacity is %lld and merge_capacity %lld, expected 0 or more",
                wide(item_capacity), wide(merge_capacity));
  }
  check_dtype(result, DType::kLong);
  check_shape(result, {5});
  check_contiguous(result);

  fi_attention_plan_result planned{};
  fi_attention_plan_args args{};
  args.batch_size = batch_size;
  args.num_qo_heads = num_qo_heads;
  args.num_kv_heads = num_kv_heads;
  args.head_dim = head_dim;
  args.qo_indptr = qo_indptr.as<const int32_t>();
  args.kv_base = kv_base.as<const int32_t>();
  args.kv_len = kv_len.as<const int32_t>();
  args.tile_rows = tile_rows;
  args.max_slots = max_slots;
  args.item_capacity = item_capacity;
  args.merge_capacity = merge_capacity;
  args.result = &planned;
  if (plan != nullptr) {
    check_index(*plan, plan_words(item_capacity, merge_capacity));
    args.plan = plan->as<int32_t>();
  }
  fi_exec target{};
  target.device = static_cast<int32_t>(device);
  check_status(fi_attention_plan(&target, &args));
  const int64_t numbers[] = {planned.tile_rows, planned.num_items, planned.num_merges,
                             planned.num_slots, planned.split_target};
  std::copy(std::begin(numbers), std::end(numbers), result.as<int64_t>());
}

void upload_words(const fi_exec& exec, const HostTensor& words, const Tensor& out) {
  check_index(words, -1);
  check_index(out, words.size(0));
  fi_upload_words_args args{};
  args.count = words.size(0);
  args.words = words.as<const int32_t>();
  args.out = out.as<int32_t>();
  check_status(fi_upload_words(&exec, &args));
}

void attention(const fi_exec& exec, const Tensor& q, const Tensor& k, const Tensor& v,
               const Tensor* kv_indices, const Tensor& out, const Tensor* lse, const Tensor& plan,
               const Tensor& workspace, const Tensor* mask, const Tensor* mask_indptr,
               const Tensor* alibi_slopes, int64_t tile_rows, int64_t item_capacity,
               int64_t merge_capacity, int64_t num_slots, bool hnd, bool causal,
               int64_t window_left, std::string_view pos_encoding, double sm_scale,
               double logits_soft_cap, double v_scale, double rope_scale, double rope_theta) {
  check_shape(q, {-1, -1, -1});
  const int64_t nnz = q.size(0), heads = q.size(1), dim = q.size(2);
  check_shape(out, {nnz, heads, dim});
  check_same_dtype(out, q);

  fi_attention_args args{};
  args.q_dtype = float_dtype(q);
  check_inner_contiguous(q);
  check_inner_contiguous(out);
  args.num_qo_heads = heads;
  args.head_dim = dim;
  args.q = q.data;
  args.q_stride_n = q.stride(0);
  args.q_stride_h = q.stride(1);
  args.out = out.data;
  args.out_stride_n = out.stride(0);
  args.out_stride_h = out.stride(1);
  Extents has{};
  has.tokens = nnz;
  has.keys = describe_keys(k, v, kv_indices != nullptr, hnd, &args);
  if (kv_indices != nullptr) {
    check_index(*kv_indices, -1);
    has.indices = kv_indices->size(0);
    args.kv_indices = kv_indices->as<const int32_t>();
  }
  if (lse != nullptr) {
    check_dtype(*lse, DType::kFloat);
    check_shape(*lse, {nnz, heads});
    check_contiguous(*lse);
    args.lse = lse->as<float>();
  }

  read_plan(plan, workspace, tile_rows, item_capacity, merge_capacity, num_slots, &args);
  has.slots = num_slots;

  args.mask_mode = causal ? FI_MASK_CAUSAL : FI_MASK_NONE;
  if (mask != nullptr) {
    if (mask_indptr == nullptr) value_error("mask needs mask_indptr, and got None");
    check_dtype(*mask, DType::kByte);
    check_shape(*mask, {-1});
    check_contiguous(*mask);
    check_index(*mask_indptr, -1);
    args.mask_mode = FI_MASK_CUSTOM;
    args.mask = mask->as<const uint8_t>();
    args.mask_indptr = mask_indptr->as<const int32_t>();
    has.mask_bytes = mask->size(0);
    has.mask_requests = mask_indptr->size(0) - 1;
  }
  if (alibi_slopes != nullptr) {
    check_dtype(*alibi_slopes, DType::kFloat);
    check_shape(*alibi_slopes, {heads});
    check_contiguous(*alibi_slopes);
    args.alibi_slopes = alibi_slopes->as<const float>();
  }
  args.window_left = window_size(window_left);
  args.pos_encoding = parse_pos_encoding(pos_encoding);
  args.sm_scale = static_cast<float>(sm_scale);
  args.logits_soft_cap = static_cast<float>(logits_soft_cap);
  args.v_scale = static_cast<float>(v_scale);
  args.rope_scale = static_cast<float>(rope_scale);
  args.rope_theta = static_cast<float>(rope_theta);
  if (nnz == 0 || heads == 0 || dim == 0) return;
  if (on_cpu(exec)) check_plan(args, has);
  check_status(fi_attention(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
