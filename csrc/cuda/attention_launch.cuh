// The definitions of AttentionKernels, for the units that instantiate it.
#ifndef FLASHINFER_CUDA_ATTENTION_LAUNCH_CUH_
#define FLASHINFER_CUDA_ATTENTION_LAUNCH_CUH_

#include "attention_kernels.h"
#include "flashinfer/attention/kernel.cuh"

namespace flashinfer {
namespace cuda {

template <class Traits>
fi_status launch_kernel(Device& device, const AttentionGrid& grid,
                        const GeneralAttentionParams& params) {
  const dim3 blocks(static_cast<unsigned>(grid.items), static_cast<unsigned>(grid.kv_heads),
                    static_cast<unsigned>(grid.parts));
  const typename Traits::Params& kernel_params = params;
  return device.launch("attention", attention_kernel<Traits>, blocks, dim3(Traits::kThreads),
                       Traits::kSharedBytes, kernel_params);
}

template <typename T, int kHeadDim, int kRows, bool kGeneral>
fi_status launch_head_dim(Device& device, const AttentionGrid& grid, bool fp8,
                          const GeneralAttentionParams& params) {
  if constexpr (kGeneral) {
    if (fp8) {
      return launch_kernel<AttentionTraits<T, kHeadDim, kRows, true, true>>(device, grid, params);
    }
  }
  return launch_kernel<AttentionTraits<T, kHeadDim, kRows, kGeneral, false>>(device, grid, params);
}

template <class Traits>
int load_kernel(Device& device) {
  return device.blocks_per_multiprocessor(attention_kernel<Traits>, Traits::kThreads,
                                          Traits::kSharedBytes);
}

template <typename T, int kHeadDim, int kRows, bool kGeneral>
int load_head_dim(Device& device) {
  int blocks = load_kernel<AttentionTraits<T, kHeadDim, kRows, kGeneral, false>>(device);
  if constexpr (kGeneral) {
    blocks = std::min(blocks, load_kernel<AttentionTraits<T, kHeadDim, kRows, true, true>>(device));
  }
  return blocks;
}

template <typename T, int kRows, bool kGeneral>
fi_status AttentionKernels<T, kRows, kGeneral>::launch(Device& device, const AttentionGrid& grid,
                                                       int64_t head_dim, bool fp8,
                                                       const GeneralAttentionParams& params) {
  switch (head_dim) {
    case 64:
      return launch_head_dim<T, 64, kRows, kGeneral>(device, grid, fp8, params);
    case 128:
      return launch_head_dim<T, 128, kRows, kGeneral>(device, grid, fp8, params);
    default:
      if constexpr (has_tile(256, kRows)) {
        return launch_head_dim<T, 256, kRows, kGeneral>(device, grid, fp8, params);
      }
      return fail(FI_UNSUPPORTED, "attention: no kernel for head_dim %lld and %d rows",
                  static_cast<long long>(head_dim), kRows);
  }
}

template <typename T, int kRows, bool kGeneral>
int AttentionKernels<T, kRows, kGeneral>::load(Device& device, int64_t head_dim) {
  if (head_dim == 64) return load_head_dim<T, 64, kRows, kGeneral>(device);
  if constexpr (has_tile(256, kRows)) {
    if (head_dim == 256) return load_head_dim<T, 256, kRows, kGeneral>(device);
  }
  return load_head_dim<T, 128, kRows, kGeneral>(device);
}

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_ATTENTION_LAUNCH_CUH_
