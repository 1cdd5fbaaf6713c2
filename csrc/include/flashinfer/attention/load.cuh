// Bringing Q, and tile after tile of K and V, into shared memory.
#ifndef FLASHINFER_ATTENTION_LOAD_CUH_
#define FLASHINFER_ATTENTION_LOAD_CUH_

#include <cstdint>

#include "flashinfer/arch/async_copy.cuh"
#include "flashinfer/attention/traits.cuh"

namespace flashinfer {

// The block's rows; those past `rows.count` become zeros.
template <class Traits>
__device__ __forceinline__ void load_q(const AttentionParams& p, const Rows& rows, char* q) {
  using T = typename Traits::T;
  const T* from = static_cast<const T*>(p.q);
#pragma unroll 4
  for (int i = threadIdx.x; i < Traits::kRows * Traits::kChunks; i += Traits::kThreads) {
    const int row = i / Traits::kChunks, chunk = i % Traits::kChunks;
    const bool valid = row < rows.count;
    int64_t offset = 0;
    if (valid) {
      const int64_t token = rows.item.qo_begin + rows.token(row);
      offset = token * p.q_stride_n + rows.head(row) * p.q_stride_h + chunk * 8;
    }
    copy_async_16(q + swizzled<Traits::kChunks>(row, chunk), from + offset, valid);
  }
}

// K and V of one request and head. A warp copies a share of the rows of every tile. Finding a row
// needs a division and, in a paged cache, the page's index: each lane does that for one row, ahead
// of time, and passes it on when the row is copied.
template <class Traits>
class KvLoader {
 public:
  __device__ __forceinline__ KvLoader(const KvAttentionParams& p, const fi_attention_item& item,
                                      int kv_head, int key_end)
      : p_(p),
        base_(item.kv_base),
        kv_head_(kv_head),
        key_end_(key_end),
        warp_row_(static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows) {}

  // Finds the rows of the tile that load() brings next.
  __device__ __forceinline__ void locate(int first_key) {
    const int key = first_key + warp_row_ + threadIdx.x % kWarpRows;
    k_row_ = p_.k.data;
    v_row_ = p_.v.data;
    if (key >= key_end_) return;
    int64_t row = base_ + static_cast<int64_t>(key), page = 0;
    if (p_.kv_indices != nullptr) {
      const int page_in_request = key / p_.page_size;
      row = key - page_in_request * p_.page_size;
      page = load_readonly(p_.kv_indices + base_ + page_in_request);
    }
    k_row_ += offset(p_.k, page, row);
    v_row_ += offset(p_.v, page, row);
  }

  // Rows from the end of the keys on become zeros: a probability of 0 must not meet a NaN.
  __device__ __forceinline__ void load(int first_key, char* k, char* v) const {
    const int lane = threadIdx.x % kWarpSize;
    const int chunk = lane % kChunks;
#pragma unroll
    for (int i = 0; i < kWarpRows; i += kPassRows) {
      const int row = i + lane / kChunks;
      const char* k_row = shuffle(k_row_, row);
      const char* v_row = shuffle(v_row_, row);
      const bool valid = first_key + warp_row_ + row < key_end_;
      const int to = place(warp_row_ + row, chunk);
      copy_async_16(k + to, k_row + chunk * 16, valid);
      copy_async_16(v + to, v_row + chunk * 16, valid);
    }
  }

  // fp8 is not swizzled: it is read as it was written, a row at a time.
  __device__ __forceinline__ static int place(int row, int chunk) {
    return Traits::kFp8 ? (row * kChunks + chunk) * 16 : swizzled<kChunks>(row, chunk);
  }

 private:
  static constexpr int kChunks = Traits::kStoredChunks;
  static constexpr int kWarpRows = Traits::kKeys / Traits::kWarps;
  static constexpr int kPassRows = kWarpSize / kChunks;  // what the lanes copy at once
  static_assert(kWarpRows % kPassRows == 0 && kWarpRows <= kWarpSize, "whole passes");

  __device__ __forceinline__ int64_t offset(const KvTensor& tensor, int64_t page,
                                            int64_t row) const {
    return page * tensor.page_stride + row * tensor.row_stride + kv_head_ * tensor.head_stride;
  }

  // What lane `lane` has.
  __device__ __forceinline__ static const char* shuffle(const char* mine, int lane) {
    const auto address = static_cast<long long>(reinterpret_cast<intptr_t>(mine));
    return reinterpret_cast<const char*>(
        static_cast<intptr_t>(__shfl_sync(kAllLanes, address, lane)));
  }

  const KvAttentionParams& p_;
  const char* k_row_;
  const char* v_row_;
  int base_, kv_head_, key_end_, warp_row_;
};

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_LOAD_CUH_
