// The compiled kernels of one instruction set, and the choice between them.
//
// isa_baseline.cpp, isa_avx2.cpp and isa_avx512.cpp compile the same headers (kernels/*.h), each
// for its own instruction set and vector width. The family files (norm.cpp, ...) check arguments,
// take the table that fits this CPU and hand ranges of rows to the caller's threads.
#ifndef FLASHINFER_CPU_ISA_H_
#define FLASHINFER_CPU_ISA_H_

#include <cstdint>
#include <cstdlib>

#include "flashinfer/api.h"

namespace flashinfer {
namespace cpu {

// fi_dtype values with arithmetic: FI_FLOAT16, FI_BFLOAT16, FI_FLOAT32 are 0, 1, 2.
constexpr int kFloatTypes = 3;
constexpr int kActivations = 3;
// And those a KV cache may have, the fp8 types after them.
constexpr int kCacheTypes = 5;
constexpr int64_t kMaxHeadDim = 256;
// Of multi-head latent attention: the compressed keys and the part of them that RoPE turns.
constexpr int64_t kMaxLatentDim = 512;
constexpr int64_t kMaxLatentRope = 128;

// What the rope kernels need beyond the caller's arguments.
struct RopeJob {
  const fi_rope_args* args;
  const double* turns;  // [rotary_dim / 2] f(i) / (2 pi); NULL with a cos_sin_cache
};

// The plan taken apart, and what the threads of one call share.
struct AttentionJob {
  const fi_attention_args* args;
  const fi_attention_item* items;
  const fi_attention_merge* merges;
  int64_t num_items, num_merges;
  const double* turns;  // [head_dim / 2] f(i) / (2 pi) for RoPE, or NULL
  const float* slopes;  // [num_qo_heads] log2(e) * ALiBi's slope, or NULL
  int64_t* next_unit;   // (item, KV head) pairs that threads have taken
  int32_t* no_memory;   // set by a thread that found none for its scratch
};

// Products of matrices that share their types and strides: for each group rows x depth of a times
// depth x cols of b. A line of b is what lies side by side: a column, or a row.
struct GemmGroup {
  const void* a;
  const void* b;
  void* out;
  int64_t rows;
  float scale;  // of the sums
};
struct GemmUnit {
  int64_t group, first_row, rows, first_col;  // a block of rows and columns of a group
};
struct GemmJob {
  fi_dtype a_dtype, out_dtype;
  int64_t cols, depth;
  int64_t a_stride, b_stride, out_stride;  // from row to row, line to line, row to row
  bool columns;                            // the lines of b are columns
  const GemmGroup* groups;
  const GemmUnit* units;
  int64_t num_units, unit_cols, most_rows;  // of any group
  int64_t* next_unit;                       // that a thread takes
  int32_t* no_memory;                       // set by a thread that found none for its scratch
};
constexpr int64_t kGemmUnitRows = 516;  // at most, of a unit

// `attention` sees ckv in the place of keys and kpe in the place of values; turns are those of kpe.
struct MlaJob {
  const fi_mla_decode_args* args;
  AttentionJob attention;
};

// Sampling: rows (requests for a chain), and what a thread sets that found no memory for its
// scratch.
template <class Args>
struct SamplingJob {
  const Args* args;
  int32_t* no_memory;
};

struct TopKJob {
  const fi_top_k_args* args;
  void (*sort_descending)(uint64_t* numbers, int64_t n);
  int32_t* no_memory;
};

// Bodies for fi_parallel_for. `arg` is the operation's argument struct, or its job above where it
// has one. The range counts rows or tokens; bytes of output for packbits; the plan's units, an
// (item or merge, KV head) pair each, for attention and MLA; units for gemm. The dtype comes first.
struct Kernels {
  fi_range_body rmsnorm[kFloatTypes];
  fi_range_body fused_add_rmsnorm[kFloatTypes];
  fi_range_body layernorm[kFloatTypes];
  fi_range_body rmsnorm_quant[kFloatTypes][2];  // [dtype][e5m2]
  fi_range_body fused_add_rmsnorm_quant[kFloatTypes][2];
  fi_range_body act_and_mul[kFloatTypes][kActivations];
  fi_range_body rope[kFloatTypes][2];  // [dtype][interleave]
  fi_range_body merge_state[kFloatTypes];
  fi_range_body merge_states[kFloatTypes];
  fi_range_body attention_units[kCacheTypes];  // by kv_dtype
  fi_range_body attention_merges;
  fi_range_body mla_units[kFloatTypes];
  fi_range_body packbits;
  fi_range_body gemm_units[kCacheTypes];  // by the type of b
  fi_range_body sample;
  fi_range_body renorm_probs;
  fi_range_body mask_logits;
  fi_range_body top_k[kFloatTypes];
  fi_range_body softmax;
  fi_range_body chain_speculative;
};

extern const Kernels kBaselineKernels;
#if defined(__x86_64__)
// The CPU and the operating system run this level's instructions.
bool avx2_supported();
bool avx512_supported();
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// In *table, the widest level this CPU has, or the one FLASHINFER_CPU_ISA (baseline, avx2, avx512)
// names; the variable is read once. An error where it names no level, or one this CPU lacks.
fi_status choose_kernels(const Kernels** table);

}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_ISA_H_
