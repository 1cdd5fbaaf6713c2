// Launcher of the rotary embedding.
#include <climits>
#include <cmath>
#include <cstring>

#include "flashinfer/rope.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kThreads = 256;
// Units of work that keep a thread busy between two barriers.
constexpr int kUnitsPerThread = 4;

// The frequencies are the same for every layer and step of a model: the last ones are kept.
const RopeFrequencies& frequencies(const fi_rope_args& args) {
  struct Key {
    int64_t rotary_dim;
    int32_t llama31;
    float scale, theta, smooth_a, smooth_b;
    bool operator==(const Key& other) const {
      return rotary_dim == other.rotary_dim && llama31 == other.llama31 && scale == other.scale &&
             theta == other.theta && smooth_a == other.smooth_a && smooth_b == other.smooth_b;
    }
  };
  thread_local Key known{-1, 0, 0.0f, 0.0f, 0.0f, 0.0f};
  thread_local RopeFrequencies table;
  const Key key{args.rotary_dim, args.llama31,  args.rope_scale,
                args.rope_theta, args.smooth_a, args.smooth_b};
  if (key == known) return table;
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  std::memset(&table, 0, sizeof(table));
  for (int64_t i = 0; i < args.rotary_dim / 2; ++i) {
    const double base = std::pow(static_cast<double>(args.rope_theta),
                                 -2.0 * static_cast<double>(i) / args.rotary_dim);
    double frequency = base / args.rope_scale;
    if (args.llama31) {
      const double smooth = std::min(1.0, std::max(0.0, base * args.smooth_a + args.smooth_b));
      frequency = (1.0 - smooth) * frequency + smooth * base;
    }
    const double turns = frequency / kTwoPi;
    table.high[i] = static_cast<float>(turns);
    table.low[i] = static_cast<float>(turns - table.high[i]);
  }
  known = key;
  return table;
}

template <typename T, int N>
fi_status launch_rope(Device& device, RopeParams<T> p) {
  const int64_t units = int64_t{p.num_heads} * (p.pairs / N + p.tail / N);
  // As many tokens as give every thread a few units, but not so few tiles that multiprocessors
  // idle.
  const int64_t wanted = ceil_div(kThreads * kUnitsPerThread, std::max<int64_t>(1, units));
  const int64_t affordable = p.nnz / (2 * device.multiprocessors());
  p.tokens_per_tile = static_cast<int>(
      std::max<int64_t>(1, std::min({wanted, affordable, int64_t{kRopeMaxTokens}})));
  const size_t shared_bytes = sizeof(float) * 2 * p.tokens_per_tile * p.pairs;
  const int64_t resident = device.resident_blocks(rope_kernel<T, N>, kThreads, shared_bytes);
  const dim3 grid(static_cast<unsigned>(std::min(ceil_div(p.nnz, p.tokens_per_tile), resident)));
  return device.launch("rope", rope_kernel<T, N>, grid, dim3(kThreads), shared_bytes, p);
}

fi_status check(const fi_rope_args& args) {
  if (args.rotary_dim < 0 || args.rotary_dim % 2 != 0 || args.rotary_dim > args.head_dim) {
    return fail(FI_INVALID_ARGUMENT,
                "rope: rotary_dim must be even and at most head_dim (%lld), got %lld",
                static_cast<long long>(args.head_dim), static_cast<long long>(args.rotary_dim));
  }
  if (args.rotary_dim > 2 * kRopeMaxPairs) {
    return fail(FI_UNSUPPORTED, "rope: rotary_dim is at most %d on CUDA, got %lld",
                2 * kRopeMaxPairs, static_cast<long long>(args.rotary_dim));
  }
  if ((args.num_qo_heads + args.num_kv_heads) * args.head_dim > INT_MAX / kRopeMaxTokens) {
    return fail(FI_UNSUPPORTED, "rope: a token's heads have more than 2^28 elements");
  }
  if (args.pos_ids == nullptr && (args.indptr == nullptr || args.offsets == nullptr)) {
    return fail(FI_INVALID_ARGUMENT, "rope: needs pos_ids, or indptr and offsets");
  }
  if (args.pos_ids != nullptr && args.pos_ids_bits != 32 && args.pos_ids_bits != 64) {
    return fail(FI_INVALID_ARGUMENT, "rope: pos_ids_bits must be 32 or 64, got %d",
                static_cast<int>(args.pos_ids_bits));
  }
  if (args.cos_sin_cache != nullptr && args.max_position <= 0) {
    return fail(FI_INVALID_ARGUMENT, "rope: the cos_sin_cache has no rows");
  }
  return FI_OK;
}

}  // namespace

fi_status rope(const fi_exec& exec, const fi_rope_args& args) {
  const int64_t num_heads = args.num_qo_heads + args.num_kv_heads;
  if (args.nnz <= 0 || num_heads <= 0 || args.head_dim <= 0) return FI_OK;
  const fi_status status = check(args);
  if (status != FI_OK) return status;
  if (args.pos_ids == nullptr && args.batch_size <= 0) return FI_OK;
  return with_float_type("rope", args.dtype, [&](auto zero) {
    using T = decltype(zero);
    RopeParams<T> p{};
    p.nnz = args.nnz;
    p.num_qo_heads = static_cast<int>(args.num_qo_heads);
    p.num_heads = static_cast<int>(num_heads);
    p.pairs = static_cast<int>(args.rotary_dim / 2);
    const bool in_place = args.q == args.q_out && args.k == args.k_out;
    p.tail = in_place ? 0 : static_cast<int>(args.head_dim - args.rotary_dim);
    p.interleave = args.interleave;
    p.q = {static_cast<const T*>(args.q),
           static_cast<T*>(args.q_out),
           args.q_stride_n,
           args.q_stride_h,
           args.q_out_stride_n,
           args.q_out_stride_h};
    p.k = {static_cast<const T*>(args.k),
           static_cast<T*>(args.k_out),
           args.k_stride_n,
           args.k_stride_h,
           args.k_out_stride_n,
           args.k_out_stride_h};
    if (args.pos_ids == nullptr) {
      p.positions.indptr = args.indptr;
      p.positions.offsets = args.offsets;
      p.positions.batch_size = static_cast<int>(args.batch_size);
    } else if (args.pos_ids_bits == 64) {
      p.positions.pos_ids64 = static_cast<const int64_t*>(args.pos_ids);
    } else {
      p.positions.pos_ids32 = static_cast<const int32_t*>(args.pos_ids);
    }
    p.cos_sin_cache = args.cos_sin_cache;
    p.cos_sin_stride = args.cos_sin_stride;
    p.max_position = args.max_position;
    if (args.cos_sin_cache == nullptr) p.frequencies = frequencies(args);

    // A unit takes N pairs; its two vectors start at multiples of N in the head.
    const bool vectors = p.pairs % kVecSize<T> == 0 && p.tail % kVecSize<T> == 0 &&
                         pointers_aligned(16, {args.q, args.k, args.q_out, args.k_out}) &&
                         sizes_aligned(16, sizeof(T),
                                       {args.q_stride_n, args.q_stride_h, args.k_stride_n,
                                        args.k_stride_h, args.q_out_stride_n, args.q_out_stride_h,
                                        args.k_out_stride_n, args.k_out_stride_h});
    Device device(exec);
    return vectors ? launch_rope<T, kVecSize<T>>(device, p) : launch_rope<T, 1>(device, p);
  });
}

}  // namespace cuda
}  // namespace flashinfer
