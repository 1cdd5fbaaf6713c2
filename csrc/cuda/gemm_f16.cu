// Matrix product kernels: fp16 factors.
#include "gemm_launch.cuh"

namespace flashinfer {
namespace cuda {

template fi_status launch_gemm<__half, false>(Device&, const GemmLaunch&, const GemmParams&);

}  // namespace cuda
}  // namespace flashinfer
