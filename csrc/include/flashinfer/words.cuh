// Words that come as arguments of a kernel.
#ifndef FLASHINFER_WORDS_CUH_
#define FLASHINFER_WORDS_CUH_

#include <cstdint>

#include "flashinfer/arch/memory.cuh"

namespace flashinfer {

// As many as fit into 4 KB of arguments, what a kernel may have before CUDA 12.1.
constexpr int kUploadWords = 1020;

struct UploadWordsParams {
  int32_t* out;
  int count;
  int32_t words[kUploadWords];
};
static_assert(sizeof(UploadWordsParams) <= 4096, "the limit of arguments");

// In one block.
__global__ void upload_words_kernel(const UploadWordsParams p) {
  for (int i = threadIdx.x; i < p.count; i += blockDim.x) store(p.out + i, p.words[i]);
}

}  // namespace flashinfer

#endif  // FLASHINFER_WORDS_CUH_
