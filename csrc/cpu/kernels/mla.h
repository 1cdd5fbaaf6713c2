// Decode of multi-head latent attention, an item of the plan at a time. A tile of the cache is read
// once: its rows are the keys, and their first head_dim_ckv elements the values too. With few heads
// scores and sums come straight from the stored rows; with more, a tile is copied to fp32, and
// transposed for the scores. On a CPU that multiplies bf16, ckv stays bf16, and probabilities are
// rounded to it; what RoPE may have turned is in fp32 always.
#ifndef FLASHINFER_CPU_KERNELS_MLA_H_
#define FLASHINFER_CPU_KERNELS_MLA_H_

#include "cpu/isa.h"
#include "cpu/kernels/attention.h"
#include "cpu/kernels/pairs.h"

namespace flashinfer {
namespace cpu {
namespace {

// Scratch of one thread. A row of q or of the tile is the ckv part, then the kpe part, each padded
// with zeros to whole vectors.
struct MlaScratch {
  int64_t values;  // elements of the ckv part
  int64_t width;   // of both
  float* memory;
  Matrix q;       // [kBlockOfRows x width]
  Matrix out;     // [kBlockOfRows x values]
  Matrix scores;  // [kBlockOfRows x kTileKeys]
  Matrix rows;    // [kTileKeys x width]
  Matrix keys;    // [width x kTileKeys]: the rows transposed

  explicit MlaScratch(const fi_mla_decode_args& args)
      : values(whole_vectors(args.head_dim_ckv)), width(values + whole_vectors(args.head_dim_kpe)) {
    const int64_t sizes[] = {kBlockOfRows * width, kBlockOfRows * values, kBlockOfRows * kTileKeys,
                             kTileKeys * width, kTileKeys * width};
    int64_t total = 0;
    for (const int64_t size : sizes) total += size;
    memory = static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(total) * 4));
    if (memory == nullptr) return;
    const int64_t strides[] = {width, values, kTileKeys, width, kTileKeys};
    Matrix* const parts[] = {&q, &out, &scores, &rows, &keys};
    float* at = memory;
    for (int i = 0; i < 5; ++i) {
      *parts[i] = {at, strides[i]};
      at += sizes[i];
    }
  }
  ~MlaScratch() { std::free(memory); }
  MlaScratch(const MlaScratch&) = delete;
  MlaScratch& operator=(const MlaScratch&) = delete;
};

// Cosines and sines of one position after another, as Neighbours has them: every cosine twice,
// every sine as (-s, s). Exact at the first of every eight; those in between are turned from their
// neighbour by one position, in which fp32 loses less than a millionth.
class LatentAngles {
 public:
  LatentAngles(const double* turns, int64_t pairs) : turns_(turns), pairs_(pairs) {
    exact(1.0, step_);
  }

  const float* cosines() const { return now_.cosines; }
  const float* sines() const { return now_.sines; }

  void set(int64_t position) { exact(static_cast<double>(position), now_); }

  // To a position that is one more than the last.
  void advance(int64_t position) {
    if (position % kExactEvery == 0) return set(position);
    for (int64_t i = 0; i < 2 * pairs_; i += kLanes) {
      const F32 c = load(now_.cosines + i, Whole{}), s = load(now_.sines + i, Whole{});
      const F32 step_c = load(step_.cosines + i, Whole{}), step_s = load(step_.sines + i, Whole{});
      store(now_.cosines + i, fma(c, step_c, -(s * step_s)), Whole{});
      store(now_.sines + i, fma(s, step_c, c * step_s), Whole{});
    }
  }

 private:
  static constexpr int64_t kExactEvery = 8;
  struct Table {
    float cosines[kMaxLatentRope + kLanes];
    float sines[kMaxLatentRope + kLanes];
  };

  // Not inlined, and what it calls throws nothing: vector code in a function that has something to
  // destroy would bring the weak symbols of exceptions.
  __attribute__((noinline)) void exact(double position, Table& table) const {
    float c[kMaxLatentRope / 2 + kLanes], s[kMaxLatentRope / 2 + kLanes];
    cos_sin(position, turns_, pairs_, c, s);
    for (int64_t i = 0; i < whole_vectors(2 * pairs_) / 2; ++i) {
      table.cosines[2 * i] = table.cosines[2 * i + 1] = c[i];
      table.sines[2 * i] = -s[i];
      table.sines[2 * i + 1] = s[i];
    }
  }

  const double* turns_;
  int64_t pairs_;
  Table step_, now_;
};

// Turns the pairs (2i, 2i+1) of a row in place.
FLASHINFER_INLINE void turn_pairs(float* row, int64_t d, const LatentAngles& angles) {
  store_each(row, d, Neighbours<float>{row, angles.cosines(), angles.sines()});
}

__attribute__((noinline)) void turn_latent_rows(float* rows, int64_t stride, int64_t count,
                                                int64_t d, int64_t position, LatentAngles& angles) {
  for (int64_t j = 0; j < count; ++j, rows += stride) {
    if (j == 0) {
      angles.set(position);
    } else {
      angles.advance(position + j);
    }
    turn_pairs(rows, d, angles);
  }
}

// q, its second part turned, all of it in fp32 and scaled; as pairs the first part as it is stored,
// and nothing scaled.
template <class T>
__attribute__((noinline)) void load_latent_queries(const fi_mla_decode_args& args,
                                                   const QueryRows& rows, LatentAngles* angles,
                                                   float scale, bool as_pairs, int64_t values,
                                                   Matrix to) {
  for (int64_t r = 0; r < rows.count; ++r) {
    const int64_t n = rows.item.qo_begin + rows.row[r].token, h = rows.row[r].head;
    const T* q_nope =
        static_cast<const T*>(args.q_nope) + n * args.q_nope_stride_n + h * args.q_nope_stride_h;
    const T* q_pe =
        static_cast<const T*>(args.q_pe) + n * args.q_pe_stride_n + h * args.q_pe_stride_h;
    float* row = to.at + r * to.stride;
    if (as_pairs) {
      std::memcpy(row, q_nope, static_cast<size_t>(args.head_dim_ckv) * sizeof(T));
    } else {
      copy_row(q_nope, row, args.head_dim_ckv);
    }
    copy_row(q_pe, row + values, args.head_dim_kpe);
    if (angles != nullptr) {
      if (r == 0 || rows.row[r].position != rows.row[r - 1].position) {
        angles->set(rows.row[r].position);
      }
      turn_pairs(row + values, args.head_dim_kpe, *angles);
    }
    if (!as_pairs) scale_row(row, to.stride, scale);
  }
}

// Scores of a few rows: ckv straight from the cache, kpe from its fp32 copies.
template <class T>
FLASHINFER_INLINE void few_latent_scores(const TileRows<T>& tile, const TileRows<T>& next,
                                         int64_t count, int64_t heads, int64_t d,
                                         const MlaScratch& scratch) {
  float more[kFewRows * kTileKeys];
  const float* kpe[kTileKeys];
  for (int64_t j = 0; j < count; ++j) {
    kpe[j] = scratch.rows.at + j * scratch.rows.stride + scratch.values;
  }
  direct_scores(scratch.q, tile.k, next.k, heads, count, d, scratch.scores);
  direct_scores(Matrix{scratch.q.at + scratch.values, scratch.q.stride}, kpe,
                static_cast<const float* const*>(nullptr), heads, count,
                scratch.width - scratch.values, Matrix{more, kTileKeys});
  for (int64_t r = 0; r < heads; ++r) {
    float* const row = scratch.scores.at + r * scratch.scores.stride;
    for (int64_t j = 0; j < count; ++j) row[j] += more[r * kTileKeys + j];
  }
}

template <class T>
constexpr bool kIsBFloat16 = false;
template <>
constexpr bool kIsBFloat16<BFloat16> = true;

// Where a tile of bf16 lies in the scratch: its words at the rows, transposed at the first half of
// the keys; pairs of rows, for the sums, at the second half.
FLASHINFER_INLINE Matrix paired_values(const MlaScratch& scratch) {
  return {scratch.keys.at + scratch.values / 2 * kTileKeys, scratch.values};
}

// scores = scale * (q . keys), kpe being at its place in the rows.
__attribute__((noinline)) void paired_scores(const TileRows<BFloat16>& tile,
                                             const TileRows<BFloat16>& next, int64_t count,
                                             int64_t heads, int64_t d, float scale,
                                             const MlaScratch& scratch) {
  const Matrix paired = paired_values(scratch);
  const int64_t values = scratch.values, more = scratch.width - values;
  for (int64_t j = 0; j < count; ++j) {
    prefetch_row(next.k[j], d);
    std::memcpy(scratch.rows.at + j * scratch.rows.stride, tile.k[j], static_cast<size_t>(d) * 2);
    if (j % 2 == 0) {
      pair_rows(tile.k[j], j + 1 < count ? tile.k[j + 1] : nullptr,
                paired.at + j / 2 * paired.stride, d);
    }
  }
  transpose(scratch.rows, scratch.keys, count, values / 2);
  const Matrix kpe{scratch.rows.at + values, scratch.rows.stride};
  const Matrix kpe_keys{scratch.keys.at + values * kTileKeys, kTileKeys};
  transpose(kpe, kpe_keys, count, more);
  const int64_t n = whole_vectors(count);
  pairs::multiply<false>(scratch.q, scratch.keys, scratch.scores, heads, n, values / 2);
  multiply<true>(Matrix{scratch.q.at + values, scratch.q.stride}, kpe_keys, scratch.scores, heads,
                 n, more);
  for (int64_t r = 0; r < heads; ++r) {
    scale_row(scratch.scores.at + r * scratch.scores.stride, n, scale);
  }
}

// out += probabilities . values
__attribute__((noinline)) void paired_sums(int64_t count, int64_t heads, MlaScratch& scratch) {
  for (int64_t r = 0; r < heads; ++r) {
    narrow_row(scratch.scores.at + r * scratch.scores.stride, whole_vectors(count));
  }
  pairs::multiply<true>(scratch.scores, paired_values(scratch), scratch.out, heads, scratch.values,
                        (count + 1) / 2);
}

template <class T>
FLASHINFER_INLINE void attend_latent(const MlaJob& job, const QueryRows& rows, LatentAngles* angles,
                                     MlaScratch& scratch) {
  const fi_mla_decode_args& args = *job.args;
  const int64_t d = args.head_dim_ckv, d_pe = args.head_dim_kpe;
  const bool few = rows.count <= kFewRows;
  const float scale =
      args.logits_soft_cap > 0.0f ? args.sm_scale / args.logits_soft_cap : args.sm_scale * kLog2E;
  const bool as_pairs = kIsBFloat16<T> && !few && d % (2 * kLanes) == 0 && pairs_supported();
  load_latent_queries<T>(args, rows, angles, scale, as_pairs, scratch.values, scratch.q);
  RowState states[kBlockOfRows];
  for (int64_t r = 0; r < rows.count; ++r) states[r] = {F32{}, F32{}, -__builtin_inff()};
  std::memset(scratch.out.at, 0, static_cast<size_t>(rows.count * scratch.out.stride) * 4);

  TileRows<T> tiles[2];
  const Matrix kpe{scratch.rows.at + scratch.values, scratch.rows.stride};
  const int64_t end = rows.key_end(rows.count - 1);
  const auto keys_from = [end](int64_t j) { return end - j < kTileKeys ? end - j : kTileKeys; };
  int64_t j = rows.key_begin(0);
  if (j < end) find_rows(rows.args, rows.item, 0, j, keys_from(j), tiles[0]);
  for (int i = 0; j < end; j += kTileKeys, i ^= 1) {
    const TileRows<T>& tile = tiles[i];
    const bool last = j + kTileKeys >= end;
    if (!last) {
      find_rows(rows.args, rows.item, 0, j + kTileKeys, keys_from(j + kTileKeys), tiles[i ^ 1]);
    }
    const TileRows<T>& next = tiles[last ? i : i ^ 1];
    const int64_t count = keys_from(j);
    copy_rows(tile.v, next.v, count, kpe, d_pe);
    if (angles != nullptr) turn_latent_rows(kpe.at, kpe.stride, count, d_pe, j, *angles);
    if (few) {
      few_latent_scores(tile, next, count, rows.count, d, scratch);
    } else if (as_pairs) {
      if constexpr (kIsBFloat16<T>) {
        paired_scores(tile, next, count, rows.count, d, scale, scratch);
      }
    } else {
      copy_rows(tile.k, next.k, count, scratch.rows, d);
      transpose(scratch.rows, scratch.keys, count, scratch.width);
      multiply<false>(scratch.q, scratch.keys, scratch.scores, rows.count, whole_vectors(count),
                      scratch.width);
    }
    softmax_tile(job.attention, rows, j, count, states, scratch.scores, scratch.out);
    if (few) {
      direct_sums(scratch.scores, tile.k, static_cast<const T* const*>(nullptr), rows.count, count,
                  d, scratch.out);
    } else if (as_pairs) {
      paired_sums(count, rows.count, scratch);
    } else {
      multiply<true>(scratch.scores, scratch.rows, scratch.out, rows.count, scratch.values, count);
    }
  }
  store_rows(rows, states, scratch.out);
}

// As attention_units.
template <class T>
void mla_units(void* arg, int64_t, int64_t) {
  const MlaJob& job = *static_cast<const MlaJob*>(arg);
  const fi_attention_args& args = *job.attention.args;
  MlaScratch scratch(*job.args);
  if (scratch.memory == nullptr) {
    __atomic_store_n(job.attention.no_memory, 1, __ATOMIC_RELAXED);
    return;
  }
  const bool turns = job.attention.turns != nullptr;
  const double none[kMaxLatentRope / 2] = {};
  LatentAngles angles(turns ? job.attention.turns : none, job.args->head_dim_kpe / 2);
  for (;;) {
    const int64_t unit = __atomic_fetch_add(job.attention.next_unit, 1, __ATOMIC_RELAXED);
    if (unit >= job.attention.num_items) return;
    const fi_attention_item& item = job.attention.items[unit];
    const int64_t item_end = item.row_begin + args.tile_rows;
    const int64_t all = item.qo_len * args.num_qo_heads;
    const int64_t end = item_end < all ? item_end : all;
    for (int64_t first = item.row_begin; first < end; first += kBlockOfRows) {
      const int64_t count = end - first < kBlockOfRows ? end - first : kBlockOfRows;
      attend_latent<T>(job, QueryRows(args, item, 0, first, count), turns ? &angles : nullptr,
                       scratch);
    }
  }
}

}  // namespace
}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_KERNELS_MLA_H_
