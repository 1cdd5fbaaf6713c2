// Matrix product kernels: fp8 factors.
#include "gemm_launch.cuh"

namespace flashinfer {
namespace cuda {

template fi_status launch_gemm<__half, true>(Device&, const GemmLaunch&, const GemmParams&);

}  // namespace cuda
}  // namespace flashinfer
