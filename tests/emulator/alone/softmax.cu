// The running softmaxes of the attention kernels without the kernels: over scores that lie in
// memory, so that as many keys as a long request has take seconds.
#include <cstdio>
#include <cstring>

#include "flashinfer/arch/launch.cuh"
#include "flashinfer/mla/softmax.cuh"

namespace flashinfer {
namespace {

constexpr int kRows = 16, kTileKeys = 64;
using Latent = MlaTraits<__half, kRows>;

// scores [16, keys]. `share` gets what the first half of the keys has of each row's probabilities,
// summed up as the output is.
__global__ void running_softmax(const float* scores, int keys, float scale, float* lse,
                                float* share) {
  const int lane = threadIdx.x;
  Softmax<1> softmax;
  for (int first = 0; first < keys; first += kTileKeys) {
    float x[kTileKeys / 8][4];
    for (int tile = 0; tile < kTileKeys / 8; ++tile) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, key = first + tile * 8 + lane % 4 * 2 + i % 2;
        x[tile][i] = scores[static_cast<int64_t>(row) * keys + key];
      }
    }
    softmax.update(x, scale);
    if (first >= keys / 2) continue;
    for (int i = 0; i < 4; ++i) {
      float tile_sum = 0.0f;
      for (int tile = 0; tile < kTileKeys / 8; ++tile) tile_sum += x[tile][i];
      softmax.out[0][i] += tile_sum;
    }
  }
  softmax.finish();
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + 8 * i;
    const float sum = warp_sum(softmax.out[0][2 * i] + softmax.out[0][2 * i + 1], 4);
    if (lane % 4 != 0) continue;
    lse[row] = log_sum(softmax.row_max[i], softmax.row_sum[i].sum);
    share[row] = sum / softmax.row_sum[i].sum;
  }
}

__global__ void latent_softmax(const float* scores, int keys, float scale, float* lse) {
  char* const shared = dynamic_shared<char>();
  __shared__ float factors[kRows];
  MlaParams p{};
  p.scale = scale;
  p.window_left = -1;
  p.num_qo_heads = kRows;
  p.lse = lse;
  Rows rows{};
  rows.item = {0, 0, 1, 0, keys, 0, 0, keys, -1};
  rows.group = rows.count = kRows;
  LatentSoftmax<Latent> softmax(p, rows);
  const int part = threadIdx.x % Latent::kRowLanes;
  for (int first = 0; first < keys; first += Latent::kKeys) {
    // A quarter from each of the warps that have parts of a score.
    float x[4];
    for (int i = 0; i < 4; ++i) {
      x[i] = scores[static_cast<int64_t>(softmax.row) * keys + first + part * 4 + i] / 4;
    }
    for (int split = 0; split < Latent::kDimSplits; ++split) {
      char* const to = shared + score_place<Latent>(split, softmax.row, part);
      store(reinterpret_cast<Vec<float, 4>*>(to), Vec<float, 4>::narrow(x));
    }
    __syncthreads();
    softmax.update(p, first, shared, factors);
    __syncthreads();
  }
  softmax.finish(p, rows, factors);
}

}  // namespace
}  // namespace flashinfer

// Which: "softmax" or "latent". The status is that of a call of the library.
extern "C" __attribute__((visibility("default"))) int alone_softmax(const char* which,
                                                                    const float* scores, int keys,
                                                                    float scale, float* lse,
                                                                    float* share, char* message,
                                                                    size_t size) {
  using namespace flashinfer;
  const cudaError_t error =
      std::strcmp(which, "latent") == 0
          ? launch(latent_softmax, dim3(1), dim3(Latent::kThreads),
                   Latent::kDimSplits * Latent::kScoreBytes, nullptr, scores, keys, scale, lse)
          : launch(running_softmax, dim3(1), dim3(kWarpSize), 0, nullptr, scores, keys, scale, lse,
                   share);
  if (error == cudaSuccess) return 0;
  std::snprintf(message, size, "%s: %s", cudaGetErrorName(error), cudaGetErrorString(error));
  return 3;
}
