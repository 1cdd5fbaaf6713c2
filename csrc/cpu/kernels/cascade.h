// Merges of attention states (v, s). Every sum is taken against the largest s, so no weight is
// above 1. A state of weight 0 is not read: whatever an empty state holds in v stays out.
#ifndef FLASHINFER_CPU_KERNELS_CASCADE_H_
#define FLASHINFER_CPU_KERNELS_CASCADE_H_

#include "cpu/kernels/math.h"
#include "flashinfer/api.h"

namespace flashinfer {
namespace cpu {
namespace {

// The reference point of the weights: -inf (only empty states) would make them NaN.
FLASHINFER_INLINE F32 finite_max(F32 s_max) {
  return select(s_max == -__builtin_inff(), F32{}, s_max);
}

// s_max + log2(total); -inf where no state has weight.
FLASHINFER_INLINE F32 merged_lse(F32 s_max, F32 total) {
  return select(total == 0.0f, broadcast(-__builtin_inff()), s_max + log2_from_one(total));
}

template <class T>
struct MixedRow {
  const T* a;
  const T* b;
  float w_a, w_b;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return fma(load(a + i, count), broadcast(w_a), load(b + i, count) * w_b);
  }
};

template <class T>
FLASHINFER_INLINE void merge_vectors(const T* a, float w_a, const T* b, float w_b, T* out,
                                     int64_t d) {
  if (w_a == 0.0f && w_b == 0.0f) {
    std::memset(static_cast<void*>(out), 0, static_cast<size_t>(d) * sizeof(T));
  } else if (w_a == 0.0f || w_b == 0.0f) {
    const T* only = w_a == 0.0f ? b : a;  // its weight is 1
    if (only != out) {
      std::memcpy(static_cast<void*>(out), only, static_cast<size_t>(d) * sizeof(T));
    }
  } else {
    store_each(out, d, MixedRow<T>{a, b, w_a, w_b});
  }
}

// Weights, and the merged s, of up to kLanes heads.
template <class Count>
FLASHINFER_INLINE void pair_weights(const float* s_a, const float* s_b, float* s_out, float* w_a,
                                    float* w_b, Count count) {
  const F32 a = load(s_a, count), b = load(s_b, count);
  const F32 s_max = finite_max(select(a > b, a, b));
  const F32 weight_a = exp2_nonpositive(a - s_max), weight_b = exp2_nonpositive(b - s_max);
  const F32 total = weight_a + weight_b;
  const F32 inverse = select(total == 0.0f, F32{}, 1.0f / total);
  store(w_a, weight_a * inverse, Whole{});
  store(w_b, weight_b * inverse, Whole{});
  store(s_out, merged_lse(s_max, total), count);
}

template <class T>
void merge_state_rows(void* arg, int64_t begin, int64_t end) {
  const fi_merge_state_args& args = *static_cast<const fi_merge_state_args*>(arg);
  const T* v_a = static_cast<const T*>(args.v_a);
  const T* v_b = static_cast<const T*>(args.v_b);
  T* v_out = static_cast<T*>(args.v_out);
  float w_a[kLanes], w_b[kLanes];
  for (int64_t n = begin; n < end; ++n) {
    if (args.mask != nullptr && args.mask[n] == 0) continue;
    for (int64_t head = 0; head < args.num_heads; head += kLanes) {
      const int64_t row = n * args.num_heads + head;
      const int64_t left = args.num_heads - head;
      const int64_t heads = left < kLanes ? left : kLanes;
      if (heads == kLanes) {
        pair_weights(args.s_a + row, args.s_b + row, args.s_out + row, w_a, w_b, Whole{});
      } else {
        pair_weights(args.s_a + row, args.s_b + row, args.s_out + row, w_a, w_b, Part{heads});
      }
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = (row + h) * args.head_dim;
        merge_vectors(v_a + at, w_a[h], v_b + at, w_b[h], v_out + at, args.head_dim);
      }
    }
  }
}

constexpr int64_t kStateBlock = 256;  // states whose weights are on the stack at a time

// weights[i] = 2^(s[i * stride] - s_max) for i < count <= kStateBlock; returns their sum.
FLASHINFER_INLINE float state_weights(const float* s, int64_t stride, int64_t count, float s_max,
                                      float* weights) {
  F32 total = F32{};
  for (int64_t i = 0; i < count; i += kLanes) {
    float lanes[kLanes];
    for (int j = 0; j < kLanes; ++j) {
      lanes[j] = i + j < count ? s[(i + j) * stride] - s_max : -__builtin_inff();
    }
    const F32 weight = exp2_nonpositive(load(lanes, Whole{}));
    store(weights + i, weight, Whole{});
    total += weight;
  }
  return sum(total);
}

// kVectors (or one partial) vectors of sum_i weights[i] * v[i * stride].
template <int kVectors, class T, class Count>
FLASHINFER_INLINE void add_states(const T* v, int64_t stride, const float* weights, int64_t count,
                                  F32 (&sums)[kVectors], Count lanes) {
  for (int64_t i = 0; i < count; ++i, v += stride) {
    if (weights[i] == 0.0f) continue;
    const F32 weight = broadcast(weights[i]);
    for (int j = 0; j < kVectors; ++j) {
      sums[j] = fma(load(v + j * kLanes, lanes), weight, sums[j]);
    }
  }
}

// One head of one token: the states are `stride_v` (`stride_s`) elements apart.
template <class T>
struct StateMerger {
  const T* v;
  const float* s;
  int64_t stride_v, stride_s, num_states;
  float s_max, inverse;
  float weights[kStateBlock];

  // The columns from v + d on: all states, block by block.
  template <int kVectors, class Count>
  FLASHINFER_INLINE void columns(int64_t d, T* out, Count lanes) {
    F32 sums[kVectors] = {};
    for (int64_t first = 0; first < num_states; first += kStateBlock) {
      const int64_t count = num_states - first < kStateBlock ? num_states - first : kStateBlock;
      if (num_states > kStateBlock) {
        state_weights(s + first * stride_s, stride_s, count, s_max, weights);
      }
      add_states(v + first * stride_v + d, stride_v, weights, count, sums, lanes);
    }
    for (int j = 0; j < kVectors; ++j) store(out + d + j * kLanes, sums[j] * inverse, lanes);
  }
};

template <class T>
void merge_states_rows(void* arg, int64_t begin, int64_t end) {
  const fi_merge_states_args& args = *static_cast<const fi_merge_states_args*>(arg);
  const int64_t d = args.head_dim;
  StateMerger<T> merger;
  merger.num_states = args.num_states;
  merger.stride_s = args.num_heads;
  merger.stride_v = args.num_heads * d;
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t head = 0; head < args.num_heads; ++head) {
      const int64_t from = n * args.num_states * args.num_heads + head;
      const int64_t to = n * args.num_heads + head;
      merger.v = static_cast<const T*>(args.v) + from * d;
      merger.s = args.s + from;
      float s_max = -__builtin_inff();
      for (int64_t i = 0; i < args.num_states; ++i) {
        const float s = merger.s[i * merger.stride_s];
        s_max = s_max > s ? s_max : s;
      }
      merger.s_max = s_max == -__builtin_inff() ? 0.0f : s_max;
      float total = 0.0f;
      for (int64_t i = 0; i < args.num_states; i += kStateBlock) {
        const int64_t left = args.num_states - i;
        total +=
            state_weights(merger.s + i * merger.stride_s, merger.stride_s,
                          left < kStateBlock ? left : kStateBlock, merger.s_max, merger.weights);
      }
      merger.inverse = total == 0.0f ? 0.0f : 1.0f / total;
      const F32 lse = merged_lse(broadcast(merger.s_max), broadcast(total));
      args.s_out[to] = lse[0];
      T* out = static_cast<T*>(args.v_out) + to * d;
      int64_t i = 0;
      for (; i + 4 * kLanes <= d; i += 4 * kLanes) merger.template columns<4>(i, out, Whole{});
      for (; i + kLanes <= d; i += kLanes) merger.template columns<1>(i, out, Whole{});
      if (i < d) merger.template columns<1>(i, out, Part{d - i});
    }
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_CASCADE_H_
