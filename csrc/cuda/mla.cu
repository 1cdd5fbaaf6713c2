// Launchers of multi-head latent attention: its plan's shape, the checks, and which kernel runs.
#include <climits>

#include "attention_kernels.h"
#include "attention_plan.h"
#include "flashinfer/mla/kernel.cuh"
#include "launcher.h"
#include "rope_frequencies.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kFewHeads = 16, kManyHeads = 32;  // the rows of a block, and of a plan's tile

fi_status check_tile_rows(const char* op, int64_t tile_rows) {
  if (tile_rows == kFewHeads || tile_rows == kManyHeads) return FI_OK;
  return fail(FI_INVALID_ARGUMENT, "%s: tile_rows must be 16 or 32 for head_dim 512, got %lld", op,
              static_cast<long long>(tile_rows));
}

fi_status check(const fi_mla_decode_args& args) {
  constexpr const char* kOp = "mla_decode";
  if (args.dtype != FI_FLOAT16 && args.dtype != FI_BFLOAT16) {
    return fail(FI_UNSUPPORTED, "%s: dtype must be float16 or bfloat16 on CUDA, got fi_dtype %d",
                kOp, static_cast<int>(args.dtype));
  }
  if (args.head_dim_ckv != kCkvDim || args.head_dim_kpe != kKpeDim) {
    return fail(FI_UNSUPPORTED,
                "%s: head_dim_ckv must be 512 and head_dim_kpe 64 on CUDA, got %lld and %lld", kOp,
                static_cast<long long>(args.head_dim_ckv),
                static_cast<long long>(args.head_dim_kpe));
  }
  if (const fi_status status = check_tile_rows(kOp, args.tile_rows)) return status;
  if (args.num_qo_heads > INT_MAX || args.item_capacity > INT_MAX ||
      args.merge_capacity > INT_MAX) {
    return fail(FI_INVALID_ARGUMENT,
                "%s: num_qo_heads, item_capacity and merge_capacity are below 2^31", kOp);
  }
  if (args.plan == nullptr || args.kv_indices == nullptr) {
    return fail(FI_INVALID_ARGUMENT, "%s: plan or kv_indices is NULL", kOp);
  }
  if (args.merge_capacity > 0 && (args.partial_out == nullptr || args.partial_lse == nullptr)) {
    return fail(FI_INVALID_ARGUMENT,
                "%s: merge_capacity is %lld, but partial_out or partial_lse is NULL", kOp,
                static_cast<long long>(args.merge_capacity));
  }
  if (args.page_size <= 0 || args.page_size > INT_MAX) {
    return fail(FI_INVALID_ARGUMENT, "%s: page_size must be from 1 to 2^31 - 1, got %lld", kOp,
                static_cast<long long>(args.page_size));
  }
  if (args.pos_encoding != FI_POS_NONE && args.pos_encoding != FI_POS_ROPE_LLAMA) {
    return fail(FI_INVALID_ARGUMENT,
                "%s: pos_encoding must be FI_POS_NONE or FI_POS_ROPE_LLAMA, got %d", kOp,
                static_cast<int>(args.pos_encoding));
  }
  // The stride of a dimension with one element is never used.
  const auto used = [](bool is_used, int64_t stride) { return is_used ? stride : 0; };
  const bool heads = args.num_qo_heads > 1, slots = args.page_size > 1;
  for (const Vectors& tensor : {
           Vectors{"q_nope",
                   args.q_nope,
                   2,
                   {args.q_nope_stride_n, used(heads, args.q_nope_stride_h), 0}},
           Vectors{"q_pe", args.q_pe, 2, {args.q_pe_stride_n, used(heads, args.q_pe_stride_h), 0}},
           Vectors{"ckv", args.ckv, 2, {args.ckv_stride_page, used(slots, args.ckv_stride_n), 0}},
           Vectors{"kpe", args.kpe, 2, {args.kpe_stride_page, used(slots, args.kpe_stride_n), 0}},
           Vectors{"out", args.out, 2, {args.out_stride_n, used(heads, args.out_stride_h), 0}},
           Vectors{"partial_out", args.partial_out, 4, {0, 0, 0}},
       }) {
    if (const fi_status status = check_alignment(kOp, tensor)) return status;
  }
  return FI_OK;
}

MlaParams make_params(const fi_mla_decode_args& args) {
  MlaParams p{};
  p.q = args.q_nope;
  p.q_stride_n = args.q_nope_stride_n;
  p.q_stride_h = args.q_nope_stride_h;
  p.q_pe = args.q_pe;
  p.q_pe_stride_n = args.q_pe_stride_n;
  p.q_pe_stride_h = args.q_pe_stride_h;
  p.ckv = kv_tensor(args.ckv, 2, args.ckv_stride_page, args.ckv_stride_n, 0);
  p.kpe = kv_tensor(args.kpe, 2, args.kpe_stride_page, args.kpe_stride_n, 0);
  p.kv_indices = args.kv_indices;
  p.page_size = static_cast<int>(args.page_size);
  p.out = args.out;
  p.out_stride_n = args.out_stride_n;
  p.out_stride_h = args.out_stride_h;
  p.lse = args.lse;
  p.plan = args.plan;
  p.partial_out = args.partial_out;
  p.partial_lse = args.partial_lse;
  p.num_qo_heads = p.group = static_cast<int>(args.num_qo_heads);
  p.num_kv_heads = 1;
  p.tile_rows = static_cast<int>(args.tile_rows);
  p.window_left = args.window_left;
  p.scale = static_cast<float>(args.sm_scale * kLog2e);
  p.v_scale = args.v_scale;
  if (args.logits_soft_cap > 0.0f) {
    p.cap = static_cast<float>(args.logits_soft_cap * kLog2e);
    p.cap_scale = static_cast<float>(2.0 * kLog2e * args.sm_scale / args.logits_soft_cap);
  }
  p.rope = args.pos_encoding == FI_POS_ROPE_LLAMA;
  if (p.rope) {
    set_frequencies(kKpeDim, args.rope_scale, args.rope_theta, p.rope_high, p.rope_low);
  }
  return p;
}

template <class Traits>
fi_status launch_kernel(Device& device, const fi_mla_decode_args& args, const MlaParams& params) {
  return device.launch("mla_decode", mla_decode_kernel<Traits>,
                       dim3(static_cast<unsigned>(args.item_capacity)), dim3(Traits::kThreads),
                       Traits::kSharedBytes, params);
}

template <class Traits>
int load_kernel(Device& device) {
  return device.blocks_per_multiprocessor(mla_decode_kernel<Traits>, Traits::kThreads,
                                          Traits::kSharedBytes);
}

// Loads the kernels that a plan with so many rows leads to, as that of attention does, and returns
// how many blocks a multiprocessor has at once.
template <typename T>
int load(Device& device, int64_t rows) {
  load_merge<T>(device);
  return rows == kFewHeads ? load_kernel<MlaTraits<T, kFewHeads>>(device)
                           : load_kernel<MlaTraits<T, kManyHeads>>(device);
}

template <typename T>
fi_status run(Device& device, const fi_mla_decode_args& args, const MlaParams& params) {
  const fi_status status = args.tile_rows == kFewHeads
                               ? launch_kernel<MlaTraits<T, kFewHeads>>(device, args, params)
                               : launch_kernel<MlaTraits<T, kManyHeads>>(device, args, params);
  if (status != FI_OK || args.merge_capacity == 0) return status;
  return launch_merge<T>(device, "mla_decode", params, kCkvDim, args.item_capacity,
                         args.merge_capacity);
}

}  // namespace

fi_status mla_plan(const fi_exec& exec, const fi_attention_plan_args& args) {
  constexpr const char* kOp = "attention_plan";
  if (args.num_kv_heads != 1 || args.batch_size < 0) {
    if (args.batch_size < 0) return plan_attention(args, PlanShape{});
    return fail(FI_UNSUPPORTED,
                "%s: head_dim 512 is multi-head latent attention, with 1 KV head, got %lld", kOp,
                static_cast<long long>(args.num_kv_heads));
  }
  PlanShape shape{};
  shape.tile_rows = args.tile_rows;
  // With more rows in a block its tiles of the cache serve more heads, and are read less often.
  if (args.tile_rows == 0) {
    shape.tile_rows = average_rows(args) <= kFewHeads ? kFewHeads : kManyHeads;
  }
  if (const fi_status status = check_tile_rows(kOp, shape.tile_rows)) return status;
  shape.kv_granularity = MlaTraits<__half, kFewHeads>::kKeys;
  shape.min_chunk = 128;  // 147 KB of the cache
  Device device(exec);
  const int64_t blocks =
      std::min(load<__half>(device, shape.tile_rows), load<__nv_bfloat16>(device, shape.tile_rows));
  if (const fi_status status = device.status(kOp)) return status;
  shape.parallel_items = device.multiprocessors() * blocks;
  return plan_attention(args, shape);
}

fi_status mla_decode(const fi_exec& exec, const fi_mla_decode_args& args) {
  if (args.item_capacity <= 0 || args.num_qo_heads <= 0) return FI_OK;
  if (const fi_status status = check(args)) return status;
  const MlaParams params = make_params(args);
  Device device(exec);
  return args.dtype == FI_FLOAT16 ? run<__half>(device, args, params)
                                  : run<__nv_bfloat16>(device, args, params);
}

}  // namespace cuda
}  // namespace flashinfer
