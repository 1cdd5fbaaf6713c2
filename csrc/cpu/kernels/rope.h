// Rotary position embedding, a token at a time: the cosines and sines of its position once, then
// every head of q and k.
#ifndef FLASHINFER_CPU_KERNELS_ROPE_H_
#define FLASHINFER_CPU_KERNELS_ROPE_H_

#include "cpu/isa.h"
#include "cpu/kernels/math.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr int64_t kPairBlock = 512;  // pairs whose cosines and sines are on the stack at a time
static_assert(kPairBlock % kLanes == 0, "whole vectors of angles");

// Cosines and sines of `count` pairs at `position`, count <= kPairBlock; written in whole vectors.
FLASHINFER_INLINE void cos_sin(double position, const double* turns, int64_t count, float* cosines,
                               float* sines) {
  // Reduced in fp64, so that the angle is exact to fp32 at every position below 2^22 and beyond.
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52 rounds to an integer
  float reduced[kPairBlock];
  for (int64_t i = 0; i < count; ++i) {
    const double angle = position * turns[i];
    reduced[i] = static_cast<float>(angle - ((angle + kRound) - kRound));
  }
  for (int64_t i = count; i % kLanes != 0; ++i) reduced[i] = 0.0f;
  for (int64_t i = 0; i < count; i += kLanes) {
    F32 sine, cosine;
    sincos_turns(load(reduced + i, Whole{}), sine, cosine);
    store(cosines + i, cosine, Whole{});
    store(sines + i, sine, Whole{});
  }
}

// Pairs (i, i + half), `low` and `high` the two halves; i below count.
template <class T>
struct Halves {
  const T* low;
  const T* high;
  T* low_out;
  T* high_out;
  const float* cosines;
  const float* sines;

  template <class Count>
  FLASHINFER_INLINE void rotated(int64_t i, Count count, F32& x_out, F32& y_out) const {
    const F32 x = load(low + i, count), y = load(high + i, count);
    const F32 c = load(cosines + i, count), s = load(sines + i, count);
    x_out = fma(x, c, -(y * s));
    y_out = fma(y, c, x * s);
  }

  template <class Count>
  FLASHINFER_INLINE void rotate(int64_t i, Count count) const {
    F32 x, y;
    rotated(i, count, x, y);
    store(low_out + i, x, count);
    store(high_out + i, y, count);
  }

  FLASHINFER_INLINE void rotate_all(int64_t count) const {
    int64_t i = 0;
    for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
      F32 x[2], y[2];
      rotated(i, Whole{}, x[0], y[0]);
      rotated(i + kLanes, Whole{}, x[1], y[1]);
      store_pair(low_out + i, x[0], x[1]);
      store_pair(high_out + i, y[0], y[1]);
    }
    for (; i + kLanes <= count; i += kLanes) rotate(i, Whole{});
    if (i < count) rotate(i, Part{count - i});
  }
};

// Pairs (2i, 2i + 1): cosines hold every value twice, sines every value as (-s, s).
template <class T>
struct Neighbours {
  const T* in;
  const float* cosines;
  const float* sines;

  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    I32 neighbour;
    for (int lane = 0; lane < kLanes; ++lane) neighbour[lane] = lane ^ 1;
    const F32 x = load(in + i, count);
    const F32 swapped = __builtin_shuffle(x, neighbour);
    return fma(x, load(cosines + i, count), swapped * load(sines + i, count));
  }
};

// Rotates pairs [first, first + count) of every head of one token.
template <class T, bool kInterleave>
FLASHINFER_INLINE void rotate_heads(const T* in, T* out, int64_t in_stride_h, int64_t out_stride_h,
                                    int64_t heads, int64_t half, int64_t first, int64_t count,
                                    const float* cosines, const float* sines) {
  for (int64_t h = 0; h < heads; ++h, in += in_stride_h, out += out_stride_h) {
    if (kInterleave) {
      store_each(out + 2 * first, 2 * count, Neighbours<T>{in + 2 * first, cosines, sines});
    } else {
      const T* low = in + first;
      T* low_out = out + first;
      Halves<T>{low, low + half, low_out, low_out + half, cosines, sines}.rotate_all(count);
    }
  }
}

template <class T>
FLASHINFER_INLINE void copy_rest(const T* in, T* out, int64_t in_stride_h, int64_t out_stride_h,
                                 int64_t heads, int64_t rotary_dim, int64_t head_dim) {
  if (in == out || rotary_dim == head_dim) return;
  const size_t bytes = static_cast<size_t>(head_dim - rotary_dim) * sizeof(T);
  for (int64_t h = 0; h < heads; ++h) {
    std::memcpy(out + h * out_stride_h + rotary_dim, in + h * in_stride_h + rotary_dim, bytes);
  }
}

// The position of one row after another.
class Positions {
 public:
  Positions(const fi_rope_args& args, int64_t first_row) : args_(args), segment_(0) {
    if (args.pos_ids != nullptr) return;
    // The first segment that ends after the row.
    int64_t low = 0, high = args.batch_size;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (args.indptr[middle + 1] <= first_row) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    segment_ = low;
  }

  // False where no segment holds the row. Rows must not go down from call to call.
  bool get(int64_t row, int64_t& position) {
    if (args_.pos_ids != nullptr) {
      position = args_.pos_ids_bits == 64 ? static_cast<const int64_t*>(args_.pos_ids)[row]
                                          : static_cast<const int32_t*>(args_.pos_ids)[row];
      return true;
    }
    while (segment_ < args_.batch_size && args_.indptr[segment_ + 1] <= row) ++segment_;
    if (segment_ == args_.batch_size || args_.indptr[segment_] > row) return false;
    position = args_.offsets[segment_] + (row - args_.indptr[segment_]);
    return true;
  }

 private:
  const fi_rope_args& args_;
  int64_t segment_;
};

template <class T, bool kInterleave>
void rope_tokens(void* arg, int64_t begin, int64_t end) {
  const RopeJob& job = *static_cast<const RopeJob*>(arg);
  const fi_rope_args& args = *job.args;
  const int64_t half = args.rotary_dim / 2;
  float cosines[kPairBlock], sines[kPairBlock];
  float twice_cosines[2 * kPairBlock], signed_sines[2 * kPairBlock];
  Positions positions(args, begin);
  for (int64_t n = begin; n < end; ++n) {
    int64_t position;
    if (!positions.get(n, position)) continue;
    const T* q = static_cast<const T*>(args.q) + n * args.q_stride_n;
    const T* k = static_cast<const T*>(args.k) + n * args.k_stride_n;
    T* q_out = static_cast<T*>(args.q_out) + n * args.q_out_stride_n;
    T* k_out = static_cast<T*>(args.k_out) + n * args.k_out_stride_n;
    for (int64_t first = 0; first < half; first += kPairBlock) {
      const int64_t count = half - first < kPairBlock ? half - first : kPairBlock;
      const float* c = cosines;
      const float* s = sines;
      if (args.cos_sin_cache != nullptr) {
        c = args.cos_sin_cache + position * args.cos_sin_stride + first;
        s = c + half;
      } else {
        cos_sin(static_cast<double>(position), job.turns + first, count, cosines, sines);
      }
      if (kInterleave) {
        for (int64_t i = 0; i < count; ++i) {
          twice_cosines[2 * i] = twice_cosines[2 * i + 1] = c[i];
          signed_sines[2 * i] = -s[i];
          signed_sines[2 * i + 1] = s[i];
        }
        c = twice_cosines;
        s = signed_sines;
      }
      rotate_heads<T, kInterleave>(q, q_out, args.q_stride_h, args.q_out_stride_h,
                                   args.num_qo_heads, half, first, count, c, s);
      rotate_heads<T, kInterleave>(k, k_out, args.k_stride_h, args.k_out_stride_h,
                                   args.num_kv_heads, half, first, count, c, s);
    }
    copy_rest(q, q_out, args.q_stride_h, args.q_out_stride_h, args.num_qo_heads, args.rotary_dim,
              args.head_dim);
    copy_rest(k, k_out, args.k_stride_h, args.k_out_stride_h, args.num_kv_heads, args.rotary_dim,
              args.head_dim);
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_ROPE_H_
