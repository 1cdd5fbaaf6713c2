// Appending to a paged KV cache, and the positions to append at.
#ifndef FLASHINFER_PAGE_CUH_
#define FLASHINFER_PAGE_CUH_

#include <cstdint>

#include "flashinfer/arch/memory.cuh"
#include "flashinfer/search.cuh"

namespace flashinfer {

// One of K and V: rows to append and the cache they go to. Strides in bytes.
struct AppendOperand {
  const char* rows;
  int64_t row_stride, row_head_stride;
  char* cache;
  int64_t page_stride, slot_stride, head_stride;
};

struct AppendPagedKvParams {
  int64_t nnz;
  int batch_size, page_size;
  int head_units, row_units;  // vectors in a head, in all heads of a row
  AppendOperand k, v;
  const int32_t* batch_indices;
  const int32_t* positions;
  const int32_t* kv_indices;
  const int32_t* kv_indptr;
};

// Only bytes move: V is an unsigned type as wide as alignment allows. Threads are along x the
// vectors of a row, along y rows, so that the division by head_units stays outside of the loop.
template <typename V>
__global__ void __launch_bounds__(256) append_paged_kv_kernel(const AppendPagedKvParams p) {
  const int unit = blockIdx.x * blockDim.x + threadIdx.x;
  if (unit >= p.row_units) return;
  const int head = unit / p.head_units;
  const int64_t column = static_cast<int64_t>(unit % p.head_units) * sizeof(V);
  const char* k_in = p.k.rows + head * p.k.row_head_stride + column;
  const char* v_in = p.v.rows + head * p.v.row_head_stride + column;
  char* k_out = p.k.cache + head * p.k.head_stride + column;
  char* v_out = p.v.cache + head * p.v.head_stride + column;

  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.y;
  for (int64_t n = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y; n < p.nnz;
       n += step) {
    // The data need not wait for the page to be known.
    const V k = load_once(reinterpret_cast<const V*>(k_in + n * p.k.row_stride));
    const V v = load_once(reinterpret_cast<const V*>(v_in + n * p.v.row_stride));
    const int batch = p.batch_indices[n];
    if (batch < 0 || batch >= p.batch_size) continue;
    const int position = p.positions[n];
    const int page_in_request = position / p.page_size;
    const int64_t slot = position - page_in_request * p.page_size;
    const int64_t page = p.kv_indices[p.kv_indptr[batch] + page_in_request];
    store(reinterpret_cast<V*>(k_out + page * p.k.page_stride + slot * p.k.slot_stride), k);
    store(reinterpret_cast<V*>(v_out + page * p.v.page_stride + slot * p.v.slot_stride), v);
  }
}

struct BatchPositionsParams {
  int64_t nnz;
  int batch_size;
  const int32_t* append_indptr;  // batch_size + 1
  const int32_t* seq_lens;
  int32_t* batch_indices;
  int32_t* positions;
};

// One thread a row: the request that holds row n is found by bisection.
__global__ void __launch_bounds__(256) batch_positions_kernel(const BatchPositionsParams p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t n = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; n < p.nnz;
       n += step) {
    const int batch = p.batch_size == 0 ? 0 : last_at_most(p.append_indptr, p.batch_size, n);
    if (p.batch_size == 0 || n < p.append_indptr[batch] || n >= p.append_indptr[batch + 1]) {
      p.batch_indices[n] = -1;
      p.positions[n] = 0;
    } else {
      p.batch_indices[n] = batch;
      p.positions[n] = static_cast<int32_t>(n - p.append_indptr[batch + 1] + p.seq_lens[batch]);
    }
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_PAGE_CUH_
