// Attention kernels: fp16, 64 rows a block, all options.
#include "attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template fi_status launch_attention<__half, 64, true>(Device&, const AttentionGrid&, int64_t, bool,
                                                      const GeneralAttentionParams&);

}  // namespace cuda
}  // namespace flashinfer
