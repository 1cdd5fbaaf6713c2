// Rotary position embedding of q and k in one pass.
//
// A block works on tiles of a few tokens, in three steps with a barrier between them: the positions
// of the tokens; the cosine and sine of every (token, pair), computed once however many heads share
// them; the rotation, in which a unit of work is 2 N elements of one head. There is no barrier
// after the rotation: the next tile's angles wait behind its first barrier, and its positions have
// a place of their own.
#ifndef FLASHINFER_ROPE_CUH_
#define FLASHINFER_ROPE_CUH_

#include <cstdint>

#include "flashinfer/arch/launch.cuh"
#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/numeric.cuh"
#include "flashinfer/search.cuh"

namespace flashinfer {

// Tokens in a tile, at most.
constexpr int kRopeMaxTokens = 8;
// Pairs whose frequencies fit in the kernel's parameters.
constexpr int kRopeMaxPairs = 256;

// Where a row lies in its sequence: from pos_ids of 64 or 32 bits, or from the segments.
struct RopePositions {
  const int64_t* pos_ids64;
  const int32_t* pos_ids32;
  const int32_t* indptr;  // batch_size + 1
  const int32_t* offsets;
  int batch_size;
};

// One of q and k.
template <typename T>
struct RopeHeads {
  const T* in;
  T* out;  // may be `in`
  int64_t in_stride_n, in_stride_h, out_stride_n, out_stride_h;
};

// Turns of a circle per position, as the sum of two floats: a position is an integer, so its angle
// is exact to the last bits of fp32 however long the sequence.
struct RopeFrequencies {
  float high[kRopeMaxPairs];
  float low[kRopeMaxPairs];
};

template <typename T>
struct RopeParams {
  int64_t nnz;
  int num_qo_heads, num_heads;  // num_heads: q and k together
  int pairs;                    // rotary_dim / 2
  int tail;                     // elements after rotary_dim, copied where out is not in
  int interleave;
  int tokens_per_tile;
  RopeHeads<T> q, k;
  RopePositions positions;
  const float* cos_sin_cache;  // or NULL: then `frequencies` holds
  int64_t cos_sin_stride, max_position;
  RopeFrequencies frequencies;
};

constexpr int64_t kRopeNoPosition = -1;

// The position of row n, or kRopeNoPosition if it is in no segment.
__device__ __forceinline__ int64_t rope_position(const RopePositions& p, int64_t n) {
  if (p.pos_ids64 != nullptr) return p.pos_ids64[n];
  if (p.pos_ids32 != nullptr) return p.pos_ids32[n];
  const int segment = last_at_most(p.indptr, p.batch_size, n);
  if (n < p.indptr[segment] || n >= p.indptr[segment + 1]) return kRopeNoPosition;
  return p.offsets[segment] + (n - p.indptr[segment]);
}

// The part of a turn that `position` turns by `high + low` make, in [-1/2, 1/2].
__device__ __forceinline__ float rope_turns(int64_t position, float high, float low) {
  const float coarse = static_cast<float>(position);
  const float rest = static_cast<float>(position - static_cast<int64_t>(coarse));
  const float product = multiply_rounded(coarse, high);
  const float error = fmaf(coarse, high, -product);
  return (product - rintf(product)) + fmaf(coarse, low, fmaf(rest, high, error));
}

template <typename T>
__device__ __forceinline__ void rope_angle(const RopeParams<T>& p, int64_t position, int pair,
                                           float* cosine, float* sine) {
  if (p.cos_sin_cache == nullptr) {
    sincos_turns(rope_turns(position, p.frequencies.high[pair], p.frequencies.low[pair]), sine,
                 cosine);
    return;
  }
  // A position outside of the cache is the caller's error; it must not become a wild read.
  const int64_t row = position < 0 ? 0 : position < p.max_position ? position : p.max_position - 1;
  const float* cache = p.cos_sin_cache + row * p.cos_sin_stride;
  *cosine = cache[pair];
  *sine = cache[p.pairs + pair];
}

// N floats from shared memory, four at a time where they are aligned for it.
template <int N>
__device__ __forceinline__ void read_floats(const float* shared, float (&out)[N]) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(shared + i);
      out[i] = four.x;
      out[i + 1] = four.y;
      out[i + 2] = four.z;
      out[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = shared[i];
  }
}

// Rotates N pairs, whose elements lie at `first` and `second` as two vectors: all first elements
// and all second ones, or, interleaved, the first N/2 pairs and the last N/2.
template <typename T, int N>
__device__ __forceinline__ void rotate(const T* in, T* out, int first, int second, bool interleave,
                                       const float* cosines, const float* sines) {
  using Vector = Vec<T, N>;
  float x[N], y[N], cosine[N], sine[N];
  load_once(reinterpret_cast<const Vector*>(in + first)).widen(x);
  load_once(reinterpret_cast<const Vector*>(in + second)).widen(y);
  read_floats(cosines, cosine);
  read_floats(sines, sine);
  if (N > 1 && interleave) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cosine[i] - b * sine[i];
      x[2 * i + 1] = b * cosine[i] + a * sine[i];
      const float c = y[2 * i], d = y[2 * i + 1];
      y[2 * i] = c * cosine[N / 2 + i] - d * sine[N / 2 + i];
      y[2 * i + 1] = d * cosine[N / 2 + i] + c * sine[N / 2 + i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float a = x[i], b = y[i];
      x[i] = a * cosine[i] - b * sine[i];
      y[i] = b * cosine[i] + a * sine[i];
    }
  }
  store(reinterpret_cast<Vector*>(out + first), Vector::narrow(x));
  store(reinterpret_cast<Vector*>(out + second), Vector::narrow(y));
}

template <typename T, int N>
__global__ void __launch_bounds__(256) rope_kernel(const RopeParams<T> p) {
  __shared__ int64_t tile_positions[2][kRopeMaxTokens];
  float* cosines = dynamic_shared<float>();  // [tokens_per_tile, pairs]
  float* sines = cosines + p.tokens_per_tile * p.pairs;
  const int rotation_units = p.pairs / N;
  const int head_units = rotation_units + p.tail / N;

  const int64_t tiles = (p.nnz + p.tokens_per_tile - 1) / p.tokens_per_tile;
  int parity = 0;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x, parity ^= 1) {
    int64_t* positions = tile_positions[parity];
    const int64_t first_token = tile * p.tokens_per_tile;
    const int64_t left = p.nnz - first_token;
    const int tokens = left < p.tokens_per_tile ? static_cast<int>(left) : p.tokens_per_tile;

    for (int t = threadIdx.x; t < tokens; t += blockDim.x) {
      positions[t] = rope_position(p.positions, first_token + t);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < tokens * p.pairs; i += blockDim.x) {
      rope_angle(p, positions[i / p.pairs], i % p.pairs, &cosines[i], &sines[i]);
    }
    __syncthreads();
    for (int unit = threadIdx.x; unit < tokens * p.num_heads * head_units; unit += blockDim.x) {
      const int part = unit % head_units;
      const int head_in_tile = unit / head_units;
      const int t = head_in_tile / p.num_heads;
      const int head = head_in_tile % p.num_heads;
      if (p.positions.indptr != nullptr && positions[t] == kRopeNoPosition) continue;

      const bool is_q = head < p.num_qo_heads;
      const RopeHeads<T>& heads = is_q ? p.q : p.k;
      const int64_t n = first_token + t, h = is_q ? head : head - p.num_qo_heads;
      const T* in = heads.in + n * heads.in_stride_n + h * heads.in_stride_h;
      T* out = heads.out + n * heads.out_stride_n + h * heads.out_stride_h;
      if (part < rotation_units) {
        const int pair = part * N;
        const int first = p.interleave ? 2 * pair : pair;
        const int second = p.interleave ? first + N : pair + p.pairs;
        rotate<T, N>(in, out, first, second, p.interleave, &cosines[t * p.pairs + pair],
                     &sines[t * p.pairs + pair]);
      } else if (in != out) {
        const int column = 2 * p.pairs + (part - rotation_units) * N;
        store_columns(out, column, load_once(reinterpret_cast<const Vec<T, N>*>(in + column)));
      }
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_ROPE_CUH_
