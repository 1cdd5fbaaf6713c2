// The k largest entries of every row, by the threshold that the filters of sampling have.
//
// A block has a row. The threshold is the k-th largest key (sampling/select.cuh), so what is above
// it is chosen, and of what equals it as many as are left, from one end. Counts of both in every
// tile, added up, tell each warp where the chosen entries of its tiles go: the result does not
// depend on the order in which anything runs. Sorted ones are brought into order in shared memory.
#ifndef FLASHINFER_TOP_K_CUH_
#define FLASHINFER_TOP_K_CUH_

#include <cstdint>

#include "flashinfer/arch/launch.cuh"
#include "flashinfer/sampling/select.cuh"

namespace flashinfer {

// A step of 16-bit entries has 32 a thread, which 64 registers do not hold.
template <typename T>
constexpr int kTopKThreads = sizeof(T) == 2 ? 512 : 1024;
constexpr int kMaxSorted = 4096;

template <typename T>
struct TopKParams {
  Tiling tiling;
  const T* input;
  int64_t input_stride;
  int k;
  T* values;         // [rows, k]
  int64_t* indices;  // [rows, k]
  bool sorted;
  bool last;  // of equal entries, those of larger indices
};

// How many entries are above the threshold and how many equal it, in one number.
__device__ __forceinline__ uint64_t both_counts(uint32_t above, uint32_t equal) {
  return static_cast<uint64_t>(above) << 32 | equal;
}
__device__ __forceinline__ int above_of(uint64_t counts) { return static_cast<int>(counts >> 32); }
__device__ __forceinline__ int equal_of(uint64_t counts) {
  return static_cast<int>(counts & 0xffffffffu);
}

template <int N>
__device__ __forceinline__ uint64_t count_keys(const uint32_t (&keys)[N], uint32_t least) {
  uint64_t counts = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) counts += both_counts(keys[i] > least, keys[i] == least);
  return counts;
}

// Counts the keys of every tile, and replaces the counts by those of all tiles before it. Returns
// the counts of the row. The tiles' hold behind the next barrier.
template <typename Row>
__device__ __forceinline__ uint64_t count_tiles(const Row& row, const Tiling& tiling,
                                                uint32_t least, TileSums* tiles) {
  const int warps = blockDim.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  for (int tile = threadIdx.x / kWarpSize; tile < tiling.tiles; tile += warps) {
    uint64_t counts = 0;
    const int end = min((tile + 1) * tiling.tile, tiling.vocab);
    for (int begin = tile * tiling.tile; begin < end; begin += kStep<Row::kSize>) {
      uint32_t keys[kVectors][Row::kSize];
      row.keys(begin, keys);
#pragma unroll
      for (int v = 0; v < kVectors; ++v) counts += count_keys(keys[v], least);
    }
    counts = warp_sum(counts);
    if (lane == 0) {
      tiles->high[tile] = above_of(counts);
      tiles->low[tile] = equal_of(counts);
    }
  }
  const auto counts_of = [tiles](int tile) {
    return both_counts(tiles->high[tile], tiles->low[tile]);
  };
  const Scan scan = block_scan(tiling.tiles, counts_of, &tiles->block);
  uint64_t before = scan.before;
  for (int tile = scan.first; tile < scan.last; ++tile) {
    const uint64_t counts = counts_of(tile);
    tiles->high[tile] = above_of(before);
    tiles->low[tile] = equal_of(before);
    before += counts;
  }
  return scan.total;
}

// Which of the equal entries are chosen: `count` of them, from number `first` on.
struct Ties {
  int first, count;

  // How many of the first `equal` ones are chosen.
  __device__ __forceinline__ int chosen(int equal) const {
    return min(max(equal - first, 0), count);
  }
};

// Calls take(place, column, key) for every chosen entry, place by ascending column.
template <typename Row, typename Take>
__device__ __forceinline__ void take_chosen(const Row& row, const Tiling& tiling, uint32_t least,
                                            const Ties& ties, const TileSums& tiles, Take take) {
  constexpr int kSize = Row::kSize;
  const int warps = blockDim.x / kWarpSize;
  for (int tile = threadIdx.x / kWarpSize; tile < tiling.tiles; tile += warps) {
    uint64_t before = both_counts(tiles.high[tile], tiles.low[tile]);
    const int end = min((tile + 1) * tiling.tile, tiling.vocab);
    for (int begin = tile * tiling.tile; begin < end; begin += kStep<kSize>) {
      uint32_t keys[kVectors][kSize];
      row.keys(begin, keys);
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const uint64_t mine = count_keys(keys[v], least);
        if (__ballot_sync(kAllLanes, mine != 0) == 0) continue;
        const uint64_t inclusive = warp_inclusive_sum(mine);
        uint64_t running = before + inclusive - mine;
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
          const uint32_t key = keys[v][i];
          const int above = above_of(running), equal = equal_of(running);
          if (key > least ||
              (key == least && equal >= ties.first && equal < ties.first + ties.count)) {
            take(above + ties.chosen(equal), lane_column<kSize>(begin, v) + i, key);
          }
          running += both_counts(key > least, key == least);
        }
        before += __shfl_sync(kAllLanes, inclusive, kWarpSize - 1);
      }
    }
  }
}

// Brings `size` numbers, a power of two, into descending order: a bitonic sort (Batcher, 1968).
// Begins and ends with a barrier.
__device__ __forceinline__ void sort_descending(uint64_t* numbers, int size) {
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
        const int i = 2 * pair - (pair & (distance - 1)), j = i + distance;
        const uint64_t first = numbers[i], second = numbers[j];
        if ((first < second) == ((i & run) == 0)) {
          numbers[i] = second;
          numbers[j] = first;
        }
      }
      __syncthreads();
    }
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kTopKThreads<T>, 1) top_k_kernel(const TopKParams<T> p) {
  SelectShared* shared = dynamic_shared<SelectShared>();
  const int64_t row = blockIdx.x;
  const OrderedRow<T, N> input{p.input + row * p.input_stride, p.tiling.vocab};
  T* values = p.values + row * p.k;
  int64_t* indices = p.indices + row * p.k;
  Selection<OrderedRow<T, N>> selection(input, p.tiling, shared);
  uint32_t most = 0;
  selection.count_row(true, false, &most);
  const uint32_t least = selection.find({static_cast<uint64_t>(p.k), 0});

  const uint64_t counts = count_tiles(input, p.tiling, least, &shared->tiles);
  const int needed = p.k - above_of(counts);
  const Ties ties{p.last ? equal_of(counts) - needed : 0, needed};
  __syncthreads();  // the tiles' counts are there

  // To be sorted, key and index go into one number, so that equal keys are in order too. The
  // histogram, whose place they take, is done with.
  static_assert(sizeof(shared->coarse) >= kMaxSorted * sizeof(uint64_t), "room for the numbers");
  uint64_t* numbers = reinterpret_cast<uint64_t*>(&shared->coarse);
  const uint32_t flip = p.last ? 0 : 0xffffffffu;
  take_chosen(input, p.tiling, least, ties, shared->tiles,
              [&](int place, int column, uint32_t key) {
                if (p.sorted) {
                  numbers[place] =
                      static_cast<uint64_t>(key) << 32 | (static_cast<uint32_t>(column) ^ flip);
                } else {
                  values[place] = input.data[column];
                  indices[place] = column;
                }
              });
  if (!p.sorted) return;
  int size = 1;
  while (size < p.k) size *= 2;
  for (int i = p.k + static_cast<int>(threadIdx.x); i < size; i += blockDim.x) numbers[i] = 0;
  sort_descending(numbers, size);
  for (int i = threadIdx.x; i < p.k; i += blockDim.x) {
    const uint32_t column = static_cast<uint32_t>(numbers[i]) ^ flip;
    values[i] = input.data[column];
    indices[i] = column;
  }
}

}  // namespace flashinfer

#endif  // FLASHINFER_TOP_K_CUH_
