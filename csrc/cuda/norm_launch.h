// How the norms are launched: the cut of the rows, and the kernel for it.
#ifndef FLASHINFER_CUDA_NORM_LAUNCH_H_
#define FLASHINFER_CUDA_NORM_LAUNCH_H_

#include <climits>
#include <type_traits>

#include "flashinfer/arch/reduce.cuh"
#include "flashinfer/norm/rows.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {

constexpr int kThreadsForShortRows = 256;
constexpr int kMaxVectorsInWarp = 4;   // per thread, where a warp has the row
constexpr int kMaxVectorsInBlock = 2;  // per thread, where a block has it

// How the rows are cut: vectors_per_thread is K of the kernel, 0 where the row is too long for it.
struct RowPlan {
  int vectors_per_thread;
  dim3 block;
};

inline RowPlan plan_rows(int64_t rows, int64_t hidden, int vector_size, int multiprocessors) {
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

// Launches the kernel that kernel_of(K) is, of vectors of N elements. As many blocks as run at
// once: each then walks down the rows, and reads the weight once.
template <int N, typename Params, typename KernelOf>
fi_status launch_rows(Device& device, const char* op, const Params& p, const KernelOf& kernel_of) {
  const RowPlan plan = plan_rows(p.rows, p.hidden, N, device.multiprocessors());
  const auto launch = [&](void (*kernel)(Params)) {
    const int64_t resident =
        device.resident_blocks(kernel, static_cast<int>(plan.block.x * plan.block.y));
    const int64_t blocks = std::min(ceil_div(p.rows, plan.block.y), resident);
    return device.launch(op, kernel, dim3(static_cast<unsigned>(blocks)), plan.block, 0, p);
  };
  switch (plan.vectors_per_thread) {
    case 1:
      return launch(kernel_of(std::integral_constant<int, 1>()));
    case 2:
      return launch(kernel_of(std::integral_constant<int, 2>()));
    case 4:
      return launch(kernel_of(std::integral_constant<int, 4>()));
    default:
      return launch(kernel_of(std::integral_constant<int, 0>()));
  }
}

// The same by vectors of 16 bytes where every pointer, stride and size allows them, or one by one:
// kernel_of(N, K) is the kernel.
template <typename T, typename Params, typename KernelOf>
fi_status launch_norm(const fi_exec& exec, const char* op, const Params& p, bool vectors,
                      const KernelOf& kernel_of) {
  Device device(exec);
  const auto run = [&](auto n) {
    return launch_rows<decltype(n)::value>(device, op, p, [&](auto k) { return kernel_of(n, k); });
  };
  return vectors ? run(std::integral_constant<int, kVecSize<T>>())
                 : run(std::integral_constant<int, 1>());
}

inline fi_status check_hidden(const char* op, int64_t hidden) {
  if (hidden <= INT_MAX / 2) return FI_OK;
  return fail(FI_INVALID_ARGUMENT, "%s: hidden must be below 2^30, got %lld", op,
              static_cast<long long>(hidden));
}

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_NORM_LAUNCH_H_
