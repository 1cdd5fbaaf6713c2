// Finding the segment of an element in an indptr.
#ifndef FLASHINFER_SEARCH_CUH_
#define FLASHINFER_SEARCH_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace flashinfer {

// The last of `count` > 0 ascending entries that is at most `value`, or 0. For an indptr, that is
// the segment that holds element `value`: an empty segment starts where the next one does, and
// the last that starts there is the one with elements.
__device__ __forceinline__ int last_at_most(const int32_t* ascending, int count, int64_t value) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (ascending[middle] <= value) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace flashinfer

#endif  // FLASHINFER_SEARCH_CUH_
