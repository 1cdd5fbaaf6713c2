// Matrix product kernels: bf16 factors.
#include "gemm_launch.cuh"

namespace flashinfer {
namespace cuda {

template fi_status launch_gemm<__nv_bfloat16, false>(Device&, const GemmLaunch&, const GemmParams&);

}  // namespace cuda
}  // namespace flashinfer
