// The matrix product kernels as functions, so that the units that hold them compile side by side.
#ifndef FLASHINFER_CUDA_GEMM_KERNELS_H_
#define FLASHINFER_CUDA_GEMM_KERNELS_H_

#include "flashinfer/gemm/problem.cuh"
#include "flashinfer/gemm/traits.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {

// What a launch is told beside the parameters of its kernel.
struct GemmLaunch {
  const char* op;
  int64_t row_tiles_of_16, row_tiles_of_64, row_tiles_of_128;  // blocks that these tiles take
  int64_t average_rows;  // of a segment or of a matrix of the batch
  bool row_major;        // the second factor
  bool vectors;          // 16-byte parts of both factors
};

template <typename T, bool kFp8>
fi_status launch_gemm(Device& device, const GemmLaunch& launch, const GemmParams& params);

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_GEMM_KERNELS_H_
