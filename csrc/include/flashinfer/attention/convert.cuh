// Passes over tiles in shared memory before the tensor cores see them: fp8 to T, and RoPE.
#ifndef FLASHINFER_ATTENTION_CONVERT_CUH_
#define FLASHINFER_ATTENTION_CONVERT_CUH_

#include <cstdint>

#include "flashinfer/attention/traits.cuh"
#include "flashinfer/rope.cuh"

namespace flashinfer {

// Elements [8 c, 8 c + 8) of a row of a tile that is still stored as it came.
template <class Traits>
__device__ __forceinline__ Vec<typename Traits::T, 8> read_stored(const char* tile, int row, int c,
                                                                  bool e5m2) {
  using T = typename Traits::T;
  if constexpr (Traits::kFp8) {
    const auto* address = reinterpret_cast<const uint2*>(tile + row * Traits::kHeadDim + c * 8);
    const uint2 bytes = load_shared(address);
    const uint2 low = widen_fp8(bytes.x, e5m2), high = widen_fp8(bytes.y, e5m2);
    return {{from_half_pair<T>(low.x), from_half_pair<T>(low.y), from_half_pair<T>(high.x),
             from_half_pair<T>(high.y)}};
  } else {
    const char* address = tile + swizzled<Traits::kChunks>(row, c);
    return load_shared(reinterpret_cast<const Vec<T, 8>*>(address));
  }
}

template <class Traits>
__device__ __forceinline__ void write_converted(char* tile, int row, int c,
                                                const Vec<typename Traits::T, 8>& value) {
  char* address = tile + swizzled<Traits::kChunks>(row, c);
  store(reinterpret_cast<Vec<typename Traits::T, 8>*>(address), value);
}

template <class Traits>
__device__ __forceinline__ void convert_tile(const char* from, char* to, bool e5m2) {
#pragma unroll 2
  for (int i = threadIdx.x; i < Traits::kKeys * Traits::kChunks; i += Traits::kThreads) {
    const int row = i / Traits::kChunks, c = i % Traits::kChunks;
    write_converted<Traits>(to, row, c, read_stored<Traits>(from, row, c, e5m2));
  }
}

// The frequencies, into shared memory: threads want different ones at the same time.
template <class Traits>
__device__ __forceinline__ void copy_frequencies(const GeneralAttentionParams& p, float* table) {
  constexpr int kPairs = Traits::kHeadDim / 2;
  for (int i = threadIdx.x; i < kPairs; i += Traits::kThreads) {
    table[i] = p.rope_high[i];
    table[kPairs + i] = p.rope_low[i];
  }
}

// Turns the pairs (i, i + kHeadDim / 2) of `rows` rows, from one tile to another or in place. A
// thread has the same eight pairs in each of its rows. `read` gets eight elements as floats, and
// `position` is that of a row.
template <class Traits, typename Read, typename Position>
__device__ __forceinline__ void rotate_tile(const float* table, char* to, int rows,
                                            const Read& read, const Position& position) {
  using Vector = Vec<typename Traits::T, 8>;
  constexpr int kPairs = Traits::kHeadDim / 2, kUnits = kPairs / 8;
  static_assert(Traits::kThreads % kUnits == 0, "a thread keeps its pairs");
  const int c = threadIdx.x % kUnits;
  float high[8], low[8];
  read_floats(table + c * 8, high);
  read_floats(table + kPairs + c * 8, low);
#pragma unroll 1
  for (int row = threadIdx.x / kUnits; row < rows; row += Traits::kThreads / kUnits) {
    const int64_t at = position(row);
    float x[8], y[8];
    read(row, c).widen(x);
    read(row, c + kUnits).widen(y);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float sine, cosine;
      sincos_turns(rope_turns(at, high[i], low[i]), &sine, &cosine);
      const float a = x[i], b = y[i];
      x[i] = a * cosine - b * sine;
      y[i] = b * cosine + a * sine;
    }
    write_converted<Traits>(to, row, c, Vector::narrow(x));
    write_converted<Traits>(to, row, c + kUnits, Vector::narrow(y));
  }
}

template <class Traits>
__device__ __forceinline__ void rotate_q(const float* table, const Rows& rows, char* q) {
  rotate_tile<Traits>(
      table, q, rows.count,
      [&](int row, int c) {
        const char* address = q + swizzled<Traits::kChunks>(row, c);
        return load_shared(reinterpret_cast<const Vec<typename Traits::T, 8>*>(address));
      },
      [&](int row) { return rows.position(rows.token(row)); });
}

// Key `first_key` is row 0 of the tile.
template <class Traits>
__device__ __forceinline__ void rotate_k(const float* table, int first_key, const char* from,
                                         char* to, bool e5m2) {
  rotate_tile<Traits>(
      table, to, Traits::kKeys,
      [&](int row, int c) { return read_stored<Traits>(from, row, c, e5m2); },
      [&](int row) { return first_key + row; });
}

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_CONVERT_CUH_
