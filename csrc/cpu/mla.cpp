#include "cpu/attention_job.h"
#include "cpu/check.h"
#include "cpu/parallel.h"
#include "cpu/rope_turns.h"

namespace flashinfer {
namespace cpu {
namespace {

fi_status check(const fi_mla_decode_args& args) {
  const auto wrong = [](const char* name, int64_t value, const char* expected) {
    return fail(FI_INVALID_ARGUMENT, "mla_decode: %s is %lld, expected %s", name,
                static_cast<long long>(value), expected);
  };
  if (args.head_dim_ckv < 8 || args.head_dim_ckv > kMaxLatentDim || args.head_dim_ckv % 8 != 0) {
    return wrong("head_dim_ckv", args.head_dim_ckv, "a multiple of 8 up to 512");
  }
  if (args.head_dim_kpe < 8 || args.head_dim_kpe > kMaxLatentRope || args.head_dim_kpe % 8 != 0) {
    return wrong("head_dim_kpe", args.head_dim_kpe, "a multiple of 8 up to 128");
  }
  if (args.num_qo_heads < 1) return wrong("num_qo_heads", args.num_qo_heads, "1 or more");
  if (args.tile_rows < 1) return wrong("tile_rows", args.tile_rows, "1 or more");
  if (args.page_size < 1) return wrong("page_size", args.page_size, "1 or more");
  if (args.kv_indices == nullptr || args.plan == nullptr) {
    return fail(FI_INVALID_ARGUMENT, "mla_decode: kv_indices or plan is NULL");
  }
  if (args.pos_encoding != FI_POS_NONE && args.pos_encoding != FI_POS_ROPE_LLAMA) {
    return wrong("pos_encoding", static_cast<int32_t>(args.pos_encoding),
                 "FI_POS_NONE or FI_POS_ROPE_LLAMA");
  }
  return FI_OK;
}

// The same rows, keys and results for what attention and this have in common.
fi_attention_args as_attention(const fi_mla_decode_args& args) {
  fi_attention_args a{};
  a.q_dtype = a.kv_dtype = args.dtype;
  a.num_qo_heads = args.num_qo_heads;
  a.num_kv_heads = 1;
  a.head_dim = args.head_dim_ckv;
  a.k = args.ckv;
  a.k_stride_page = args.ckv_stride_page;
  a.k_stride_n = args.ckv_stride_n;
  a.v = args.kpe;
  a.v_stride_page = args.kpe_stride_page;
  a.v_stride_n = args.kpe_stride_n;
  a.page_size = args.page_size;
  a.kv_indices = args.kv_indices;
  a.out = args.out;
  a.out_stride_n = args.out_stride_n;
  a.out_stride_h = args.out_stride_h;
  a.lse = args.lse;
  a.plan = args.plan;
  a.tile_rows = args.tile_rows;
  a.item_capacity = args.item_capacity;
  a.merge_capacity = args.merge_capacity;
  a.partial_out = args.partial_out;
  a.partial_lse = args.partial_lse;
  a.window_left = args.window_left;
  a.sm_scale = args.sm_scale;
  a.logits_soft_cap = args.logits_soft_cap;
  a.v_scale = args.v_scale;
  return a;
}

}  // namespace

fi_status mla_decode(const fi_exec& exec, const fi_mla_decode_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("mla_decode", args.dtype, &table)) return status;
  if (const fi_status status = check(args)) return status;
  const fi_attention_args attention = as_attention(args);
  int64_t next_unit = 0;
  int32_t no_memory = 0;
  MlaJob job{&args, {}};
  job.attention.next_unit = &next_unit;
  job.attention.no_memory = &no_memory;
  if (const fi_status status = open_plan("mla_decode", attention, &job.attention)) return status;
  double turns[kMaxLatentRope / 2];
  if (args.pos_encoding == FI_POS_ROPE_LLAMA) {
    fi_rope_args rope{};
    rope.rotary_dim = args.head_dim_kpe;
    rope.rope_scale = args.rope_scale;
    rope.rope_theta = args.rope_theta;
    fill_turns(rope, turns);
    job.attention.turns = turns;
  }
  for_ranges(exec, job.attention.num_items, unit_elements(job.attention),
             table->mla_units[args.dtype], job);
  if (no_memory != 0) return fail(FI_INVALID_ARGUMENT, "mla_decode: no memory for scratch");
  for_ranges(exec, job.attention.num_merges, 4 * args.tile_rows * args.head_dim_ckv,
             table->attention_merges, job.attention);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
