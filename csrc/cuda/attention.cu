// Launchers of attention: the plan's shape, the checks, and which kernel runs.
#include <climits>

#include "attention_kernels.h"
#include "attention_plan.h"
#include "flashinfer/attention/merge.cuh"
#include "flashinfer/attention/tile_sizes.cuh"
#include "flashinfer/mla/params.cuh"
#include "launcher.h"
#include "rope_frequencies.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kShortRows = 16, kRows = 64, kLongRows = 128;

bool is_head_dim(int64_t head_dim) {
  return head_dim <= INT_MAX && has_tile(static_cast<int>(head_dim), kRows);
}

bool has_long_rows(int64_t head_dim) { return has_tile(static_cast<int>(head_dim), kLongRows); }

bool is_tile_rows(int64_t rows) { return rows == kShortRows || rows == kRows || rows == kLongRows; }

fi_status check_head_dim(const char* op, int64_t head_dim) {
  if (is_head_dim(head_dim)) return FI_OK;
  return fail(FI_UNSUPPORTED, "%s: head_dim must be 64, 128 or 256, got %lld", op,
              static_cast<long long>(head_dim));
}

fi_status check_tile_rows(const char* op, int64_t tile_rows) {
  if (is_tile_rows(tile_rows)) return FI_OK;
  return fail(FI_INVALID_ARGUMENT, "%s: tile_rows must be 16, 64 or 128 on CUDA, got %lld", op,
              static_cast<long long>(tile_rows));
}

fi_status check(const fi_attention_args& args) {
  const bool fp8 = args.kv_dtype == FI_FLOAT8_E4M3 || args.kv_dtype == FI_FLOAT8_E5M2;
  if (args.q_dtype != FI_FLOAT16 && args.q_dtype != FI_BFLOAT16) {
    return fail(FI_UNSUPPORTED, "attention: q must be float16 or bfloat16 on CUDA, got fi_dtype %d",
                static_cast<int>(args.q_dtype));
  }
  if (!fp8 && args.kv_dtype != args.q_dtype) {
    return fail(FI_UNSUPPORTED,
                "attention: k and v must have the dtype of q or be float8_e4m3 or float8_e5m2, got "
                "fi_dtype %d beside fi_dtype %d",
                static_cast<int>(args.kv_dtype), static_cast<int>(args.q_dtype));
  }
  if (const fi_status status = check_head_dim("attention", args.head_dim)) return status;
  if (const fi_status status = check_tile_rows("attention", args.tile_rows)) return status;
  if (args.num_kv_heads > kMaxGridY || args.num_qo_heads % args.num_kv_heads != 0 ||
      args.num_qo_heads > INT_MAX) {
    return fail(FI_INVALID_ARGUMENT,
                "attention: %lld query heads and %lld KV heads, expected a multiple, and at most "
                "%lld KV heads",
                static_cast<long long>(args.num_qo_heads),
                static_cast<long long>(args.num_kv_heads), static_cast<long long>(kMaxGridY));
  }
  if (args.item_capacity > INT_MAX || args.merge_capacity > INT_MAX) {
    return fail(FI_INVALID_ARGUMENT, "attention: item_capacity and merge_capacity are below 2^31");
  }
  if (args.plan == nullptr) return fail(FI_INVALID_ARGUMENT, "attention: plan is NULL");
  if (args.merge_capacity > 0 && (args.partial_out == nullptr || args.partial_lse == nullptr)) {
    return fail(FI_INVALID_ARGUMENT,
                "attention: merge_capacity is %lld, but partial_out or partial_lse is NULL",
                static_cast<long long>(args.merge_capacity));
  }
  if (args.kv_indices != nullptr && (args.page_size <= 0 || args.page_size > INT_MAX)) {
    return fail(FI_INVALID_ARGUMENT, "attention: page_size must be from 1 to 2^31 - 1, got %lld",
                static_cast<long long>(args.page_size));
  }
  if (args.mask_mode == FI_MASK_CUSTOM && (args.mask == nullptr || args.mask_indptr == nullptr)) {
    return fail(FI_INVALID_ARGUMENT,
                "attention: FI_MASK_CUSTOM needs mask and mask_indptr, one is NULL");
  }
  // The stride of a dimension with one element is never used.
  const int64_t kv_size = fp8 ? 1 : 2;
  const auto used = [](bool is_used, int64_t stride) { return is_used ? stride : 0; };
  const bool q_heads = args.num_qo_heads > 1, kv_heads = args.num_kv_heads > 1;
  const bool paged = args.kv_indices != nullptr, kv_rows = !paged || args.page_size > 1;
  for (const Vectors& tensor : {
           Vectors{"q", args.q, 2, {args.q_stride_n, used(q_heads, args.q_stride_h), 0}},
           Vectors{"k",
                   args.k,
                   kv_size,
                   {used(paged, args.k_stride_page), used(kv_rows, args.k_stride_n),
                    used(kv_heads, args.k_stride_h)}},
           Vectors{"v",
                   args.v,
                   kv_size,
                   {used(paged, args.v_stride_page), used(kv_rows, args.v_stride_n),
                    used(kv_heads, args.v_stride_h)}},
           Vectors{"out", args.out, 2, {args.out_stride_n, used(q_heads, args.out_stride_h), 0}},
           Vectors{"partial_out", args.partial_out, 4, {0, 0, 0}},
       }) {
    if (const fi_status status = check_alignment("attention", tensor)) return status;
  }
  return FI_OK;
}

GeneralAttentionParams make_params(const fi_attention_args& args) {
  const int64_t kv_size = args.kv_dtype == args.q_dtype ? 2 : 1;
  GeneralAttentionParams p{};
  p.q = args.q;
  p.q_stride_n = args.q_stride_n;
  p.q_stride_h = args.q_stride_h;
  p.k = kv_tensor(args.k, kv_size, args.k_stride_page, args.k_stride_n, args.k_stride_h);
  p.v = kv_tensor(args.v, kv_size, args.v_stride_page, args.v_stride_n, args.v_stride_h);
  p.kv_indices = args.kv_indices;
  p.page_size = args.kv_indices == nullptr ? 1 : static_cast<int>(args.page_size);
  p.out = args.out;
  p.out_stride_n = args.out_stride_n;
  p.out_stride_h = args.out_stride_h;
  p.lse = args.lse;
  p.plan = args.plan;
  p.partial_out = args.partial_out;
  p.partial_lse = args.partial_lse;
  p.num_qo_heads = static_cast<int>(args.num_qo_heads);
  p.num_kv_heads = static_cast<int>(args.num_kv_heads);
  p.group = static_cast<int>(args.num_qo_heads / args.num_kv_heads);
  p.tile_rows = static_cast<int>(args.tile_rows);
  p.causal = args.mask_mode == FI_MASK_CAUSAL;
  p.window_left = args.window_left;
  p.scale = static_cast<float>(args.sm_scale * kLog2e);
  p.v_scale = args.v_scale;
  if (args.mask_mode == FI_MASK_CUSTOM) {
    p.mask = args.mask;
    p.mask_indptr = args.mask_indptr;
  }
  if (args.logits_soft_cap > 0.0f) {
    p.cap = static_cast<float>(args.logits_soft_cap * kLog2e);
    p.cap_scale = static_cast<float>(2.0 * kLog2e * args.sm_scale / args.logits_soft_cap);
  }
  p.alibi = args.pos_encoding == FI_POS_ALIBI;
  p.alibi_slopes = args.alibi_slopes;
  p.alibi_heads = 1;
  while (p.alibi_heads <= p.num_qo_heads / 2) p.alibi_heads *= 2;
  p.e5m2 = args.kv_dtype == FI_FLOAT8_E5M2;
  p.rope = args.pos_encoding == FI_POS_ROPE_LLAMA;
  if (p.rope) {
    set_frequencies(args.head_dim, args.rope_scale, args.rope_theta, p.rope_high, p.rope_low);
  }
  return p;
}

// The lean instantiation knows none of the options, and its softmax needs the largest score before
// scaling to be the largest after it.
bool is_lean(const fi_attention_args& args) {
  return args.kv_dtype == args.q_dtype && args.mask_mode != FI_MASK_CUSTOM &&
         !(args.logits_soft_cap > 0.0f) && args.pos_encoding == FI_POS_NONE && args.sm_scale > 0.0f;
}

template <typename T>
fi_status run(Device& device, const fi_attention_args& args, const GeneralAttentionParams& p) {
  const bool fp8 = args.kv_dtype != args.q_dtype;
  const auto grid = [&](int64_t block_rows) {
    return AttentionGrid{args.item_capacity, args.num_kv_heads, args.tile_rows / block_rows};
  };
  if (args.tile_rows == kShortRows) {
    return AttentionKernels<T, kShortRows, true>::launch(device, grid(kShortRows), args.head_dim,
                                                         fp8, p);
  }
  if (!is_lean(args)) {
    return AttentionKernels<T, kRows, true>::launch(device, grid(kRows), args.head_dim, fp8, p);
  }
  if (args.tile_rows == kLongRows && has_long_rows(args.head_dim)) {
    return AttentionKernels<T, kLongRows, false>::launch(device, grid(kLongRows), args.head_dim,
                                                         fp8, p);
  }
  return AttentionKernels<T, kRows, false>::launch(device, grid(kRows), args.head_dim, fp8, p);
}

// Loads every kernel that a plan with so many rows can lead to, which may be run with any options:
// the first call may be in a capture, and there is no time for it there. Returns how many blocks of
// the kernel without options a multiprocessor has at once.
template <typename T>
int load(Device& device, int64_t rows, int64_t head_dim) {
  load_merge<T>(device);
  if (rows == kShortRows) return AttentionKernels<T, kShortRows, true>::load(device, head_dim);
  AttentionKernels<T, kRows, true>::load(device, head_dim);
  return rows == kLongRows && has_long_rows(head_dim)
             ? AttentionKernels<T, kLongRows, false>::load(device, head_dim)
             : AttentionKernels<T, kRows, false>::load(device, head_dim);
}

}  // namespace

template <typename T>
fi_status launch_merge(Device& device, const char* op, const AttentionParams& params, int head_dim,
                       int64_t item_capacity, int64_t merge_capacity) {
  const AttentionMergeParams merge{params, head_dim, item_capacity};
  const int64_t parts = ceil_div(params.tile_rows, min_merge_rows(head_dim, params.tile_rows));
  const dim3 blocks(static_cast<unsigned>(merge_capacity),
                    static_cast<unsigned>(params.num_kv_heads), static_cast<unsigned>(parts));
  return device.launch(op, attention_merge_kernel<T>, blocks, dim3(kAttentionMergeThreads), 0,
                       merge);
}
template fi_status launch_merge<__half>(Device&, const char*, const AttentionParams&, int, int64_t,
                                        int64_t);
template fi_status launch_merge<__nv_bfloat16>(Device&, const char*, const AttentionParams&, int,
                                               int64_t, int64_t);

template <typename T>
void load_merge(Device& device) {
  device.blocks_per_multiprocessor(attention_merge_kernel<T>, kAttentionMergeThreads);
}
template void load_merge<__half>(Device&);
template void load_merge<__nv_bfloat16>(Device&);

fi_status attention_plan(const fi_exec& exec, const fi_attention_plan_args& args) {
  if (args.head_dim == kCkvDim) return mla_plan(exec, args);
  if (const fi_status status = check_head_dim("attention_plan", args.head_dim)) return status;
  if (args.num_kv_heads <= 0 || args.batch_size < 0) return plan_attention(args, PlanShape{});
  PlanShape shape{};
  shape.tile_rows = args.tile_rows;
  if (args.tile_rows == 0) {
    const int64_t rows = average_rows(args);
    shape.tile_rows = rows <= kShortRows                               ? kShortRows
                      : rows <= kRows || !has_long_rows(args.head_dim) ? kRows
                                                                       : kLongRows;
  }
  if (const fi_status status = check_tile_rows("attention_plan", shape.tile_rows)) return status;
  shape.kv_granularity = tile_sizes(static_cast<int>(args.head_dim), kShortRows).keys;
  shape.min_chunk = 256;
  Device device(exec);
  const int64_t blocks = std::min(load<__half>(device, shape.tile_rows, args.head_dim),
                                  load<__nv_bfloat16>(device, shape.tile_rows, args.head_dim));
  if (const fi_status status = device.status("attention_plan")) return status;
  shape.parallel_items =
      std::max<int64_t>(1, device.multiprocessors() * blocks / args.num_kv_heads);
  return plan_attention(args, shape);
}

fi_status attention(const fi_exec& exec, const fi_attention_args& args) {
  if (args.item_capacity <= 0 || args.num_kv_heads <= 0 || args.num_qo_heads <= 0) return FI_OK;
  if (const fi_status status = check(args)) return status;
  const GeneralAttentionParams params = make_params(args);
  Device device(exec);
  const auto both = [&](auto zero) {
    using T = decltype(zero);
    if (const fi_status status = run<T>(device, args, params)) return status;
    if (args.merge_capacity == 0) return FI_OK;
    return launch_merge<T>(device, "attention", params, static_cast<int>(args.head_dim),
                           args.item_capacity, args.merge_capacity);
  };
  return args.q_dtype == FI_FLOAT16 ? both(__half()) : both(__nv_bfloat16());
}

}  // namespace cuda
}  // namespace flashinfer
