// Attention kernels: bf16, 64 and 128 rows a block, without options.
#include "attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template struct AttentionKernels<__nv_bfloat16, 64, false>;
template struct AttentionKernels<__nv_bfloat16, 128, false>;

}  // namespace cuda
}  // namespace flashinfer
