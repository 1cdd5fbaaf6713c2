#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {
namespace {

// `choose`, if out_dtype is an fp8.
template <class Args>
fi_status choose_quant(const char* op, const Args& args, const Kernels** table) {
  if (args.out_dtype != FI_FLOAT8_E4M3 && args.out_dtype != FI_FLOAT8_E5M2) {
    return fail(FI_INVALID_ARGUMENT, "%s: out_dtype %d is not an fp8", op,
                static_cast<int>(args.out_dtype));
  }
  return choose(op, args.dtype, table);
}

}  // namespace

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

fi_status layernorm(const fi_exec& exec, const fi_layernorm_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("layernorm", args.dtype, &table)) return status;
  for_ranges(exec, args.rows, 4 * args.hidden, table->layernorm[args.dtype], args);
  return FI_OK;
}

fi_status rmsnorm_quant(const fi_exec& exec, const fi_rmsnorm_quant_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose_quant("rmsnorm_quant", args, &table)) return status;
  const bool e5m2 = args.out_dtype == FI_FLOAT8_E5M2;
  for_ranges(exec, args.rows, 2 * args.hidden, table->rmsnorm_quant[args.dtype][e5m2], args);
  return FI_OK;
}

fi_status fused_add_rmsnorm_quant(const fi_exec& exec,
                                  const fi_fused_add_rmsnorm_quant_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose_quant("fused_add_rmsnorm_quant", args, &table)) return status;
  const bool e5m2 = args.out_dtype == FI_FLOAT8_E5M2;
  for_ranges(exec, args.rows, 4 * args.hidden, table->fused_add_rmsnorm_quant[args.dtype][e5m2],
             args);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
