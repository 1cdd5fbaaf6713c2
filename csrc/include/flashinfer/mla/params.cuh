// What the kernel of multi-head latent attention is told.
#ifndef FLASHINFER_MLA_PARAMS_CUH_
#define FLASHINFER_MLA_PARAMS_CUH_

#include "flashinfer/attention/params.cuh"

namespace flashinfer {

constexpr int kCkvDim = 512, kKpeDim = 64;
constexpr int kKpePairs = kKpeDim / 2;

// There is one KV head, and all query heads are its group. `q` is q_nope; ckv is also what is
// summed up.
struct MlaParams : AttentionParams {
  KvTensor ckv, kpe;
  const void* q_pe;
  int64_t q_pe_stride_n, q_pe_stride_h;
  float cap, cap_scale;  // see cap_score()
  bool rope;
  float rope_high[kKpePairs], rope_low[kKpePairs];  // see RopeFrequencies
};

}  // namespace flashinfer

#endif  // FLASHINFER_MLA_PARAMS_CUH_
