// Sampling, a row at a time.
//
// Weights are integers (see fi_sample in api.h) in fp64, whose sums are exact below 2^53: any width
// of vectors, and CUDA, give the same ones. A draw takes the sums of chunks, then looks into one
// chunk. A filter is a threshold. Entries that may be as large as it are listed: for top-k those of
// the k-th largest maximum of short pieces, or larger; for top-p those that all smaller ones
// together cannot replace. Then a radix selection over the list finds it.
#ifndef FLASHINFER_CPU_KERNELS_SAMPLING_H_
#define FLASHINFER_CPU_KERNELS_SAMPLING_H_

#include <cfloat>
#include <cmath>

#include "cpu/isa.h"
#include "cpu/kernels/vec.h"

namespace flashinfer {
namespace cpu {
namespace {

constexpr int kHalfLanes = kLanes / 2;
typedef float F32Half __attribute__((vector_size(FLASHINFER_VECTOR_BYTES / 2)));
typedef double F64 __attribute__((vector_size(FLASHINFER_VECTOR_BYTES)));

constexpr int kExponent = 42;
constexpr double kLeastTotal = 2199023255552.0;  // 2^41
constexpr double kMostTotal = 3 * kLeastTotal;
constexpr double kLeastResidual = 2147483648.0;     // 2^31: of a row that is only drawn from
constexpr double kLargestWeight = 4 * kLeastTotal;  // 2^43
constexpr double kOneUlp = 4503599627370496.0;      // 2^52: adding it rounds to an integer
constexpr float kLeastFloat = 1.40129846e-45f;      // no positive number is less

constexpr int64_t kChunk = 1024;  // entries with one sum
constexpr int64_t kPiece = 64;    // entries with one maximum
constexpr int64_t kLongList = 8;  // a list of more than an eighth of the row is no shortcut
constexpr int kBins = 4096;

// ---------------------------------------------------------------- rows

struct ProbabilityRow {
  const float* p;
  FLASHINFER_INLINE F32Half half(int64_t i) const {
    F32Half x;
    std::memcpy(&x, p + i, sizeof(x));
    return x;
  }
  FLASHINFER_INLINE float at(int64_t i) const { return p[i]; }
};

struct ResidualRow {
  ProbabilityRow target, draft;
  FLASHINFER_INLINE F32Half half(int64_t i) const { return target.half(i) - draft.half(i); }
  FLASHINFER_INLINE float at(int64_t i) const { return target.at(i) - draft.at(i); }
};

FLASHINFER_INLINE float power_of_two(int exponent) {
  const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

FLASHINFER_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
FLASHINFER_INLINE float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// Multiplication by 2^exponent, in fp64 and in the two steps that fp32 may need.
struct Scale {
  float first, second;
  double whole;

  explicit Scale(int exponent) {
    const int part = exponent > 127 ? 127 : exponent;
    first = power_of_two(part);
    second = power_of_two(exponent - part);
    whole = static_cast<double>(first) * static_cast<double>(second);
  }
};

// The weight of entries of `least` or more, 0 of others and of NaN.
FLASHINFER_INLINE double weight(float x, float least, const Scale& scale) {
  if (!(x >= least)) return 0.0;
  const double w = static_cast<double>(x < FLT_MAX ? x : FLT_MAX) * scale.whole;
  return ((w < kLargestWeight ? w : kLargestWeight) + kOneUlp) - kOneUlp;
}
FLASHINFER_INLINE F64 weight(F32Half x, float least, const Scale& scale) {
  const F32Half zero{}, most = zero + FLT_MAX;
  x = x >= least ? x : zero;
  x = x < most ? x : most;
  const F64 largest = F64{} + kLargestWeight;
  F64 w = __builtin_convertvector(x, F64) * scale.whole;
  w = w < largest ? w : largest;
  return (w + kOneUlp) - kOneUlp;
}

template <class Row>
FLASHINFER_INLINE double sum_weights(const Row& row, int64_t begin, int64_t end, float least,
                                     const Scale& scale) {
  F64 sums[4] = {};
  int64_t i = begin;
  for (; i + 4 * kHalfLanes <= end; i += 4 * kHalfLanes) {
    for (int c = 0; c < 4; ++c) sums[c] += weight(row.half(i + c * kHalfLanes), least, scale);
  }
  const F64 vector = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double sum = 0.0;
  for (int lane = 0; lane < kHalfLanes; ++lane) sum += vector[lane];
  for (; i < end; ++i) sum += weight(row.at(i), least, scale);
  return sum;
}

// The sums of all chunks; returns that of the row.
template <class Row>
double sum_chunks(const Row& row, int64_t vocab, float least, const Scale& scale, double* chunks) {
  double total = 0.0;
  for (int64_t begin = 0; begin < vocab; begin += kChunk) {
    const int64_t end = begin + kChunk < vocab ? begin + kChunk : vocab;
    const double sum = sum_weights(row, begin, end, least, scale);
    chunks[begin / kChunk] = sum;
    total += sum;
  }
  return total;
}

template <class Row>
float largest(const Row& row, int64_t vocab) {
  F32Half most[4] = {};
  int64_t i = 0;
  for (; i + 4 * kHalfLanes <= vocab; i += 4 * kHalfLanes) {
    for (int c = 0; c < 4; ++c) {
      const F32Half x = row.half(i + c * kHalfLanes);
      most[c] = x > most[c] ? x : most[c];
    }
  }
  float top = 0.0f;
  for (const F32Half& part : most) {
    for (int lane = 0; lane < kHalfLanes; ++lane) top = part[lane] > top ? part[lane] : top;
  }
  for (; i < vocab; ++i) top = row.at(i) > top ? row.at(i) : top;
  return top < FLT_MAX ? top : FLT_MAX;
}

int floor_log2(double x) { return static_cast<int>(std::ilogb(x)); }

// The sums of chunks over a whole row, with the exponent that api.h tells; returns that of the row.
template <class Row>
double weigh_row(const Row& row, int64_t vocab, double least_total, double* chunks, Scale* scale) {
  int exponent = kExponent;
  for (int attempt = 0;; ++attempt) {
    *scale = Scale(exponent);
    const double total = sum_chunks(row, vocab, kLeastFloat, *scale, chunks);
    if (attempt == 2 || (total >= least_total && total < kMostTotal)) return total;
    if (attempt == 0) {
      const float most = largest(row, vocab);
      if (most == 0.0f) return 0.0;
      exponent = 22 - floor_log2(static_cast<double>(most));
    } else {
      exponent += 41 - floor_log2(total);
    }
  }
}

// ---------------------------------------------------------------- drawing

// The share `uniform` of a sum, as an integer below it.
double draw_target(float uniform, double total) {
  double u = uniform > 0.0f ? static_cast<double>(uniform) : 0.0;
  if (u > 1.0) u = 1.0;
  const double target = std::floor(u * total);
  return target < total ? target : total - 1.0;
}

// The first entry at which the running sum exceeds the share `uniform` of `total`.
template <class Row>
int32_t draw(const Row& row, int64_t vocab, float least, const Scale& scale, float uniform,
             double total, const double* chunks) {
  const double target = draw_target(uniform, total);
  int64_t i = 0;
  double before = 0.0;
  for (; before + chunks[i / kChunk] <= target; i += kChunk) before += chunks[i / kChunk];
  for (; i < vocab; ++i) {
    before += weight(row.at(i), least, scale);
    if (before > target) break;
  }
  return static_cast<int32_t>(i);
}

// ---------------------------------------------------------------- selecting

// A thread's memory for rows of `vocab` entries.
struct SamplingScratch {
  double* chunks;    // their sums
  double* sums;      // [kBins]
  float* tops;       // the maxima of pieces
  uint32_t* keys;    // [vocab] of the listed entries
  uint32_t* places;  // [vocab] where they are, in ascending order
  uint32_t* work;    // [vocab] keys to select from
  uint32_t* counts;  // [kBins]
  void* memory;

  explicit SamplingScratch(int64_t vocab) {
    const size_t n = static_cast<size_t>(vocab), pieces = n / kPiece + 1;
    const size_t doubles = n / kChunk + 1 + kBins, words = 3 * n + pieces + kBins;
    memory = std::malloc(doubles * sizeof(double) + words * sizeof(uint32_t));
    if (memory == nullptr) return;
    chunks = static_cast<double*>(memory);
    sums = chunks + n / kChunk + 1;
    tops = static_cast<float*>(static_cast<void*>(sums + kBins));
    keys = static_cast<uint32_t*>(static_cast<void*>(tops + pieces));
    places = keys + n;
    work = places + n;
    counts = work + n;
  }
  ~SamplingScratch() { std::free(memory); }
  SamplingScratch(const SamplingScratch&) = delete;
  SamplingScratch& operator=(const SamplingScratch&) = delete;
};

// Keys order as the entries do. Of probabilities, which are positive here, they are the bits.
struct ProbabilityKey {
  static constexpr float kNothing = 0.0f;  // entries that are not larger are not listed
  static FLASHINFER_INLINE uint32_t of(float x) { return bits_of(x < FLT_MAX ? x : FLT_MAX); }
  static FLASHINFER_INLINE float value(uint32_t key) { return float_of(key); }
};
struct LogitKey {
  static constexpr float kNothing = -__builtin_inff();
  static FLASHINFER_INLINE uint32_t of(float x) {
    const uint32_t bits = bits_of(x + 0.0f);  // -0 is 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  }
  static FLASHINFER_INLINE float value(uint32_t key) {
    return float_of(key & 0x80000000u ? key & 0x7fffffffu : ~key);
  }
};

// What an entry adds to the number that is to be reached.
struct CountOne {
  typedef uint32_t Sum;
  FLASHINFER_INLINE uint32_t of(uint32_t) const { return 1; }
};
struct AddWeight {
  typedef double Sum;
  const Scale& scale;
  FLASHINFER_INLINE double of(uint32_t key) const {
    return weight(float_of(key), kLeastFloat, scale);
  }
};

// The largest key from which upwards the keys reach `need`, which all together do. The keys are
// rearranged.
template <class Add>
uint32_t select_key(uint32_t* keys, int64_t n, typename Add::Sum need, Add add,
                    typename Add::Sum* bins) {
  uint32_t prefix = 0;
  const int shifts[] = {20, 10, 0};
  for (const int shift : shifts) {
    const uint32_t mask = shift == 20 ? 0xfff : 0x3ff;
    std::memset(bins, 0, (mask + 1) * sizeof(*bins));
    uint32_t bin = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t of = keys[i] >> shift & mask;
      bins[of] += add.of(keys[i]);
      bin = of > bin ? of : bin;
    }
    for (; bin > 0 && bins[bin] < need; --bin) need -= bins[bin];
    prefix = prefix << (shift == 20 ? 12 : 10) | bin;
    int64_t left = 0;
    for (int64_t i = 0; i < n; ++i) {
      keys[left] = keys[i];
      left += (keys[i] >> shift) == prefix;
    }
    n = left;
  }
  return prefix;
}

FLASHINFER_INLINE float piece_maximum(const float* x, int64_t n, float nothing) {
  F32 most = broadcast(nothing);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const F32 y = load(x + i, Whole{});
    most = y > most ? y : most;
  }
  float top = nothing;
  float lanes[kLanes];
  std::memcpy(lanes, &most, sizeof(lanes));
  for (const float lane : lanes) top = lane > top ? lane : top;
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

template <class Key>
void find_tops(const float* row, int64_t vocab, float* tops) {
  for (int64_t begin = 0; begin < vocab; begin += kPiece) {
    const int64_t n = vocab - begin < kPiece ? vocab - begin : kPiece;
    tops[begin / kPiece] = piece_maximum(row + begin, n, Key::kNothing);
  }
}

// Lists the entries that are `bound` or more and not nothing; returns how many.
template <class Key>
int64_t list_entries(const float* row, int64_t vocab, float bound, const SamplingScratch& scratch) {
  int64_t n = 0;
  for (int64_t begin = 0; begin < vocab; begin += kPiece) {
    if (!(scratch.tops[begin / kPiece] >= bound)) continue;
    const int64_t end = begin + kPiece < vocab ? begin + kPiece : vocab;
    for (int64_t i = begin; i < end; ++i) {
      scratch.keys[n] = Key::of(row[i]);
      scratch.places[n] = static_cast<uint32_t>(i);
      n += row[i] >= bound && row[i] > Key::kNothing;
    }
  }
  return n;
}

// No more than the k-th largest entry, where the row has as many.
template <class Key>
float bound_of_largest(int64_t vocab, int64_t k, const SamplingScratch& scratch) {
  const int64_t pieces = (vocab + kPiece - 1) / kPiece;
  if (k > pieces / 2) return Key::kNothing;
  int64_t n = 0;
  for (int64_t i = 0; i < pieces; ++i) {
    scratch.work[n] = Key::of(scratch.tops[i]);
    n += scratch.tops[i] > Key::kNothing;
  }
  if (n < k) return Key::kNothing;
  // So many pieces have an entry that is as large.
  return Key::value(
      select_key(scratch.work, n, static_cast<uint32_t>(k), CountOne{}, scratch.counts));
}

// Copies the listed keys of `least` or more to the work; returns how many.
int64_t listed_from(uint32_t least, int64_t listed, const SamplingScratch& scratch) {
  int64_t n = 0;
  for (int64_t i = 0; i < listed; ++i) {
    scratch.work[n] = scratch.keys[i];
    n += scratch.keys[i] >= least;
  }
  return n;
}

// `one` is what a probability of 1 weighs.
double top_p_limit(float top_p, double one) {
  const double limit = std::ceil(static_cast<double>(top_p > 0.0f ? top_p : 0.0f) * one);
  return limit < 1.0 ? 1.0 : limit;
}

// The filters of one row; k is 0 and top_p 1 where they are off.
struct RowFilters {
  int64_t k;
  float top_p;
  bool top_k_first;
};

// What the filters keep: entries of `least` or more. All of them are among the listed ones.
struct Kept {
  float least;
  int64_t listed;
};

// What top-k and top-p keep. `total` is the row's sum, not 0.
Kept apply_filters(const float* row, int64_t vocab, const RowFilters& filters, double total,
                   const Scale& scale, const SamplingScratch& scratch) {
  const AddWeight add{scale};
  const bool nucleus = !(filters.top_p >= 1.0f);
  Kept kept{kLeastFloat, 0};
  find_tops<ProbabilityKey>(row, vocab, scratch.tops);
  if (filters.k > 0) {
    const float bound = bound_of_largest<ProbabilityKey>(vocab, filters.k, scratch);
    kept.listed = list_entries<ProbabilityKey>(row, vocab, bound, scratch);
    if (kept.listed >= filters.k) {
      const int64_t n = listed_from(0, kept.listed, scratch);
      kept.least = float_of(select_key(scratch.work, n, static_cast<uint32_t>(filters.k),
                                       CountOne{}, scratch.counts));
    }
    if (!nucleus) return kept;
  }
  double one = scale.whole;
  if (filters.k > 0 && filters.top_k_first) {
    one = 0.0;
    for (int64_t i = 0; i < kept.listed; ++i) {
      if (scratch.keys[i] >= bits_of(kept.least)) one += add.of(scratch.keys[i]);
    }
  }
  const double limit = top_p_limit(filters.top_p, one);
  if (limit > total) return kept;  // all that the row has do not reach it
  if (filters.k <= 0) {
    // Were all as large as this, they would sum to what top-p leaves out. Smaller ones do not, with
    // some room for the rounding of weights.
    const double spare = 0.99 * (total - limit) / static_cast<double>(vocab);
    const float bound = spare > 100.0 ? static_cast<float>(spare / scale.whole) : kLeastFloat;
    kept.listed = list_entries<ProbabilityKey>(row, vocab, bound, scratch);
  }
  // 0 where what is listed does not reach the limit: then top-k is the stricter filter.
  const int64_t n = listed_from(bits_of(kept.least), kept.listed, scratch);
  const float by_sum = float_of(select_key(scratch.work, n, limit, add, scratch.sums));
  if (by_sum > kept.least) kept.least = by_sum;
  return kept;
}

// Draws from a short list, in the order of the row.
int32_t draw_listed(const Kept& kept, const Scale& scale, float uniform,
                    const SamplingScratch& scratch) {
  const AddWeight add{scale};
  const uint32_t least = bits_of(kept.least);
  double total = 0.0;
  for (int64_t i = 0; i < kept.listed; ++i) {
    if (scratch.keys[i] >= least) total += add.of(scratch.keys[i]);
  }
  const double target = draw_target(uniform, total);
  double before = 0.0;
  int64_t i = 0;
  for (; i < kept.listed; ++i) {
    if (scratch.keys[i] >= least) before += add.of(scratch.keys[i]);
    if (before > target) break;
  }
  return static_cast<int32_t>(scratch.places[i]);
}

// ---------------------------------------------------------------- what is written

struct RenormalisedRow {
  const float* row;
  float least, total;
  Scale scale;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    const F32 x = load(row + i, count), most = broadcast(FLT_MAX);
    const F32 scaled = (x < most ? x : most) * scale.first * scale.second / total;
    return select(x >= least, scaled, F32{});
  }
};

struct MaskedRow {
  const float* row;
  float least;
  template <class Count>
  FLASHINFER_INLINE F32 at(int64_t i, Count count) const {
    const F32 x = load(row + i, count);
    return select(x >= least, x, broadcast(-__builtin_inff()));
  }
};

template <class Args>
RowFilters row_filters(const Args& args, int64_t r) {
  int64_t k = args.top_k_value;
  if (args.top_k != nullptr) k = args.top_k[r] > 0 ? args.top_k[r] : 1;
  return {k > 0 && k < args.vocab ? k : 0, args.top_p == nullptr ? args.top_p_value : args.top_p[r],
          false};
}

// The least entry that min-p keeps.
float min_p_threshold(const float* row, int64_t vocab, float min_p) {
  if (!(min_p > 0.0f)) return kLeastFloat;
  const float least = (min_p < 1.0f ? min_p : 1.0f) * largest(ProbabilityRow{row}, vocab);
  return least > kLeastFloat ? least : kLeastFloat;
}

template <class Args>
bool has_memory(const SamplingJob<Args>& job, const SamplingScratch& scratch) {
  if (scratch.memory == nullptr) __atomic_store_n(job.no_memory, 1, __ATOMIC_RELAXED);
  return scratch.memory != nullptr;
}

// ---------------------------------------------------------------- operations

void sample_rows(void* arg, int64_t begin, int64_t end) {
  const auto& job = *static_cast<const SamplingJob<fi_sample_args>*>(arg);
  const fi_sample_args& args = *job.args;
  const int64_t vocab = args.vocab;
  const SamplingScratch scratch(vocab);
  if (!has_memory(job, scratch)) return;
  for (int64_t r = begin; r < end; ++r) {
    const float* row = args.probs + r * args.probs_stride;
    const ProbabilityRow probs{row};
    Scale scale(kExponent);
    double total = weigh_row(probs, vocab, kLeastTotal, scratch.chunks, &scale);
    int32_t sample = 0;
    if (total > 0.0) {
      RowFilters filters = row_filters(args, r);
      filters.top_k_first = args.top_k_first != 0;
      float least = min_p_threshold(row, vocab, args.min_p ? args.min_p[r] : args.min_p_value);
      Kept kept{least, 0};
      if (filters.k > 0 || !(filters.top_p >= 1.0f)) {
        kept = apply_filters(row, vocab, filters, total, scale, scratch);
        least = kept.least > least ? kept.least : least;
        kept.least = least;
      }
      if (kept.listed > 0 && kept.listed <= vocab / kLongList) {
        sample = draw_listed(kept, scale, args.uniform[r], scratch);
      } else {
        if (least > kLeastFloat) total = sum_chunks(probs, vocab, least, scale, scratch.chunks);
        sample = draw(probs, vocab, least, scale, args.uniform[r], total, scratch.chunks);
      }
    }
    args.samples[r] = sample;
    if (args.success != nullptr) args.success[r] = total > 0.0;
  }
}

void renorm_probs_rows(void* arg, int64_t begin, int64_t end) {
  const auto& job = *static_cast<const SamplingJob<fi_renorm_probs_args>*>(arg);
  const fi_renorm_probs_args& args = *job.args;
  const int64_t vocab = args.vocab;
  const SamplingScratch scratch(vocab);
  if (!has_memory(job, scratch)) return;
  for (int64_t r = begin; r < end; ++r) {
    const float* row = args.probs + r * args.probs_stride;
    const ProbabilityRow probs{row};
    Scale scale(kExponent);
    double total = weigh_row(probs, vocab, kLeastTotal, scratch.chunks, &scale);
    float least = kLeastFloat;
    const RowFilters filters = row_filters(args, r);
    if (total > 0.0 && (filters.k > 0 || !(filters.top_p >= 1.0f))) {
      least = apply_filters(row, vocab, filters, total, scale, scratch).least;
      total = sum_chunks(probs, vocab, least, scale, scratch.chunks);
    }
    store_each(args.out + r * args.out_stride, vocab,
               RenormalisedRow{row, least, static_cast<float>(total), scale});
  }
}

void mask_logits_rows(void* arg, int64_t begin, int64_t end) {
  const auto& job = *static_cast<const SamplingJob<fi_mask_logits_args>*>(arg);
  const fi_mask_logits_args& args = *job.args;
  const int64_t vocab = args.vocab;
  const SamplingScratch scratch(vocab);
  if (!has_memory(job, scratch)) return;
  for (int64_t r = begin; r < end; ++r) {
    const float* row = args.logits + r * args.logits_stride;
    float* out = args.out + r * args.out_stride;
    int64_t k = args.top_k_value;
    if (args.top_k != nullptr) k = args.top_k[r] > 0 ? args.top_k[r] : 1;
    int64_t n = 0;
    if (k > 0 && k < vocab) {
      find_tops<LogitKey>(row, vocab, scratch.tops);
      const float bound = bound_of_largest<LogitKey>(vocab, k, scratch);
      n = list_entries<LogitKey>(row, vocab, bound, scratch);
    }
    if (n == 0 || n < k) {  // fewer than k are above -inf
      if (out != row) std::memcpy(out, row, static_cast<size_t>(vocab) * sizeof(float));
      continue;
    }
    const float least = LogitKey::value(
        select_key(scratch.keys, n, static_cast<uint32_t>(k), CountOne{}, scratch.counts));
    store_each(out, vocab, MaskedRow{row, least});
  }
}

void chain_requests(void* arg, int64_t begin, int64_t end) {
  const auto& job = *static_cast<const SamplingJob<fi_chain_speculative_args>*>(arg);
  const fi_chain_speculative_args& args = *job.args;
  const int64_t vocab = args.vocab, n = args.num_draft;
  const SamplingScratch scratch(vocab);
  if (!has_memory(job, scratch)) return;
  for (int64_t r = begin; r < end; ++r) {
    const int32_t* ids = args.draft_token_ids + r * n;
    const float* uniform = args.uniform + r * (n + 1);
    const float* draft = args.draft_probs + r * n * vocab;
    const float* target = args.target_probs + r * (n + 1) * vocab;
    int32_t* output = args.output_token_ids + r * (n + 1);
    int64_t length = -1;
    int32_t accepted = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t id = ids[i];
      const bool good =
          id >= 0 && id < vocab && uniform[i] * draft[i * vocab + id] < target[i * vocab + id];
      accepted += good;
      if (!good && length < 0) length = i;
    }
    if (length < 0) length = n;
    for (int64_t i = 0; i <= n; ++i) output[i] = i < length ? ids[i] : -1;
    args.output_accepted[r] += accepted;
    args.output_emitted[r] += static_cast<int32_t>(length);

    const float u = uniform[length < n ? length + 1 : n];
    const ProbabilityRow last{target + length * vocab};
    Scale scale(kExponent);
    if (length < n) {
      const ResidualRow residual{last, {draft + length * vocab}};
      const double total = weigh_row(residual, vocab, kLeastResidual, scratch.chunks, &scale);
      if (total > 0.0) {
        output[length] = draw(residual, vocab, kLeastFloat, scale, u, total, scratch.chunks);
        continue;
      }
    }
    // Behind a whole chain, or where rounding has left nothing of the difference.
    const double total = weigh_row(last, vocab, kLeastResidual, scratch.chunks, &scale);
    output[length] =
        total > 0.0 ? draw(last, vocab, kLeastFloat, scale, u, total, scratch.chunks) : 0;
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_SAMPLING_H_
