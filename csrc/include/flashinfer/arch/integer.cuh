// Integer instructions: conversion to fixed point, leading zeros, sums in shared memory.
#ifndef FLASHINFER_ARCH_INTEGER_CUH_
#define FLASHINFER_ARCH_INTEGER_CUH_

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#ifdef FLASHINFER_EMULATE
#include "emulator.h"
#endif

namespace flashinfer {

// The nearest integer, ties to even, of 0 <= x < 2^63.
__device__ __forceinline__ uint64_t round_to_integer(float x) {
#ifdef FLASHINFER_EMULATE
  return static_cast<uint64_t>(std::nearbyint(x));
#else
  return __float2ull_rn(x);
#endif
}

// The nearest float.
__device__ __forceinline__ float to_float(uint64_t x) {
#ifdef FLASHINFER_EMULATE
  return static_cast<float>(x);
#else
  return __ull2float_rn(x);
#endif
}

// floor(log2(x)) of x > 0.
__device__ __forceinline__ int floor_log2(uint64_t x) {
#ifdef FLASHINFER_EMULATE
  return 63 - __builtin_clzll(x);
#else
  return 63 - __clzll(static_cast<long long>(x));
#endif
}

// Adds to a word of shared memory, which other threads may do at the same time; the word before.
__device__ __forceinline__ uint32_t add_shared(uint32_t* address, uint32_t value) {
#ifdef FLASHINFER_EMULATE
  return emulator::atomic_add(address, value);
#else
  return atomicAdd(address, value);
#endif
}

}  // namespace flashinfer

#endif  // FLASHINFER_ARCH_INTEGER_CUH_
