// Launchers of the norm kernels.
#include <climits>

#include "flashinfer/norm.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kThreadsForShortRows = 256;
constexpr int kMaxVectorsInWarp = 4;   // per thread, where a warp has the row
constexpr int kMaxVectorsInBlock = 2;  // per thread, where a block has it

// How the rows are cut: vectors_per_thread is K of the kernel, 0 where the row is too long for it.
struct RowPlan {
  int vectors_per_thread;
  dim3 block;
};

RowPlan plan_rows(int64_t rows, int64_t hidden, int vector_size, int multiprocessors) {
  const int64_t vectors = ceil_div(hidden, vector_size);
  RowPlan plan{};
  if (vectors <= kWarpSize * kMaxVectorsInWarp) {
    // A warp, or a part of one, for each row: no barrier.
    const int threads = power_of_two_at_least(vectors, kWarpSize);
    plan.vectors_per_thread = power_of_two_at_least(ceil_div(vectors, threads), kMaxVectorsInWarp);
    plan.block = dim3(threads, kThreadsForShortRows / threads);
  } else {
    // A block for each row. Few rows leave multiprocessors idle, so they get all the threads that
    // there is work for; with many rows, two vectors a thread keep more loads in flight.
    int k = rows < 2 * multiprocessors ? 1 : 2;
    if (ceil_div(vectors, k) > kMaxThreads<kMaxVectorsInBlock>) k = kMaxVectorsInBlock;
    int64_t threads = ceil_div(vectors, k);
    if (threads > kMaxThreads<kMaxVectorsInBlock>) {
      threads = kMaxThreads<kMaxVectorsInBlock>;
      k = 0;
    }
    plan.vectors_per_thread = k;
    plan.block = dim3(static_cast<unsigned>(ceil_div(threads, kWarpSize) * kWarpSize));
  }
  return plan;
}

// As many blocks as run at once: each then walks down the rows, and reads the weight once.
template <typename Params>
fi_status launch_rows(Device& device, const char* op, void (*kernel)(Params), const RowPlan& plan,
                      const Params& p) {
  const int64_t resident =
      device.resident_blocks(kernel, static_cast<int>(plan.block.x * plan.block.y));
  const int64_t blocks = std::min(ceil_div(p.rows, plan.block.y), resident);
  return device.launch(op, kernel, dim3(static_cast<unsigned>(blocks)), plan.block, 0, p);
}

template <typename T, int N>
fi_status launch_rmsnorm(Device& device, const RmsnormParams<T>& p) {
  const RowPlan plan = plan_rows(p.rows, p.hidden, N, device.multiprocessors());
  const auto launch = [&](auto kernel) { return launch_rows(device, "rmsnorm", kernel, plan, p); };
  switch (plan.vectors_per_thread) {
    case 1:
      return launch(rmsnorm_kernel<T, N, 1>);
    case 2:
      return launch(rmsnorm_kernel<T, N, 2>);
    case 4:
      return launch(rmsnorm_kernel<T, N, 4>);
    default:
      return launch(rmsnorm_long_kernel<T, N>);
  }
}

template <typename T, int N>
fi_status launch_fused_add_rmsnorm(Device& device, const FusedAddRmsnormParams<T>& p) {
  const RowPlan plan = plan_rows(p.rows, p.hidden, N, device.multiprocessors());
  const auto launch = [&](auto kernel) {
    return launch_rows(device, "fused_add_rmsnorm", kernel, plan, p);
  };
  switch (plan.vectors_per_thread) {
    case 1:
      return launch(fused_add_rmsnorm_kernel<T, N, 1>);
    case 2:
      return launch(fused_add_rmsnorm_kernel<T, N, 2>);
    case 4:
      return launch(fused_add_rmsnorm_kernel<T, N, 4>);
    default:
      return launch(fused_add_rmsnorm_long_kernel<T, N>);
  }
}

}  // namespace

fi_status rmsnorm(const fi_exec& exec, const fi_rmsnorm_args& args) {
  if (args.rows <= 0 || args.hidden <= 0) return FI_OK;
  if (args.hidden > INT_MAX / 2) {
    return fail(FI_INVALID_ARGUMENT, "rmsnorm: hidden must be below 2^30, got %lld",
                static_cast<long long>(args.hidden));
  }
  return with_float_type("rmsnorm", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RmsnormParams<T> p{args.rows,
                             static_cast<int>(args.hidden),
                             static_cast<const T*>(args.input),
                             args.input_stride,
                             static_cast<T*>(args.out),
                             args.out_stride,
                             static_cast<const T*>(args.weight),
                             args.eps,
                             args.weight_bias};
    const bool vectors =
        pointers_aligned(16, {args.input, args.out, args.weight}) &&
        sizes_aligned(16, sizeof(T),
                      {args.hidden, stride_for_alignment(args.rows, args.input_stride),
                       stride_for_alignment(args.rows, args.out_stride)});
    Device device(exec);
    return vectors ? launch_rmsnorm<T, kVecSize<T>>(device, p) : launch_rmsnorm<T, 1>(device, p);
  });
}

fi_status fused_add_rmsnorm(const fi_exec& exec, const fi_fused_add_rmsnorm_args& args) {
  if (args.rows <= 0 || args.hidden <= 0) return FI_OK;
  if (args.hidden > INT_MAX / 2) {
    return fail(FI_INVALID_ARGUMENT, "fused_add_rmsnorm: hidden must be below 2^30, got %lld",
                static_cast<long long>(args.hidden));
  }
  return with_float_type("fused_add_rmsnorm", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const FusedAddRmsnormParams<T> p{args.rows,
                                     static_cast<int>(args.hidden),
                                     static_cast<T*>(args.input),
                                     args.input_stride,
                                     static_cast<T*>(args.residual),
                                     args.residual_stride,
                                     static_cast<const T*>(args.weight),
                                     args.eps,
                                     args.weight_bias};
    const bool vectors =
        pointers_aligned(16, {args.input, args.residual, args.weight}) &&
        sizes_aligned(16, sizeof(T),
                      {args.hidden, stride_for_alignment(args.rows, args.input_stride),
                       stride_for_alignment(args.rows, args.residual_stride)});
    Device device(exec);
    return vectors ? launch_fused_add_rmsnorm<T, kVecSize<T>>(device, p)
                   : launch_fused_add_rmsnorm<T, 1>(device, p);
  });
}

}  // namespace cuda
}  // namespace flashinfer
