// Launcher of the bit packing.
#include <climits>

#include "flashinfer/quantization.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// With so many threads, or as many as run at once.
fi_status launch(Device& device, void (*kernel)(PackbitsParams), int64_t threads,
                 const PackbitsParams& p) {
  const int64_t blocks =
      std::min(ceil_div(threads, kThreads), device.resident_blocks(kernel, kThreads));
  return device.launch("packbits", kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0,
                       p);
}

}  // namespace

fi_status packbits(const fi_exec& exec, const fi_packbits_args& args) {
  PackbitsParams p{};
  p.n = args.n;
  p.x = args.x;
  p.y = args.y;
  p.in_indptr = args.in_indptr;
  p.out_indptr = args.out_indptr;
  p.total_out = args.total_out;
  p.little_endian = args.little_endian;
  if (args.in_indptr == nullptr) {
    if (args.n <= 0) return FI_OK;
    Device device(exec);
    if (pointers_aligned(16, {args.x}) && pointers_aligned(2, {args.y})) {
      return launch(device, packbits_kernel, ceil_div(args.n, 16), p);
    }
    return launch(device, unaligned_packbits_kernel, ceil_div(args.n, 8), p);
  }
  if (args.total_out <= 0 || args.num_segments <= 0) return FI_OK;
  if (args.out_indptr == nullptr) {
    return fail(FI_INVALID_ARGUMENT, "packbits: in_indptr needs out_indptr");
  }
  if (args.num_segments > INT_MAX / 2) {
    return fail(FI_INVALID_ARGUMENT, "packbits: num_segments must be below 2^30, got %lld",
                static_cast<long long>(args.num_segments));
  }
  p.num_segments = static_cast<int>(args.num_segments);
  Device device(exec);
  return launch(device, segment_packbits_kernel, ceil_div(args.total_out, kPackedBytesPerThread),
                p);
}

}  // namespace cuda
}  // namespace flashinfer
