// Launcher of the activation kernels.
#include "flashinfer/activation.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, int N>
fi_status launch_act_and_mul(Device& device, fi_activation activation,
                             const ActAndMulParams<T>& p) {
  const int64_t columns = ceil_div(p.d, N);
  const int threads = power_of_two_at_least(columns, kThreads);
  const dim3 block(threads, kThreads / threads);
  const int64_t column_blocks = ceil_div(columns, threads);
  const auto launch = [&](auto kernel) {
    // Enough blocks to fill the device; each then walks down the rows.
    const int64_t resident = device.resident_blocks(kernel, kThreads);
    const int64_t row_blocks =
        std::min({ceil_div(p.rows, block.y),
                  std::max<int64_t>(1, ceil_div(resident, column_blocks)), kMaxGridY});
    const dim3 grid(static_cast<unsigned>(column_blocks), static_cast<unsigned>(row_blocks));
    return device.launch("act_and_mul", kernel, grid, block, 0, p);
  };
  switch (activation) {
    case FI_SILU:
      return launch(act_and_mul_kernel<T, N, FI_SILU>);
    case FI_GELU:
      return launch(act_and_mul_kernel<T, N, FI_GELU>);
    case FI_GELU_TANH:
      return launch(act_and_mul_kernel<T, N, FI_GELU_TANH>);
  }
  return fail(FI_INVALID_ARGUMENT, "act_and_mul: unknown fi_activation %d",
              static_cast<int>(activation));
}

}  // namespace

fi_status act_and_mul(const fi_exec& exec, const fi_act_and_mul_args& args) {
  if (args.rows <= 0 || args.d <= 0) return FI_OK;
  return with_float_type("act_and_mul", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const ActAndMulParams<T> p{args.rows,
                               args.d,
                               static_cast<const T*>(args.input),
                               args.input_stride,
                               static_cast<T*>(args.out),
                               args.out_stride};
    const bool vectors = pointers_aligned(16, {args.input, args.out}) &&
                         sizes_aligned(16, sizeof(T), {args.d, args.input_stride, args.out_stride});
    Device device(exec);
    return vectors ? launch_act_and_mul<T, kVecSize<T>>(device, args.activation, p)
                   : launch_act_and_mul<T, 1>(device, args.activation, p);
  });
}

}  // namespace cuda
}  // namespace flashinfer
