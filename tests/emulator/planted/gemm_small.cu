// A few matrix product kernels in the place of all: what the mutation tests compile again for each
// bug. One of every way in which layouts, tiles, loads and dtypes differ.
#include "cuda/gemm_launch.cuh"

namespace flashinfer {
namespace cuda {

constexpr BLayout kRows = BLayout::kRowMajor, kColumns = BLayout::kColumnMajor;

template <>
fi_status launch_gemm<__half, false>(Device& device, const GemmLaunch& launch,
                                     const GemmParams& params) {
  if (!launch.vectors) {
    return launch_gemm_kernel<GemmTraits<__half, MiddleTile, kColumns, false, false>>(
        device, launch, launch.row_tiles_of_64, params);
  }
  if (launch.average_rows > ThinTile::kRows) {
    return launch_gemm_kernel<GemmTraits<__half, MiddleTile, kRows, false, true>>(
        device, launch, launch.row_tiles_of_64, params);
  }
  return launch_gemm_kernel<GemmTraits<__half, ThinTile, kColumns, false, true>>(
      device, launch, launch.row_tiles_of_16, params);
}

template <>
fi_status launch_gemm<__half, true>(Device& device, const GemmLaunch& launch,
                                    const GemmParams& params) {
  return launch_gemm_kernel<GemmTraits<__half, MiddleTile, kColumns, true, true>>(
      device, launch, launch.row_tiles_of_64, params);
}

}  // namespace cuda
}  // namespace flashinfer
