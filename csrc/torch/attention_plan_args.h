// What the binding of attention and of multi-head latent attention share: the plan and what it
// leads to.
#ifndef FLASHINFER_TORCH_ATTENTION_PLAN_ARGS_H_
#define FLASHINFER_TORCH_ATTENTION_PLAN_ARGS_H_

#include <string_view>

#include "tensor.h"

namespace flashinfer {
namespace binding {

// Sets args' plan and workspace, given its num_kv_heads and head_dim.
void read_plan(const Tensor& plan, const Tensor& workspace, int64_t tile_rows,
               int64_t item_capacity, int64_t merge_capacity, int64_t num_slots,
               fi_attention_args* args);

// On the CPU the plan is here to be read, so whatever it leads to is checked before it is touched.
struct Extents {
  int64_t tokens, slots;
  int64_t keys;     // pages, or rows of k
  int64_t indices;  // entries of kv_indices
  int64_t mask_bytes, mask_requests;
};
void check_plan(const fi_attention_args& args, const Extents& has);

// window_left as the C interface has it, -1 for none.
int32_t window_size(int64_t window_left);

fi_pos_encoding parse_pos_encoding(std::string_view name);

}  // namespace binding
}  // namespace flashinfer

#endif  // FLASHINFER_TORCH_ATTENTION_PLAN_ARGS_H_
