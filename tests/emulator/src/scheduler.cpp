// Runs the threads of a block as fibers. A fiber runs until it reaches a barrier or a warp
// operation, or ends; when all have, what they wait for is resolved, or found impossible.
#include <cxxabi.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "state.h"

namespace emulator {

Thread* current = nullptr;
uint64_t block_serial = kBeforeAllBlocks, first_block_serial = 0;

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kPage = 4096;

enum class State { kReady, kAtBarrier, kAtWarpOp, kExited };

// The exchange in progress in each warp.
unsigned char exchanged[kMaxThreads / kWarp][kWarp * kExchangeBytes];

struct Fiber {
  Thread thread;
  State state = State::kExited;
  bool started = false;
  ucontext_t context;
  jmp_buf resume;
  // What it waits for.
  Site site{};
  WarpOp op{};
  unsigned mask = 0;
  int operand = 0, width = 0;
  uint64_t value = 0, result = 0;
};

std::mutex launch_mutex;
std::vector<std::unique_ptr<Fiber>> fibers;
const Launch* running = nullptr;
uint3 running_block;
unsigned block_threads = 0;
jmp_buf scheduler;
Fiber* active = nullptr;
std::string fault_text;

std::string kernel_name(const void* kernel) {
  Dl_info info{};
  if (dladdr(const_cast<void*>(kernel), &info) == 0 || info.dli_sname == nullptr) return "kernel";
  int status = -1;
  char* demangled = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  std::string name = status == 0 ? demangled : info.dli_sname;
  std::free(demangled);
  name = name.substr(0, name.find('('));
  return name.compare(0, 5, "void ") == 0 ? name.substr(5) : name;
}

std::string text(const char* format, va_list arguments) {
  char buffer[400];
  std::vsnprintf(buffer, sizeof(buffer), format, arguments);
  return buffer;
}

std::string place(const Fiber& fiber) {
  char buffer[160];
  const uint3& t = fiber.thread.index;
  std::snprintf(buffer, sizeof(buffer), "block (%u,%u,%u) thread (%u,%u,%u) of ", running_block.x,
                running_block.y, running_block.z, t.x, t.y, t.z);
  return buffer + kernel_name(running->kernel) + ": ";
}

void record(const Fiber& fiber, const std::string& what) {
  if (fault_text.empty()) fault_text = place(fiber) + what;
}

void record(const Fiber& fiber, const char* format, ...) __attribute__((format(printf, 2, 3)));
void record(const Fiber& fiber, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  record(fiber, text(format, arguments));
  va_end(arguments);
}

void fiber_main() {
  for (;;) {
    running->run_thread(running->call);
    if (has_copies_in_flight()) fault(nullptr, "left the kernel with a cp.async in flight");
    active->state = State::kExited;
    if (_setjmp(active->resume) == 0) _longjmp(scheduler, 1);
  }
}

void create_fibers(unsigned count) {
  while (fibers.size() < count) {
    auto fiber = std::make_unique<Fiber>();
    // The lowest page stays out of reach, so that an overflow does not hit the next stack.
    void* memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) {
      std::perror("no memory for the stack of a thread");  // or too many mappings
      std::abort();
    }
    fiber->thread.stack_begin = reinterpret_cast<uintptr_t>(memory) + kPage;
    fiber->thread.stack_end = fiber->thread.stack_begin + kStackBytes;
    fibers.push_back(std::move(fiber));
  }
}

void start(Fiber* fiber) {
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = reinterpret_cast<void*>(fiber->thread.stack_begin);
  fiber->context.uc_stack.ss_size = kStackBytes;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, fiber_main, 0);
  fiber->started = true;
  setcontext(&fiber->context);
}

// Gives control to the fiber until it waits or ends.
void switch_to(Fiber* fiber) {
  active = fiber;
  current = &fiber->thread;
  if (_setjmp(scheduler) == 0) {
    if (fiber->started) {
      _longjmp(fiber->resume, 1);
    } else {
      start(fiber);
    }
  }
  current = nullptr;
}

void wait(State state, Site site) {
  active->state = state;
  active->site = site;
  if (_setjmp(active->resume) == 0) _longjmp(scheduler, 1);
}

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

const char* waiting_text(const Fiber& fiber) {
  switch (fiber.state) {
    case State::kExited:
      return "has left the kernel";
    case State::kAtBarrier:
      return "waits at a barrier";
    default:
      return "waits at another warp operation";
  }
}

unsigned lanes_in_warp(unsigned first) {
  return block_threads - first < kWarp ? block_threads - first : kWarp;
}

// The lane whose value the operation gives to `lane`.
unsigned source_lane(const Fiber& fiber, unsigned lane) {
  const unsigned width = static_cast<unsigned>(fiber.width);
  const unsigned segment = lane & ~(width - 1);
  const unsigned operand = static_cast<unsigned>(fiber.operand);
  switch (fiber.op) {
    case WarpOp::kShuffle:
      return segment | (operand & (width - 1));
    case WarpOp::kShuffleUp:
      return lane < segment + operand ? lane : lane - operand;
    case WarpOp::kShuffleDown:
      return lane + operand >= segment + width ? lane : lane + operand;
    case WarpOp::kShuffleXor:
      return (lane ^ operand) >= segment + width ? lane : lane ^ operand;
    default:
      return lane;
  }
}

// Completes the warp operation that lane `lane` waits at, with all lanes of its mask.
// False: a fault.
bool complete_warp_operation(unsigned first, unsigned lane) {
  Fiber& leader = *fibers[first + lane];
  const unsigned lanes = lanes_in_warp(first);
  const unsigned existing = lanes == kWarp ? 0xffffffffu : (1u << lanes) - 1;
  const unsigned mask = leader.mask & existing;
  for (unsigned i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1u)) continue;
    const Fiber& other = *fibers[first + i];
    if (other.state != State::kAtWarpOp || other.op != leader.op ||
        (other.mask & existing) != mask || !same_site(other.site, leader.site)) {
      record(leader, "warp operation at %s:%d with mask %08x waits for lane %u, which %s",
             base_name(leader.site.file), leader.site.line, leader.mask, i, waiting_text(other));
      return false;
    }
  }
  uint64_t ballot = 0;
  for (unsigned i = 0; i < lanes; ++i) {
    if ((mask >> i & 1u) && fibers[first + i]->value != 0) ballot |= uint64_t{1} << i;
  }
  for (unsigned i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1u)) continue;
    Fiber& fiber = *fibers[first + i];
    if (fiber.op == WarpOp::kExchange) {
      // A copy: the lanes go on one after the other, and what they show is on their stacks.
      std::memcpy(exchanged[first / kWarp] + i * fiber.operand,
                  reinterpret_cast<const void*>(fiber.value), fiber.operand);
    } else if (fiber.op == WarpOp::kBallot) {
      fiber.result = ballot;
    } else {
      const unsigned source = source_lane(fiber, i);
      if (source >= lanes || !(mask >> source & 1u)) {
        record(fiber, "shuffle at %s:%d reads lane %u, which takes no part (mask %08x)",
               base_name(fiber.site.file), fiber.site.line, source, leader.mask);
        return false;
      }
      fiber.result = fibers[first + source]->value;
    }
  }
  for (unsigned i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1u)) continue;
    Fiber& fiber = *fibers[first + i];
    fiber.state = State::kReady;
    // Shuffles and ballots promise no order of memory accesses; a sync of a part of the warp does,
    // for that part, but is not counted here.
    if (fiber.op == WarpOp::kSync && mask == existing) ++fiber.thread.warp_syncs;
  }
  return true;
}

// Every fiber waits or has ended. Lets those go on whose condition holds.
// False: none can, because the block has ended or faulted.
bool resolve() {
  bool progress = false;
  for (unsigned first = 0; first < block_threads; first += kWarp) {
    for (unsigned lane = 0; lane < lanes_in_warp(first); ++lane) {
      if (fibers[first + lane]->state != State::kAtWarpOp) continue;
      if (!complete_warp_operation(first, lane)) return false;
      progress = true;
    }
  }
  if (progress) return true;

  const Fiber* exited = nullptr;
  const Fiber* waiting = nullptr;
  for (unsigned i = 0; i < block_threads; ++i) {
    const Fiber& fiber = *fibers[i];
    if (fiber.state == State::kExited) {
      if (exited == nullptr) exited = &fiber;
    } else if (waiting == nullptr) {
      waiting = &fiber;
    } else if (!same_site(waiting->site, fiber.site)) {
      record(fiber, "divergent barrier: it waits at %s:%d, but thread (%u,%u,%u) at %s:%d",
             base_name(fiber.site.file), fiber.site.line, waiting->thread.index.x,
             waiting->thread.index.y, waiting->thread.index.z, base_name(waiting->site.file),
             waiting->site.line);
      return false;
    }
  }
  if (waiting == nullptr) return false;
  if (exited != nullptr) {
    record(*waiting, "divergent barrier at %s:%d: thread (%u,%u,%u) has left the kernel",
           base_name(waiting->site.file), waiting->site.line, exited->thread.index.x,
           exited->thread.index.y, exited->thread.index.z);
    return false;
  }
  for (unsigned i = 0; i < block_threads; ++i) {
    fibers[i]->state = State::kReady;
    ++fibers[i]->thread.barriers;
  }
  return true;
}

void run_block() {
  ++block_serial;
  forget_copies();
  const dim3& block = running->block;
  for (unsigned i = 0; i < block_threads; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.state = State::kReady;
    fiber.thread.linear = i;
    fiber.thread.index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    fiber.thread.barriers = fiber.thread.warp_syncs = 0;
  }
  do {
    for (unsigned i = 0; i < block_threads; ++i) {
      if (fibers[i]->state != State::kReady) continue;
      switch_to(fibers[i].get());
      if (!fault_text.empty()) return;
    }
  } while (resolve());
}

// The hardware's limits, which the emulator must not be more generous than.
bool configuration_is_valid(const Launch& launch) {
  const dim3 &b = launch.block, &g = launch.grid;
  const uint64_t threads = uint64_t{b.x} * b.y * b.z;
  return threads >= 1 && threads <= kMaxThreads && b.z <= 64 && g.x >= 1 && g.y >= 1 && g.z >= 1 &&
         g.x <= 2147483647u && g.y <= 65535 && g.z <= 65535 &&
         launch.shared_bytes <= shared_limit(launch.kernel) && launch.params_bytes <= 4096;
}

}  // namespace

void fault(const void* code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::string what = text(format, arguments);
  va_end(arguments);
  Dl_info info{};
  if (code != nullptr && dladdr(const_cast<void*>(code), &info) != 0) {
    char offset[40];
    std::snprintf(offset, sizeof(offset), " [code +0x%zx]",
                  reinterpret_cast<uintptr_t>(code) - reinterpret_cast<uintptr_t>(info.dli_fbase));
    what += offset;
  }
  record(*active, what);
  _longjmp(scheduler, 1);
}

void barrier(Site site) { wait(State::kAtBarrier, site); }

uint64_t warp_operation(WarpOp op, unsigned mask, uint64_t value, int operand, int width,
                        Site site) {
  const unsigned lane = current->linear % kWarp;
  if (!(mask >> lane & 1u)) {
    fault(nullptr, "warp operation at %s:%d with mask %08x, in which its own lane %u is missing",
          base_name(site.file), site.line, mask, lane);
  }
  if (width < 1 || width > 32 || (width & (width - 1)) != 0 || operand < 0 || operand > 31) {
    fault(nullptr, "shuffle at %s:%d with operand %d, width %d", base_name(site.file), site.line,
          operand, width);
  }
  active->op = op;
  active->mask = mask;
  active->value = value;
  active->operand = operand;
  active->width = width;
  wait(State::kAtWarpOp, site);
  return active->result;
}

const unsigned char* warp_exchange(const void* mine, size_t size, Site site) {
  active->op = WarpOp::kExchange;
  active->mask = 0xffffffffu;
  active->value = reinterpret_cast<uintptr_t>(mine);
  active->operand = static_cast<int>(size);
  active->width = kWarp;
  wait(State::kAtWarpOp, site);
  return exchanged[current->linear / kWarp];
}

uint3 thread_index() { return current->index; }
uint3 block_index() { return running_block; }
dim3 block_size() { return running->block; }
dim3 grid_size() { return running->grid; }

cudaError_t run(const Launch& launch) {
  const std::lock_guard<std::mutex> lock(launch_mutex);
  const cudaError_t error = load_error();
  if (error != cudaSuccess) return error;
  count_launch(launch);
  if (!configuration_is_valid(launch)) return cudaErrorInvalidConfiguration;
  fault_text.clear();
  running = &launch;
  block_threads = launch.block.x * launch.block.y * launch.block.z;
  create_fibers(block_threads);
  begin_launch(launch);
  first_block_serial = block_serial + 1;
  const dim3& grid = launch.grid;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks && fault_text.empty(); ++i) {
    running_block = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                     static_cast<unsigned>(i / grid.x / grid.y)};
    run_block();
  }
  end_launch();
  if (fault_text.empty()) return cudaSuccess;
  for (auto& fiber : fibers) fiber->started = false;  // they are in the middle of a kernel
  return cudaErrorEmulatedFault;
}

const char* last_fault() { return fault_text.c_str(); }

}  // namespace emulator

// Gives the stacks back: two mappings a thread, of which a process has 65,530 for all libraries.
extern "C" __attribute__((visibility("default"))) void fi_emulator_release_stacks() {
  using namespace emulator;
  const std::lock_guard<std::mutex> lock(launch_mutex);
  for (const auto& fiber : fibers) {
    munmap(reinterpret_cast<void*>(fiber->thread.stack_begin - kPage), kStackBytes + kPage);
  }
  fibers.clear();
}
