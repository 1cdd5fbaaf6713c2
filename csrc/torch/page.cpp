#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

// On the CPU every destination is checked before anything is written: a wrong page table would
// otherwise be a write out of bounds. On the GPU that would be a synchronisation.
void check_destinations(const fi_append_paged_kv_args& args, int64_t num_pages,
                        int64_t num_indices) {
  for (int64_t n = 0; n < args.nnz; ++n) {
    const int64_t b = args.batch_indices[n], position = args.positions[n];
    if (b < 0 || b >= args.batch_size) continue;
    if (position < 0) {
      value_error("positions[%lld] is %lld, expected a position of 0 or more",
                  static_cast<long long>(n), static_cast<long long>(position));
    }
    const int64_t begin = args.kv_indptr[b], end = args.kv_indptr[b + 1];
    if (begin < 0 || end > num_indices) {
      value_error("kv_indptr[%lld:%lld] is (%lld, %lld), expected values in 0..%lld",
                  static_cast<long long>(b), static_cast<long long>(b + 2),
                  static_cast<long long>(begin), static_cast<long long>(end),
                  static_cast<long long>(num_indices));
    }
    const int64_t entry = begin + position / args.page_size;
    if (entry >= end) {
      value_error("positions[%lld] is %lld, expected less than %lld: request %lld has %lld pages",
                  static_cast<long long>(n), static_cast<long long>(position),
                  static_cast<long long>((end - begin) * args.page_size), static_cast<long long>(b),
                  static_cast<long long>(end - begin));
    }
    const int64_t page = args.kv_indices[entry];
    if (page < 0 || page >= num_pages) {
      value_error("kv_indices[%lld] is %lld, expected a page in 0..%lld",
                  static_cast<long long>(entry), static_cast<long long>(page),
                  static_cast<long long>(num_pages - 1));
    }
  }
}

}  // namespace

void append_paged_kv(const fi_exec& exec, const Tensor& append_key, const Tensor& append_value,
                     const Tensor& batch_indices, const Tensor& positions, const Tensor& k_cache,
                     const Tensor& v_cache, const Tensor& kv_indices, const Tensor& kv_indptr,
                     bool hnd) {
  check_shape(append_key, {-1, -1, -1});
  const int64_t nnz = append_key.size(0), heads = append_key.size(1), dim = append_key.size(2);
  check_shape(append_value, {nnz, heads, dim});
  if (hnd) {
    check_shape(k_cache, {-1, heads, -1, dim});
    check_shape(v_cache, {k_cache.size(0), heads, k_cache.size(2), dim});
  } else {
    check_shape(k_cache, {-1, -1, heads, dim});
    check_shape(v_cache, {k_cache.size(0), k_cache.size(1), heads, dim});
  }
  check_same_dtype(append_value, append_key);
  check_same_dtype(k_cache, append_key);
  check_same_dtype(v_cache, append_key);
  check_inner_contiguous(append_key);
  check_inner_contiguous(append_value);
  check_inner_contiguous(k_cache);
  check_inner_contiguous(v_cache);
  check_index(batch_indices, nnz);
  check_index(positions, nnz);
  check_index(kv_indices, -1);
  check_index(kv_indptr, -1);
  if (kv_indptr.size(0) == 0) value_error("kv_indptr is empty, expected [batch_size + 1]");

  const int slot = hnd ? 2 : 1, head = hnd ? 1 : 2;
  fi_append_paged_kv_args args{};
  args.dtype = float_dtype(append_key, /*fp8=*/true);
  args.nnz = nnz;
  args.num_heads = heads;
  args.head_dim = dim;
  args.page_size = k_cache.size(slot);
  args.batch_size = kv_indptr.size(0) - 1;
  args.append_key = append_key.data;
  args.append_value = append_value.data;
  args.key_stride_n = append_key.stride(0);
  args.key_stride_h = append_key.stride(1);
  args.value_stride_n = append_value.stride(0);
  args.value_stride_h = append_value.stride(1);
  args.batch_indices = batch_indices.as<const int32_t>();
  args.positions = positions.as<const int32_t>();
  args.k_cache = k_cache.data;
  args.v_cache = v_cache.data;
  args.k_stride_page = k_cache.stride(0);
  args.k_stride_slot = k_cache.stride(slot);
  args.k_stride_h = k_cache.stride(head);
  args.v_stride_page = v_cache.stride(0);
  args.v_stride_slot = v_cache.stride(slot);
  args.v_stride_h = v_cache.stride(head);
  args.kv_indices = kv_indices.as<const int32_t>();
  args.kv_indptr = kv_indptr.as<const int32_t>();
  if (nnz == 0 || heads == 0 || dim == 0) return;
  if (args.page_size == 0) value_error("%s has pages of 0 entries", k_cache.name);
  if (on_cpu(exec)) check_destinations(args, k_cache.size(0), kv_indices.size(0));
  check_status(fi_append_paged_kv(&exec, &args));
}

void batch_positions(const fi_exec& exec, const Tensor& append_indptr, const Tensor& seq_lens,
                     const Tensor& batch_indices, const Tensor& positions) {
  check_index(append_indptr, -1);
  const int64_t batch_size = append_indptr.size(0) - 1;
  if (batch_size < 0) value_error("append_indptr is empty, expected [batch_size + 1]");
  check_index(seq_lens, batch_size);
  check_index(batch_indices, -1);
  const int64_t nnz = batch_indices.size(0);
  check_index(positions, nnz);

  fi_batch_positions_args args{};
  args.batch_size = batch_size;
  args.nnz = nnz;
  args.append_indptr = append_indptr.as<const int32_t>();
  args.seq_lens = seq_lens.as<const int32_t>();
  args.batch_indices = batch_indices.as<int32_t>();
  args.positions = positions.as<int32_t>();
  if (on_cpu(exec)) {
    for (int64_t b = 0; b < batch_size; ++b) {
      const int32_t begin = args.append_indptr[b], end = args.append_indptr[b + 1];
      if (begin < 0 || end < begin || end > nnz) {
        value_error(
            "append_indptr[%lld:%lld] is (%d, %d), expected non-decreasing values in 0..%lld",
            static_cast<long long>(b), static_cast<long long>(b + 2), begin, end,
            static_cast<long long>(nnz));
      }
    }
  }
  if (nnz == 0) return;
  check_status(fi_batch_positions(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
