// Attention kernels: fp16, 64 and 128 rows a block, without options.
#include "attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template struct AttentionKernels<__half, 64, false>;
template struct AttentionKernels<__half, 128, false>;

}  // namespace cuda
}  // namespace flashinfer
