// Attention kernels: fp16, 64 rows a block, all options.
#include "attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template struct AttentionKernels<__half, 64, true>;

}  // namespace cuda
}  // namespace flashinfer
