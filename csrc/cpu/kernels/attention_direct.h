// Few query rows: scores and sums straight from the stored rows of K and V, which are read once and
// converted in registers. This is limited by memory, and rows may lie anywhere, so while one tile's
// rows are read the next one's are fetched.
#ifndef FLASHINFER_CPU_KERNELS_ATTENTION_DIRECT_H_
#define FLASHINFER_CPU_KERNELS_ATTENTION_DIRECT_H_

#include "cpu/kernels/attention_tile.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr int kDirectRows = 4;  // query rows whose sums are in registers at a time

// to[0..3] = the sums of four vectors.
FLASHINFER_INLINE void store_sums(float* to, F32 a, F32 b, F32 c, F32 d) {
  // Within every four lanes, so that each step is one plain instruction.
  I32 low, high, low_pair, high_pair;
  for (int i = 0; i < kLanes; ++i) {
    const int first = i & ~3, lane = i & 3;
    low[i] = first + lane / 2 + (lane % 2) * kLanes;
    high[i] = low[i] + 2;
    low_pair[i] = first + lane % 2 + (lane / 2) * kLanes;
    high_pair[i] = low_pair[i] + 2;
  }
  const F32 ab = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
  const F32 cd = __builtin_shuffle(c, d, low) + __builtin_shuffle(c, d, high);
  F32 all = __builtin_shuffle(ab, cd, low_pair) + __builtin_shuffle(ab, cd, high_pair);
  for (int width = kLanes / 2; width >= 4; width /= 2) {
    I32 other;
    for (int i = 0; i < kLanes; ++i) other[i] = (i + width) % kLanes;
    all += __builtin_shuffle(all, other);
  }
  std::memcpy(to, &all, 4 * sizeof(float));
}

// scores[r][j] = q[r] . k[j] for kRows query rows and four keys. q is padded to whole vectors.
// `next` has the rows to fetch meanwhile, or is NULL; so in all that follow.
template <int kRows, class T>
FLASHINFER_INLINE void dot_keys(Matrix q, const T* const* k, const T* const* next, int64_t d,
                                Matrix scores) {
  constexpr int64_t kLine = 64 / sizeof(T);
  F32 sums[kRows][4] = {};
  const auto add = [&](int64_t i, auto count) {
    if (next != nullptr && (kLine <= kLanes || i % kLine == 0)) {
      for (int j = 0; j < 4; ++j) __builtin_prefetch(next[j] + i, 0, 2);
    }
    for (int j = 0; j < 4; ++j) {
      const F32 key = load(k[j] + i, count);
      for (int r = 0; r < kRows; ++r) {
        sums[r][j] = fma(load(q.at + r * q.stride + i, Whole{}), key, sums[r][j]);
      }
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) add(i, Whole{});
  if (i < d) add(i, Part{d - i});
  for (int r = 0; r < kRows; ++r) {
    store_sums(scores.at + r * scores.stride, sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
  }
}

template <int kRows, class T>
FLASHINFER_INLINE void dot_rows(Matrix q, const T* const* k, const T* const* next, int64_t count,
                                int64_t d, Matrix scores) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    dot_keys<kRows>(q, k + j, next != nullptr ? next + j : nullptr, d,
                    {scores.at + j, scores.stride});
  }
  if (j == count) return;
  // The last one to three, filled up with the last.
  const T* rest[4];
  for (int64_t i = 0; i < 4; ++i) rest[i] = k[j + i < count ? j + i : count - 1];
  dot_keys<kRows, T>(q, rest, nullptr, d, {scores.at + j, scores.stride});
}

// out[r] += sum_j p[r][j] v[j] over kVectors vectors (or a part of one) of columns.
template <int kRows, int kVectors, class T, class Count>
FLASHINFER_INLINE void add_columns(Matrix p, const T* const* v, const T* const* next, int64_t first,
                                   int64_t keys, Matrix out, Count lanes) {
  constexpr int64_t kLine = 64 / sizeof(T);
  F32 sums[kRows][kVectors] = {};
  for (int64_t j = 0; j < keys; ++j) {
    if (next != nullptr) {
      for (int64_t i = 0; i < kVectors * kLanes; i += kLine) {
        __builtin_prefetch(next[j] + first + i, 0, 2);
      }
    }
    F32 x[kVectors];
    for (int i = 0; i < kVectors; ++i) x[i] = load(v[j] + first + i * kLanes, lanes);
    for (int r = 0; r < kRows; ++r) {
      const F32 weight = broadcast(p.at[r * p.stride + j]);
      for (int i = 0; i < kVectors; ++i) sums[r][i] = fma(weight, x[i], sums[r][i]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      // What was there comes last, as in matmul_loops.inc.
      float* const to = out.at + r * out.stride + first + i * kLanes;
      store(to, load(to, Whole{}) + sums[r][i], Whole{});
    }
  }
}

template <int kRows, class T>
FLASHINFER_INLINE void add_rows(Matrix p, const T* const* v, const T* const* next, int64_t keys,
                                int64_t d, Matrix out) {
  constexpr int kVectors = kBlockVectors;
  int64_t i = 0;
  for (; i + kVectors * kLanes <= d; i += kVectors * kLanes) {
    add_columns<kRows, kVectors>(p, v, next, i, keys, out, Whole{});
  }
  for (; i + kLanes <= d; i += kLanes) add_columns<kRows, 1>(p, v, next, i, keys, out, Whole{});
  if (i < d) add_columns<kRows, 1>(p, v, next, i, keys, out, Part{d - i});
}

// Calls body(RowCount, first row) for blocks that cover m rows.
template <int kRows>
struct RowCount {
  static constexpr int value = kRows;
};
template <class Body>
FLASHINFER_INLINE void for_row_blocks(int64_t m, const Body& body) {
  int64_t r = 0;
  for (; r + kDirectRows <= m; r += kDirectRows) body(RowCount<kDirectRows>{}, r);
  if (m - r == 3) return body(RowCount<3>{}, r);
  if (m - r == 2) return body(RowCount<2>{}, r);
  if (m - r == 1) return body(RowCount<1>{}, r);
}

// scores [m x count rounded up to 4] = q [m x d] . keys
template <class T>
__attribute__((noinline)) void direct_scores(Matrix q, const T* const* k, const T* const* next,
                                             int64_t m, int64_t count, int64_t d, Matrix scores) {
  for_row_blocks(m, [&](auto rows, int64_t r) {
    dot_rows<decltype(rows)::value>({q.at + r * q.stride, q.stride}, k, r == 0 ? next : nullptr,
                                    count, d, {scores.at + r * scores.stride, scores.stride});
  });
}

// out [m x d] += p [m x count] values
template <class T>
__attribute__((noinline)) void direct_sums(Matrix p, const T* const* v, const T* const* next,
                                           int64_t m, int64_t count, int64_t d, Matrix out) {
  for_row_blocks(m, [&](auto rows, int64_t r) {
    add_rows<decltype(rows)::value>({p.at + r * p.stride, p.stride}, v, r == 0 ? next : nullptr,
                                    count, d, {out.at + r * out.stride, out.stride});
  });
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_ATTENTION_DIRECT_H_
