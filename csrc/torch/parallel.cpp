// Compile with -fopenmp and link without it: at::parallel_for is inline, and serial without
// OpenMP. Linking libgomp would bring a second OpenMP runtime with threads of its own beside the
// one that PyPI's torch bundles. Undefined here, these symbols come from the runtime that
// libtorch_cpu.so was linked with; weak, they do not stop a link that refuses undefined symbols.
#ifndef _OPENMP
#error "compile csrc/torch/parallel.cpp with -fopenmp"
#endif
#pragma weak omp_get_num_threads
// The compiler calls these two as builtins, which #pragma weak does not reach.
__asm__(".weak GOMP_parallel\n.weak omp_get_thread_num");

#include <ATen/Parallel.h>

#include "host.h"

namespace flashinfer {
namespace binding {

void parallel_for(int64_t n, int64_t grain, fi_range_body body, void* arg) {
  // A torch built without OpenMP has no such runtime to share.
  if (&omp_get_num_threads == nullptr) {
    if (n > 0) body(arg, 0, n);
    return;
  }
  at::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { body(arg, begin, end); });
}

}  // namespace binding
}  // namespace flashinfer
