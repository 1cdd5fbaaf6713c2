// What the binding takes from the running torch: its CPU threads and its CUDA streams.
#ifndef FLASHINFER_TORCH_HOST_H_
#define FLASHINFER_TORCH_HOST_H_

#include <cstdint>

#include "flashinfer/api.h"

namespace flashinfer {
namespace binding {

// at::parallel_for: torch's intra-op threads, as torch.set_num_threads() set them.
void parallel_for(int64_t n, int64_t grain, fi_range_body body, void* arg);

// The cudaStream_t that torch would launch on now; throws ArgumentError if this torch has no CUDA.
void* current_cuda_stream(int32_t device);

}  // namespace binding
}  // namespace flashinfer

#endif  // FLASHINFER_TORCH_HOST_H_
