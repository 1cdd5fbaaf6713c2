#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {

fi_status act_and_mul(const fi_exec& exec, const fi_act_and_mul_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("act_and_mul", args.dtype, &table)) return status;
  if (args.activation < 0 || args.activation >= kActivations) {
    return fail(FI_INVALID_ARGUMENT, "act_and_mul: activation %d is not silu, gelu or gelu_tanh",
                static_cast<int>(args.activation));
  }
  for_ranges(exec, args.rows, 4 * args.d, table->act_and_mul[args.dtype][args.activation], args);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
