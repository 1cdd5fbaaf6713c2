// Products of matrices of any float type, with fp32 sums. With few rows the time is that of reading
// b, which is read where it lies, once; with many, blocks of b are first copied to fp32, side by
// side as the product in registers wants them.
#ifndef FLASHINFER_CPU_KERNELS_GEMM_H_
#define FLASHINFER_CPU_KERNELS_GEMM_H_

#include <type_traits>

#include "cpu/isa.h"
#include "cpu/kernels/attention_direct.h"
#include "cpu/kernels/bfloat16_pairs.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr int64_t kFewGemmRows = 2 * kDirectRows;   // up to which b is read without copying it
constexpr int64_t kGemmDepth = 256;                 // of the sum, in a copied block
constexpr int64_t kPanel = kBlockVectors * kLanes;  // columns that lie together in a copied block
constexpr int64_t kGemmLines = 64;                  // lines of b that are looked up at once

FLASHINFER_INLINE int64_t whole_vectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Scratch of one thread.
struct GemmScratch {
  float* memory;
  Matrix a;       // rows in fp32, padded with zeros to whole vectors
  Matrix sums;    // [rows x unit_cols]
  float* panels;  // a block of b: panel after panel, each [depth x kPanel]
  float* lines;   // [kLanes x depth], before they are transposed

  explicit GemmScratch(const GemmJob& job) {
    const bool few = job.most_rows <= kFewGemmRows;
    const int64_t rows = job.most_rows < kGemmUnitRows ? job.most_rows : kGemmUnitRows;
    const int64_t depth = whole_vectors(few || job.depth < kGemmDepth ? job.depth : kGemmDepth);
    // Groups with few rows have all of the sum at once.
    const int64_t few_a = kFewGemmRows * whole_vectors(job.depth);
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
__attribute__((noinline)) void multiply_few(const GemmJob& job, const T* b, int64_t first_col,
                                            int64_t rows, int64_t cols, GemmScratch& scratch) {
  const T* lines[2][kGemmLines];
  const int64_t from = job.columns ? first_col : 0;
  const int64_t end = job.columns ? first_col + cols : job.depth;
  const T* const start = job.columns ? b : b + first_col;
  if (!job.columns) clear_rows(scratch.sums, rows, whole_vectors(cols));
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
                                             const GemmUnit& unit, int64_t rows, int64_t cols,
                                             GemmScratch& scratch) {
  const T* const b = static_cast<const T*>(group.b);
  clear_rows(scratch.sums, rows, whole_vectors(cols));
  for (int64_t first = 0; first < job.depth; first += kGemmDepth) {
    const int64_t depth = job.depth - first < kGemmDepth ? job.depth - first : kGemmDepth;
    widen_a(job, group.a, unit.first_row * job.a_stride + first, depth, rows, scratch.a);
    copy_panels(job, b, first, depth, unit.first_col, cols, scratch);
    for (int64_t col = 0; col < cols; col += kPanel) {
      const int64_t count = cols - col < kPanel ? whole_vectors(cols - col) : kPanel;
      const Matrix panel = {scratch.panels + col * whole_vectors(depth), kPanel};
      multiply<true>(scratch.a, panel, {scratch.sums.at + col, scratch.sums.stride}, rows, count,
                     depth);
    }
  }
}

#if defined(FLASHINFER_AVX512)

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
      for (int64_t col = 0; col < cols; col += kLanes) {
        const BFloat16* second = next != nullptr ? next + col : nullptr;
        const U32 words = cols - col >= kLanes ? pair_words(row + col, second, Whole{})
                                               : pair_words(row + col, second, Part{cols - col});
        std::memcpy(to + col / kPanel * panel_size + col % kPanel, &words, sizeof(words));
      }
    }
    return;
  }
  // A column's words lie in it as they are; transposing moves them as it would move floats.
  const Matrix lines = {scratch.lines, whole_vectors(pairs)};
  for (int64_t col = 0; col < cols; col += kLanes) {
    clear_rows(lines, kLanes, lines.stride);
    for (int64_t j = 0; j < kLanes && col + j < cols; ++j) {
      std::memcpy(lines.at + j * lines.stride, b + (first_col + col + j) * job.b_stride + first,
                  static_cast<size_t>(depth) * sizeof(BFloat16));
    }
    float* const panel = scratch.panels + col / kPanel * panel_size + col % kPanel;
    transpose_rows(lines.at, lines.stride, panel, kPanel, lines.stride);
  }
}

__attribute__((noinline)) void multiply_many_pairs(const GemmJob& job, const GemmGroup& group,
                                                   const GemmUnit& unit, int64_t rows, int64_t cols,
                                                   GemmScratch& scratch) {
  const BFloat16* const a = static_cast<const BFloat16*>(group.a) + unit.first_row * job.a_stride;
  clear_rows(scratch.sums, rows, whole_vectors(cols));
  for (int64_t first = 0; first < job.depth; first += 2 * kGemmDepth) {
    const int64_t left = job.depth - first, depth = left < 2 * kGemmDepth ? left : 2 * kGemmDepth;
    const int64_t pairs = (depth + 1) / 2;
    for (int64_t r = 0; r < rows; ++r) {
      float* const to = scratch.a.at + r * scratch.a.stride;
      to[pairs - 1] = 0.0f;
      std::memcpy(to, a + r * job.a_stride + first, static_cast<size_t>(depth) * sizeof(BFloat16));
    }
    copy_pair_panels(job, static_cast<const BFloat16*>(group.b), first, depth, unit.first_col, cols,
                     scratch);
    const PairMatrix words = {scratch.a.at, scratch.a.stride};
    for (int64_t col = 0; col < cols; col += kPanel) {
      const int64_t count = cols - col < kPanel ? whole_vectors(cols - col) : kPanel;
      const PairMatrix panel = {scratch.panels + col * whole_vectors(pairs), kPanel};
      multiply_pairs(words, panel, {scratch.sums.at + col, scratch.sums.stride}, rows, count,
                     pairs);
    }
  }
}

// Whether multiply_many_pairs has this product on this CPU.
template <class T>
FLASHINFER_INLINE bool by_pairs(const GemmJob& job) {
  return std::is_same<T, BFloat16>::value && job.a_dtype == FI_BFLOAT16 && bfloat16_dot_supported();
}

#endif  // FLASHINFER_AVX512

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
    const int64_t rows_left = group.rows - unit.first_row, cols_left = job.cols - unit.first_col;
    const int64_t rows = rows_left < kGemmUnitRows ? rows_left : kGemmUnitRows;
    const int64_t cols = cols_left < job.unit_cols ? cols_left : job.unit_cols;
    if (group.rows <= kFewGemmRows) {
      scratch.a.stride = whole_vectors(job.depth);
      widen_a(job, group.a, 0, job.depth, rows, scratch.a);
      multiply_few(job, static_cast<const T*>(group.b), unit.first_col, rows, cols, scratch);
    } else {
      scratch.a.stride = job.depth < kGemmDepth ? whole_vectors(job.depth) : kGemmDepth;
#if defined(FLASHINFER_AVX512)
      if (by_pairs<T>(job)) {
        multiply_many_pairs(job, group, unit, rows, cols, scratch);
      } else {
        multiply_many<T>(job, group, unit, rows, cols, scratch);
      }
#else
      multiply_many<T>(job, group, unit, rows, cols, scratch);
#endif
    }
    const int64_t size = job.out_dtype == FI_FLOAT32 ? 4 : 2;
    char* const out =
        static_cast<char*>(group.out) + (unit.first_row * job.out_stride + unit.first_col) * size;
    narrow_out(job, out, scratch.sums, rows, cols, group.scale);
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_GEMM_H_
