// The threshold of top-k and top-p: a radix selection over the keys of a row.
//
// A histogram of the upper 12 bits of the keys (a sixteenth of a power of two), with counts for
// top-k and sums of weights for top-p, tells the bin in which the threshold lies. The keys of that
// bin, or of it and all above, are then listed in shared memory, where two more histograms find the
// threshold exactly. Only a bin with more keys than the list holds is read again from memory for
// those. Entries with a key below Row::kLeast are not looked at.
#ifndef FLASHINFER_SAMPLING_SELECT_CUH_
#define FLASHINFER_SAMPLING_SELECT_CUH_

#include <cstdint>

#include "flashinfer/sampling/draw.cuh"

namespace flashinfer {

constexpr int kBins = 4096, kBinShift = 20;
constexpr int kFineBins = 1024, kFineBits = 10;
constexpr int kListSize = 5120;

template <int kSize>
struct Histogram {
  uint32_t counts[kSize], high[kSize], low[kSize];
};

struct SelectShared {
  Histogram<kBins> coarse;
  Histogram<kFineBins> fine;
  TileSums tiles;
  uint32_t keys[kListSize];
  uint16_t key_tiles[kListSize];
  uint32_t listed;
};

// How far down the threshold is: it is the largest key with at least `count` keys, and keys with a
// sum of at least `sum`, from it upwards; the stricter, the larger, of the two where both are
// given. 0: no such condition.
struct Need {
  uint64_t count, sum;
};

template <typename Row>
class Selection {
 public:
  static constexpr uint32_t kLeast = Row::kLeast;

  __device__ __forceinline__ Selection(const Row& row, const Tiling& tiling, SelectShared* shared)
      : row_(row), tiling_(tiling), shared_(shared), scale_(kExponent) {}

  __device__ __forceinline__ const Scale& scale() const { return scale_; }

  // Makes the coarse histogram. Returns the row's sum; `most` becomes the largest key.
  __device__ __forceinline__ uint64_t count_row(bool counts, bool sums, uint32_t* most) {
    counts_ = counts;
    sums_ = sums;
    int exponent = kExponent;
    for (int attempt = 0;; ++attempt) {
      clear(&shared_->coarse, kBins);
      uint32_t seen = 0;
      uint64_t mine = 0;
      for (int begin = first_step(); begin < tiling_.vocab; begin += warps() * kStep<Row::kSize>) {
        uint32_t keys[kVectors][Row::kSize];
        row_.keys(begin, keys);
        each(keys, [&](uint32_t key) {
          if (key < kLeast) return;
          seen = max(seen, key);
          mine += add(&shared_->coarse, key >> kBinShift, key);
        });
      }
      if (!Row::kWeighted) return 0;
      const uint64_t total = block_sum(mine, block());
      *most = block_max(seen, block());
      if (*most == 0 || attempt == 2 || (total >= kLeastTotal && total < kMostTotal)) return total;
      exponent = next_exponent(attempt, exponent, total, *most);
      scale_ = Scale(exponent);
    }
  }

  // The threshold; kLeast where the conditions ask for more than there is.
  __device__ __forceinline__ uint32_t find(Need need) {
    const int bin = descend(shared_->coarse, kBins, &need);
    if (bin < 0) return kLeast;
    list(static_cast<uint32_t>(bin));
    uint32_t prefix = static_cast<uint32_t>(bin);
#pragma unroll 1
    for (int shift = kBinShift; shift > 0; shift -= kFineBits) {
      clear(&shared_->fine, kFineBins);
      each_candidate([&](uint32_t key) {
        if (key >> shift != prefix) return;
        add(&shared_->fine, key >> (shift - kFineBits) & (kFineBins - 1), key);
      });
      // What is left to reach is in this bin, so there is a crossing.
      prefix =
          prefix << kFineBits | static_cast<uint32_t>(descend(shared_->fine, kFineBins, &need));
    }
    return prefix;
  }

  // The sums of tiles over the keys of `least` or more. They hold behind the next barrier.
  __device__ __forceinline__ void sum(uint32_t least) {
    TileSums& tiles = shared_->tiles;
    if (listing_ == Listing::kAbove && least >> kBinShift >= bin_) {
      for (int i = threadIdx.x; i < tiling_.tiles; i += blockDim.x) tiles.set(i, 0);
      __syncthreads();
    } else if (listing_ != Listing::kBin || least >> kBinShift != bin_ || !tiles_above_) {
      uint32_t most = 0;
      tiles_above_ = false;
      sum_tiles(row_, tiling_, least, scale_, &tiles, &most);
      return;
    }
    tiles_above_ = false;
    for (int i = threadIdx.x; i < listed_; i += blockDim.x) {
      if (shared_->keys[i] < least) continue;
      const uint64_t weight = weight_of(shared_->keys[i], scale_);
      const int tile = shared_->key_tiles[i];
      add_shared(&tiles.high[tile], static_cast<uint32_t>(weight >> kLowBits));
      add_shared(&tiles.low[tile], static_cast<uint32_t>(weight) & kLowMask);
    }
  }

  // The sum of all tiles.
  __device__ __forceinline__ uint64_t total() {
    TileSums& tiles = shared_->tiles;
    return block_scan(tiling_.tiles, [&](int tile) { return tiles.of(tile); }, block()).total;
  }

 private:
  enum class Listing { kNothing, kAbove, kBin, kTooMany };

  __device__ __forceinline__ BlockShared* block() const { return &shared_->tiles.block; }
  __device__ __forceinline__ static int warps() { return blockDim.x / kWarpSize; }
  __device__ __forceinline__ static int first_step() {
    return static_cast<int>(threadIdx.x) / kWarpSize * kStep<Row::kSize>;
  }

  template <typename Body>
  __device__ __forceinline__ static void each(const uint32_t (&keys)[kVectors][Row::kSize],
                                              Body body) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int i = 0; i < Row::kSize; ++i) body(keys[v][i]);
    }
  }

  template <int kSize>
  __device__ __forceinline__ void clear(Histogram<kSize>* histogram, int bins) {
    __syncthreads();  // whoever read it is done
    for (int i = threadIdx.x; i < bins; i += blockDim.x) {
      if (counts_) histogram->counts[i] = 0;
      if (sums_) histogram->high[i] = histogram->low[i] = 0;
    }
    __syncthreads();
  }

  // Returns the weight of the key, which goes into `bin`.
  template <int kSize>
  __device__ __forceinline__ uint64_t add(Histogram<kSize>* histogram, uint32_t bin, uint32_t key) {
    if (counts_) add_shared(&histogram->counts[bin], 1);
    if (!Row::kWeighted) return 0;
    const uint64_t weight = weight_of(key, scale_);
    if (sums_) {
      add_shared(&histogram->high[bin], static_cast<uint32_t>(weight >> kLowBits));
      add_shared(&histogram->low[bin], static_cast<uint32_t>(weight) & kLowMask);
    }
    return weight;
  }

  // The bin in which the threshold lies; what is needed becomes what is needed of that bin.
  template <int kSize>
  __device__ __forceinline__ int descend(const Histogram<kSize>& histogram, int bins, Need* need) {
    Crossing by_count{-1, 0}, by_sum{-1, 0};
    if (need->count > 0) {
      const auto value = [&](int i) { return uint64_t{histogram.counts[bins - 1 - i]}; };
      by_count = block_crossing(block_scan(bins, value, block()), need->count, value, block());
    }
    if (need->sum > 0) {
      const auto value = [&](int i) {
        return joined(histogram.high[bins - 1 - i], histogram.low[bins - 1 - i]);
      };
      by_sum = block_crossing(block_scan(bins, value, block()), need->sum, value, block());
    }
    const int count_bin = by_count.index < 0 ? -1 : bins - 1 - by_count.index;
    const int sum_bin = by_sum.index < 0 ? -1 : bins - 1 - by_sum.index;
    const int bin = max(count_bin, sum_bin);
    need->count = count_bin == bin && bin >= 0 ? need->count - by_count.before : 0;
    need->sum = sum_bin == bin && bin >= 0 ? need->sum - by_sum.before : 0;
    return bin;
  }

  template <typename Body>
  __device__ __forceinline__ void each_candidate(Body body) {
    if (listing_ == Listing::kAbove || listing_ == Listing::kBin) {
      for (int i = threadIdx.x; i < listed_; i += blockDim.x) body(shared_->keys[i]);
      return;
    }
    for (int begin = first_step(); begin < tiling_.vocab; begin += warps() * kStep<Row::kSize>) {
      uint32_t keys[kVectors][Row::kSize];
      row_.keys(begin, keys);
      each(keys, body);
    }
  }

  // Lists the keys of the bin and, if there is room, of all bins above it.
  __device__ __forceinline__ void list(uint32_t bin) {
    if (listing_ == Listing::kAbove && bin >= bin_) return;
    if (listing_ == Listing::kBin && bin == bin_) return;
    bin_ = bin;
    tiles_above_ = false;
    if (gather(bin << kBinShift, 0xffffffffu)) {
      listing_ = Listing::kAbove;
    } else if (gather(bin << kBinShift, (bin << kBinShift) + ((1u << kBinShift) - 1))) {
      listing_ = Listing::kBin;
      tiles_above_ = Row::kWeighted;
    } else {
      listing_ = Listing::kTooMany;
    }
  }

  // Lists the keys from `low` to `high`, and sums those above `high` in their tiles; whether all
  // have found room.
  __device__ __forceinline__ bool gather(uint32_t low, uint32_t high) {
    const int lane = threadIdx.x % kWarpSize;
    __syncthreads();  // whoever read the list is done
    if (threadIdx.x == 0) shared_->listed = 0;
    __syncthreads();
    bool full = false;
    for (int tile = threadIdx.x / kWarpSize; tile < tiling_.tiles && !full; tile += warps()) {
      uint64_t sum = 0;
      const int end = min((tile + 1) * tiling_.tile, tiling_.vocab);
      for (int begin = tile * tiling_.tile; begin < end && !full; begin += kStep<Row::kSize>) {
        uint32_t keys[kVectors][Row::kSize];
        row_.keys(begin, keys);
        int mine = 0;
        each(keys, [&](uint32_t key) {
          mine += key >= low && key <= high;
          if (Row::kWeighted && key > high) sum += weight_of(key, scale_);
        });
        if (__ballot_sync(kAllLanes, mine > 0) == 0) continue;
        const int inclusive = warp_inclusive_sum(mine);
        uint32_t slot = 0;
        if (lane == kWarpSize - 1) slot = add_shared(&shared_->listed, inclusive);
        slot = __shfl_sync(kAllLanes, slot, kWarpSize - 1);
        const int all = __shfl_sync(kAllLanes, inclusive, kWarpSize - 1);
        full = slot + all > kListSize;
        if (full) break;
        slot += inclusive - mine;
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
#pragma unroll
          for (int i = 0; i < Row::kSize; ++i) {
            const uint32_t key = keys[v][i];
            if (key >= low && key <= high) {
              shared_->keys[slot] = key;
              shared_->key_tiles[slot] = static_cast<uint16_t>(tile);
              ++slot;
            }
          }
        }
      }
      if (!Row::kWeighted) continue;
      sum = warp_sum(sum);
      if (lane == 0) shared_->tiles.set(tile, sum);
    }
    __syncthreads();
    listed_ = shared_->listed;
    return listed_ <= kListSize;
  }

  const Row& row_;
  const Tiling& tiling_;
  SelectShared* shared_;
  Scale scale_;
  bool counts_ = false, sums_ = false;
  Listing listing_ = Listing::kNothing;
  uint32_t bin_ = 0;  // from which, or of which, keys are listed
  int listed_ = 0;
  bool tiles_above_ = false;  // the tiles have the sums of the keys above bin_
};

}  // namespace flashinfer

#endif  // FLASHINFER_SAMPLING_SELECT_CUH_
