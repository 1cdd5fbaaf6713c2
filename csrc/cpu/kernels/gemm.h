// Products of matrices of any float type, with fp32 sums. With few rows the time is that of reading
// b, which is read where it lies, once; with many, blocks of b are first copied to fp32, side by
// side as the product in registers wants them.
#ifndef FLASHINFER_CPU_KERNELS_GEMM_H_
#define FLASHINFER_CPU_KERNELS_GEMM_H_

#include <type_traits>

#include "cpu/isa.h"
#include "cpu/kernels/pair_dots.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr int64_t kFewGemmRows = 2 * kDirectRows;   // up to which b is read without copying it
constexpr int64_t kGemmDepth = 256;                 // of the sum, in a copied block
constexpr int64_t kFewPairRows = 48;                // the same, for columns of bf16 pairs
constexpr int64_t kPairsAhead = 8;                  // rows of them that are fetched while copying
constexpr int64_t kPanel = kBlockVectors * kLanes;  // columns that lie together in a copied block
constexpr int64_t kGemmLines = 64;                  // lines of b that are looked up at once
// The lanes of a sum over a column have to be added up, where a copied block has columns in its
// lanes. One such sum a row takes as long as copying so many elements of the column.
constexpr int64_t kSumCost = 16, kPairSumCost = 24;

// Whether columns are long enough to be read as they lie for so few rows.
FLASHINFER_INLINE bool long_columns(const GemmJob& job, int64_t rows, int64_t sum_cost) {
  return job.depth >= rows * sum_cost;
}

// Scratch of one thread.
struct GemmScratch {
  float* memory;
  Matrix a;       // rows in fp32, padded with zeros to whole vectors
  Matrix sums;    // [rows x unit_cols]
  float* panels;  // a block of b: panel after panel, each [depth x kPanel]
  float* lines;   // [kLanes x depth], before they are transposed

  explicit GemmScratch(const GemmJob& job) {
    const bool few = job.most_rows <= kFewGemmRows &&
                     (!job.columns || long_columns(job, kFewGemmRows, kPairSumCost));
    const int64_t rows = job.most_rows < kGemmUnitRows ? job.most_rows : kGemmUnitRows;
    const int64_t depth = whole_vectors(few || job.depth < kGemmDepth ? job.depth : kGemmDepth);
    // Groups with few rows have all of the sum at once: as floats, or more of them as pairs.
    const int64_t few_floats = kFewGemmRows * whole_vectors(job.depth);
    const int64_t few_pairs = kFewPairRows * whole_vectors((job.depth + 1) / 2);
    const int64_t few_a = few_floats > few_pairs ? few_floats : few_pairs;
    const int64_t cols = (job.unit_cols + kPanel - 1) / kPanel * kPanel;
    const int64_t sizes[] = {rows * depth > few_a ? rows * depth : few_a, rows * cols,
                             few ? 0 : depth * cols, few ? 0 : kLanes * depth};
    int64_t total = 0;
    for (const int64_t size : sizes) total += (size + 15) / 16 * 16;
    memory = static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(total + 16) * 4));
    if (memory == nullptr) return;
    a = {memory, 0};
    sums = {memory + (sizes[0] + 15) / 16 * 16, cols};
    panels = sums.at + (sizes[1] + 15) / 16 * 16;
    lines = panels + (sizes[2] + 15) / 16 * 16;
  }
  ~GemmScratch() { std::free(memory); }
  GemmScratch(const GemmScratch&) = delete;
  GemmScratch& operator=(const GemmScratch&) = delete;
};

template <class T>
FLASHINFER_INLINE void widen_rows(const void* from, int64_t stride, int64_t first, int64_t count,
                                  int64_t rows, Matrix to) {
  const T* row = static_cast<const T*>(from) + first;
  for (int64_t r = 0; r < rows; ++r) copy_row(row + r * stride, to.at + r * to.stride, count);
}

// Elements [first, first + count) of `rows` rows of a, in fp32.
__attribute__((noinline)) void widen_a(const GemmJob& job, const void* from, int64_t first,
                                       int64_t count, int64_t rows, Matrix to) {
  switch (job.a_dtype) {
    case FI_FLOAT16:
      return widen_rows<Half>(from, job.a_stride, first, count, rows, to);
    case FI_BFLOAT16:
      return widen_rows<BFloat16>(from, job.a_stride, first, count, rows, to);
    case FI_FLOAT32:
      return widen_rows<float>(from, job.a_stride, first, count, rows, to);
    case FI_FLOAT8_E4M3:
      return widen_rows<Float8E4M3>(from, job.a_stride, first, count, rows, to);
    case FI_FLOAT8_E5M2:
      return widen_rows<Float8E5M2>(from, job.a_stride, first, count, rows, to);
  }
}

// A row of sums times a factor.
struct ScaledSums {
  const float* sums;
  float scale;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    return load(sums + i, count) * scale;
  }
};

template <class T>
FLASHINFER_INLINE void narrow_rows(const GemmJob& job, void* to, Matrix sums, int64_t rows,
                                   int64_t cols, float scale) {
  T* row = static_cast<T*>(to);
  for (int64_t r = 0; r < rows; ++r) {
    store_each(row + r * job.out_stride, cols, ScaledSums{sums.at + r * sums.stride, scale});
  }
}

__attribute__((noinline)) void narrow_out(const GemmJob& job, void* to, Matrix sums, int64_t rows,
                                          int64_t cols, float scale) {
  if (job.out_dtype == FI_FLOAT16) {
    narrow_rows<Half>(job, to, sums, rows, cols, scale);
  } else if (job.out_dtype == FI_BFLOAT16) {
    narrow_rows<BFloat16>(job, to, sums, rows, cols, scale);
  } else {
    narrow_rows<float>(job, to, sums, rows, cols, scale);
  }
}

FLASHINFER_INLINE void clear_rows(Matrix sums, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < cols; i += kLanes) store(sums.at + r * sums.stride + i, F32{}, Whole{});
  }
}

// The addresses of lines [first, first + kGemmLines); past the end the last one again, so that a
// prefetch has an address.
template <class T>
FLASHINFER_INLINE void find_lines(const T* b, int64_t stride, int64_t first, int64_t end,
                                  const T** lines) {
  for (int64_t j = 0; j < kGemmLines; ++j) {
    lines[j] = b + (first + j < end ? first + j : end - 1) * stride;
  }
}

// Few rows: sums [rows x cols] straight from b; `a` has the whole depth.
template <class T>
__attribute__((noinline)) void multiply_few(const GemmJob& job, const GemmGroup& group,
                                            const GemmUnit& unit, int64_t cols,
                                            GemmScratch& scratch) {
  const int64_t rows = unit.rows, first_col = unit.first_col;
  const T* const b = static_cast<const T*>(group.b);
  const T* lines[2][kGemmLines];
  scratch.a.stride = whole_vectors(job.depth);
  widen_a(job, group.a, unit.first_row * job.a_stride, job.depth, rows, scratch.a);
  const int64_t from = job.columns ? first_col : 0;
  const int64_t end = job.columns ? first_col + cols : job.depth;
  const T* const start = job.columns ? b : b + first_col;
  if (!job.columns) clear_rows(scratch.sums, rows, whole_vectors(cols));
  if (from == end) return;  // no terms
  find_lines(start, job.b_stride, from, end, lines[0]);
  for (int64_t at = from, turn = 0; at < end; at += kGemmLines, turn ^= 1) {
    const int64_t count = end - at < kGemmLines ? end - at : kGemmLines;
    const T* const* next = nullptr;
    if (at + kGemmLines < end) {
      find_lines(start, job.b_stride, at + kGemmLines, end, lines[turn ^ 1]);
      next = lines[turn ^ 1];
    }
    if (job.columns) {
      direct_scores(scratch.a, lines[turn], next, rows, count, job.depth,
                    {scratch.sums.at + at - from, scratch.sums.stride});
    } else {
      direct_sums({scratch.a.at + at, scratch.a.stride}, lines[turn], next, rows, count, cols,
                  scratch.sums);
    }
  }
}

// Copies depth [first, first + depth) of columns [first_col, first_col + cols) into panels.
template <class T>
__attribute__((noinline)) void copy_panels(const GemmJob& job, const T* b, int64_t first,
                                           int64_t depth, int64_t first_col, int64_t cols,
                                           GemmScratch& scratch) {
  const int64_t panel_size = whole_vectors(depth) * kPanel;
  if (!job.columns) {
    for (int64_t i = 0; i < depth; ++i) {
      const T* row = b + (first + i) * job.b_stride + first_col;
      float* to = scratch.panels + i * kPanel;
      for (int64_t col = 0; col < cols; col += kPanel, to += panel_size) {
        copy_row(row + col, to, cols - col < kPanel ? cols - col : kPanel);
      }
    }
    return;
  }
  const Matrix lines = {scratch.lines, whole_vectors(depth)};
  for (int64_t col = 0; col < cols; col += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      float* const to = lines.at + j * lines.stride;
      if (col + j < cols) {
        copy_row(b + (first_col + col + j) * job.b_stride + first, to, depth);
      } else {
        clear_rows({to, 0}, 1, lines.stride);
      }
    }
    float* const panel = scratch.panels + col / kPanel * panel_size + col % kPanel;
    transpose_rows(lines.at, lines.stride, panel, kPanel, lines.stride);
  }
}

template <class T>
__attribute__((noinline)) void multiply_many(const GemmJob& job, const GemmGroup& group,
                                             const GemmUnit& unit, int64_t cols,
                                             GemmScratch& scratch) {
  const int64_t rows = unit.rows;
  const T* const b = static_cast<const T*>(group.b);
  scratch.a.stride = job.depth < kGemmDepth ? whole_vectors(job.depth) : kGemmDepth;
  clear_rows(scratch.sums, rows, whole_vectors(cols));
  for (int64_t first = 0; first < job.depth; first += kGemmDepth) {
    const int64_t depth = job.depth - first < kGemmDepth ? job.depth - first : kGemmDepth;
    Matrix a = scratch.a;
    const int64_t offset = unit.first_row * job.a_stride + first;
    if (job.a_dtype == FI_FLOAT32) {  // multiply() only reads it
      a = {const_cast<float*>(static_cast<const float*>(group.a)) + offset, job.a_stride};
    } else {
      widen_a(job, group.a, offset, depth, rows, a);
    }
    copy_panels(job, b, first, depth, unit.first_col, cols, scratch);
    for (int64_t col = 0; col < cols; col += kPanel) {
      const int64_t count = cols - col < kPanel ? whole_vectors(cols - col) : kPanel;
      const Matrix panel = {scratch.panels + col * whole_vectors(depth), kPanel};
      multiply<true>(a, panel, {scratch.sums.at + col, scratch.sums.stride}, rows, count, depth);
    }
  }
}

#if defined(FLASHINFER_BF16_PAIRS)

// Words of columns i to i + kLanes from two neighbouring rows; `second` may be NULL for zeros.
template <class Count>
FLASHINFER_INLINE U32 pair_words(const BFloat16* first, const BFloat16* second, Count count) {
  const U32 low = bits_of(load(first, count)) >> 16;
  return second != nullptr ? low | bits_of(load(second, count)) : low;
}

// Depth [first, first + depth) of a block of b in panels of words, each two neighbours of a column.
FLASHINFER_INLINE void copy_pair_panels(const GemmJob& job, const BFloat16* b, int64_t first,
                                        int64_t depth, int64_t first_col, int64_t cols,
                                        GemmScratch& scratch) {
  const int64_t pairs = (depth + 1) / 2, panel_size = whole_vectors(pairs) * kPanel;
  if (!job.columns) {
    for (int64_t i = 0; i < pairs; ++i) {
      const BFloat16* row = b + (first + 2 * i) * job.b_stride + first_col;
      const BFloat16* next = 2 * i + 1 < depth ? row + job.b_stride : nullptr;
      float* to = scratch.panels + i * kPanel;
      // Parts of rows far from each other, which the hardware does not fetch ahead.
      const bool fetch = 2 * (i + kPairsAhead) + 1 < depth;
      const BFloat16* const ahead = fetch ? row + 2 * kPairsAhead * job.b_stride : row;
      for (int64_t col = 0; col < cols; col += kLanes) {
        if (fetch) {
          __builtin_prefetch(ahead + col, 0, 2);
          __builtin_prefetch(ahead + job.b_stride + col, 0, 2);
        }
        const BFloat16* second = next != nullptr ? next + col : nullptr;
        const U32 words = cols - col >= kLanes ? pair_words(row + col, second, Whole{})
                                               : pair_words(row + col, second, Part{cols - col});
        std::memcpy(to + col / kPanel * panel_size + col % kPanel, &words, sizeof(words));
      }
    }
    return;
  }
  // A column's words lie in it as they are; transposing moves them as it would move floats.
  for (int64_t col = 0; col < cols; col += kLanes) {
    const BFloat16* const column = b + (first_col + col) * job.b_stride + first;
    float* const panel = scratch.panels + col / kPanel * panel_size + col % kPanel;
    for (int64_t i = 0; i < pairs; i += kLanes) {
      const int64_t left = depth - 2 * i;
      const auto words = [&](int j) {
        const BFloat16* const from = column + j * job.b_stride + 2 * i;
        if (col + kLanes + j < cols) __builtin_prefetch(from + kLanes * job.b_stride, 0, 2);
        if (left >= 2 * kLanes && col + j < cols) return (F32)_mm512_loadu_si512(from);
        const __mmask32 mask = col + j >= cols      ? 0
                               : left >= 2 * kLanes ? 0xffffffffu
                                                    : (1u << left) - 1;
        return (F32)_mm512_maskz_loadu_epi16(mask, from);
      };
      transpose_square(words, panel + i * kPanel, kPanel);
    }
  }
}

// Numbers [first, first + depth) of rows of a, as pairs: where they lie, or with a zero after an
// odd last one, or with zeros up to a whole vector, in the scratch.
FLASHINFER_INLINE Matrix pair_rows(const GemmJob& job, const BFloat16* a, int64_t first,
                                   int64_t depth, int64_t rows, bool whole, GemmScratch& scratch) {
  const BFloat16* const there = a + first;
  const bool words = job.a_stride % 2 == 0 && reinterpret_cast<uintptr_t>(there) % 4 == 0;
  if (words && depth % (whole ? 2 * kLanes : 2) == 0) {
    void* const at = const_cast<BFloat16*>(there);  // multiply() only reads it
    return {static_cast<float*>(at), job.a_stride / 2};
  }
  const Matrix copies = {scratch.a.at, whole_vectors((depth + 1) / 2)};
  for (int64_t r = 0; r < rows; ++r) {
    float* const row = copies.at + r * copies.stride;
    store(row + copies.stride - kLanes, F32{}, Whole{});
    std::memcpy(row, there + r * job.a_stride, static_cast<size_t>(depth) * sizeof(BFloat16));
  }
  return copies;
}

__attribute__((noinline)) void multiply_pairs_unit(const GemmJob& job, const GemmGroup& group,
                                                   const GemmUnit& unit, int64_t cols,
                                                   GemmScratch& scratch) {
  const int64_t rows = unit.rows;
  const BFloat16* const a = static_cast<const BFloat16*>(group.a) + unit.first_row * job.a_stride;
  const BFloat16* const b = static_cast<const BFloat16*>(group.b);
  if (job.columns && group.rows <= kFewPairRows && long_columns(job, group.rows, kPairSumCost)) {
    const Matrix words = pair_rows(job, a, 0, job.depth, rows, true, scratch);
    for (int64_t col = 0; col < cols; col += kGemmLines) {
      const BFloat16* lines[2 * kGemmLines];  // and those that are fetched ahead
      find_lines(b, job.b_stride, unit.first_col + col, unit.first_col + cols, lines);
      find_lines(b, job.b_stride, unit.first_col + col + kGemmLines, unit.first_col + cols,
                 lines + kGemmLines);
      dot_pairs(words, lines, rows, cols - col < kGemmLines ? cols - col : kGemmLines, job.depth,
                {scratch.sums.at + col, scratch.sums.stride});
    }
    return;
  }
  clear_rows(scratch.sums, rows, whole_vectors(cols));
  for (int64_t first = 0; first < job.depth; first += 2 * kGemmDepth) {
    const int64_t left = job.depth - first, depth = left < 2 * kGemmDepth ? left : 2 * kGemmDepth;
    const int64_t words_deep = (depth + 1) / 2;
    const Matrix words = pair_rows(job, a, first, depth, rows, false, scratch);
    copy_pair_panels(job, b, first, depth, unit.first_col, cols, scratch);
    for (int64_t col = 0; col < cols; col += kPanel) {
      const int64_t count = cols - col < kPanel ? whole_vectors(cols - col) : kPanel;
      const Matrix panel = {scratch.panels + col * whole_vectors(words_deep), kPanel};
      pairs::multiply<true>(words, panel, {scratch.sums.at + col, scratch.sums.stride}, rows, count,
                            words_deep);
    }
  }
}

#endif  // FLASHINFER_BF16_PAIRS

// A unit by the instruction for pairs of bf16: false where the types or the CPU have none, or where
// rows are few and b is row-major, so that it is read once as it lies.
template <class T>
FLASHINFER_INLINE bool multiplied_pairs(const GemmJob& job, const GemmGroup& group,
                                        const GemmUnit& unit, int64_t cols, GemmScratch& scratch) {
#if defined(FLASHINFER_BF16_PAIRS)
  if (std::is_same<T, BFloat16>::value && job.a_dtype == FI_BFLOAT16 &&
      (job.columns || group.rows > kFewGemmRows) && pairs_supported()) {
    multiply_pairs_unit(job, group, unit, cols, scratch);
    return true;
  }
#else
  static_cast<void>(job), static_cast<void>(group), static_cast<void>(unit);
  static_cast<void>(cols), static_cast<void>(scratch);
#endif
  return false;
}

// The range says only how many threads there are: each takes the next unit until none is left.
template <class T>
void gemm_units(void* arg, int64_t, int64_t) {
  const GemmJob& job = *static_cast<const GemmJob*>(arg);
  GemmScratch scratch(job);
  if (scratch.memory == nullptr) {
    __atomic_store_n(job.no_memory, 1, __ATOMIC_RELAXED);
    return;
  }
  for (;;) {
    const int64_t index = __atomic_fetch_add(job.next_unit, 1, __ATOMIC_RELAXED);
    if (index >= job.num_units) return;
    const GemmUnit& unit = job.units[index];
    const GemmGroup& group = job.groups[unit.group];
    const int64_t cols_left = job.cols - unit.first_col;
    const int64_t cols = cols_left < job.unit_cols ? cols_left : job.unit_cols;
    if (!multiplied_pairs<T>(job, group, unit, cols, scratch)) {
      if (group.rows <= kFewGemmRows && (!job.columns || long_columns(job, group.rows, kSumCost))) {
        multiply_few<T>(job, group, unit, cols, scratch);
      } else {
        multiply_many<T>(job, group, unit, cols, scratch);
      }
    }
    const int64_t size = job.out_dtype == FI_FLOAT32 ? 4 : 2;
    char* const out =
        static_cast<char*>(group.out) + (unit.first_row * job.out_stride + unit.first_col) * size;
    narrow_out(job, out, scratch.sums, unit.rows, cols, group.scale);
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_GEMM_H_
