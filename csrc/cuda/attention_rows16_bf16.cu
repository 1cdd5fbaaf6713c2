// Attention kernels: bf16, 16 rows a block (decode), all options.
#include "attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template struct AttentionKernels<__nv_bfloat16, 16, true>;

}  // namespace cuda
}  // namespace flashinfer
