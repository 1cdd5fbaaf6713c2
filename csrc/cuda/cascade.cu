// Launchers of the state merges.
#include <climits>

#include "flashinfer/cascade.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kThreads = 256;
// States a thread goes through before more threads for the row are worth their merge.
constexpr int kStatesPerSplit = 4;

fi_status check_sizes(const char* op, int64_t num_states, int64_t num_heads, int64_t head_dim) {
  for (const int64_t size : {num_states, num_heads, head_dim}) {
    if (size > INT_MAX / 2) {
      return fail(FI_INVALID_ARGUMENT,
                  "%s: num_states, num_heads and head_dim must be below 2^30, got %lld", op,
                  static_cast<long long>(size));
    }
  }
  return FI_OK;
}

template <typename T, int N>
fi_status launch_merge_state(Device& device, const MergeStateParams<T>& p) {
  const int lanes = power_of_two_at_least(ceil_div(p.head_dim, N), kWarpSize);
  const dim3 block(lanes, kThreads / lanes);
  const int64_t resident = device.resident_blocks(merge_state_kernel<T, N>, kThreads);
  const dim3 grid(static_cast<unsigned>(std::min(ceil_div(p.rows, block.y), resident)));
  return device.launch("merge_state", merge_state_kernel<T, N>, grid, block, 0, p);
}

template <typename T, int N>
fi_status launch_merge_states(Device& device, const MergeStatesParams<T>& p) {
  const int lanes = power_of_two_at_least(ceil_div(p.head_dim, N), kWarpSize);
  const int64_t parts = ceil_div(p.head_dim, lanes * N);
  if (parts > kMaxGridY) {
    return fail(FI_UNSUPPORTED, "merge_states: head_dim %d is too large", p.head_dim);
  }
  // Splits shorten the walk along many states; they are only for rows too few to fill the device.
  const int64_t threads_per_split = p.rows * lanes * parts;
  const int64_t splits_wanted = std::min(ceil_div(p.num_states, kStatesPerSplit),
                                         ceil_div(device.resident_threads(), threads_per_split));
  const int splits =
      power_of_two_at_least(splits_wanted, std::min(kMaxBlockZ, kMergeThreads / lanes));
  const dim3 block(lanes, kMergeThreads / lanes / splits, splits);
  const int64_t resident = std::max<int64_t>(
      1, ceil_div(device.resident_blocks(merge_states_kernel<T, N>, kMergeThreads), parts));
  const dim3 grid(static_cast<unsigned>(std::min(ceil_div(p.rows, block.y), resident)),
                  static_cast<unsigned>(parts));
  return device.launch("merge_states", merge_states_kernel<T, N>, grid, block, 0, p);
}

}  // namespace

fi_status merge_state(const fi_exec& exec, const fi_merge_state_args& args) {
  if (args.seq_len <= 0 || args.num_heads <= 0) return FI_OK;
  const fi_status status = check_sizes("merge_state", 0, args.num_heads, args.head_dim);
  if (status != FI_OK) return status;
  return with_float_type("merge_state", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const MergeStateParams<T> p{args.seq_len * args.num_heads,
                                static_cast<int>(args.num_heads),
                                static_cast<int>(args.head_dim),
                                static_cast<const T*>(args.v_a),
                                args.s_a,
                                static_cast<const T*>(args.v_b),
                                args.s_b,
                                static_cast<T*>(args.v_out),
                                args.s_out,
                                args.mask};
    Device device(exec);
    return pointers_aligned(16, {args.v_a, args.v_b, args.v_out}) &&
                   sizes_aligned(16, sizeof(T), {args.head_dim})
               ? launch_merge_state<T, kVecSize<T>>(device, p)
               : launch_merge_state<T, 1>(device, p);
  });
}

fi_status merge_states(const fi_exec& exec, const fi_merge_states_args& args) {
  if (args.seq_len <= 0 || args.num_heads <= 0 || args.head_dim <= 0) return FI_OK;
  const fi_status status =
      check_sizes("merge_states", args.num_states, args.num_heads, args.head_dim);
  if (status != FI_OK) return status;
  return with_float_type("merge_states", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const MergeStatesParams<T> p{
        args.seq_len * args.num_heads,    static_cast<int>(args.num_states),
        static_cast<int>(args.num_heads), static_cast<int>(args.head_dim),
        static_cast<const T*>(args.v),    args.s,
        static_cast<T*>(args.v_out),      args.s_out};
    Device device(exec);
    return pointers_aligned(16, {args.v, args.v_out}) &&
                   sizes_aligned(16, sizeof(T), {args.head_dim})
               ? launch_merge_states<T, kVecSize<T>>(device, p)
               : launch_merge_states<T, 1>(device, p);
  });
}

}  // namespace cuda
}  // namespace flashinfer
