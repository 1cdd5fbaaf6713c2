// Launchers of the matrix product kernels.
#include <climits>

#include "gemm_kernels.h"

namespace flashinfer {
namespace cuda {
namespace {

// A dimension that the kernels count in 32 bits.
fi_status check_size(const char* op, const char* name, int64_t size) {
  if (size <= INT_MAX / 2) return FI_OK;
  return fail(FI_INVALID_ARGUMENT, "%s: %s must be below 2^30, got %lld", op, name,
              static_cast<long long>(size));
}

bool fp8(fi_dtype dtype) { return dtype == FI_FLOAT8_E4M3 || dtype == FI_FLOAT8_E5M2; }

}  // namespace

fi_status segment_gemm(const fi_exec& exec, const fi_segment_gemm_args& args) {
  if (args.rows <= 0 || args.d_out <= 0) return FI_OK;
  if (const fi_status status = check_size("segment_gemm", "rows", args.rows)) return status;
  if (const fi_status status = check_size("segment_gemm", "d_in", args.d_in)) return status;
  if (const fi_status status = check_size("segment_gemm", "d_out", args.d_out)) return status;
  if (const fi_status status = check_size("segment_gemm", "num_segments", args.num_segments)) {
    return status;
  }
  if (args.dtype != FI_FLOAT16 && args.dtype != FI_BFLOAT16) {
    return fail(FI_UNSUPPORTED, "segment_gemm: dtype must be float16 or bfloat16, got fi_dtype %d",
                static_cast<int>(args.dtype));
  }
  if (args.w_stride_in != 1 && args.w_stride_out != 1) {
    return fail(FI_INVALID_ARGUMENT,
                "segment_gemm: w_stride_in is %lld and w_stride_out %lld, expected 1 for one",
                static_cast<long long>(args.w_stride_in),
                static_cast<long long>(args.w_stride_out));
  }
  const bool row_major = args.w_stride_out == 1 && (args.w_stride_in != 1 || args.d_out > 1);
  const int64_t line = row_major ? args.w_stride_in : args.w_stride_out;

  GemmParams p{};
  p.rows = static_cast<int>(args.rows);
  p.cols = static_cast<int>(args.d_out);
  p.depth = static_cast<int>(args.d_in);
  p.a = static_cast<const char*>(args.x);
  p.a_stride_row = args.x_stride;
  p.b = static_cast<const char*>(args.weights);
  p.b_stride_batch = args.w_stride_n;
  p.b_stride_line = line;
  p.out = static_cast<char*>(args.out);
  p.out_stride_row = args.out_stride;
  p.num_segments = static_cast<int>(args.num_segments);
  p.seg_indptr = args.seg_indptr;
  p.weight_indices = args.weight_indices;
  p.out_pairs = pointers_aligned(4, {args.out}) && sizes_aligned(4, 2, {args.out_stride});

  // How many tiles the segments have is known on the device only. A segment has at most one that
  // is not full; so have the rows after the last one.
  const auto tiles = [&](int rows) { return args.rows / rows + args.num_segments + 1; };
  GemmLaunch launch{};
  launch.op = "segment_gemm";
  launch.row_tiles_of_16 = tiles(16);
  launch.row_tiles_of_64 = tiles(64);
  launch.row_tiles_of_128 = tiles(128);
  launch.average_rows = ceil_div(args.rows, std::max<int64_t>(args.num_segments, 1));
  launch.row_major = row_major;
  // The stride of what there is only one of does not count.
  launch.vectors = pointers_aligned(16, {args.x, args.weights}) &&
                   sizes_aligned(16, 2,
                                 {stride_for_alignment(args.rows, args.x_stride),
                                  stride_for_alignment(args.num_weights, args.w_stride_n),
                                  stride_for_alignment(row_major ? args.d_in : args.d_out, line),
                                  args.d_in, row_major ? args.d_out : 0});
  Device device(exec);
  return args.dtype == FI_FLOAT16 ? launch_gemm<__half, false>(device, launch, p)
                                  : launch_gemm<__nv_bfloat16, false>(device, launch, p);
}

fi_status bmm_fp8(const fi_exec& exec, const fi_bmm_fp8_args& args) {
  if (args.batch <= 0 || args.m <= 0 || args.n <= 0) return FI_OK;
  if (const fi_status status = check_size("bmm_fp8", "m", args.m)) return status;
  if (const fi_status status = check_size("bmm_fp8", "n", args.n)) return status;
  if (const fi_status status = check_size("bmm_fp8", "k", args.k)) return status;
  if (!fp8(args.a_dtype) || !fp8(args.b_dtype)) {
    return fail(FI_INVALID_ARGUMENT, "bmm_fp8: a and b must be fp8, got fi_dtype %d and %d",
                static_cast<int>(args.a_dtype), static_cast<int>(args.b_dtype));
  }
  if (args.out_dtype != FI_FLOAT16 && args.out_dtype != FI_BFLOAT16) {
    return fail(FI_UNSUPPORTED, "bmm_fp8: out must be float16 or bfloat16, got fi_dtype %d",
                static_cast<int>(args.out_dtype));
  }
  GemmParams p{};
  p.rows = static_cast<int>(args.m);
  p.cols = static_cast<int>(args.n);
  p.depth = static_cast<int>(args.k);
  p.a = static_cast<const char*>(args.a);
  p.a_stride_batch = args.a_stride_b;
  p.a_stride_row = args.a_stride_m;
  p.b = static_cast<const char*>(args.b);
  p.b_stride_batch = args.b_stride_b;
  p.b_stride_line = args.b_stride_n;
  p.out = static_cast<char*>(args.out);
  p.out_stride_batch = args.out_stride_b;
  p.out_stride_row = args.out_stride_m;
  p.num_segments = -1;
  p.a_e5m2 = args.a_dtype == FI_FLOAT8_E5M2;
  p.b_e5m2 = args.b_dtype == FI_FLOAT8_E5M2;
  p.out_bf16 = args.out_dtype == FI_BFLOAT16;
  p.a_scale = args.a_scale;
  p.b_scale = args.b_scale;
  p.a_scale_stride = args.a_scale_stride;
  p.b_scale_stride = args.b_scale_stride;
  p.out_pairs =
      pointers_aligned(4, {args.out}) &&
      sizes_aligned(4, 2, {args.out_stride_m, stride_for_alignment(args.batch, args.out_stride_b)});

  GemmLaunch launch{};
  launch.op = "bmm_fp8";
  launch.row_tiles_of_16 = args.batch * ceil_div(args.m, 16);
  launch.row_tiles_of_64 = args.batch * ceil_div(args.m, 64);
  launch.row_tiles_of_128 = args.batch * ceil_div(args.m, 128);
  if (const fi_status status = check_size("bmm_fp8", "batch * m / 16", launch.row_tiles_of_16)) {
    return status;
  }
  launch.average_rows = args.m;
  launch.vectors = pointers_aligned(16, {args.a, args.b}) &&
                   sizes_aligned(16, 1,
                                 {stride_for_alignment(args.m, args.a_stride_m),
                                  stride_for_alignment(args.n, args.b_stride_n), args.k,
                                  stride_for_alignment(args.batch, args.a_stride_b),
                                  stride_for_alignment(args.batch, args.b_stride_b)});
  Device device(exec);
  return launch_gemm<__half, true>(device, launch, p);
}

}  // namespace cuda
}  // namespace flashinfer
