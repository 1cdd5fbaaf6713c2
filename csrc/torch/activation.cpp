#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

fi_activation parse_activation(std::string_view name) {
  if (name == "silu") return FI_SILU;
  if (name == "gelu") return FI_GELU;
  if (name == "gelu_tanh") return FI_GELU_TANH;
  value_error("activation is '%.*s', expected silu, gelu or gelu_tanh",
              static_cast<int>(name.size()), name.data());
}

}  // namespace

void act_and_mul(const fi_exec& exec, const Tensor& out, const Tensor& input,
                 std::string_view activation) {
  check_shape(input, {-1, -1});
  const int64_t rows = input.size(0), d = input.size(1) / 2;
  if (input.size(1) % 2 != 0) {
    value_error("%s has %lld columns, expected an even number: the gate, then the factor",
                input.name, static_cast<long long>(input.size(1)));
  }
  check_shape(out, {rows, d});
  check_same_dtype(out, input);
  check_inner_contiguous(input);
  check_inner_contiguous(out);

  fi_act_and_mul_args args{};
  args.dtype = float_dtype(input);
  args.activation = parse_activation(activation);
  args.rows = rows;
  args.d = d;
  args.out = out.data;
  args.out_stride = out.stride(0);
  args.input = input.data;
  args.input_stride = input.stride(0);
  if (rows == 0 || d == 0) return;
  check_status(fi_act_and_mul(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
