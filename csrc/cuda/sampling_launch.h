// How the kernels that give a block to a row of a vocabulary are launched.
#ifndef FLASHINFER_CUDA_SAMPLING_LAUNCH_H_
#define FLASHINFER_CUDA_SAMPLING_LAUNCH_H_

#include <climits>

#include "flashinfer/sampling/weights.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {

constexpr int kRowThreads = 1024;
constexpr int kFewThreads = 256;  // for a row that gives more nothing to do
constexpr int64_t kShortRow = 8192;

inline fi_status check_vocab(const char* op, int64_t rows, int64_t vocab) {
  if (vocab > FI_MAX_VOCAB) {
    return fail(FI_INVALID_ARGUMENT, "%s: vocab must be at most %d, got %lld", op, FI_MAX_VOCAB,
                static_cast<long long>(vocab));
  }
  if (rows > INT_MAX) {
    return fail(FI_INVALID_ARGUMENT, "%s: rows must be below 2^31, got %lld", op,
                static_cast<long long>(rows));
  }
  return FI_OK;
}

inline Tiling tiling_for(int64_t vocab, int64_t step) {
  const int64_t tile = ceil_div(vocab, step * kMaxTiles) * step;
  return {static_cast<int>(vocab), static_cast<int>(tile), static_cast<int>(ceil_div(vocab, tile))};
}

template <int N, typename Params>
fi_status launch_vocab(const char* op, Device& device, void (*kernel)(Params), int64_t rows,
                       int64_t vocab, size_t shared_bytes, Params p,
                       int most_threads = kRowThreads) {
  p.tiling = tiling_for(vocab, kStep<N>);
  const int threads = vocab <= kShortRow ? kFewThreads : most_threads;
  return device.launch(op, kernel, dim3(static_cast<unsigned>(rows)), dim3(threads), shared_bytes,
                       p);
}

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_SAMPLING_LAUNCH_H_
