// The keys of multi-head latent attention, put together from the heads' own parts and the shared
// one.
#ifndef FLASHINFER_CONCAT_CUH_
#define FLASHINFER_CONCAT_CUH_

#include <cstdint>

#include "flashinfer/arch/memory.cuh"

namespace flashinfer {

// Strides in bytes, sizes in vectors.
struct ConcatMlaParams {
  int64_t nnz;
  int nope_units, head_units, row_units;  // in a head's own part, in a head, in all heads of a row
  char* k;
  int64_t k_stride_n, k_stride_h;
  const char* k_nope;
  int64_t nope_stride_n, nope_stride_h;
  const char* k_rope;
  int64_t rope_stride_n;
};

// Only bytes move: V is an unsigned type as wide as alignment allows. Threads are along x the
// vectors of a row of k, along y rows, so that the division by head_units and the choice of the
// source stay outside of the loop. The shared part comes from L2 for all heads but the first.
template <typename V>
__global__ void __launch_bounds__(256) concat_mla_k_kernel(const ConcatMlaParams p) {
  const int unit = blockIdx.x * blockDim.x + threadIdx.x;
  if (unit >= p.row_units) return;
  const int head = unit / p.head_units, place = unit % p.head_units;
  const bool shared = place >= p.nope_units;
  const char* from =
      shared ? p.k_rope + static_cast<int64_t>(place - p.nope_units) * sizeof(V)
             : p.k_nope + head * p.nope_stride_h + static_cast<int64_t>(place) * sizeof(V);
  const int64_t from_stride = shared ? p.rope_stride_n : p.nope_stride_n;
  char* to = p.k + head * p.k_stride_h + static_cast<int64_t>(place) * sizeof(V);

  // Two rows at a time keep more loads in flight.
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.y;
  int64_t n = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
  for (; n + step < p.nnz; n += 2 * step) {
    const V first = load_once(reinterpret_cast<const V*>(from + n * from_stride));
    const V second = load_once(reinterpret_cast<const V*>(from + (n + step) * from_stride));
    store(reinterpret_cast<V*>(to + n * p.k_stride_n), first);
    store(reinterpret_cast<V*>(to + (n + step) * p.k_stride_n), second);
  }
  if (n < p.nnz) {
    const V last = load_once(reinterpret_cast<const V*>(from + n * from_stride));
    store(reinterpret_cast<V*>(to + n * p.k_stride_n), last);
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_CONCAT_CUH_
