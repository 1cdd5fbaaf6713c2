// Launchers of the paged KV cache kernels.
#include <climits>

#include "flashinfer/page.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kThreads = 256;

int64_t element_size(fi_dtype dtype) {
  switch (dtype) {
    case FI_FLOAT32:
      return 4;
    case FI_FLOAT16:
    case FI_BFLOAT16:
      return 2;
    case FI_FLOAT8_E4M3:
    case FI_FLOAT8_E5M2:
      return 1;
  }
  return 0;
}

bool vectors_fit(int bytes, const fi_append_paged_kv_args& args) {
  return pointers_aligned(bytes,
                          {args.append_key, args.append_value, args.k_cache, args.v_cache}) &&
         sizes_aligned(bytes, element_size(args.dtype),
                       {args.head_dim, args.key_stride_n, args.key_stride_h, args.value_stride_n,
                        args.value_stride_h, args.k_stride_page, args.k_stride_slot,
                        args.k_stride_h, args.v_stride_page, args.v_stride_slot, args.v_stride_h});
}

template <typename V>
fi_status launch_append(const fi_exec& exec, const fi_append_paged_kv_args& args) {
  const int64_t size = element_size(args.dtype);
  const int64_t head_units = args.head_dim * size / static_cast<int64_t>(sizeof(V));
  if (args.num_heads * head_units > INT_MAX - kThreads || args.batch_size > INT_MAX ||
      args.page_size > INT_MAX) {
    return fail(FI_INVALID_ARGUMENT,
                "append_paged_kv: num_heads * head_dim, batch_size and page_size must be below "
                "2^31 - %d",
                kThreads);
  }
  AppendPagedKvParams p{};
  p.nnz = args.nnz;
  p.batch_size = static_cast<int>(args.batch_size);
  p.page_size = static_cast<int>(args.page_size);
  p.head_units = static_cast<int>(head_units);
  p.row_units = static_cast<int>(args.num_heads * head_units);
  p.k = {static_cast<const char*>(args.append_key),
         args.key_stride_n * size,
         args.key_stride_h * size,
         static_cast<char*>(args.k_cache),
         args.k_stride_page * size,
         args.k_stride_slot * size,
         args.k_stride_h * size};
  p.v = {static_cast<const char*>(args.append_value),
         args.value_stride_n * size,
         args.value_stride_h * size,
         static_cast<char*>(args.v_cache),
         args.v_stride_page * size,
         args.v_stride_slot * size,
         args.v_stride_h * size};
  p.batch_indices = args.batch_indices;
  p.positions = args.positions;
  p.kv_indices = args.kv_indices;
  p.kv_indptr = args.kv_indptr;

  Device device(exec);
  return launch_row_units(device, "append_paged_kv", append_paged_kv_kernel<V>, kThreads, p);
}

}  // namespace

fi_status append_paged_kv(const fi_exec& exec, const fi_append_paged_kv_args& args) {
  if (args.nnz <= 0 || args.num_heads <= 0 || args.head_dim <= 0) return FI_OK;
  if (element_size(args.dtype) == 0) {
    return fail(FI_INVALID_ARGUMENT, "append_paged_kv: unknown fi_dtype %d",
                static_cast<int>(args.dtype));
  }
  if (args.page_size <= 0) {
    return fail(FI_INVALID_ARGUMENT, "append_paged_kv: page_size must be positive, got %lld",
                static_cast<long long>(args.page_size));
  }
  if (vectors_fit(16, args)) return launch_append<uint4>(exec, args);
  if (vectors_fit(4, args)) return launch_append<uint32_t>(exec, args);
  if (vectors_fit(2, args)) return launch_append<uint16_t>(exec, args);
  return launch_append<uint8_t>(exec, args);
}

fi_status batch_positions(const fi_exec& exec, const fi_batch_positions_args& args) {
  if (args.nnz <= 0) return FI_OK;
  if (args.batch_size < 0 || args.batch_size >= INT_MAX) {
    return fail(FI_INVALID_ARGUMENT, "batch_positions: batch_size must be in [0, 2^31), got %lld",
                static_cast<long long>(args.batch_size));
  }
  BatchPositionsParams p{};
  p.nnz = args.nnz;
  p.batch_size = static_cast<int>(args.batch_size);
  p.append_indptr = args.append_indptr;
  p.seq_lens = args.seq_lens;
  p.batch_indices = args.batch_indices;
  p.positions = args.positions;
  Device device(exec);
  const int64_t blocks = std::min(ceil_div(args.nnz, kThreads),
                                  device.resident_blocks(batch_positions_kernel, kThreads));
  return device.launch("batch_positions", batch_positions_kernel,
                       dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, p);
}

}  // namespace cuda
}  // namespace flashinfer
