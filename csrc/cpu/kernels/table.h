// The table of kernels of the instruction set being compiled.
#ifndef FLASHINFER_CPU_KERNELS_TABLE_H_
#define FLASHINFER_CPU_KERNELS_TABLE_H_

#include "cpu/isa.h"
#include "cpu/kernels/activation.h"
#include "cpu/kernels/attention.h"
#include "cpu/kernels/attention_merge.h"
#include "cpu/kernels/cascade.h"
#include "cpu/kernels/gemm.h"
#include "cpu/kernels/mla.h"
#include "cpu/kernels/norm.h"
#include "cpu/kernels/quantization.h"
#include "cpu/kernels/rope.h"
#include "cpu/kernels/sampling.h"
#include "cpu/kernels/softmax.h"
#include "cpu/kernels/top_k.h"

namespace flashinfer {
namespace cpu {
namespace {

static_assert(FI_FLOAT16 == 0 && FI_BFLOAT16 == 1 && FI_FLOAT32 == 2, "the order of the rows");
static_assert(FI_FLOAT8_E4M3 == 3 && FI_FLOAT8_E5M2 == 4, "the order of attention_units");
static_assert(FI_SILU == 0 && FI_GELU == 1 && FI_GELU_TANH == 2, "the order of act_and_mul");

#define FLASHINFER_ACTIVATIONS(T) \
  {act_and_mul_rows<T, FI_SILU>, act_and_mul_rows<T, FI_GELU>, act_and_mul_rows<T, FI_GELU_TANH>}

#define FLASHINFER_FP8(rows, T) {rows<T, Float8E4M3>, rows<T, Float8E5M2>}

constexpr Kernels kTable = {
    {rmsnorm_rows<Half>, rmsnorm_rows<BFloat16>, rmsnorm_rows<float>},
    {fused_add_rmsnorm_rows<Half>, fused_add_rmsnorm_rows<BFloat16>, fused_add_rmsnorm_rows<float>},
    {layernorm_rows<Half>, layernorm_rows<BFloat16>, layernorm_rows<float>},
    {FLASHINFER_FP8(rmsnorm_quant_rows, Half), FLASHINFER_FP8(rmsnorm_quant_rows, BFloat16),
     FLASHINFER_FP8(rmsnorm_quant_rows, float)},
    {FLASHINFER_FP8(fused_add_rmsnorm_quant_rows, Half),
     FLASHINFER_FP8(fused_add_rmsnorm_quant_rows, BFloat16),
     FLASHINFER_FP8(fused_add_rmsnorm_quant_rows, float)},
    {FLASHINFER_ACTIVATIONS(Half), FLASHINFER_ACTIVATIONS(BFloat16), FLASHINFER_ACTIVATIONS(float)},
    {{rope_tokens<Half, false>, rope_tokens<Half, true>},
     {rope_tokens<BFloat16, false>, rope_tokens<BFloat16, true>},
     {rope_tokens<float, false>, rope_tokens<float, true>}},
    {merge_state_rows<Half>, merge_state_rows<BFloat16>, merge_state_rows<float>},
    {merge_states_rows<Half>, merge_states_rows<BFloat16>, merge_states_rows<float>},
    {attention_units<Half>, attention_units<BFloat16>, attention_units<float>,
     attention_units<Float8E4M3>, attention_units<Float8E5M2>},
    attention_merges,
    {mla_units<Half>, mla_units<BFloat16>, mla_units<float>},
    packbits_bytes,
    {gemm_units<Half>, gemm_units<BFloat16>, gemm_units<float>, gemm_units<Float8E4M3>,
     gemm_units<Float8E5M2>},
    sample_rows,
    renorm_probs_rows,
    mask_logits_rows,
    {top_k_rows<Half>, top_k_rows<BFloat16>, top_k_rows<float>},
    softmax_rows,
    chain_requests,
};
#undef FLASHINFER_ACTIVATIONS
#undef FLASHINFER_FP8

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_TABLE_H_
