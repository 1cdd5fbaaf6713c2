// Launches RMSNorm to any output.
#ifndef FLASHINFER_CUDA_RMSNORM_LAUNCH_CUH_
#define FLASHINFER_CUDA_RMSNORM_LAUNCH_CUH_

#include "flashinfer/norm.cuh"
#include "norm_launch.h"

namespace flashinfer {
namespace cuda {

// `vectors`: every pointer, stride and size allows vectors.
template <typename T, typename Out>
fi_status launch_rmsnorm(const char* op, const fi_exec& exec, const RmsnormParams<T, Out>& p,
                         bool vectors) {
  return launch_norm<T>(exec, op, p, vectors, [](auto n, auto k) {
    constexpr int N = decltype(n)::value, K = decltype(k)::value;
    if constexpr (K == 0) {
      return rmsnorm_long_kernel<T, N, Out>;
    } else {
      return rmsnorm_kernel<T, N, K, Out>;
    }
  });
}

template <typename T, typename Out>
fi_status launch_fused_add_rmsnorm(const char* op, const fi_exec& exec,
                                   const FusedAddRmsnormParams<T, Out>& p, bool vectors) {
  return launch_norm<T>(exec, op, p, vectors, [](auto n, auto k) {
    constexpr int N = decltype(n)::value, K = decltype(k)::value;
    if constexpr (K == 0) {
      return fused_add_rmsnorm_long_kernel<T, N, Out>;
    } else {
      return fused_add_rmsnorm_kernel<T, N, K, Out>;
    }
  });
}

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_RMSNORM_LAUNCH_CUH_
