// Vectors of up to 16 bytes and the ways to move them between global memory and registers.
#ifndef FLASHINFER_ARCH_MEMORY_CUH_
#define FLASHINFER_ARCH_MEMORY_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "flashinfer/arch/numeric.cuh"

#ifdef FLASHINFER_EMULATE
#include "emulator.h"
#endif

namespace flashinfer {

// N neighbours as they lie in memory, moved with one instruction. The data are held in words, not
// elements, so that the compiler keeps two 16-bit elements in one register.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vec {
  static constexpr int kBytes = sizeof(T) * N;
  static_assert(kBytes <= 16, "the widest load has 16 bytes");
  static_assert(kBytes % 4 == 0, "a whole number of words; the other case is below");
  uint32_t words[kBytes / 4];

  __device__ __forceinline__ void widen(float (&out)[N]) const {
#pragma unroll
    for (int i = 0; i < kBytes / 4; ++i) widen_word<T>(words[i], out + i * kPerWord<T>);
  }
  __device__ __forceinline__ static Vec narrow(const float (&x)[N]) {
    Vec out;
#pragma unroll
    for (int i = 0; i < kBytes / 4; ++i) out.words[i] = narrow_word<T>(x + i * kPerWord<T>);
    return out;
  }
};

template <typename T>
struct Vec<T, 1> {
  T element;

  __device__ __forceinline__ void widen(float (&out)[1]) const { out[0] = to_float(element); }
  __device__ __forceinline__ static Vec narrow(const float (&x)[1]) {
    Vec out;
    round_to(x[0], &out.element);
    return out;
  }
};

// How many elements of T make a 16-byte vector.
template <typename T>
constexpr int kVecSize = 16 / sizeof(T);

// Data that this kernel reads once: kept out of L1, so that what is reused stays there. Coherent:
// the same thread may store to the place afterwards.
template <typename V>
__device__ __forceinline__ V load_once(const V* address) {
#ifdef FLASHINFER_EMULATE
  emulator::on_vector_read(address, sizeof(V), alignof(V), false);
  return *address;
#else
  if constexpr (sizeof(V) == 16) {
    uint4 word;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word.x), "=r"(word.y), "=r"(word.z), "=r"(word.w)
                 : "l"(__cvta_generic_to_global(address))
                 : "memory");
    return bits_as<V>(word);
  } else {
    return *address;
  }
#endif
}

// Data that no thread of this kernel writes, and that many read: weights, tables.
template <typename V>
__device__ __forceinline__ V load_readonly(const V* address) {
#ifdef FLASHINFER_EMULATE
  emulator::on_vector_read(address, sizeof(V), alignof(V), true);
  return *address;
#else
  if constexpr (sizeof(V) == 16) {
    return bits_as<V>(__ldg(reinterpret_cast<const uint4*>(address)));
  } else if constexpr (sizeof(V) == 8) {
    return bits_as<V>(__ldg(reinterpret_cast<const uint2*>(address)));
  } else if constexpr (sizeof(V) == 4) {
    return bits_as<V>(__ldg(reinterpret_cast<const unsigned*>(address)));
  } else {
    static_assert(sizeof(V) == 2, "a power of two from 2 to 16");
    return bits_as<V>(__ldg(reinterpret_cast<const unsigned short*>(address)));
  }
#endif
}

// Data in shared memory.
template <typename V>
__device__ __forceinline__ V load_shared(const V* address) {
#ifdef FLASHINFER_EMULATE
  emulator::on_vector_read(address, sizeof(V), alignof(V), false);
#endif
  return *address;
}

template <typename V>
__device__ __forceinline__ void store(V* address, const V& value) {
#ifdef FLASHINFER_EMULATE
  emulator::on_vector_write(address, sizeof(V), alignof(V));
#endif
  *address = value;
}

// The vector at column `column` of a row with `columns` elements, both multiples of N; zeros past
// the end of the row.
template <typename T, int N>
__device__ __forceinline__ Vec<T, N> load_columns(const T* row, int column, int columns) {
  Vec<T, N> value{};
  if (column < columns) value = load_once(reinterpret_cast<const Vec<T, N>*>(row + column));
  return value;
}

template <typename T, int N>
__device__ __forceinline__ void store_columns(T* row, int column, const Vec<T, N>& value) {
  store(reinterpret_cast<Vec<T, N>*>(row + column), value);
}

}  // namespace flashinfer

#endif  // FLASHINFER_ARCH_MEMORY_CUH_
