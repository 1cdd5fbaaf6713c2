#include <cmath>
#include <memory>
#include <new>

#include "cpu/check.h"
#include "cpu/parallel.h"
#include "cpu/rope_turns.h"

namespace flashinfer {
namespace cpu {

// theta^(-2i/rotary_dim) is built by doubling: the factor of 2^j more pairs, times what is there.
// One power is taken, the other factors are its squares, in long double for the bits that squaring
// loses. And powl, unlike pow (new symbol version in glibc 2.29), keeps the library loadable
// wherever torch is.
void fill_turns(const fi_rope_args& args, double* turns) {
  constexpr double kTwoPi = 6.283185307179586477;
  const int64_t half = args.rotary_dim / 2;
  long double factor = std::pow(static_cast<long double>(args.rope_theta),
                                -2.0L / static_cast<long double>(args.rotary_dim));
  turns[0] = 1.0;
  for (int64_t known = 1; known < half; known *= 2, factor *= factor) {
    const double by = static_cast<double>(factor);
    for (int64_t i = 0; i < known && known + i < half; ++i) turns[known + i] = turns[i] * by;
  }
  const double scale = args.rope_scale;
  for (int64_t i = 0; i < half; ++i) {
    double f = turns[i] / scale;
    if (args.llama31 != 0) {
      double smooth = turns[i] * args.smooth_a + args.smooth_b;
      smooth = smooth < 0.0 ? 0.0 : smooth > 1.0 ? 1.0 : smooth;
      f = (1.0 - smooth) * f + smooth * turns[i];
    }
    turns[i] = f / kTwoPi;
  }
}

namespace {

// The cache must have a row for every position.
fi_status check_cached_positions(const fi_rope_args& args) {
  const auto outside = [&](const char* where, int64_t index, int64_t position) {
    return fail(FI_INVALID_ARGUMENT,
                "rope: %s[%lld] needs position %lld, but cos_sin_cache has positions 0 to %lld",
                where, static_cast<long long>(index), static_cast<long long>(position),
                static_cast<long long>(args.max_position - 1));
  };
  if (args.pos_ids != nullptr) {
    for (int64_t n = 0; n < args.nnz; ++n) {
      const int64_t position = args.pos_ids_bits == 64
                                   ? static_cast<const int64_t*>(args.pos_ids)[n]
                                   : static_cast<const int32_t*>(args.pos_ids)[n];
      if (position < 0 || position >= args.max_position) return outside("pos_ids", n, position);
    }
    return FI_OK;
  }
  for (int64_t b = 0; b < args.batch_size; ++b) {
    const int64_t rows = args.indptr[b + 1] - args.indptr[b];
    if (rows <= 0) continue;
    const int64_t last = args.offsets[b] + rows - 1;
    if (args.offsets[b] < 0) return outside("offsets", b, args.offsets[b]);
    if (last >= args.max_position) return outside("offsets", b, last);
  }
  return FI_OK;
}

fi_status check(const fi_rope_args& args) {
  if (args.rotary_dim < 0 || args.rotary_dim % 2 != 0 || args.rotary_dim > args.head_dim) {
    return fail(FI_INVALID_ARGUMENT, "rope: rotary_dim is %lld, expected an even number up to %lld",
                static_cast<long long>(args.rotary_dim), static_cast<long long>(args.head_dim));
  }
  if (args.pos_ids != nullptr) {
    if (args.pos_ids_bits != 32 && args.pos_ids_bits != 64) {
      return fail(FI_INVALID_ARGUMENT, "rope: pos_ids_bits is %d, expected 32 or 64",
                  static_cast<int>(args.pos_ids_bits));
    }
  } else if (args.indptr == nullptr || args.offsets == nullptr) {
    return fail(FI_INVALID_ARGUMENT, "rope: neither pos_ids nor indptr and offsets are given");
  } else if (const fi_status status =
                 check_indptr("rope", "indptr", args.indptr, args.batch_size, args.nnz)) {
    return status;
  }
  return args.cos_sin_cache != nullptr ? check_cached_positions(args) : FI_OK;
}

}  // namespace

fi_status rope(const fi_exec& exec, const fi_rope_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("rope", args.dtype, &table)) return status;
  if (args.nnz <= 0) return FI_OK;
  if (const fi_status status = check(args)) return status;

  constexpr int64_t kOnStack = 256;
  double on_stack[kOnStack];
  std::unique_ptr<double[]> on_heap;
  RopeJob job{&args, nullptr};
  if (args.cos_sin_cache == nullptr && args.rotary_dim > 0) {
    const int64_t half = args.rotary_dim / 2;
    double* turns = on_stack;
    if (half > kOnStack) {
      on_heap.reset(new (std::nothrow) double[static_cast<size_t>(half)]);
      turns = on_heap.get();
      if (turns == nullptr) {
        return fail(FI_INVALID_ARGUMENT, "rope: no memory for the frequencies of rotary_dim %lld",
                    static_cast<long long>(args.rotary_dim));
      }
    }
    fill_turns(args, turns);
    job.turns = turns;
  }
  const int64_t elements = 2 * (args.num_qo_heads + args.num_kv_heads) * args.head_dim;
  for_ranges(exec, args.nnz, elements, table->rope[args.dtype][args.interleave != 0 ? 1 : 0], job);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
