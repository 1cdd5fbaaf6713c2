#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {
namespace {

template <class Args>
fi_status run(const char* op, const fi_exec& exec, const Args& args, int64_t reads,
              fi_range_body Kernels::* body) {
  if (args.vocab > FI_MAX_VOCAB) {
    return fail(FI_INVALID_ARGUMENT, "%s: vocab must be at most %d, got %lld", op, FI_MAX_VOCAB,
                static_cast<long long>(args.vocab));
  }
  const Kernels* table = nullptr;
  if (const fi_status status = choose_kernels(&table)) return status;
  if (args.vocab <= 0) return FI_OK;
  int32_t no_memory = 0;
  const SamplingJob<Args> job{&args, &no_memory};
  for_ranges(exec, args.rows, reads * args.vocab, table->*body, job);
  if (no_memory != 0) return fail(FI_INVALID_ARGUMENT, "%s: no memory for scratch", op);
  return FI_OK;
}

}  // namespace

fi_status sample(const fi_exec& exec, const fi_sample_args& args) {
  return run("sample", exec, args, 3, &Kernels::sample);
}

fi_status renorm_probs(const fi_exec& exec, const fi_renorm_probs_args& args) {
  return run("renorm_probs", exec, args, 4, &Kernels::renorm_probs);
}

fi_status mask_logits(const fi_exec& exec, const fi_mask_logits_args& args) {
  return run("mask_logits", exec, args, 3, &Kernels::mask_logits);
}

fi_status chain_speculative(const fi_exec& exec, const fi_chain_speculative_args& args) {
  return run("chain_speculative", exec, args, 2, &Kernels::chain_speculative);
}

}  // namespace cpu
}  // namespace flashinfer
