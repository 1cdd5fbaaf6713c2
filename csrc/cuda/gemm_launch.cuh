// The definition of launch_gemm, for the units that instantiate it.
#ifndef FLASHINFER_CUDA_GEMM_LAUNCH_CUH_
#define FLASHINFER_CUDA_GEMM_LAUNCH_CUH_

#include "flashinfer/gemm/kernel.cuh"
#include "gemm_kernels.h"

namespace flashinfer {
namespace cuda {

template <class Traits>
fi_status launch_gemm_kernel(Device& device, const GemmLaunch& launch, int64_t row_tiles,
                             const GemmParams& params) {
  const int64_t col_tiles = ceil_div(params.cols, Traits::kCols);
  if (col_tiles > kMaxGridY) {
    return fail(FI_UNSUPPORTED, "%s: the result has %d columns, expected at most %lld", launch.op,
                params.cols, static_cast<long long>(kMaxGridY * Traits::kCols));
  }
  GemmParams p = params;
  p.row_tiles = static_cast<int>(ceil_div(params.rows, Traits::kRows));
  const dim3 grid(static_cast<unsigned>(row_tiles), static_cast<unsigned>(col_tiles));
  return device.launch(launch.op, gemm_kernel<Traits>, grid, dim3(Traits::kThreads),
                       Traits::kSharedBytes, p);
}

template <typename T, BLayout kLayout, bool kFp8>
fi_status launch_gemm_layout(Device& device, const GemmLaunch& launch, const GemmParams& params) {
  if (!launch.vectors) {
    return launch_gemm_kernel<GemmTraits<T, MiddleTile, kLayout, kFp8, false>>(
        device, launch, launch.row_tiles_of_64, params);
  }
  if (launch.average_rows <= ThinTile::kRows) {
    return launch_gemm_kernel<GemmTraits<T, ThinTile, kLayout, kFp8, true>>(
        device, launch, launch.row_tiles_of_16, params);
  }
  // Large tiles read less, where there are enough of them for every multiprocessor.
  const int64_t blocks = launch.row_tiles_of_128 * ceil_div(params.cols, LargeTile::kCols);
  if (launch.average_rows > MiddleTile::kRows && blocks >= device.multiprocessors()) {
    return launch_gemm_kernel<GemmTraits<T, LargeTile, kLayout, kFp8, true>>(
        device, launch, launch.row_tiles_of_128, params);
  }
  return launch_gemm_kernel<GemmTraits<T, MiddleTile, kLayout, kFp8, true>>(
      device, launch, launch.row_tiles_of_64, params);
}

template <typename T, bool kFp8>
fi_status launch_gemm(Device& device, const GemmLaunch& launch, const GemmParams& params) {
  if constexpr (!kFp8) {
    if (launch.row_major) {
      return launch_gemm_layout<T, BLayout::kRowMajor, false>(device, launch, params);
    }
  }
  return launch_gemm_layout<T, BLayout::kColumnMajor, kFp8>(device, launch, params);
}

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_GEMM_LAUNCH_CUH_
