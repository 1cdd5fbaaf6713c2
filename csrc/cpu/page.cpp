// Copies and index arithmetic: memcpy is as fast as it gets, so there is nothing to compile per
// instruction set.
#include <cstring>

#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {
namespace {

int64_t element_size(fi_dtype dtype) {
  switch (dtype) {
    case FI_FLOAT16:
    case FI_BFLOAT16:
      return 2;
    case FI_FLOAT32:
      return 4;
    case FI_FLOAT8_E4M3:
    case FI_FLOAT8_E5M2:
      return 1;
  }
  return 0;
}

bool skipped(const fi_append_paged_kv_args& args, int64_t row) {
  return args.batch_indices[row] < 0 || args.batch_indices[row] >= args.batch_size;
}

// One row's heads; a single copy where both sides have them side by side.
void copy_heads(const void* from, int64_t from_stride, void* to, int64_t to_stride, int64_t heads,
                int64_t head_bytes) {
  const char* source = static_cast<const char*>(from);
  char* target = static_cast<char*>(to);
  if (from_stride == head_bytes && to_stride == head_bytes) {
    std::memcpy(target, source, static_cast<size_t>(heads * head_bytes));
    return;
  }
  for (int64_t h = 0; h < heads; ++h) {
    std::memcpy(target + h * to_stride, source + h * from_stride, static_cast<size_t>(head_bytes));
  }
}

void append_rows(void* arg, int64_t begin, int64_t end) {
  const fi_append_paged_kv_args& args = *static_cast<const fi_append_paged_kv_args*>(arg);
  const int64_t size = element_size(args.dtype);
  const char* keys = static_cast<const char*>(args.append_key);
  const char* values = static_cast<const char*>(args.append_value);
  char* k_cache = static_cast<char*>(args.k_cache);
  char* v_cache = static_cast<char*>(args.v_cache);
  for (int64_t n = begin; n < end; ++n) {
    if (skipped(args, n)) continue;
    const int64_t entry = args.positions[n] / args.page_size;
    const int64_t slot = args.positions[n] % args.page_size;
    const int64_t page = args.kv_indices[args.kv_indptr[args.batch_indices[n]] + entry];
    const int64_t k_at = page * args.k_stride_page + slot * args.k_stride_slot;
    const int64_t v_at = page * args.v_stride_page + slot * args.v_stride_slot;
    copy_heads(keys + n * args.key_stride_n * size, args.key_stride_h * size, k_cache + k_at * size,
               args.k_stride_h * size, args.num_heads, args.head_dim * size);
    copy_heads(values + n * args.value_stride_n * size, args.value_stride_h * size,
               v_cache + v_at * size, args.v_stride_h * size, args.num_heads, args.head_dim * size);
  }
}

void fill_positions(void* arg, int64_t begin, int64_t end) {
  const fi_batch_positions_args& args = *static_cast<const fi_batch_positions_args*>(arg);
  const int32_t* indptr = args.append_indptr;
  for (int64_t b = begin; b < end; ++b) {
    const int32_t first = args.seq_lens[b] - (indptr[b + 1] - indptr[b]);
    for (int32_t n = indptr[b]; n < indptr[b + 1]; ++n) {
      args.batch_indices[n] = static_cast<int32_t>(b);
      args.positions[n] = first + (n - indptr[b]);
    }
  }
}

}  // namespace

fi_status append_paged_kv(const fi_exec& exec, const fi_append_paged_kv_args& args) {
  if (element_size(args.dtype) == 0) {
    return fail(FI_INVALID_ARGUMENT, "append_paged_kv: dtype %d is not one of fi_dtype",
                static_cast<int>(args.dtype));
  }
  if (args.page_size <= 0) {
    return fail(FI_INVALID_ARGUMENT, "append_paged_kv: page_size is %lld, expected 1 or more",
                static_cast<long long>(args.page_size));
  }
  // Before anything is written: every row must land in a page that its request has.
  for (int64_t n = 0; n < args.nnz; ++n) {
    if (skipped(args, n)) continue;
    const int32_t request = args.batch_indices[n];
    const int64_t pages = args.kv_indptr[request + 1] - args.kv_indptr[request];
    if (args.positions[n] < 0 || args.positions[n] / args.page_size >= pages) {
      return fail(FI_INVALID_ARGUMENT,
                  "append_paged_kv: positions[%lld] is %d, but request %d has %lld pages of %lld",
                  static_cast<long long>(n), args.positions[n], request,
                  static_cast<long long>(pages), static_cast<long long>(args.page_size));
    }
  }
  for_ranges(exec, args.nnz, 4 * args.num_heads * args.head_dim, append_rows, args);
  return FI_OK;
}

fi_status batch_positions(const fi_exec& exec, const fi_batch_positions_args& args) {
  if (const fi_status status = check_indptr("batch_positions", "append_indptr", args.append_indptr,
                                            args.batch_size, args.nnz)) {
    return status;
  }
  const int64_t filled = args.append_indptr[args.batch_size];
  const int64_t per_request = args.batch_size > 0 ? filled / args.batch_size : 0;
  for_ranges(exec, args.batch_size, 2 * per_request, fill_positions, args);
  for (int64_t n = filled; n < args.nnz; ++n) {
    args.batch_indices[n] = -1;
    args.positions[n] = 0;
  }
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
