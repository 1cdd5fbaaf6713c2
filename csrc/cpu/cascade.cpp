#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {

fi_status merge_state(const fi_exec& exec, const fi_merge_state_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("merge_state", args.dtype, &table)) return status;
  const int64_t elements = 3 * args.num_heads * args.head_dim;
  for_ranges(exec, args.seq_len, elements, table->merge_state[args.dtype], args);
  return FI_OK;
}

fi_status merge_states(const fi_exec& exec, const fi_merge_states_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status status = choose("merge_states", args.dtype, &table)) return status;
  const int64_t elements = (args.num_states + 1) * args.num_heads * args.head_dim;
  for_ranges(exec, args.seq_len, elements, table->merge_states[args.dtype], args);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
