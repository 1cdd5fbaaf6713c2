// The attention kernels as functions, so that the units that hold them compile side by side, and
// what the launchers of attention and of multi-head latent attention share.
#ifndef FLASHINFER_CUDA_ATTENTION_KERNELS_H_
#define FLASHINFER_CUDA_ATTENTION_KERNELS_H_

#include "flashinfer/attention/params.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {

constexpr double kLog2e = 1.4426950408889634;

// Tensors whose rows are moved 16 bytes at a time.
struct Vectors {
  const char* name;
  const void* data;
  int64_t element_size;
  int64_t strides[3];
};

inline fi_status check_alignment(const char* op, const Vectors& tensor) {
  if (!pointers_aligned(16, {tensor.data})) {
    return fail(FI_INVALID_ARGUMENT, "%s: %s is at %p, expected a multiple of 16 bytes", op,
                tensor.name, tensor.data);
  }
  for (const int64_t stride : tensor.strides) {
    if (!sizes_aligned(16, tensor.element_size, {stride})) {
      return fail(FI_INVALID_ARGUMENT,
                  "%s: %s has a stride of %lld elements, expected a multiple of %lld (16 bytes)",
                  op, tensor.name, static_cast<long long>(stride),
                  static_cast<long long>(16 / tensor.element_size));
    }
  }
  return FI_OK;
}

inline KvTensor kv_tensor(const void* data, int64_t size, int64_t page, int64_t n, int64_t h) {
  return {static_cast<const char*>(data), page * size, n * size, h * size};
}

// How many blocks there are in a launch of kRows rows a block.
struct AttentionGrid {
  int64_t items;
  int64_t kv_heads;
  int64_t parts;  // blocks that share a tile of the plan
};

// The kernels with kRows rows a block. The lean instantiation (kGeneral false) looks only at the
// KvAttentionParams of params and has no fp8.
template <typename T, int kRows, bool kGeneral>
struct AttentionKernels {
  static fi_status launch(Device& device, const AttentionGrid& grid, int64_t head_dim, bool fp8,
                          const GeneralAttentionParams& params);
  // Loads all that launch() may launch for a head_dim, and returns how many blocks of them a
  // multiprocessor has at once.
  static int load(Device& device, int64_t head_dim);
};

// Launches the merge of the plan's split tiles, or loads it; of attention.cu.
template <typename T>
fi_status launch_merge(Device& device, const char* op, const AttentionParams& params, int head_dim,
                       int64_t item_capacity, int64_t merge_capacity);
template <typename T>
void load_merge(Device& device);

// attention_plan of head_dim 512, which is multi-head latent attention's; of mla.cu.
fi_status mla_plan(const fi_exec& exec, const fi_attention_plan_args& args);

}  // namespace cuda
}  // namespace flashinfer

#endif  // FLASHINFER_CUDA_ATTENTION_KERNELS_H_
