// Attention kernels: bf16, 64 rows a block, all options.
#include "attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template struct AttentionKernels<__nv_bfloat16, 64, true>;

}  // namespace cuda
}  // namespace flashinfer
