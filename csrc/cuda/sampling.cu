// Launchers of the sampling kernels.
#include <climits>
#include <type_traits>

#include "flashinfer/sampling.cuh"
#include "sampling_launch.h"

namespace flashinfer {
namespace cuda {
namespace {

// Launches a kernel that selects and writes every row anew.
fi_status rewrite_rows(const char* op, const fi_exec& exec, int64_t rows, int64_t vocab,
                       const SampleParams& p, void (*by_vectors)(SampleParams),
                       void (*by_elements)(SampleParams)) {
  const bool vectors = pointers_aligned(16, {p.probs, p.out}) &&
                       sizes_aligned(16, sizeof(float),
                                     {vocab, stride_for_alignment(rows, p.probs_stride),
                                      stride_for_alignment(rows, p.out_stride)});
  Device device(exec);
  return vectors ? launch_vocab<4>(op, device, by_vectors, rows, vocab, sizeof(SelectShared), p)
                 : launch_vocab<1>(op, device, by_elements, rows, vocab, sizeof(SelectShared), p);
}

}  // namespace

fi_status sample(const fi_exec& exec, const fi_sample_args& args) {
  if (args.rows <= 0 || args.vocab <= 0) return FI_OK;
  if (const fi_status status = check_vocab("sample", args.rows, args.vocab)) return status;
  SampleParams p{};
  p.probs = args.probs;
  p.probs_stride = args.probs_stride;
  p.filters = {args.top_k, args.top_k_value, args.top_p,           args.top_p_value,
               args.min_p, args.min_p_value, args.top_k_first != 0};
  p.uniform = args.uniform;
  p.samples = args.samples;
  p.success = args.success;
  const bool vectors =
      pointers_aligned(16, {args.probs}) &&
      sizes_aligned(16, sizeof(float),
                    {args.vocab, stride_for_alignment(args.rows, args.probs_stride)});
  const bool selects = args.top_k != nullptr || args.top_k_value > 0 || args.top_p != nullptr ||
                       !(args.top_p_value >= 1.0f);
  Device device(exec);
  const auto run = [&](auto size) {
    constexpr int N = decltype(size)::value;
    return selects
               ? launch_vocab<N>("sample", device, select_kernel<N>, args.rows, args.vocab,
                                 sizeof(SelectShared), p)
               : launch_vocab<N>("sample", device, sample_kernel<N>, args.rows, args.vocab, 0, p);
  };
  return vectors ? run(std::integral_constant<int, 4>()) : run(std::integral_constant<int, 1>());
}

fi_status renorm_probs(const fi_exec& exec, const fi_renorm_probs_args& args) {
  if (args.rows <= 0 || args.vocab <= 0) return FI_OK;
  if (const fi_status status = check_vocab("renorm_probs", args.rows, args.vocab)) return status;
  SampleParams p{};
  p.probs = args.probs;
  p.probs_stride = args.probs_stride;
  p.filters.top_k = args.top_k;
  p.filters.top_k_value = args.top_k_value;
  p.filters.top_p = args.top_p;
  p.filters.top_p_value = args.top_p_value;
  p.out = args.out;
  p.out_stride = args.out_stride;
  return rewrite_rows("renorm_probs", exec, args.rows, args.vocab, p, select_kernel<4>,
                      select_kernel<1>);
}

fi_status mask_logits(const fi_exec& exec, const fi_mask_logits_args& args) {
  if (args.rows <= 0 || args.vocab <= 0) return FI_OK;
  if (const fi_status status = check_vocab("mask_logits", args.rows, args.vocab)) return status;
  SampleParams p{};
  p.probs = args.logits;
  p.probs_stride = args.logits_stride;
  p.filters.top_k = args.top_k;
  p.filters.top_k_value = args.top_k_value;
  p.out = args.out;
  p.out_stride = args.out_stride;
  return rewrite_rows("mask_logits", exec, args.rows, args.vocab, p, mask_kernel<4>,
                      mask_kernel<1>);
}

fi_status chain_speculative(const fi_exec& exec, const fi_chain_speculative_args& args) {
  if (args.rows <= 0 || args.vocab <= 0) return FI_OK;
  if (const fi_status status = check_vocab("chain_speculative", args.rows, args.vocab))
    return status;
  if (args.num_draft < 0 || args.num_draft > INT_MAX / 2) {
    return fail(FI_INVALID_ARGUMENT, "chain_speculative: num_draft must be in 0..2^30, got %lld",
                static_cast<long long>(args.num_draft));
  }
  ChainParams p{};
  p.num_draft = static_cast<int>(args.num_draft);
  p.draft_probs = args.draft_probs;
  p.draft_token_ids = args.draft_token_ids;
  p.uniform = args.uniform;
  p.target_probs = args.target_probs;
  p.output_token_ids = args.output_token_ids;
  p.output_accepted = args.output_accepted;
  p.output_emitted = args.output_emitted;
  const bool vectors = pointers_aligned(16, {args.draft_probs, args.target_probs}) &&
                       sizes_aligned(16, sizeof(float), {args.vocab});
  Device device(exec);
  return vectors ? launch_vocab<4>("chain_speculative", device, chain_kernel<4>, args.rows,
                                   args.vocab, 0, p)
                 : launch_vocab<1>("chain_speculative", device, chain_kernel<1>, args.rows,
                                   args.vocab, 0, p);
}

}  // namespace cuda
}  // namespace flashinfer
