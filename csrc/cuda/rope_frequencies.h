// The frequencies of RoPE for kernels that turn queries and keys on the fly.
#ifndef FLASHINFER_CUDA_ROPE_FREQUENCIES_H_
#define FLASHINFER_CUDA_ROPE_FREQUENCIES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace flashinfer {
namespace cuda {

// Of the `dim` / 2 pairs, dim <= 256, in turns of a circle per position, as the sum of two floats
// each. The same for every layer and step of a model: the last ones are kept.
inline void set_frequencies(int64_t dim, float scale, float theta, float* high, float* low) {
  struct Known {
    int64_t dim = 0;
    float scale = 0.0f, theta = 0.0f;
    float high[128], low[128];
  };
  thread_local Known known;
  if (known.dim != dim || known.scale != scale || known.theta != theta) {
    constexpr double kTwoPi = 6.283185307179586476925286766559;
    for (int64_t i = 0; i < dim / 2; ++i) {
      const double frequency =
          std::pow(static_cast<double>(theta), -2.0 * static_cast<double>(i) / dim);
      const double turns = frequency / scale / kTwoPi;
      known.high[i] = static_cast<float>(turns);
      known.low[i] = static_cast<float>(turns - known.high[i]);
    }
    known.dim = dim;
    known.scale = scale;
    known.theta = theta;
  }
  std::copy_n(known.high, dim / 2, high);
  std::copy_n(known.low, dim / 2, low);
}

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_ROPE_FREQUENCIES_H_
