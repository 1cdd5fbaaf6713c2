// The attention kernels as functions, so that the units that hold them compile side by side.
#ifndef FLASHINFER_CUDA_ATTENTION_KERNELS_H_
#define FLASHINFER_CUDA_ATTENTION_KERNELS_H_

#include "flashinfer/attention/params.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {

// How many blocks there are in a launch of kRows rows a block.
struct AttentionGrid {
  int64_t items;
  int64_t kv_heads;
  int64_t parts;  // blocks that share a tile of the plan
};

// Launches the kernel with kRows rows a block for these params. The lean build (kGeneral false)
// looks only at their AttentionParams and has no fp8.
template <typename T, int kRows, bool kGeneral>
fi_status launch_attention(Device& device, const AttentionGrid& grid, int64_t head_dim, bool fp8,
                           const GeneralAttentionParams& params);

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_ATTENTION_KERNELS_H_
