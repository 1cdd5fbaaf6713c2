#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {

fi_status softmax(const fi_exec& exec, const fi_softmax_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose_kernels(&table)) return status;
  for_ranges(exec, args.rows, 4 * args.vocab, table->softmax, args);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
