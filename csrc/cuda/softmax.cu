// Launcher of the softmax kernels.
#include <climits>

#include "flashinfer/softmax.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

// Threads of a short row: enough for a block of one warp to be an exception, and for each to have
// two vectors where the row has them.
constexpr int kFewestThreads = 64;

template <int N>
fi_status launch_softmax(Device& device, int64_t rows, const SoftmaxParams& p) {
  const int64_t vectors = ceil_div(p.vocab, N);
  const int threads =
      std::max(kFewestThreads, power_of_two_at_least(ceil_div(vectors, 2), kSoftmaxThreads));
  const auto kernel =
      vectors <= int64_t{threads} * kSoftmaxVectors ? softmax_kernel<N> : softmax_long_kernel<N>;
  return device.launch("softmax", kernel, dim3(static_cast<unsigned>(rows)), dim3(threads), 0, p);
}

}  // namespace

fi_status softmax(const fi_exec& exec, const fi_softmax_args& args) {
  if (args.rows <= 0 || args.vocab <= 0) return FI_OK;
  if (args.rows > INT_MAX || args.vocab > INT_MAX / 2) {
    return fail(FI_INVALID_ARGUMENT,
                "softmax: rows must be below 2^31 and vocab below 2^30, got %lld and %lld",
                static_cast<long long>(args.rows), static_cast<long long>(args.vocab));
  }
  const SoftmaxParams p{static_cast<int>(args.vocab),
                        args.logits,
                        args.logits_stride,
                        args.out,
                        args.out_stride,
                        args.temperature,
                        args.temperature_value};
  const bool vectors =
      pointers_aligned(16, {args.logits, args.out}) &&
      sizes_aligned(16, sizeof(float),
                    {args.vocab, stride_for_alignment(args.rows, args.logits_stride),
                     stride_for_alignment(args.rows, args.out_stride)});
  Device device(exec);
  return vectors ? launch_softmax<4>(device, args.rows, p)
                 : launch_softmax<1>(device, args.rows, p);
}

}  // namespace cuda
}  // namespace flashinfer
