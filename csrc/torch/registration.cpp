// The schemas of the ops, and the adapter from torch's boxed calling convention to ops.h. Boxed
// kernels are what torch.ops calls without a conversion in between, and cost no template per
// signature at compile time.
#include <ATen/core/stack.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <array>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "host.h"
#include "ops.h"

namespace flashinfer {
namespace binding {
namespace {

DType to_dtype(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Half:
      return DType::kHalf;
    case c10::ScalarType::BFloat16:
      return DType::kBFloat16;
    case c10::ScalarType::Float:
      return DType::kFloat;
    case c10::ScalarType::Float8_e4m3fn:
      return DType::kE4M3;
    case c10::ScalarType::Float8_e5m2:
      return DType::kE5M2;
    case c10::ScalarType::Int:
      return DType::kInt;
    case c10::ScalarType::Long:
      return DType::kLong;
    case c10::ScalarType::Byte:
      return DType::kByte;
    case c10::ScalarType::Bool:
      return DType::kBool;
    default:
      return DType::kOther;
  }
}

// One call: the schema's names for its arguments, and the device that all tensors must share.
class Call {
 public:
  explicit Call(const c10::FunctionSchema& schema) : schema_(schema) {}

  Tensor tensor(const c10::IValue& value, size_t i) {
    const char* name = schema_.arguments()[i].name().c_str();
    const at::Tensor& t = value.toTensor();
    if (!t.defined()) value_error("%s is an undefined tensor", name);
    if (!device_.has_value()) {
      device_ = t.device();
      first_ = name;
    } else if (t.device() != *device_) {
      value_error("%s is on %s, expected %s as %s is", name, t.device().str().c_str(),
                  device_->str().c_str(), first_);
    }
    return described(value, i);
  }

  HostTensor host_tensor(const c10::IValue& value, size_t i) {
    const char* name = schema_.arguments()[i].name().c_str();
    const at::Tensor& t = value.toTensor();
    if (!t.defined()) value_error("%s is an undefined tensor", name);
    if (!t.device().is_cpu()) {
      value_error("%s is on %s, expected cpu", name, t.device().str().c_str());
    }
    return {described(value, i)};
  }

  const std::optional<c10::Device>& device() const { return device_; }

 private:
  Tensor described(const c10::IValue& value, size_t i) {
    const c10::Argument& argument = schema_.arguments()[i];
    const at::Tensor& t = value.toTensor();
    const char* name = argument.name().c_str();
    if (t.layout() != c10::Layout::Strided) {
      type_error("%s is a sparse or opaque tensor, expected a strided one", name);
    }
    Tensor out;
    out.name = name;
    const c10::AliasInfo* alias = argument.alias_info();
    if (alias != nullptr && alias->isWrite()) {
      out.data = t.mutable_data_ptr();
      // torch.library.custom_op does the same, so that autograd notices a saved tensor that
      // changed.
      if (!t.is_inference()) t.unsafeGetTensorImpl()->bump_version();
    } else {
      out.data = const_cast<void*>(t.const_data_ptr());
    }
    out.dtype = to_dtype(t.scalar_type());
    out.dtype_name = c10::toString(t.scalar_type());
    out.element_size = static_cast<int64_t>(t.element_size());
    out.dim = t.dim();
    out.sizes = t.sizes().data();
    out.strides = t.strides().data();
    return out;
  }

  const c10::FunctionSchema& schema_;
  std::optional<c10::Device> device_;
  const char* first_ = "";
};

// How an argument of an op is read from the stack, kept during the call, and passed on.
template <typename Arg>
struct Slot {
  std::decay_t<Arg> value;
  Slot(Call&, const c10::IValue& from, size_t) : value(from.to<std::decay_t<Arg>>()) {}
  Arg get() const { return value; }
};
template <>
struct Slot<const Tensor&> {
  Tensor value;
  Slot(Call& call, const c10::IValue& from, size_t i) : value(call.tensor(from, i)) {}
  const Tensor& get() const { return value; }
};
template <>
struct Slot<const HostTensor&> {
  HostTensor value;
  Slot(Call& call, const c10::IValue& from, size_t i) : value(call.host_tensor(from, i)) {}
  const HostTensor& get() const { return value; }
};
template <>
struct Slot<const Tensor*> {
  std::optional<Tensor> value;
  Slot(Call& call, const c10::IValue& from, size_t i) {
    if (!from.isNone()) value = call.tensor(from, i);
  }
  const Tensor* get() const { return value.has_value() ? &*value : nullptr; }
};
template <>
struct Slot<std::string_view> {
  std::string_view value;
  Slot(Call&, const c10::IValue& from, size_t) : value(from.toStringRef()) {}
  std::string_view get() const { return value; }
};

template <typename... Args, size_t... I>
void run(void (*op)(const fi_exec&, Args...), const c10::FunctionSchema& schema,
         const torch::jit::Stack& stack, std::index_sequence<I...>) {
  Call call(schema);
  std::tuple<Slot<Args>...> slots{
      Slot<Args>(call, torch::jit::peek(stack, I, sizeof...(Args)), I)...};
  fi_exec exec{};
  exec.device = -1;
  exec.parallel_for = parallel_for;
  c10::OptionalDeviceGuard guard;
  if (call.device().has_value() && call.device()->is_cuda()) {
    guard.reset_device(*call.device());
    exec.device = call.device()->index();
    exec.stream = current_cuda_stream(exec.device);
  }
  op(exec, std::get<I>(slots).get()...);
}

[[noreturn]] void rethrow(const c10::FunctionSchema& schema, const ArgumentError& error) {
  const std::string text = schema.name() + ": " + error.what();
  switch (error.kind()) {
    case ErrorKind::kValue:
      TORCH_CHECK_VALUE(false, text);
    case ErrorKind::kType:
      TORCH_CHECK_TYPE(false, text);
    case ErrorKind::kNotImplemented:
      TORCH_CHECK_NOT_IMPLEMENTED(false, text);
    case ErrorKind::kRuntime:
      break;
  }
  TORCH_CHECK(false, text);
}

template <typename... Args>
constexpr size_t arity(void (*)(const fi_exec&, Args...)) {
  return sizeof...(Args);
}

template <auto Op>
void boxed(const c10::OperatorHandle& handle, torch::jit::Stack* stack) {
  constexpr size_t count = arity(Op);
  try {
    run(Op, handle.schema(), *stack, std::make_index_sequence<count>());
  } catch (const ArgumentError& error) {
    rethrow(handle.schema(), error);
  }
  torch::jit::drop(*stack, count);
}

#define FLASHINFER_ROPE_ARGS                                                                  \
  "Tensor? pos_ids, Tensor? indptr, Tensor? offsets, Tensor? cos_sin_cache, int rotary_dim, " \
  "bool interleave, bool llama31, float rope_scale, float rope_theta, float smooth_a, "       \
  "float smooth_b) -> ()"

// `workspace` is scratch that has no meaning before or after the op. It is not marked as written,
// or functionalisation would copy it, all its megabytes, in every compiled call.
#define FLASHINFER_ATTENTION_ARGS                                                               \
  "Tensor q, Tensor k, Tensor v, Tensor? kv_indices, Tensor(a!) out, Tensor(b!)? lse, "         \
  "Tensor plan, Tensor workspace, Tensor? mask, Tensor? mask_indptr, Tensor? alibi_slopes, "    \
  "SymInt tile_rows, SymInt item_capacity, SymInt merge_capacity, SymInt num_slots, bool hnd, " \
  "bool causal, SymInt window_left, str pos_encoding, float sm_scale, float logits_soft_cap, "  \
  "float v_scale, float rope_scale, float rope_theta"

#define FLASHINFER_MLA_ARGS                                                                  \
  "Tensor q_nope, Tensor q_pe, Tensor ckv, Tensor kpe, Tensor kv_indices, Tensor(a!) out, "  \
  "Tensor(b!)? lse, Tensor plan, Tensor workspace, SymInt tile_rows, SymInt item_capacity, " \
  "SymInt merge_capacity, SymInt num_slots, SymInt window_left, str pos_encoding, "          \
  "float sm_scale, float logits_soft_cap, float v_scale, float rope_scale, float rope_theta"

#define FLASHINFER_SAMPLING_OPS(X)                                                                \
  X(sample,                                                                                       \
    "(Tensor(a!) samples, Tensor(b!)? success, Tensor probs, Tensor uniform_samples, "            \
    "Tensor? top_k, SymInt top_k_value, Tensor? top_p, float top_p_value, Tensor? min_p, "        \
    "float min_p_value, bool top_k_first) -> ()")                                                 \
  X(renorm_probs,                                                                                 \
    "(Tensor(a!) out, Tensor probs, Tensor? top_k, SymInt top_k_value, "                          \
    "Tensor? top_p, float top_p_value) -> ()")                                                    \
  X(mask_logits, "(Tensor(a!) out, Tensor logits, Tensor? top_k, SymInt top_k_value) -> ()")      \
  X(top_k, "(Tensor(a!) values, Tensor(b!) indices, Tensor input, bool sorted, bool last) -> ()") \
  X(softmax,                                                                                      \
    "(Tensor(a!) out, Tensor logits, Tensor? temperature, float temperature_value) -> ()")        \
  X(chain_speculative,                                                                            \
    "(Tensor(a!) output_token_ids, Tensor(b!) output_accepted, "                                  \
    "Tensor(c!) output_emitted, Tensor draft_probs, Tensor draft_token_ids, "                     \
    "Tensor uniform_samples, Tensor target_probs) -> ()")

#define FLASHINFER_FOR_EACH_TORCH_OP(X)                                                           \
  X(rmsnorm, "(Tensor(a!) out, Tensor input, Tensor weight, float eps, float weight_bias) -> ()") \
  X(fused_add_rmsnorm,                                                                            \
    "(Tensor(a!) input, Tensor(b!) residual, Tensor weight, float eps, float weight_bias) -> ()") \
  X(layernorm, "(Tensor(a!) out, Tensor input, Tensor gamma, Tensor beta, float eps) -> ()")      \
  X(rmsnorm_quant,                                                                                \
    "(Tensor(a!) out, Tensor input, Tensor weight, Tensor? scale, float scale_value, "            \
    "float eps) -> ()")                                                                           \
  X(fused_add_rmsnorm_quant,                                                                      \
    "(Tensor(a!) out, Tensor input, Tensor(b!) residual, Tensor weight, Tensor? scale, "          \
    "float scale_value, float eps) -> ()")                                                        \
  X(act_and_mul, "(Tensor(a!) out, Tensor input, str activation) -> ()")                          \
  X(rope, "(Tensor q, Tensor k, Tensor(a!) q_out, Tensor(b!) k_out, " FLASHINFER_ROPE_ARGS)       \
  X(rope_inplace, "(Tensor(a!) q, Tensor(b!) k, " FLASHINFER_ROPE_ARGS)                           \
  X(append_paged_kv,                                                                              \
    "(Tensor append_key, Tensor append_value, Tensor batch_indices, Tensor positions, "           \
    "Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor kv_indices, Tensor kv_indptr, bool hnd) "     \
    "-> ()")                                                                                      \
  X(batch_positions,                                                                              \
    "(Tensor append_indptr, Tensor seq_lens, Tensor(a!) batch_indices, Tensor(b!) positions) "    \
    "-> ()")                                                                                      \
  X(concat_mla_k, "(Tensor(a!) k, Tensor k_nope, Tensor k_rope) -> ()")                           \
  X(merge_state,                                                                                  \
    "(Tensor v_a, Tensor s_a, Tensor v_b, Tensor s_b, Tensor(a!) v_out, Tensor(b!) s_out) -> ()") \
  X(merge_state_inplace,                                                                          \
    "(Tensor(a!) v, Tensor(b!) s, Tensor v_other, Tensor s_other, Tensor? mask) -> ()")           \
  X(merge_states, "(Tensor v, Tensor s, Tensor(a!) v_out, Tensor(b!) s_out) -> ()")               \
  X(attention_plan,                                                                               \
    "(Tensor qo_indptr, Tensor kv_base, Tensor kv_len, int num_qo_heads, int num_kv_heads, "      \
    "int head_dim, int device, int tile_rows, int max_slots, int item_capacity, "                 \
    "int merge_capacity, Tensor(a!)? plan, Tensor(b!) result) -> ()")                             \
  X(attention, "(" FLASHINFER_ATTENTION_ARGS ") -> ()")                                           \
  X(upload_words, "(Tensor words, Tensor(a!) out) -> ()")                                         \
  X(mla_decode, "(" FLASHINFER_MLA_ARGS ") -> ()")                                                \
  X(packbits, "(Tensor x, Tensor(a!) y, bool little_endian) -> ()")                               \
  X(segment_packbits,                                                                             \
    "(Tensor x, Tensor indptr, Tensor out_indptr, Tensor(a!) y, bool little_endian) -> ()")       \
  X(segment_gemm,                                                                                 \
    "(Tensor x, Tensor weights, Tensor seg_indptr, Tensor? weight_indices, Tensor(a!) out, "      \
    "bool weight_column_major) -> ()")                                                            \
  X(bmm_fp8, "(Tensor a, Tensor b, Tensor a_scale, Tensor b_scale, Tensor(a!) out) -> ()")        \
  FLASHINFER_SAMPLING_OPS(X)

void implement(torch::Library& m) {
#define FLASHINFER_IMPLEMENT(op, schema) \
  m.impl(#op, torch::CppFunction::makeFromBoxedFunction<&boxed<&op>>());
  FLASHINFER_FOR_EACH_TORCH_OP(FLASHINFER_IMPLEMENT)
#undef FLASHINFER_IMPLEMENT
}

}  // namespace

TORCH_LIBRARY(flashinfer, m) {
  // Inductor may otherwise hand over intermediates with other strides than those that the Python
  // front function saw and made contiguous in the last dimension.
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag, at::Tag::needs_fixed_stride_order};
  m.set_python_module("flashinfer._ops");  // where the fake implementations are
#define FLASHINFER_DECLARE_OP(op, schema) m.def(#op schema, tags);
  FLASHINFER_FOR_EACH_TORCH_OP(FLASHINFER_DECLARE_OP)
#undef FLASHINFER_DECLARE_OP
}

TORCH_LIBRARY_IMPL(flashinfer, CPU, m) { implement(m); }
TORCH_LIBRARY_IMPL(flashinfer, CUDA, m) { implement(m); }

}  // namespace binding
}  // namespace flashinfer
