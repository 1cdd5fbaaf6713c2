// What the parts of the emulator share.
#ifndef FLASHINFER_TESTS_EMULATOR_STATE_H_
#define FLASHINFER_TESTS_EMULATOR_STATE_H_

#include <cstdint>

#include "emulator.h"

namespace emulator {

constexpr unsigned kWarp = 32;

// A thread of the running block.
struct Thread {
  unsigned linear;  // in the block
  uint3 index;
  uint32_t barriers;    // passed so far
  uint32_t warp_syncs;  // full-warp __syncwarp passed so far
  uintptr_t stack_begin, stack_end;
};

// The thread that runs now; NULL outside of kernels, where nothing is checked.
extern Thread* current;

// Serial number of the running block, unique over all launches, and that of the first block of its
// launch. 0 is no block; the next number stands for what the host does.
constexpr uint64_t kBeforeAllBlocks = 1;
extern uint64_t block_serial, first_block_serial;

// Records the fault, with kernel, block and thread, and leaves the kernel for good.
// `code` is the address of the instruction, or NULL.
[[noreturn]] void fault(const void* code, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

// What the lanes of a warp show each other: each one's `size` bytes, lane after lane. Valid until
// the warp's next exchange. All lanes take part.
constexpr size_t kExchangeBytes = 64;
const unsigned char* warp_exchange(const void* mine, size_t size, Site site);

constexpr size_t kDefaultSharedBytes = 48 * 1024;  // dynamic, without asking for more
constexpr size_t kMaxSharedBytes = 99 * 1024;      // of sm_86 and sm_89

// The most dynamic shared memory that a kernel has asked for.
size_t shared_limit(const void* kernel);

// async_copy.cpp
void forget_copies();         // at the beginning of a block
bool has_copies_in_flight();  // of the current thread

// memory.cpp: the bytes that a copy will write: checks that they may be written, and forbids or
// allows their use.
void set_in_flight(void* address, size_t size, bool in_flight, const void* code);

// memory.cpp: the memory that exists only during a launch.
void begin_launch(const Launch& launch);
void end_launch();
void* shared_buffer();

// device.cpp
cudaError_t load_error();  // what the current device says to every kernel
void count_launch(const Launch& launch);

}  // namespace emulator

#endif  // FLASHINFER_TESTS_EMULATOR_STATE_H_
