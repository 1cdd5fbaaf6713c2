#include <cfloat>

#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

// fp32 [rows, vocab] with rows anywhere.
void check_rows(const Tensor& t, int64_t rows, int64_t vocab) {
  check_dtype(t, DType::kFloat);
  check_shape(t, {rows, vocab});
  check_inner_contiguous(t);
}

void check_column(const Tensor& t, DType dtype, int64_t rows) {
  check_dtype(t, dtype);
  check_shape(t, {rows});
  check_contiguous(t);
}

template <typename T>
const T* optional_column(const Tensor* t, DType dtype, int64_t rows) {
  if (t == nullptr) return nullptr;
  check_column(*t, dtype, rows);
  return t->as<const T>();
}

}  // namespace

void sample(const fi_exec& exec, const Tensor& samples, const Tensor* success, const Tensor& probs,
            const Tensor& uniform_samples, const Tensor* top_k, int64_t top_k_value,
            const Tensor* top_p, double top_p_value, const Tensor* min_p, double min_p_value,
            bool top_k_first) {
  check_rows(probs, -1, -1);
  fi_sample_args args{};
  args.rows = probs.size(0);
  args.vocab = probs.size(1);
  check_column(samples, DType::kInt, args.rows);
  if (success != nullptr) check_column(*success, DType::kBool, args.rows);
  check_column(uniform_samples, DType::kFloat, args.rows);
  args.probs = probs.as<const float>();
  args.probs_stride = probs.stride(0);
  args.uniform = uniform_samples.as<const float>();
  args.samples = samples.as<int32_t>();
  args.success = success == nullptr ? nullptr : success->as<uint8_t>();
  args.top_k = optional_column<int32_t>(top_k, DType::kInt, args.rows);
  args.top_k_value = top_k_value;
  args.top_p = optional_column<float>(top_p, DType::kFloat, args.rows);
  args.top_p_value = static_cast<float>(top_p_value);
  args.min_p = optional_column<float>(min_p, DType::kFloat, args.rows);
  args.min_p_value = static_cast<float>(min_p_value);
  args.top_k_first = top_k_first;
  if (args.rows == 0) return;
  if (args.vocab == 0) value_error("%s has no columns to sample from", probs.name);
  check_status(fi_sample(&exec, &args));
}

void renorm_probs(const fi_exec& exec, const Tensor& out, const Tensor& probs, const Tensor* top_k,
                  int64_t top_k_value, const Tensor* top_p, double top_p_value) {
  check_rows(probs, -1, -1);
  fi_renorm_probs_args args{};
  args.rows = probs.size(0);
  args.vocab = probs.size(1);
  check_rows(out, args.rows, args.vocab);
  args.probs = probs.as<const float>();
  args.probs_stride = probs.stride(0);
  args.out = out.as<float>();
  args.out_stride = out.stride(0);
  args.top_k = optional_column<int32_t>(top_k, DType::kInt, args.rows);
  args.top_k_value = top_k_value;
  args.top_p = optional_column<float>(top_p, DType::kFloat, args.rows);
  args.top_p_value = static_cast<float>(top_p_value);
  if (args.rows == 0 || args.vocab == 0) return;
  check_status(fi_renorm_probs(&exec, &args));
}

void mask_logits(const fi_exec& exec, const Tensor& out, const Tensor& logits, const Tensor* top_k,
                 int64_t top_k_value) {
  check_rows(logits, -1, -1);
  fi_mask_logits_args args{};
  args.rows = logits.size(0);
  args.vocab = logits.size(1);
  check_rows(out, args.rows, args.vocab);
  args.logits = logits.as<const float>();
  args.logits_stride = logits.stride(0);
  args.out = out.as<float>();
  args.out_stride = out.stride(0);
  args.top_k = optional_column<int32_t>(top_k, DType::kInt, args.rows);
  args.top_k_value = top_k_value;
  if (args.rows == 0 || args.vocab == 0) return;
  check_status(fi_mask_logits(&exec, &args));
}

void top_k(const fi_exec& exec, const Tensor& values, const Tensor& indices, const Tensor& input,
           bool sorted, bool last) {
  check_shape(input, {-1, -1});
  check_inner_contiguous(input);
  fi_top_k_args args{};
  args.dtype = float_dtype(input);
  args.rows = input.size(0);
  args.columns = input.size(1);
  check_shape(values, {args.rows, -1});
  args.k = values.size(1);
  check_shape(indices, {args.rows, args.k});
  check_same_dtype(values, input);
  check_dtype(indices, DType::kLong);
  check_contiguous(values);
  check_contiguous(indices);
  if (args.k < 1 || args.k > args.columns) {
    value_error("%s has %lld columns, expected 1 to %lld, those of %s", values.name,
                static_cast<long long>(args.k), static_cast<long long>(args.columns), input.name);
  }
  args.input = input.data;
  args.input_stride = input.stride(0);
  args.values = values.data;
  args.indices = indices.as<int64_t>();
  args.sorted = sorted;
  args.last = last;
  if (args.rows == 0) return;
  check_status(fi_top_k(&exec, &args));
}

void softmax(const fi_exec& exec, const Tensor& out, const Tensor& logits,
             const Tensor* temperature, double temperature_value) {
  check_rows(logits, -1, -1);
  fi_softmax_args args{};
  args.rows = logits.size(0);
  args.vocab = logits.size(1);
  check_rows(out, args.rows, args.vocab);
  args.logits = logits.as<const float>();
  args.logits_stride = logits.stride(0);
  args.out = out.as<float>();
  args.out_stride = out.stride(0);
  args.temperature = optional_column<float>(temperature, DType::kFloat, args.rows);
  args.temperature_value = static_cast<float>(temperature_value);
  // Not 0, which means something else.
  if (args.temperature_value == 0.0f && temperature_value != 0.0) {
    args.temperature_value = temperature_value < 0.0 ? -FLT_MIN : FLT_MIN;
  }
  if (args.rows == 0 || args.vocab == 0) return;
  check_status(fi_softmax(&exec, &args));
}

void chain_speculative(const fi_exec& exec, const Tensor& output_token_ids,
                       const Tensor& output_accepted, const Tensor& output_emitted,
                       const Tensor& draft_probs, const Tensor& draft_token_ids,
                       const Tensor& uniform_samples, const Tensor& target_probs) {
  check_shape(draft_probs, {-1, -1, -1});
  fi_chain_speculative_args args{};
  args.rows = draft_probs.size(0);
  args.num_draft = draft_probs.size(1);
  args.vocab = draft_probs.size(2);
  check_shape(target_probs, {args.rows, args.num_draft + 1, args.vocab});
  check_shape(draft_token_ids, {args.rows, args.num_draft});
  check_shape(uniform_samples, {args.rows, args.num_draft + 1});
  check_shape(output_token_ids, {args.rows, args.num_draft + 1});
  for (const Tensor* t : {&draft_probs, &target_probs, &uniform_samples}) {
    check_dtype(*t, DType::kFloat);
    check_contiguous(*t);
  }
  for (const Tensor* t : {&draft_token_ids, &output_token_ids}) {
    check_dtype(*t, DType::kInt);
    check_contiguous(*t);
  }
  check_column(output_accepted, DType::kInt, args.rows);
  check_column(output_emitted, DType::kInt, args.rows);
  args.draft_probs = draft_probs.as<const float>();
  args.draft_token_ids = draft_token_ids.as<const int32_t>();
  args.uniform = uniform_samples.as<const float>();
  args.target_probs = target_probs.as<const float>();
  args.output_token_ids = output_token_ids.as<int32_t>();
  args.output_accepted = output_accepted.as<int32_t>();
  args.output_emitted = output_emitted.as<int32_t>();
  if (args.rows == 0) return;
  if (args.vocab == 0) value_error("%s has no columns to sample from", target_probs.name);
  check_status(fi_chain_speculative(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
