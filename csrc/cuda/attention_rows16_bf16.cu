// Attention kernels: bf16, 16 rows a block (decode), all options.
#include "attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template fi_status launch_attention<__nv_bfloat16, 16, true>(Device&, const AttentionGrid&, int64_t,
                                                             bool, const GeneralAttentionParams&);

}  // namespace cuda
}  // namespace flashinfer
