// Hands ranges of work to the caller's threads.
#ifndef FLASHINFER_CPU_PARALLEL_H_
#define FLASHINFER_CPU_PARALLEL_H_

#include <cstdint>

#include "flashinfer/api.h"

namespace flashinfer {
namespace cpu {

// Work below which a second thread costs more than it brings, in elements touched (some
// microseconds).
constexpr int64_t kElementsPerThread = 16384;

// Runs body(job, begin, end) over [0, n), on exec's threads if it has any. `elements` is what one
// step of the range touches. Bodies only read the job.
template <class Job>
void for_ranges(const fi_exec& exec, int64_t n, int64_t elements, fi_range_body body,
                const Job& job) {
  if (n <= 0) return;
  void* arg = const_cast<Job*>(&job);
  const int64_t grain = elements < kElementsPerThread ? kElementsPerThread / (elements + 1) + 1 : 1;
  if (exec.parallel_for == nullptr || n <= grain) {
    body(arg, 0, n);
  } else {
    exec.parallel_for(n, grain, body, arg);
  }
}

}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_PARALLEL_H_
