// Launchers of the sampling kernels.
#include <climits>
#include <type_traits>

#include "flashinfer/sampling.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {
namespace {

constexpr int kFewThreads = 256;  // for a row that gives more nothing to do
constexpr int64_t kShortRow = 8192;

fi_status check(const char* op, int64_t rows, int64_t vocab) {
  if (vocab > FI_MAX_VOCAB) {
    return fail(FI_INVALID_ARGUMENT, "%s: vocab must be at most %d, got %lld", op, FI_MAX_VOCAB,
                static_cast<long long>(vocab));
  }
  if (rows > INT_MAX) {
    return fail(FI_INVALID_ARGUMENT, "%s: rows must be below 2^31, got %lld", op,
                static_cast<long long>(rows));
  }
  return FI_OK;
}

Tiling tiling_for(int64_t vocab, int64_t step) {
  const int64_t tile = ceil_div(vocab, step * kMaxTiles) * step;
  return {static_cast<int>(vocab), static_cast<int>(tile), static_cast<int>(ceil_div(vocab, tile))};
}

template <int N, typename Params>
fi_status launch(const char* op, Device& device, void (*kernel)(Params), int64_t rows,
                 int64_t vocab, size_t shared_bytes, Params p) {
  p.tiling = tiling_for(vocab, kStep<N>);
  const int threads = vocab <= kShortRow ? kFewThreads : kSamplingThreads;
  return device.launch(op, kernel, dim3(static_cast<unsigned>(rows)), dim3(threads), shared_bytes,
                       p);
}

// Launches a kernel that selects and writes every row anew.
fi_status rewrite_rows(const char* op, const fi_exec& exec, int64_t rows, int64_t vocab,
                       const SampleParams& p, void (*by_vectors)(SampleParams),
                       void (*by_elements)(SampleParams)) {
  const bool vectors = pointers_aligned(16, {p.probs, p.out}) &&
                       sizes_aligned(16, sizeof(float),
                                     {vocab, stride_for_alignment(rows, p.probs_stride),
                                      stride_for_alignment(rows, p.out_stride)});
  Device device(exec);
  return vectors ? launch<4>(op, device, by_vectors, rows, vocab, sizeof(SelectShared), p)
                 : launch<1>(op, device, by_elements, rows, vocab, sizeof(SelectShared), p);
}

}  // namespace

fi_status sample(const fi_exec& exec, const fi_sample_args& args) {
  if (args.rows <= 0 || args.vocab <= 0) return FI_OK;
  if (const fi_status status = check("sample", args.rows, args.vocab)) return status;
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
    return selects ? launch<N>("sample", device, select_kernel<N>, args.rows, args.vocab,
                               sizeof(SelectShared), p)
                   : launch<N>("sample", device, sample_kernel<N>, args.rows, args.vocab, 0, p);
  };
  return vectors ? run(std::integral_constant<int, 4>()) : run(std::integral_constant<int, 1>());
}

fi_status renorm_probs(const fi_exec& exec, const fi_renorm_probs_args& args) {
  if (args.rows <= 0 || args.vocab <= 0) return FI_OK;
  if (const fi_status status = check("renorm_probs", args.rows, args.vocab)) return status;
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
  if (const fi_status status = check("mask_logits", args.rows, args.vocab)) return status;
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
  if (const fi_status status = check("chain_speculative", args.rows, args.vocab)) return status;
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
  return vectors
             ? launch<4>("chain_speculative", device, chain_kernel<4>, args.rows, args.vocab, 0, p)
             : launch<1>("chain_speculative", device, chain_kernel<1>, args.rows, args.vocab, 0, p);
}

}  // namespace cuda
}  // namespace flashinfer
