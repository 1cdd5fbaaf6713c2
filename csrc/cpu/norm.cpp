#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {

fi_status rmsnorm(const fi_exec& exec, const fi_rmsnorm_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("rmsnorm", args.dtype, &table)) return status;
  for_ranges(exec, args.rows, 2 * args.hidden, table->rmsnorm[args.dtype], args);
  return FI_OK;
}

fi_status fused_add_rmsnorm(const fi_exec& exec, const fi_fused_add_rmsnorm_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("fused_add_rmsnorm", args.dtype, &table)) return status;
  for_ranges(exec, args.rows, 4 * args.hidden, table->fused_add_rmsnorm[args.dtype], args);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
