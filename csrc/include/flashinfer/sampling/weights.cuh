// Entries of a row as keys, which are compared, and as weights, which are added up.
//
// A key is 32 bits that order as the entries do. A weight is an integer (see fi_sample in api.h):
// its sums are exact, so threads may add in any order, and a running sum never goes down.
#ifndef FLASHINFER_SAMPLING_WEIGHTS_CUH_
#define FLASHINFER_SAMPLING_WEIGHTS_CUH_

#include <cfloat>
#include <cstdint>

#include "flashinfer/arch/integer.cuh"
#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"

namespace flashinfer {

constexpr int kExponent = 42;  // of the weights of a row that sums to about 1
constexpr uint64_t kLeastTotal = uint64_t{1} << 41, kMostTotal = uint64_t{3} << 41;
constexpr uint64_t kLeastResidual = uint64_t{1} << 31;  // a row that is only drawn from
constexpr float kLargestWeight = 8796093022208.0f;      // 2^43

// A sum of weights is kept in two words of shared memory, to be added to without a carry. Up to
// 2^20 weights below 2^43 in all: the low word gets less than 2^31, the high one less than 2^32.
constexpr int kLowBits = 11;
constexpr uint32_t kLowMask = (1u << kLowBits) - 1;

__device__ __forceinline__ uint64_t joined(uint32_t high, uint32_t low) {
  return (static_cast<uint64_t>(high) << kLowBits) + low;
}

// ---------------------------------------------------------------- keys

// Probabilities: the bits without the sign. No positive one has a key below kLeastKey.
constexpr uint32_t kLeastKey = 2;

__device__ __forceinline__ uint32_t probability_key(float p) {
  // fmaxf drops a NaN.
  return bits_as<uint32_t>(fminf(fmaxf(p, 0.0f), FLT_MAX)) << 1;
}
__device__ __forceinline__ float probability_of(uint32_t key) { return bits_as<float>(key >> 1); }

// Logits: negative numbers in reverse below the positive ones; NaN lowest, -inf next.
constexpr uint32_t kKeyOfMinusInfinity = 0x007fffffu;

__device__ __forceinline__ uint32_t logit_key(float x) {
  const uint32_t bits = bits_as<uint32_t>(x + 0.0f);  // -0 is 0
  const uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return x == x ? key : 0;
}

// ---------------------------------------------------------------- weights

// Multiplication by 2^exponent, which may be too much for one float.
struct Scale {
  float first, second;

  __device__ __forceinline__ explicit Scale(int exponent) {
    const int part = exponent > 127 ? 127 : exponent;
    first = bits_as<float>(static_cast<uint32_t>(part + 127) << 23);
    second = bits_as<float>(static_cast<uint32_t>(exponent - part + 127) << 23);
  }
  __device__ __forceinline__ float operator()(float p) const {
    return fminf(p * first * second, kLargestWeight);
  }
  __device__ __forceinline__ double one() const {
    return static_cast<double>(first) * static_cast<double>(second);
  }
};

__device__ __forceinline__ uint64_t weight_of(uint32_t key, const Scale& scale) {
  return round_to_integer(scale(probability_of(key)));
}

// The exponent to try after `exponent` gave a sum that is out of range; `most` is the largest key.
__device__ __forceinline__ int next_exponent(int attempt, int exponent, uint64_t total,
                                             uint32_t most) {
  if (attempt > 0) return exponent + 41 - floor_log2(total);
  const uint32_t bits = most >> 1;
  const int log2_most = bits >> 23 ? static_cast<int>(bits >> 23) - 127 : floor_log2(bits) - 149;
  return 22 - log2_most;
}

// floor(uniform * total) within [0, total), for a total that is not 0.
__device__ __forceinline__ uint64_t draw_target(float uniform, uint64_t total) {
  const double u = fminf(fmaxf(uniform, 0.0f), 1.0f);
  const uint64_t target = static_cast<uint64_t>(u * static_cast<double>(total));
  return target < total ? target : total - 1;
}

// What the entries above another one may weigh at most, less one, for it to be kept; `one` is what
// a probability of 1 weighs. Not more than kUnreachable, which no row's sum is.
constexpr uint64_t kUnreachable = 1ull << 63;
__device__ __forceinline__ uint64_t top_p_limit(float top_p, double one) {
  const double limit = ceil(static_cast<double>(fmaxf(top_p, 0.0f)) * one);
  if (limit < 1.0) return 1;
  return limit < static_cast<double>(kUnreachable) ? static_cast<uint64_t>(limit) : kUnreachable;
}

// ---------------------------------------------------------------- rows

// A lane reads kVectors vectors of N entries at a time; a step is what a warp reads so.
constexpr int kVectors = 4;
template <int N>
constexpr int kStep = 32 * kVectors * N;

// How a row is cut: tiles of `tile` entries, a multiple of the step, at most kMaxTiles.
constexpr int kMaxTiles = 1024;
struct Tiling {
  int vocab, tile, tiles;
};

template <int N>
__device__ __forceinline__ int lane_column(int begin, int vector) {
  return begin + (vector * 32 + static_cast<int>(threadIdx.x) % 32) * N;
}

// Each row type gives the keys of one step. Past the end they are 0, less than that of any entry.
// What a selection takes has also the least key that it looks at, and whether keys have weights.
template <int N, bool kLogits>
struct PlainRow {
  static constexpr int kSize = N;
  static constexpr bool kWeighted = !kLogits;
  static constexpr uint32_t kLeast = kLogits ? kKeyOfMinusInfinity + 1 : kLeastKey;
  const float* data;
  int vocab;

  __device__ __forceinline__ void keys(int begin, uint32_t (&out)[kVectors][N]) const {
    Vec<float, N> vectors[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      vectors[v] = load_columns<float, N>(data, lane_column<N>(begin, v), vocab);
    }
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      float x[N];
      vectors[v].widen(x);
      const bool inside = lane_column<N>(begin, v) < vocab;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        out[v][i] = !inside ? 0 : kLogits ? logit_key(x[i]) : probability_key(x[i]);
      }
    }
  }
};

// All entries as they are ordered, NaN highest.
template <typename T, int N>
struct OrderedRow {
  static constexpr int kSize = N;
  static constexpr bool kWeighted = false;
  static constexpr uint32_t kLeast = 1;  // NaN apart, logits have no key of 0
  const T* data;
  int columns;

  __device__ __forceinline__ void keys(int begin, uint32_t (&out)[kVectors][N]) const {
    Vec<T, N> vectors[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      vectors[v] = load_columns<T, N>(data, lane_column<N>(begin, v), columns);
    }
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      float x[N];
      vectors[v].widen(x);
      const bool inside = lane_column<N>(begin, v) < columns;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        out[v][i] = !inside ? 0 : x[i] == x[i] ? logit_key(x[i]) : 0xffffffffu;
      }
    }
  }
};

// max(target - draft, 0), or the target where the draft has no entries
template <int N>
struct ResidualRow {
  static constexpr int kSize = N;
  const float* target;
  const float* draft;
  int vocab, draft_vocab;

  __device__ __forceinline__ void keys(int begin, uint32_t (&out)[kVectors][N]) const {
    Vec<float, N> q[kVectors], p[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      q[v] = load_columns<float, N>(target, lane_column<N>(begin, v), vocab);
      p[v] = load_columns<float, N>(draft, lane_column<N>(begin, v), draft_vocab);
    }
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      float x[N], y[N];
      q[v].widen(x);
      p[v].widen(y);
#pragma unroll
      for (int i = 0; i < N; ++i) out[v][i] = probability_key(x[i] - y[i]);
    }
  }
};

}  // namespace flashinfer

#endif  // FLASHINFER_SAMPLING_WEIGHTS_CUH_
