// A tile of keys and values: where its rows lie, and its fp32 copies.
#ifndef FLASHINFER_CPU_KERNELS_ATTENTION_TILE_H_
#define FLASHINFER_CPU_KERNELS_ATTENTION_TILE_H_

#include "cpu/isa.h"
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/rope.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr int64_t kTileKeys = 64;

template <class T>
struct TileRows {
  const T* k[kTileKeys];
  const T* v[kTileKeys];
};

// The rows of keys [begin, begin + count) of one item and KV head; count > 0. The rest of the tile
// repeats the last, so that a prefetch has an address.
template <class T>
FLASHINFER_INLINE void find_rows(const fi_attention_args& args, const fi_attention_item& item,
                                 int64_t head, int64_t begin, int64_t count, TileRows<T>& rows) {
  const T* k = static_cast<const T*>(args.k) + head * args.k_stride_h;
  const T* v = static_cast<const T*>(args.v) + head * args.v_stride_h;
  if (args.kv_indices == nullptr) {
    k += (item.kv_base + begin) * args.k_stride_n;
    v += (item.kv_base + begin) * args.v_stride_n;
    for (int64_t j = 0; j < count; ++j, k += args.k_stride_n, v += args.v_stride_n) {
      rows.k[j] = k;
      rows.v[j] = v;
    }
  } else {
    int64_t entry = item.kv_base + begin / args.page_size, slot = begin % args.page_size;
    for (int64_t j = 0; j < count; ++entry, slot = 0) {
      const int64_t page = args.kv_indices[entry];
      const T* k_row = k + page * args.k_stride_page + slot * args.k_stride_n;
      const T* v_row = v + page * args.v_stride_page + slot * args.v_stride_n;
      for (; j < count && slot < args.page_size; ++j, ++slot) {
        rows.k[j] = k_row;
        rows.v[j] = v_row;
        k_row += args.k_stride_n;
        v_row += args.v_stride_n;
      }
    }
  }
  for (int64_t j = count; j < kTileKeys; ++j) {
    rows.k[j] = rows.k[count - 1];
    rows.v[j] = rows.v[count - 1];
  }
}

// A row in fp32, padded with zeros to whole vectors.
template <class T>
FLASHINFER_INLINE void copy_row(const T* from, float* to, int64_t d) {
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) store(to + i, load(from + i, Whole{}), Whole{});
  if (i < d) store(to + i, load(from + i, Part{d - i}), Whole{});
}

template <class T>
FLASHINFER_INLINE void prefetch_row(const T* row, int64_t d) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < d; i += kLine) __builtin_prefetch(row + i, 0, 2);
}

// Copies rows in fp32, and fetches the next tile's.
template <class T>
__attribute__((noinline)) void copy_rows(const T* const* rows, const T* const* next, int64_t count,
                                         Matrix to, int64_t d) {
  for (int64_t j = 0; j < count; ++j) {
    prefetch_row(next[j], d);
    copy_row(rows[j], to.at + j * to.stride, d);
  }
}

// Turns a row of fp32 by its position, in place.
FLASHINFER_INLINE void turn_row(float* row, int64_t d, double position, const double* turns) {
  float cosines[kPairBlock], sines[kPairBlock];
  const int64_t half = d / 2;
  cos_sin(position, turns, half, cosines, sines);
  Halves<float>{row, row + half, row, row + half, cosines, sines}.rotate_all(half);
}

__attribute__((noinline)) void turn_rows(Matrix rows, int64_t count, int64_t d, int64_t position,
                                         const double* turns) {
  for (int64_t j = 0; j < count; ++j) {
    turn_row(rows.at + j * rows.stride, d, static_cast<double>(position + j), turns);
  }
}

// to [d x kTileKeys] = the transpose of rows [kTileKeys x d], as many columns as hold `count` keys.
__attribute__((noinline)) void transpose(Matrix rows, Matrix to, int64_t count, int64_t d) {
  for (int64_t j = 0; j < count; j += kLanes) {
    transpose_rows(rows.at + j * rows.stride, rows.stride, to.at + j, to.stride, d);
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_ATTENTION_TILE_H_
