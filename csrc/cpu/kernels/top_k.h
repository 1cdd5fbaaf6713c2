// The k largest entries, a row at a time, by the selection that the filters of sampling have: keys,
// the maxima of short pieces, which bound the k-th largest from below, a list of what is not less,
// and a radix selection over the list.
#ifndef FLASHINFER_CPU_KERNELS_TOP_K_H_
#define FLASHINFER_CPU_KERNELS_TOP_K_H_

#include "cpu/kernels/sampling.h"

namespace flashinfer {
namespace cpu {
namespace {

// A key orders as the entry does, as an unsigned number; -0 is 0, and NaN above all else.
FLASHINFER_INLINE U32 ordered_keys(F32 x) {
  const U32 bits = bits_of(x + 0.0f);
  const U32 key = select((I32)bits < 0, ~bits, bits | 0x80000000u);
  return select(x == x, key, ~U32{});
}

// A thread's memory for rows of `columns` entries. Whoever made it frees it: a destructor around
// the call of a function that might throw would need a symbol that the levels share.
struct TopKScratch {
  uint64_t* chosen;  // [k] keys and indices in one number
  uint32_t* keys;    // [columns], whole vectors
  uint32_t* tops;    // the maxima of pieces
  uint32_t* listed;  // [columns] keys
  uint32_t* places;  // [columns] where they are, in ascending order
  uint32_t* work;    // [columns] keys to select from
  uint32_t* counts;  // [kBins]
  void* memory;

  TopKScratch(int64_t columns, int64_t k) {
    const size_t n = static_cast<size_t>(whole_vectors(columns)), pieces = n / kPiece + 1;
    memory = std::malloc(static_cast<size_t>(k) * sizeof(uint64_t) +
                         (4 * n + pieces + kBins) * sizeof(uint32_t));
    if (memory == nullptr) return;
    chosen = static_cast<uint64_t*>(memory);
    keys = static_cast<uint32_t*>(static_cast<void*>(chosen + k));
    tops = keys + n;
    listed = tops + pieces;
    places = listed + n;
    work = places + n;
    counts = work + n;
  }
};

// The keys of a row, and the largest of every piece.
template <class T>
FLASHINFER_INLINE void make_keys(const T* row, int64_t columns, const TopKScratch& scratch) {
  for (int64_t begin = 0; begin < columns; begin += kPiece) {
    const int64_t end = columns - begin < kPiece ? columns : begin + kPiece;
    for (int64_t i = begin; i < end; i += kLanes) {
      const U32 keys = end - i >= kLanes ? ordered_keys(load(row + i, Whole{}))
                                         : ordered_keys(load(row + i, Part{end - i}));
      std::memcpy(scratch.keys + i, &keys, sizeof(keys));
    }
    uint32_t most = 0;
    for (int64_t i = begin; i < end; ++i) {
      most = scratch.keys[i] > most ? scratch.keys[i] : most;
    }
    scratch.tops[begin / kPiece] = most;
  }
}

// Lists the keys that may be among the k largest, in the order of the row; returns how many.
int64_t list_candidates(int64_t columns, int64_t k, const TopKScratch& scratch) {
  const int64_t pieces = (columns + kPiece - 1) / kPiece;
  uint32_t bound = 0;
  if (k <= pieces / 2) {  // so many pieces have a key that is as large
    std::memcpy(scratch.work, scratch.tops, static_cast<size_t>(pieces) * sizeof(uint32_t));
    bound = select_key(scratch.work, pieces, static_cast<uint32_t>(k), CountOne{}, scratch.counts);
  }
  int64_t n = 0;
  for (int64_t begin = 0; begin < columns; begin += kPiece) {
    if (scratch.tops[begin / kPiece] < bound) continue;
    const int64_t end = columns - begin < kPiece ? columns : begin + kPiece;
    for (int64_t i = begin; i < end; ++i) {
      scratch.listed[n] = scratch.keys[i];
      scratch.places[n] = static_cast<uint32_t>(i);
      n += scratch.keys[i] >= bound;
    }
  }
  return n;
}

template <class T>
void top_k_rows(void* arg, int64_t begin, int64_t end) {
  const TopKJob& job = *static_cast<const TopKJob*>(arg);
  const fi_top_k_args& args = *job.args;
  const int64_t k = args.k;
  const TopKScratch scratch(args.columns, k);
  if (scratch.memory == nullptr) {
    __atomic_store_n(job.no_memory, 1, __ATOMIC_RELAXED);
    return;
  }
  const uint32_t flip = args.last != 0 ? 0 : ~0u;
  for (int64_t r = begin; r < end; ++r) {
    const T* row = static_cast<const T*>(args.input) + r * args.input_stride;
    make_keys(row, args.columns, scratch);
    const int64_t listed = list_candidates(args.columns, k, scratch);
    std::memcpy(scratch.work, scratch.listed, static_cast<size_t>(listed) * sizeof(uint32_t));
    const uint32_t least =
        select_key(scratch.work, listed, static_cast<uint32_t>(k), CountOne{}, scratch.counts);
    int64_t above = 0, equal = 0;
    for (int64_t i = 0; i < listed; ++i) {
      above += scratch.listed[i] > least;
      equal += scratch.listed[i] == least;
    }
    // Of the equal ones those from number `first` on, as many as are left to choose.
    int64_t first = args.last != 0 ? equal - (k - above) : 0;
    int64_t left = k - above, n = 0;
    for (int64_t i = 0; i < listed; ++i) {
      const uint32_t key = scratch.listed[i];
      if (key < least) continue;
      if (key == least && (first-- > 0 || left-- <= 0)) continue;
      // Equal keys are in order too, where these numbers are.
      scratch.chosen[n++] = static_cast<uint64_t>(key) << 32 | (scratch.places[i] ^ flip);
    }
    if (args.sorted != 0) job.sort_descending(scratch.chosen, k);
    T* values = static_cast<T*>(args.values) + r * k;
    int64_t* indices = args.indices + r * k;
    for (int64_t i = 0; i < k; ++i) {
      const uint32_t index = static_cast<uint32_t>(scratch.chosen[i]) ^ flip;
      values[i] = row[index];
      indices[i] = index;
    }
  }
  std::free(scratch.memory);
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_TOP_K_H_
