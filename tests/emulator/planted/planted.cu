// Kernels with one bug each, beside correct ones that look alike: what the emulator must report,
// and what it must not.
#include <cstdio>
#include <cstring>

#include "flashinfer/arch/async_copy.cuh"
#include "flashinfer/arch/integer.cuh"
#include "flashinfer/arch/launch.cuh"
#include "flashinfer/arch/memory.cuh"
#include "flashinfer/arch/mma.cuh"

namespace planted {

using flashinfer::dynamic_shared;

struct Params {
  float* data;  // n floats, written by the host
  float* out;   // n floats, not written
  int n;
};

constexpr int kThreads = 64;

// ---------------------------------------------------------------- barriers and shared memory
template <bool kBarrier>
__global__ void reverse(const Params p) {
  __shared__ float block[kThreads];
  block[threadIdx.x] = p.data[threadIdx.x];
  if constexpr (kBarrier) __syncthreads();
  p.out[threadIdx.x] = block[kThreads - 1 - threadIdx.x];
}

// Lanes of one warp only: a warp's barrier is enough.
template <bool kSync>
__global__ void reverse_in_warp(const Params p) {
  __shared__ float block[kThreads];
  block[threadIdx.x] = p.data[threadIdx.x];
  if constexpr (kSync) __syncwarp();
  p.out[threadIdx.x] = block[threadIdx.x ^ 31];
}

// The later lanes of a warp read what the earlier ones write.
// Shuffles synchronise registers, not memory.
template <bool kShuffle>
__global__ void later_half_reversed(const Params p) {
  __shared__ float block[kThreads];
  block[threadIdx.x] = p.data[threadIdx.x];
  if constexpr (kShuffle) __shfl_xor_sync(0xffffffffu, 0, 1);
  if (threadIdx.x % 32 >= 16) p.out[threadIdx.x] = block[threadIdx.x - 16];
}

// All threads add to one word, which another access must not meet without a barrier.
enum class Atomic { kRight, kReadEarly, kWrittenLate, kNotWritten };
template <Atomic kCase>
__global__ void atomic_sum(const Params p) {
  __shared__ uint32_t sum;
  if (kCase != Atomic::kNotWritten && threadIdx.x == 0) sum = 0;
  if constexpr (kCase != Atomic::kWrittenLate) __syncthreads();
  flashinfer::add_shared(&sum, 1);
  if constexpr (kCase != Atomic::kReadEarly) __syncthreads();
  p.out[threadIdx.x] = static_cast<float>(sum);
}

__global__ void barrier_after_return(const Params p) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  p.out[threadIdx.x] = 0.0f;
}

__global__ void two_barriers(const Params p) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  p.out[threadIdx.x] = 0.0f;
}

// The next round writes what slower threads of this round still read.
template <bool kSecondBarrier>
__global__ void rounds(const Params p) {
  __shared__ float first;
  float sum = 0.0f;
  for (int i = 0; i < 3; ++i) {
    if (threadIdx.x == kThreads - 1) first = p.data[i];
    __syncthreads();
    sum += first;
    if constexpr (kSecondBarrier) __syncthreads();
  }
  p.out[threadIdx.x] = sum;
}

__global__ void shared_not_written(const Params p) {
  __shared__ float block[kThreads];
  if (threadIdx.x != 5) block[threadIdx.x] = 1.0f;
  __syncthreads();
  p.out[threadIdx.x] = block[threadIdx.x ^ 1];
}

// The block before this one has written it; its values are not this block's.
__global__ void shared_of_another_block(const Params p) {
  __shared__ float block[kThreads];
  if (blockIdx.x == 0) block[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x < 32) p.out[blockIdx.x * 32 + threadIdx.x] = block[threadIdx.x];
}

template <int kSize>
__global__ void shared_array(const Params p) {
  __shared__ float block[kSize];
  block[threadIdx.x] = 1.0f;
  __syncthreads();
  p.out[threadIdx.x] = block[threadIdx.x];
}

__global__ void dynamic_array(const Params p) {
  float* block = dynamic_shared<float>();
  block[threadIdx.x] = p.data[threadIdx.x];
  __syncthreads();
  p.out[threadIdx.x] = block[kThreads - 1 - threadIdx.x];
}

// ---------------------------------------------------------------- warp operations
__global__ void warp_operations(const Params p) {
  const int lane = threadIdx.x % 32;
  const float up = __shfl_up_sync(0xffffffffu, static_cast<float>(lane), 1);
  const float down = __shfl_down_sync(0xffffffffu, static_cast<float>(lane), 2, 16);
  const double from = __shfl_sync(0xffffffffu, static_cast<double>(lane), 3, 8);
  const unsigned even = __ballot_sync(0xffffffffu, lane % 2 == 0);
  const bool right = up == (lane == 0 ? 0 : lane - 1) &&
                     down == (lane % 16 < 14 ? lane + 2 : lane) && from == lane / 8 * 8 + 3 &&
                     even == 0x55555555u;
  p.out[threadIdx.x] = right ? 1.0f : 0.0f;
}

__global__ void half_warp_operations(const Params p) {
  const int lane = threadIdx.x % 32;
  const unsigned mask = lane < 16 ? 0xffffu : 0xffff0000u;
  p.out[threadIdx.x] = __shfl_xor_sync(mask, static_cast<float>(lane), 8) == (lane ^ 8);
}

__global__ void shuffle_after_return(const Params p) {
  if (threadIdx.x == 7) return;
  p.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

__global__ void shuffle_from_outside_of_the_mask(const Params p) {
  if (threadIdx.x < 16) p.out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 16);
}

__global__ void shuffle_without_itself(const Params p) {
  p.out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1);
}

__global__ void shuffle_against_barrier(const Params p) {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    p.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 2);
  }
}

// ---------------------------------------------------------------- asynchronous copies
enum class Copy { kRight, kNotWaited, kNoBarrier, kOpenGroup, kLeftInFlight, kOverRead, kZeros };

// The first threads copy 16 bytes each; then all read what others have copied.
template <Copy kCopy>
__global__ void copied(const Params p) {
  using flashinfer::copy_async_16, flashinfer::copy_async_commit, flashinfer::copy_async_wait;
  float* block = dynamic_shared<float>();
  if constexpr (kCopy == Copy::kOverRead) {
    block[threadIdx.x] = 0.0f;
    __syncthreads();
    p.out[threadIdx.x] = block[kThreads - 1 - threadIdx.x];
  }
  const int first = threadIdx.x * 4;
  // Threads that read before the others copy, too.
  if (threadIdx.x >= kThreads / 2 && threadIdx.x < kThreads / 2 + kThreads / 4) {
    const int at = first - kThreads * 2;
    copy_async_16(block + at, p.data + at, kCopy != Copy::kZeros);
  }
  if constexpr (kCopy != Copy::kOpenGroup) copy_async_commit();
  if constexpr (kCopy == Copy::kLeftInFlight) return;
  if constexpr (kCopy != Copy::kNotWaited) copy_async_wait<0>();
  if constexpr (kCopy != Copy::kNoBarrier) __syncthreads();
  p.out[threadIdx.x] = block[kThreads - 1 - threadIdx.x];
  copy_async_commit();
  copy_async_wait<0>();
}

__global__ void copy_at(const Params p, int64_t index) {
  float* block = dynamic_shared<float>();
  if (threadIdx.x == 0) flashinfer::copy_async_16(block, p.data + index, true);
  flashinfer::copy_async_commit();
  flashinfer::copy_async_wait<0>();
}

// ---------------------------------------------------------------- tensor cores
// C = A B, [16 x 16] by [16 x 8], with B stored by columns and by rows.
template <typename T>
__global__ void product(const Params p) {
  constexpr int kM = 16, kN = 8, kK = 16;
  const auto a_at = [](int i, int k) { return static_cast<float>((i * 7 + k * 3) % 11 - 5); };
  const auto b_at = [](int k, int n) { return static_cast<float>((k * 5 + n) % 7 - 3); };
  T* a = dynamic_shared<T>();
  T* b_columns = a + kM * kK;
  T* b_rows = b_columns + kN * kK;
  for (int i = threadIdx.x; i < kM * kK; i += kThreads) {
    flashinfer::round_to(a_at(i / kK, i % kK), a + i);
  }
  for (int i = threadIdx.x; i < kN * kK; i += kThreads) {
    flashinfer::round_to(b_at(i % kK, i / kK), b_columns + i);
    flashinfer::round_to(b_at(i / kN, i % kN), b_rows + i);
  }
  __syncthreads();
  const int lane = threadIdx.x % 32;
  uint32_t a_words[4], b_words[2][4];
  flashinfer::load_matrices(a + lane % 16 * kK + lane / 16 * 8, a_words);
  flashinfer::load_matrices(b_columns + lane % 8 * kK + lane / 8 % 2 * 8, b_words[0]);
  flashinfer::load_matrices_transposed(b_rows + lane % 16 * kN, b_words[1]);
  bool right = true;
  for (const auto& b : b_words) {
    float c[4] = {100.0f, 200.0f, 300.0f, 400.0f};
    flashinfer::multiply_add<T>(c, a_words, b[0], b[1]);
    for (int i = 0; i < 4; ++i) {
      float expected = 100.0f * (i + 1);
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < kK; ++k) expected += a_at(row, k) * b_at(k, column);
      right = right && c[i] == expected;
    }
  }
  p.out[threadIdx.x] = right ? 1.0f : 0.0f;
}

__global__ void matrices_of_half_a_warp(const Params p) {
  float* block = dynamic_shared<float>();
  block[threadIdx.x] = p.data[threadIdx.x];
  __syncthreads();
  uint32_t words[4];
  if (threadIdx.x % 32 < 16) flashinfer::load_matrices(block, words);
}

__global__ void matrices_at(const Params p, int64_t index) {
  float* block = dynamic_shared<float>();
  block[threadIdx.x] = p.data[threadIdx.x];
  __syncthreads();
  uint32_t words[4];
  flashinfer::load_matrices(block + index, words);
  p.out[threadIdx.x] = static_cast<float>(words[0]);
}

// ---------------------------------------------------------------- global memory
__global__ void write_at(const Params p, int64_t index) {
  if (threadIdx.x == 3) p.out[index] = 1.0f;
}

__global__ void read_at(const Params p, int64_t index) {
  if (threadIdx.x == 3) p.out[0] = p.data[index];
}

__global__ void vector_at(const Params p, int64_t index) {
  using Vector = flashinfer::Vec<float, 4>;
  store(reinterpret_cast<Vector*>(p.out + index),
        flashinfer::load_once(reinterpret_cast<const Vector*>(p.data + index)));
}

__global__ void read_output(const Params p) { p.data[threadIdx.x] = p.out[threadIdx.x]; }

// Every block writes the same element.
__global__ void blocks_write_one_place(const Params p) { p.out[threadIdx.x] = 1.0f; }

__global__ void block_reads_what_another_writes(const Params p) {
  p.data[blockIdx.x] = p.data[blockIdx.x ^ 1];
}

__global__ void shift_in_place(const Params p) {
  if (threadIdx.x + 1 < kThreads) p.data[threadIdx.x] = p.data[threadIdx.x + 1];
}

__global__ void read_only_load_of_what_is_written(const Params p) {
  const float x = flashinfer::load_readonly(p.data + threadIdx.x);
  p.data[threadIdx.x] = x + 1.0f;
}

// Two threads read, and one of them writes: the warp's barrier orders them.
template <bool kSync>
__global__ void read_then_write(const Params p) {
  const float x = p.data[threadIdx.x / 32];
  if constexpr (kSync) __syncwarp();
  if (threadIdx.x % 32 == 31) p.data[threadIdx.x / 32] = x + 1.0f;
  p.out[threadIdx.x] = x;
}

// ---------------------------------------------------------------- arithmetic
__global__ void index_overflow(const Params p, int row) {
  const int stride = 1 << 20;
  p.out[threadIdx.x] = p.data[(row * stride) % p.n];
}

__global__ void shift_too_far(const Params p, int count) {
  p.out[threadIdx.x] = static_cast<float>(1u << count);
}

__global__ void divide_by(const Params p, int count) {
  p.out[threadIdx.x] = static_cast<float>(p.n / count);
}

}  // namespace planted

// Runs the kernel of that name on `n` floats each; its error, with the words in `message`.
extern "C" __attribute__((visibility("default"))) int planted_run(const char* name, float* data,
                                                                  float* out, int n, int64_t index,
                                                                  char* message, size_t size) {
  using namespace planted;
  const Params p{data, out, n};
  cudaError_t error = cudaErrorInvalidValue;
  bool known = false;
  const auto run = [&](const char* kernel_name, auto kernel, dim3 grid, dim3 block, size_t shared,
                       auto... more) {
    if (std::strcmp(name, kernel_name) != 0) return;
    known = true;
    error = flashinfer::launch(kernel, grid, block, shared, nullptr, p, more...);
  };
  const dim3 one(1), two(2), threads(kThreads);
  const int count = static_cast<int>(index);
  run("reverse", reverse<true>, one, threads, 0);
  run("reverse without barrier", reverse<false>, one, threads, 0);
  run("reverse in warp", reverse_in_warp<true>, one, threads, 0);
  run("reverse in warp without sync", reverse_in_warp<false>, one, threads, 0);
  run("later half reversed without barrier", later_half_reversed<false>, one, threads, 0);
  run("later half reversed after a shuffle", later_half_reversed<true>, one, threads, 0);
  run("barrier after return", barrier_after_return, one, threads, 0);
  run("two barriers", two_barriers, one, threads, 0);
  run("rounds", rounds<true>, one, threads, 0);
  run("rounds without second barrier", rounds<false>, one, threads, 0);
  run("shared not written", shared_not_written, one, threads, 0);
  run("shared of another block", shared_of_another_block, two, threads, 0);
  run("shared array", shared_array<kThreads>, one, threads, 0);
  run("shared array too small", shared_array<kThreads - 1>, one, threads, 0);
  run("dynamic array", dynamic_array, one, threads, kThreads * sizeof(float));
  run("dynamic array too small", dynamic_array, one, threads, (kThreads - 1) * sizeof(float));
  run("warp operations", warp_operations, one, threads, 0);
  run("half warp operations", half_warp_operations, one, threads, 0);
  run("shuffle after return", shuffle_after_return, one, threads, 0);
  run("shuffle from outside of the mask", shuffle_from_outside_of_the_mask, one, threads, 0);
  run("shuffle without itself", shuffle_without_itself, one, threads, 0);
  run("shuffle against barrier", shuffle_against_barrier, one, threads, 0);
  const size_t bytes = kThreads * sizeof(float);
  run("copied", copied<Copy::kRight>, one, threads, bytes);
  run("copied zeros", copied<Copy::kZeros>, one, threads, bytes);
  run("copied without wait", copied<Copy::kNotWaited>, one, threads, bytes);
  run("copied without barrier", copied<Copy::kNoBarrier>, one, threads, bytes);
  run("copied in an open group", copied<Copy::kOpenGroup>, one, threads, bytes);
  run("copy left in flight", copied<Copy::kLeftInFlight>, one, threads, bytes);
  run("copied over what is read", copied<Copy::kOverRead>, one, threads, bytes);
  run("copy at", copy_at, one, threads, bytes, index);
  run("product", product<__half>, one, threads, 1024);
  run("product of bfloats", product<__nv_bfloat16>, one, threads, 1024);
  run("matrices of half a warp", matrices_of_half_a_warp, one, threads, bytes);
  run("matrices at", matrices_at, one, threads, bytes, index);
  run("atomic sum", atomic_sum<Atomic::kRight>, one, threads, 0);
  run("atomic sum read early", atomic_sum<Atomic::kReadEarly>, one, threads, 0);
  run("atomic sum written late", atomic_sum<Atomic::kWrittenLate>, one, threads, 0);
  run("atomic sum not written", atomic_sum<Atomic::kNotWritten>, one, threads, 0);
  run("write at", write_at, one, threads, 0, index);
  run("read at", read_at, one, threads, 0, index);
  run("vector at", vector_at, one, dim3(1), 0, index);
  run("read output", read_output, one, threads, 0);
  run("one block writes", blocks_write_one_place, one, threads, 0);
  run("blocks write one place", blocks_write_one_place, two, threads, 0);
  run("block reads what another writes", block_reads_what_another_writes, two, dim3(1), 0);
  run("shift in place", shift_in_place, one, threads, 0);
  run("read-only load of what is written", read_only_load_of_what_is_written, one, threads, 0);
  run("read then write", read_then_write<true>, one, threads, 0);
  run("read then write without sync", read_then_write<false>, one, threads, 0);
  run("index overflow", index_overflow, one, threads, 0, count);
  run("shift", shift_too_far, one, threads, 0, count);
  run("divide by", divide_by, one, threads, 0, count);
  run("too many threads", blocks_write_one_place, one, dim3(1025), 0);
  run("too deep a block", blocks_write_one_place, one, dim3(1, 1, 65), 0);
  run("too much shared memory", blocks_write_one_place, one, threads, 48 * 1024 + 1);
  run("too tall a grid", blocks_write_one_place, dim3(1, 65536), threads, 0);
  run("no blocks", blocks_write_one_place, dim3(0), threads, 0);
  std::snprintf(message, size, "%s: %s", known ? cudaGetErrorName(error) : "no such kernel",
                cudaGetErrorString(error));
  return static_cast<int>(error);
}

// The conversions of the stand-in headers, there and back, for comparison with others.
extern "C" __attribute__((visibility("default"))) void planted_convert(
    const float* x, int n, uint16_t* half, uint16_t* bfloat, float* from_half, float* from_bfloat) {
  for (int i = 0; i < n; ++i) {
    const __half h = __float2half_rn(x[i]);
    const __nv_bfloat16 b = __float2bfloat16_rn(x[i]);
    half[i] = h.bits;
    bfloat[i] = b.bits;
    from_half[i] = __half2float(h);
    from_bfloat[i] = __bfloat162float(b);
  }
}

// n fp8 numbers, a multiple of four, as fp16 and, through it, as bf16.
extern "C" __attribute__((visibility("default"))) void planted_widen_fp8(const uint8_t* bytes,
                                                                         int n, bool e5m2,
                                                                         uint16_t* half,
                                                                         uint16_t* bfloat) {
  for (int i = 0; i < n; i += 4) {
    uint32_t word;
    std::memcpy(&word, bytes + i, 4);
    const uint2 pairs = flashinfer::widen_fp8(word, e5m2);
    const uint32_t as_bfloat[2] = {flashinfer::from_half_pair<__nv_bfloat16>(pairs.x),
                                   flashinfer::from_half_pair<__nv_bfloat16>(pairs.y)};
    std::memcpy(half + i, &pairs, 8);
    std::memcpy(bfloat + i, as_bfloat, 8);
  }
}
