// Attention kernels: bf16, 64 and 128 rows a block, without options.
#include "attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template fi_status launch_attention<__nv_bfloat16, 64, false>(Device&, const AttentionGrid&,
                                                              int64_t, bool,
                                                              const GeneralAttentionParams&);
template fi_status launch_attention<__nv_bfloat16, 128, false>(Device&, const AttentionGrid&,
                                                               int64_t, bool,
                                                               const GeneralAttentionParams&);

}  // namespace cuda
}  // namespace flashinfer
