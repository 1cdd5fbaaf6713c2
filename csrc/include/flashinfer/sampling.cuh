// Sampling: a block for each row, which it reads once from memory and then from L2.
//
// A draw is an inverse transform with one uniform number: the first entry at which the running sum
// exceeds a share of the whole. It takes the sums of tiles, and then looks into one tile. A filter
// is a threshold on the entries, found first (sampling/select.cuh). Nothing is drawn and rejected,
// so every row takes the same few passes and each call ends with a sample.
#ifndef FLASHINFER_SAMPLING_CUH_
#define FLASHINFER_SAMPLING_CUH_

#include <cstdint>

#include "flashinfer/arch/launch.cuh"
#include "flashinfer/sampling/draw.cuh"
#include "flashinfer/sampling/select.cuh"

namespace flashinfer {

constexpr int kSamplingThreads = 1024;

// Of a filter: an array with an element per row, or one value for all.
struct Filters {
  const int32_t* top_k;
  int64_t top_k_value;
  const float* top_p;
  float top_p_value;
  const float* min_p;
  float min_p_value;
  bool top_k_first;

  // 0: off.
  __device__ __forceinline__ uint64_t k(int64_t row, int vocab) const {
    const int64_t k = top_k == nullptr ? top_k_value : max(top_k[row], 1);
    return k > 0 && k < vocab ? k : 0;
  }
  __device__ __forceinline__ float p(int64_t row) const {
    return top_p == nullptr ? top_p_value : top_p[row];
  }
  // The least key that min-p keeps of a row with this largest one.
  __device__ __forceinline__ uint32_t least(int64_t row, uint32_t most) const {
    const float share = fminf(fmaxf(min_p == nullptr ? min_p_value : min_p[row], 0.0f), 1.0f);
    return max(probability_key(multiply_rounded(share, probability_of(most))), kLeastKey);
  }
};

struct SampleParams {
  Tiling tiling;
  const float* probs;  // or logits
  int64_t probs_stride;
  Filters filters;
  const float* uniform;
  int32_t* samples;
  uint8_t* success;
  float* out;  // where not NULL, instead of the samples: the row, masked or renormalised
  int64_t out_stride;
};

// Plain sampling, and min-p.
template <int N>
__global__ void __launch_bounds__(kSamplingThreads, 1) sample_kernel(const SampleParams p) {
  __shared__ TileSums tiles;
  const int64_t row = blockIdx.x;
  const PlainRow<N, false> probs{p.probs + row * p.probs_stride, p.tiling.vocab};
  int exponent = 0;
  uint32_t most = 0;
  weigh_row(probs, p.tiling, kLeastTotal, &tiles, &exponent, &most);
  const Scale scale(exponent);
  const uint32_t least = p.filters.least(row, most);
  if (least > kLeastKey) {
    uint32_t again = 0;
    sum_tiles(probs, p.tiling, least, scale, &tiles, &again);
  }
  draw(probs, p.tiling, least, scale, p.uniform[row], &tiles, p.samples + row,
       p.success == nullptr ? nullptr : p.success + row);
}

// The threshold of all filters, with the sums of tiles over what they keep.
template <int N>
__device__ __forceinline__ uint32_t select(const SampleParams& p, int64_t row,
                                           Selection<PlainRow<N, false>>* selection) {
  const uint64_t k = p.filters.k(row, p.tiling.vocab);
  const float top_p = p.filters.p(row);
  const bool nucleus = !(top_p >= 1.0f);
  uint32_t most = 0;
  const uint64_t total = selection->count_row(k > 0, nucleus, &most);
  if (total == 0) {
    selection->sum(kLeastKey);
    return kLeastKey;
  }
  // With top_k_first, what top-p needs is known once top-k has its sum: a second round.
  bool again = nucleus && p.filters.top_k_first && k > 0;
  Need need{k, nucleus && !again ? top_p_limit(top_p, selection->scale().one()) : 0};
  uint32_t least = kLeastKey;
#pragma unroll 1
  for (;;) {
    if (need.count > 0 || need.sum > 0) least = max(least, selection->find(need));
    if (!again) least = max(least, p.filters.least(row, most));
    selection->sum(least);
    if (!again) return least;
    need = {0, top_p_limit(top_p, static_cast<double>(selection->total()))};
    again = false;
  }
}

// Top-k and top-p: a sample, or the renormalised row.
template <int N>
__global__ void __launch_bounds__(kSamplingThreads, 1) select_kernel(const SampleParams p) {
  SelectShared* shared = dynamic_shared<SelectShared>();
  const int64_t row = blockIdx.x;
  const PlainRow<N, false> probs{p.probs + row * p.probs_stride, p.tiling.vocab};
  Selection<PlainRow<N, false>> selection(probs, p.tiling, shared);
  const uint32_t least = select(p, row, &selection);
  const Scale scale = selection.scale();
  if (p.out == nullptr) {
    draw(probs, p.tiling, least, scale, p.uniform[row], &shared->tiles, p.samples + row,
         p.success == nullptr ? nullptr : p.success + row);
    return;
  }
  const float total = to_float(selection.total());
  float* out = p.out + row * p.out_stride;
  for (int column = threadIdx.x * N; column < p.tiling.vocab; column += blockDim.x * N) {
    float x[N];
    load_columns<float, N>(probs.data, column, p.tiling.vocab).widen(x);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const uint32_t key = probability_key(x[i]);
      x[i] = key >= least ? scale(probability_of(key)) / total : 0.0f;
    }
    store_columns(out, column, Vec<float, N>::narrow(x));
  }
}

template <int N>
__global__ void __launch_bounds__(kSamplingThreads, 1) mask_kernel(const SampleParams p) {
  SelectShared* shared = dynamic_shared<SelectShared>();
  const int64_t row = blockIdx.x;
  const PlainRow<N, true> logits{p.probs + row * p.probs_stride, p.tiling.vocab};
  Selection<PlainRow<N, true>> selection(logits, p.tiling, shared);
  const uint64_t k = p.filters.k(row, p.tiling.vocab);
  uint32_t least = 0;
  if (k > 0) {
    uint32_t most = 0;
    selection.count_row(true, false, &most);
    least = selection.find({k, 0});
    // Fewer than k are above -inf: all that are less may stay what they are.
    if (least == selection.kLeast) least = 0;
  }
  float* out = p.out + row * p.out_stride;
  for (int column = threadIdx.x * N; column < p.tiling.vocab; column += blockDim.x * N) {
    float x[N];
    load_columns<float, N>(logits.data, column, p.tiling.vocab).widen(x);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (logit_key(x[i]) < least) x[i] = bits_as<float>(0xff800000u);
    }
    store_columns(out, column, Vec<float, N>::narrow(x));
  }
}

struct ChainParams {
  Tiling tiling;
  int num_draft;
  const float* draft_probs;
  const int32_t* draft_token_ids;
  const float* uniform;
  const float* target_probs;
  int32_t* output_token_ids;
  int32_t* output_accepted;
  int32_t* output_emitted;
};

template <int N>
__global__ void __launch_bounds__(kSamplingThreads, 1) chain_kernel(const ChainParams p) {
  __shared__ TileSums tiles;
  const int64_t request = blockIdx.x, vocab = p.tiling.vocab;
  const int32_t* ids = p.draft_token_ids + request * p.num_draft;
  const float* uniform = p.uniform + request * (p.num_draft + 1);
  const float* draft = p.draft_probs + request * p.num_draft * vocab;
  const float* target = p.target_probs + request * (p.num_draft + 1) * vocab;
  int32_t* output = p.output_token_ids + request * (p.num_draft + 1);

  // All threads go through the chain, so that all know where it ends.
  int length = -1, accepted = 0;
  for (int i = 0; i < p.num_draft; ++i) {
    const int32_t id = ids[i];
    const bool good = id >= 0 && id < vocab &&
                      multiply_rounded(uniform[i], draft[i * vocab + id]) < target[i * vocab + id];
    accepted += good;
    if (!good && length < 0) length = i;
  }
  if (length < 0) length = p.num_draft;
  for (int i = threadIdx.x; i <= p.num_draft; i += blockDim.x) {
    if (i != length) output[i] = i < length ? ids[i] : -1;
  }
  if (threadIdx.x == 0) {
    p.output_accepted[request] += accepted;
    p.output_emitted[request] += length;
  }

  const float u = uniform[min(length + 1, p.num_draft)];
  const bool rejected = length < p.num_draft;
  ResidualRow<N> residual{target + length * vocab, draft + length * vocab, p.tiling.vocab,
                          rejected ? p.tiling.vocab : 0};
  int exponent = 0;
  uint32_t most = 0;
#pragma unroll 1
  for (;;) {
    const uint64_t total = weigh_row(residual, p.tiling, kLeastResidual, &tiles, &exponent, &most);
    if (total > 0 || residual.draft_vocab == 0) break;
    residual.draft_vocab = 0;  // rounding has left nothing: the target itself
  }
  draw(residual, p.tiling, kLeastKey, Scale(exponent), u, &tiles, output + length, nullptr);
}

}  // namespace flashinfer

#endif  // FLASHINFER_SAMPLING_CUH_
