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
  Device device(exec);
  const auto run = [&](auto size) {
    constexpr int N = decltype(size)::value;
    return launch_rows<N>(device, op, p, [](auto k) {
      constexpr int K = decltype(k)::value;
      if constexpr (K == 0) {
        return rmsnorm_long_kernel<T, N, Out>;
      } else {
        return rmsnorm_kernel<T, N, K, Out>;
      }
    });
  };
  return vectors ? run(std::integral_constant<int, kVecSize<T>>())
                 : run(std::integral_constant<int, 1>());
}

template <typename T, typename Out>
fi_status launch_fused_add_rmsnorm(const char* op, const fi_exec& exec,
                                   const FusedAddRmsnormParams<T, Out>& p, bool vectors) {
  Device device(exec);
  const auto run = [&](auto size) {
    constexpr int N = decltype(size)::value;
    return launch_rows<N>(device, op, p, [](auto k) {
      constexpr int K = decltype(k)::value;
      if constexpr (K == 0) {
        return fused_add_rmsnorm_long_kernel<T, N, Out>;
      } else {
        return fused_add_rmsnorm_kernel<T, N, K, Out>;
      }
    });
  };
  return vectors ? run(std::integral_constant<int, kVecSize<T>>())
                 : run(std::integral_constant<int, 1>());
}

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_RMSNORM_LAUNCH_CUH_
