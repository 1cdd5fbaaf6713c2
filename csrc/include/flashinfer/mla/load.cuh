// Bringing Q, and tile after tile of the cache, into shared memory, and RoPE there.
#ifndef FLASHINFER_MLA_LOAD_CUH_
#define FLASHINFER_MLA_LOAD_CUH_

#include <cstdint>

#include "flashinfer/arch/async_copy.cuh"
#include "flashinfer/mla/traits.cuh"
#include "flashinfer/rope.cuh"

namespace flashinfer {

// q_nope and q_pe of the block's rows, laid out as a tile; rows past `rows.count` become zeros.
template <class Traits>
__device__ __forceinline__ void load_latent_q(const MlaParams& p, const Rows& rows, char* q) {
  using T = typename Traits::T;
  const T* const nope = static_cast<const T*>(p.q);
  const T* const pe = static_cast<const T*>(p.q_pe);
#pragma unroll 2
  for (int i = threadIdx.x; i < Traits::kRows * Traits::kChunks; i += Traits::kThreads) {
    const int row = i / Traits::kChunks, chunk = i % Traits::kChunks;
    const bool valid = row < rows.count;
    const T* from = nope;
    if (valid) {
      const int64_t token = rows.item.qo_begin + rows.token(row), head = rows.head(row);
      from = chunk < Traits::kCkvChunks
                 ? nope + token * p.q_stride_n + head * p.q_stride_h + chunk * 8
                 : pe + token * p.q_pe_stride_n + head * p.q_pe_stride_h +
                       (chunk - Traits::kCkvChunks) * 8;
    }
    copy_async_16(q + swizzled<Traits::kChunks>(row, chunk), from, valid);
  }
}

// The cache of one request, as KvLoader: a warp copies its rows of every tile, and a lane finds one
// of them ahead of time.
template <class Traits>
class LatentLoader {
 public:
  __device__ __forceinline__ LatentLoader(const MlaParams& p, const fi_attention_item& item,
                                          int key_end)
      : p_(p),
        base_(item.kv_base),
        key_end_(key_end),
        warp_row_(static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows) {}

  // Finds the rows of the tile that load() brings next.
  __device__ __forceinline__ void locate(int first_key) {
    const int key = first_key + warp_row_ + static_cast<int>(threadIdx.x) % kWarpRows;
    ckv_row_ = p_.ckv.data;
    kpe_row_ = p_.kpe.data;
    if (key >= key_end_) return;
    const int page_in_request = key / p_.page_size;
    const int64_t slot = key - page_in_request * p_.page_size;
    const int64_t page = load_readonly(p_.kv_indices + base_ + page_in_request);
    ckv_row_ += page * p_.ckv.page_stride + slot * p_.ckv.row_stride;
    kpe_row_ += page * p_.kpe.page_stride + slot * p_.kpe.row_stride;
  }

  // Rows from the end of the keys on become zeros: a probability of 0 must not meet a NaN.
  __device__ __forceinline__ void load(int first_key, char* tile) const {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int row = 0; row < kWarpRows; ++row) {
      const char* from = from_lane(ckv_row_, row) + lane * 16;
      const bool valid = first_key + warp_row_ + row < key_end_;
#pragma unroll
      for (int chunk = 0; chunk < Traits::kCkvChunks; chunk += kWarpSize) {
        copy_async_16(tile + swizzled<Traits::kChunks>(warp_row_ + row, chunk + lane),
                      from + chunk * 16, valid);
      }
    }
    constexpr int kKpeChunks = Traits::kChunks - Traits::kCkvChunks;
    constexpr int kPassRows = kWarpSize / kKpeChunks;
    static_assert(kWarpRows % kPassRows == 0, "whole passes");
#pragma unroll
    for (int i = 0; i < kWarpRows; i += kPassRows) {
      const int row = i + lane / kKpeChunks, chunk = lane % kKpeChunks;
      const char* from = from_lane(kpe_row_, row) + chunk * 16;
      const bool valid = first_key + warp_row_ + row < key_end_;
      copy_async_16(tile + swizzled<Traits::kChunks>(warp_row_ + row, Traits::kCkvChunks + chunk),
                    from, valid);
    }
  }

 private:
  static constexpr int kWarpRows = Traits::kKeys / Traits::kWarps;

  // What lane `lane` has.
  __device__ __forceinline__ static const char* from_lane(const char* mine, int lane) {
    const auto address = static_cast<long long>(reinterpret_cast<intptr_t>(mine));
    return reinterpret_cast<const char*>(
        static_cast<intptr_t>(__shfl_sync(kAllLanes, address, lane)));
  }

  const MlaParams& p_;
  const char* ckv_row_;
  const char* kpe_row_;
  int base_, key_end_, warp_row_;
};

// Pair i of lane i, (2i, 2i + 1), is one word of a row.
struct LatentRope {
  float high, low;           // turns of a circle from one position to the next
  float step_cos, step_sin;  // the turn from one position to the next
};

__device__ __forceinline__ LatentRope latent_rope(const MlaParams& p) {
  LatentRope rope{};
  const int pair = threadIdx.x % kKpePairs;
  rope.high = p.rope_high[pair];
  rope.low = p.rope_low[pair];
  sincos_turns(rope_turns(1, rope.high, rope.low), &rope.step_sin, &rope.step_cos);
  return rope;
}

template <class Traits>
__device__ __forceinline__ void turn_word(char* tile, int row, float cosine, float sine) {
  using T = typename Traits::T;
  const int pair = threadIdx.x % kKpePairs;
  char* const at =
      tile + swizzled<Traits::kChunks>(row, Traits::kCkvChunks + pair / 4) + pair % 4 * 4;
  float x[2];
  widen_word<T>(load_shared(reinterpret_cast<const uint32_t*>(at)), x);
  const float turned[2] = {x[0] * cosine - x[1] * sine, x[1] * cosine + x[0] * sine};
  store(reinterpret_cast<uint32_t*>(at), narrow_word<T>(turned));
}

template <class Traits>
__device__ __forceinline__ void turn_q(const LatentRope& rope, const Rows& rows, char* q) {
  for (int row = threadIdx.x / kWarpSize; row < rows.count; row += Traits::kWarps) {
    float sine, cosine;
    const int64_t position = rows.position(rows.token(row));
    sincos_turns(rope_turns(position, rope.high, rope.low), &sine, &cosine);
    turn_word<Traits>(q, row, cosine, sine);
  }
}

// A warp turns rows that follow each other, so it takes one angle and turns that itself from row to
// row: a few roundings of fp32, before the one to T.
template <class Traits>
__device__ __forceinline__ void turn_keys(const LatentRope& rope, int first_key, char* tile) {
  constexpr int kWarpRows = Traits::kKeys / Traits::kWarps;
  const int first = static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows;
  float sine, cosine;
  sincos_turns(rope_turns(first_key + first, rope.high, rope.low), &sine, &cosine);
#pragma unroll
  for (int row = first; row < first + kWarpRows; ++row) {
    turn_word<Traits>(tile, row, cosine, sine);
    const float before = cosine;
    cosine = before * rope.step_cos - sine * rope.step_sin;
    sine = sine * rope.step_cos + before * rope.step_sin;
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_MLA_LOAD_CUH_
