#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {
namespace {

// Units that keep as many threads busy as a machine may have, if there is work for so many.
constexpr int64_t kParallelUnits = 64;
constexpr int64_t kWidestUnit = 256, kNarrowestUnit = 64;  // columns

bool is_fp8(fi_dtype dtype) { return dtype == FI_FLOAT8_E4M3 || dtype == FI_FLOAT8_E5M2; }

const char* at(const void* base, int64_t elements, fi_dtype dtype) {
  return static_cast<const char*>(base) + elements * (is_fp8(dtype)         ? 1
                                                      : dtype == FI_FLOAT32 ? 4
                                                                            : 2);
}
char* at(void* base, int64_t elements, fi_dtype dtype) {
  return const_cast<char*>(at(const_cast<const void*>(base), elements, dtype));
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of a group's units: as even as whole blocks of registers (six rows) allow.
int64_t unit_rows(int64_t rows) {
  const int64_t units = ceil_div(rows, kGemmUnitRows);
  return ceil_div(ceil_div(rows, units), 6) * 6;
}

int64_t count_units(const std::vector<GemmGroup>& groups, int64_t cols, int64_t unit_cols) {
  int64_t units = 0;
  for (const GemmGroup& group : groups) {
    units += ceil_div(group.rows, unit_rows(group.rows)) * ceil_div(cols, unit_cols);
  }
  return units;
}

// Cuts the groups into units and has the threads take them.
fi_status multiply_groups(const char* op, const fi_exec& exec, fi_range_body body,
                          const std::vector<GemmGroup>& groups, GemmJob job) {
  // How wide a unit is has no part in what it computes.
  job.unit_cols = kWidestUnit;
  while (job.unit_cols > kNarrowestUnit &&
         count_units(groups, job.cols, job.unit_cols) < kParallelUnits) {
    job.unit_cols /= 2;
  }
  job.unit_cols = std::min(job.cols, job.unit_cols);
  std::vector<GemmUnit> units;
  units.reserve(static_cast<size_t>(count_units(groups, job.cols, job.unit_cols)));
  int64_t elements = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const int64_t rows = groups[g].rows, step = unit_rows(rows);
    job.most_rows = std::max(job.most_rows, rows);
    for (int64_t row = 0; row < rows; row += step) {
      for (int64_t col = 0; col < job.cols; col += job.unit_cols) {
        units.push_back({static_cast<int64_t>(g), row, std::min(step, rows - row), col});
      }
    }
    elements += job.depth * job.cols * (1 + rows / 8);
  }
  if (units.empty()) return FI_OK;
  int64_t next_unit = 0;
  int32_t no_memory = 0;
  job.groups = groups.data();
  job.units = units.data();
  job.num_units = static_cast<int64_t>(units.size());
  job.next_unit = &next_unit;
  job.no_memory = &no_memory;
  for_ranges(exec, job.num_units, elements / job.num_units, body, job);
  return no_memory == 0 ? FI_OK : fail(FI_INVALID_ARGUMENT, "%s: no memory for scratch", op);
}

fi_status segment_groups(const fi_segment_gemm_args& args, std::vector<GemmGroup>* groups) {
  int64_t before = 0;
  for (int64_t s = 0; s <= args.num_segments; ++s) {
    const int64_t begin = args.seg_indptr[s];
    if (begin < before || begin > args.rows || (s == 0 && begin != 0)) {
      return fail(FI_INVALID_ARGUMENT,
                  "segment_gemm: seg_indptr[%lld] is %lld, expected %lld to %lld",
                  static_cast<long long>(s), static_cast<long long>(begin),
                  static_cast<long long>(before), static_cast<long long>(s == 0 ? 0 : args.rows));
    }
    before = begin;
  }
  for (int64_t s = 0; s < args.num_segments; ++s) {
    const int64_t w = args.weight_indices != nullptr ? args.weight_indices[s] : s;
    if (w < 0 || w >= args.num_weights) {
      return fail(FI_INVALID_ARGUMENT,
                  "segment_gemm: segment %lld has weight %lld, expected 0 to %lld",
                  static_cast<long long>(s), static_cast<long long>(w),
                  static_cast<long long>(args.num_weights - 1));
    }
    const int64_t row = args.seg_indptr[s], rows = args.seg_indptr[s + 1] - row;
    if (rows == 0) continue;
    groups->push_back({at(args.x, row * args.x_stride, args.dtype),
                       at(args.weights, w * args.w_stride_n, args.dtype),
                       at(args.out, row * args.out_stride, args.dtype), rows, 1.0f});
  }
  return FI_OK;
}

fi_status segments(const fi_exec& exec, const fi_segment_gemm_args& args, const Kernels& table) {
  std::vector<GemmGroup> groups;
  groups.reserve(static_cast<size_t>(args.num_segments));
  if (const fi_status status = segment_groups(args, &groups)) return status;
  const size_t size = args.dtype == FI_FLOAT32 ? 4 : 2;
  for (int64_t row = args.seg_indptr[args.num_segments]; row < args.rows; ++row) {
    std::memset(at(args.out, row * args.out_stride, args.dtype), 0,
                size * static_cast<size_t>(args.d_out));
  }
  GemmJob job{};
  job.a_dtype = job.out_dtype = args.dtype;
  job.cols = args.d_out;
  job.depth = args.d_in;
  job.a_stride = args.x_stride;
  job.columns = args.w_stride_out != 1 || (args.w_stride_in == 1 && args.d_out == 1);
  job.b_stride = job.columns ? args.w_stride_out : args.w_stride_in;
  job.out_stride = args.out_stride;
  return multiply_groups("segment_gemm", exec, table.gemm_units[args.dtype], groups, job);
}

fi_status batch(const fi_exec& exec, const fi_bmm_fp8_args& args, const Kernels& table) {
  std::vector<GemmGroup> groups;
  groups.reserve(static_cast<size_t>(args.batch));
  for (int64_t b = 0; b < args.batch; ++b) {
    groups.push_back(
        {at(args.a, b * args.a_stride_b, args.a_dtype),
         at(args.b, b * args.b_stride_b, args.b_dtype),
         at(args.out, b * args.out_stride_b, args.out_dtype), args.m,
         args.a_scale[b * args.a_scale_stride] * args.b_scale[b * args.b_scale_stride]});
  }
  GemmJob job{};
  job.a_dtype = args.a_dtype;
  job.out_dtype = args.out_dtype;
  job.cols = args.n;
  job.depth = args.k;
  job.a_stride = args.a_stride_m;
  job.columns = true;
  job.b_stride = args.b_stride_n;
  job.out_stride = args.out_stride_m;
  return multiply_groups("bmm_fp8", exec, table.gemm_units[args.b_dtype], groups, job);
}

}  // namespace

fi_status segment_gemm(const fi_exec& exec, const fi_segment_gemm_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("segment_gemm", args.dtype, &table)) return status;
  if (args.rows <= 0 || args.d_out <= 0) return FI_OK;
  if (args.w_stride_in != 1 && args.w_stride_out != 1) {
    return fail(FI_INVALID_ARGUMENT,
                "segment_gemm: w_stride_in is %lld and w_stride_out %lld, expected 1 for one",
                static_cast<long long>(args.w_stride_in),
                static_cast<long long>(args.w_stride_out));
  }
  try {
    return segments(exec, args, *table);
  } catch (const std::bad_alloc&) {
    return fail(FI_INVALID_ARGUMENT, "segment_gemm: no memory for the list of segments");
  }
}

fi_status bmm_fp8(const fi_exec& exec, const fi_bmm_fp8_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("bmm_fp8", args.out_dtype, &table)) return status;
  if (args.batch <= 0 || args.m <= 0 || args.n <= 0) return FI_OK;
  if (!is_fp8(args.a_dtype) || !is_fp8(args.b_dtype)) {
    return fail(FI_INVALID_ARGUMENT, "bmm_fp8: a and b must be fp8, got fi_dtype %d and %d",
                static_cast<int>(args.a_dtype), static_cast<int>(args.b_dtype));
  }
  try {
    return batch(exec, args, *table);
  } catch (const std::bad_alloc&) {
    return fail(FI_INVALID_ARGUMENT, "bmm_fp8: no memory for the list of matrices");
  }
}

}  // namespace cpu
}  // namespace flashinfer
