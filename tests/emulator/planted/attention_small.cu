// A few attention kernels in the place of all of a dtype: what the mutation tests compile again for
// each bug. One of every way in which blocks, warps and dtypes differ.
#include "cuda/attention_launch.cuh"

namespace flashinfer {
namespace cuda {

template <>
fi_status AttentionKernels<__half, 16, true>::launch(Device& device, const AttentionGrid& grid,
                                                     int64_t, bool fp8,
                                                     const GeneralAttentionParams& params) {
  return fp8 ? launch_kernel<AttentionTraits<__half, 64, 16, true, true>>(device, grid, params)
             : launch_kernel<AttentionTraits<__half, 64, 16, true, false>>(device, grid, params);
}
template <>
int AttentionKernels<__half, 16, true>::load(Device& device, int64_t) {
  return load_head_dim<__half, 64, 16, true>(device);
}

template <>
fi_status AttentionKernels<__half, 128, false>::launch(Device& device, const AttentionGrid& grid,
                                                       int64_t, bool,
                                                       const GeneralAttentionParams& params) {
  return launch_kernel<AttentionTraits<__half, 64, 128, false, false>>(device, grid, params);
}
template <>
int AttentionKernels<__half, 128, false>::load(Device& device, int64_t) {
  return load_head_dim<__half, 64, 128, false>(device);
}

template <>
fi_status AttentionKernels<__half, 64, false>::launch(Device&, const AttentionGrid&, int64_t, bool,
                                                      const GeneralAttentionParams&) {
  return fail(FI_UNSUPPORTED, "attention: not among the kernels for mutations");
}
template <>
int AttentionKernels<__half, 64, false>::load(Device&, int64_t) {
  return 1;
}

}  // namespace cuda
}  // namespace flashinfer
