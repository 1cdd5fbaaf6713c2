// Decode of multi-head latent attention on mma.sync.
//
// All query heads of a request share one key-value head whose keys are 576 elements wide and whose
// values are the first 512 of them. A block has an item of the plan: some heads and a chunk of
// keys. A tile of the cache comes once into shared memory and serves both products; the next one is
// on its way meanwhile.
#ifndef FLASHINFER_MLA_KERNEL_CUH_
#define FLASHINFER_MLA_KERNEL_CUH_

#include <cstdint>

#include "flashinfer/arch/launch.cuh"
#include "flashinfer/arch/mma.cuh"
#include "flashinfer/attention/output.cuh"
#include "flashinfer/mla/load.cuh"
#include "flashinfer/mla/softmax.cuh"

namespace flashinfer {

// The warp's part of Q: all rows, and the products that it has of every score.
template <class Traits>
using LatentQ = uint32_t[Traits::kRowTiles][Traits::kSteps][4];
// The warp's part of the output: all rows and kWarpColumns columns.
template <class Traits>
using LatentOut = float[Traits::kRowTiles][Traits::kWarpColumns / 8][4];

template <class Traits>
__device__ __forceinline__ int warp_step() {
  return static_cast<int>(threadIdx.x) / kWarpSize % Traits::kDimSplits * Traits::kSteps;
}

template <class Traits>
__device__ __forceinline__ void read_latent_q(const char* q, LatentQ<Traits>& fragments) {
  const int lane = threadIdx.x % kWarpSize;
#pragma unroll
  for (int m = 0; m < Traits::kRowTiles; ++m) {
#pragma unroll
    for (int step = 0; step < Traits::kSteps; ++step) {
      const int chunk = 2 * (warp_step<Traits>() + step) + lane / 16;
      load_matrices(q + swizzled<Traits::kChunks>(m * 16 + lane % 16, chunk), fragments[m][step]);
    }
  }
}

// The warp's part of the sums of kWarpKeys keys, into shared memory.
template <class Traits>
__device__ __forceinline__ void multiply_latent_qk(const LatentQ<Traits>& q, const char* tile,
                                                   char* scores) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int split = warp % Traits::kDimSplits,
            warp_key = warp / Traits::kDimSplits * Traits::kWarpKeys;
  const int row = warp_key + lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
  float sums[Traits::kRowTiles][Traits::kWarpKeys / 8][4] = {};
#pragma unroll
  for (int step = 0; step < Traits::kSteps; ++step) {
#pragma unroll
    for (int n = 0; n < Traits::kWarpKeys / 16; ++n) {
      uint32_t b[4];
      const int chunk = 2 * (warp_step<Traits>() + step) + half;
      load_matrices(tile + swizzled<Traits::kChunks>(row + n * 16, chunk), b);
#pragma unroll
      for (int m = 0; m < Traits::kRowTiles; ++m) {
        multiply_add<typename Traits::T>(sums[m][2 * n], q[m][step], b[0], b[1]);
        multiply_add<typename Traits::T>(sums[m][2 * n + 1], q[m][step], b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < Traits::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < Traits::kWarpKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int part = warp_key / 4 + 2 * n + lane % 4 / 2;
        char* to = scores + score_place<Traits>(split, m * 16 + lane / 4 + 8 * i, part);
        const float two[2] = {sums[m][n][2 * i], sums[m][n][2 * i + 1]};
        store(reinterpret_cast<Vec<float, 2>*>(to + lane % 2 * 8), Vec<float, 2>::narrow(two));
      }
    }
  }
}

// Multiplies the rows of the output by their factors.
template <class Traits>
__device__ __forceinline__ void scale_latent_out(const float* factors, LatentOut<Traits>& out) {
  const int lane = threadIdx.x % kWarpSize;
#pragma unroll
  for (int m = 0; m < Traits::kRowTiles; ++m) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float factor = load_shared(factors + m * 16 + lane / 4 + 8 * i);
      if (__ballot_sync(kAllLanes, factor != 1.0f) == 0) continue;  // as after the first tiles
#pragma unroll
      for (int n = 0; n < Traits::kWarpColumns / 8; ++n) {
        out[m][n][2 * i] *= factor;
        out[m][n][2 * i + 1] *= factor;
      }
    }
  }
}

// out += P ckv.
template <class Traits>
__device__ __forceinline__ void multiply_latent_pv(const char* probabilities, const char* tile,
                                                   LatentOut<Traits>& out) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int row = lane % 16, half = lane / 16;
#pragma unroll
  for (int step = 0; step < Traits::kKeys / 16; ++step) {
    uint32_t a[Traits::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < Traits::kRowTiles; ++m) {
      load_matrices(probabilities + probability_place(m * 16 + row, 2 * step + half), a[m]);
    }
#pragma unroll
    for (int n = 0; n < Traits::kWarpColumns / 16; ++n) {
      uint32_t b[4];
      const int chunk = warp * (Traits::kWarpColumns / 8) + 2 * n + half;
      load_matrices_transposed(tile + swizzled<Traits::kChunks>(step * 16 + row, chunk), b);
#pragma unroll
      for (int m = 0; m < Traits::kRowTiles; ++m) {
        multiply_add<typename Traits::T>(out[m][2 * n], a[m], b[0], b[1]);
        multiply_add<typename Traits::T>(out[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// The finished output: to the partial state, or through `staging` to whole vectors of out.
template <class Traits>
__device__ __forceinline__ void write_latent_out(const MlaParams& p, const Rows& rows,
                                                 char* staging, const LatentOut<Traits>& out) {
  using T = typename Traits::T;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const bool partial = rows.item.slot >= 0;
#pragma unroll
  for (int m = 0; m < Traits::kRowTiles; ++m) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = m * 16 + lane / 4 + 8 * i;
      if (row >= rows.count) continue;
#pragma unroll
      for (int n = 0; n < Traits::kWarpColumns / 8; ++n) {
        float two[2] = {out[m][n][2 * i], out[m][n][2 * i + 1]};
        const int chunk = warp * (Traits::kWarpColumns / 8) + n;
        if (partial) {
          float* to = p.partial_out + rows.partial(p, row) * kCkvDim + chunk * 8 + lane % 4 * 2;
          store(reinterpret_cast<Vec<float, 2>*>(to), Vec<float, 2>::narrow(two));
        } else {
          two[0] *= p.v_scale;
          two[1] *= p.v_scale;
          char* to = staging + swizzled<Traits::kCkvChunks>(row, chunk) + lane % 4 * 4;
          store(reinterpret_cast<uint32_t*>(to), narrow_word<T>(two));
        }
      }
    }
  }
  if (partial) return;
  __syncthreads();  // rows are whole
#pragma unroll 4
  for (int i = threadIdx.x; i < rows.count * Traits::kCkvChunks; i += Traits::kThreads) {
    const int row = i / Traits::kCkvChunks, chunk = i % Traits::kCkvChunks;
    const char* from = staging + swizzled<Traits::kCkvChunks>(row, chunk);
    store_columns(out_row<T>(p, rows, row), chunk * 8,
                  load_shared(reinterpret_cast<const Vec<T, 8>*>(from)));
  }
}

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinBlocks)
    mla_decode_kernel(const MlaParams p) {
  if (static_cast<int>(blockIdx.x) >= load_readonly(p.plan)) return;  // padding of the grid
  const Rows rows = block_rows<Traits::kRows>(p);
  if (rows.count <= 0) return;

  char* const stages = dynamic_shared<char>();
  char* const scores = stages + Traits::kScoresOffset;
  float* const factors = reinterpret_cast<float*>(stages + Traits::kFactorsOffset);
  const auto stage_of = [&](int stage) { return stages + stage * Traits::kTileBytes; };

  // The ranges of rows move up with the rows: these bound what any of them sees.
  const int key_begin = rows.keys(p, rows.token(0)).begin;
  const int key_end = rows.keys(p, rows.token(rows.count - 1)).end;
  LatentLoader<Traits> loader(p, rows.item, key_end);
  LatentSoftmax<Traits> softmax(p, rows);
  LatentRope rope{};
  LatentQ<Traits> q;
  LatentOut<Traits> out = {};
  if (key_begin < key_end) {
    load_latent_q<Traits>(p, rows, stage_of(1));
    copy_async_commit();
    loader.locate(key_begin);
    loader.load(key_begin, stage_of(0));
    copy_async_commit();
    loader.locate(key_begin + Traits::kKeys);
    copy_async_wait<1>();
    __syncthreads();  // Q is there
    if (p.rope) {
      rope = latent_rope(p);
      turn_q<Traits>(rope, rows, stage_of(1));
      __syncthreads();
    }
    read_latent_q<Traits>(stage_of(1), q);
  }
  int stage = 0;
#pragma unroll 1
  for (int first_key = key_begin; first_key < key_end; first_key += Traits::kKeys, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the one before, or Q, any more
    const int next_key = first_key + Traits::kKeys;
    if (next_key < key_end) {
      loader.load(next_key, stage_of(stage ^ 1));
      copy_async_commit();
      loader.locate(next_key + Traits::kKeys);
    }
    char* const tile = stage_of(stage);
    if (p.rope) {
      turn_keys<Traits>(rope, first_key, tile);
      __syncthreads();  // the keys are turned
    }
    multiply_latent_qk<Traits>(q, tile, scores);
    __syncthreads();  // the scores are there
    softmax.update(p, first_key, scores, factors);
    __syncthreads();  // the probabilities are there
    scale_latent_out<Traits>(factors, out);
    multiply_latent_pv<Traits>(scores, tile, out);
  }
  __syncthreads();  // nobody reads factors or tiles any more
  softmax.finish(p, rows, factors);
  __syncthreads();  // the last factors are there
  scale_latent_out<Traits>(factors, out);
  write_latent_out<Traits>(p, rows, stages, out);
}

}  // namespace flashinfer

#endif  // FLASHINFER_MLA_KERNEL_CUH_
