// Checks every memory access of a kernel: that the memory exists, is aligned, has been written, and
// that no other thread uses it at the same time.
//
// The kernels are compiled with -fsanitize=thread, which makes the compiler call a hook before
// every access that may be seen by another thread. Its run-time library is not linked: the hooks
// are the functions below. Likewise for the -fsanitize=undefined handlers at the end.
#include <link.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "state.h"

namespace emulator {
namespace {

constexpr uint16_t kSeveralWarps = 0xffff;
constexpr uint16_t kSeveralLanes = 0x8000;  // + warp
constexpr uint16_t kSeveralBlocks = 0xfffe;

// Who accessed a byte last, and when. A stamp of an earlier launch is out of date.
struct Stamp {
  uint64_t block;  // serial, 0: nobody
  uint32_t barriers, warp_syncs;
};

// The shadow of one byte.
struct Cell {
  Stamp write, read;
  uint16_t writer, reader;  // thread in the block, or several
  bool read_only;           // `read` was an ld.global.nc
  bool forbidden;           // between the rows of a tensor
  bool in_flight;           // a cp.async will write it
  bool atomic;              // `write` was an atomic
};

struct Region {
  std::string name;
  uintptr_t begin = 0;
  size_t size = 0;
  bool shared = false;  // of a block
  Cell* cells = nullptr;
};

Cell* map_cells(size_t size) {
  void* memory = mmap(nullptr, size * sizeof(Cell) + 1, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return static_cast<Cell*>(memory);
}

constexpr size_t kGap = 64 * 1024;  // between allocations, so that a stray index meets nothing

std::map<uintptr_t, Region> regions;  // by address
Region* last_found = nullptr;         // most accesses are near the one before
std::map<uintptr_t, size_t> mappings;
std::map<uintptr_t, size_t> constants;  // read-only data of the library that has the kernel
uintptr_t call_begin = 0, call_end = 0;
const void* known_kernel_base = nullptr;
bool has_dynamic_shared = false;

void add_region(Region region) {
  region.cells = map_cells(region.size);
  regions[region.begin] = std::move(region);
}

void remove_region(uintptr_t begin) {
  const auto found = regions.find(begin);
  if (found == regions.end()) return;
  last_found = nullptr;
  munmap(found->second.cells, found->second.size * sizeof(Cell) + 1);
  regions.erase(found);
}

Region* find(uintptr_t address) {
  if (last_found != nullptr && address - last_found->begin < last_found->size) return last_found;
  auto after = regions.upper_bound(address);
  if (after == regions.begin()) return nullptr;
  Region& region = std::prev(after)->second;
  if (address - region.begin >= region.size) return nullptr;
  last_found = &region;
  return last_found;
}

// The writable data of the library are the kernels' __shared__ variables: kernels have no other
// variable outside of their frames.
int add_library(dl_phdr_info* info, size_t, void* kernel) {
  const uintptr_t target = reinterpret_cast<uintptr_t>(kernel);
  bool found = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    found |= segment.p_type == PT_LOAD && target - begin < segment.p_memsz;
  }
  if (!found) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_flags & PF_W) {
      Region region;
      region.name = "__shared__ variables";
      region.begin = begin;
      region.size = segment.p_memsz;
      region.shared = true;
      add_region(region);
    } else {
      constants[begin] = segment.p_memsz;
    }
  }
  return 1;
}

bool is_constant(uintptr_t address) {
  auto after = constants.upper_bound(address);
  if (after == constants.begin()) return false;
  --after;
  return address - after->first < after->second;
}

// Whether an access with this stamp happened before one of the running thread for sure.
bool happened_before(const Stamp& stamp, uint16_t who) {
  if (stamp.block < first_block_serial) return true;
  if (stamp.block != block_serial || who == kSeveralBlocks) return false;
  if (who == current->linear || stamp.barriers < current->barriers) return true;
  const unsigned warp = current->linear / kWarp;
  const bool same_warp = who & kSeveralLanes ? who == (kSeveralLanes | warp) : who / kWarp == warp;
  return same_warp && stamp.warp_syncs < current->warp_syncs;
}

std::string who_text(uint16_t who, const Stamp& stamp) {
  char buffer[80];
  if (stamp.block != block_serial || who == kSeveralBlocks) {
    std::snprintf(buffer, sizeof(buffer), "another block");
  } else if (who == kSeveralWarps) {
    std::snprintf(buffer, sizeof(buffer), "several warps");
  } else if (who & kSeveralLanes) {
    std::snprintf(buffer, sizeof(buffer), "several lanes of warp %u", who & 0x7fffu);
  } else {
    std::snprintf(buffer, sizeof(buffer), "thread %u of the block", who);
  }
  return buffer;
}

// Who, after an access by the running thread that nothing orders behind that of `who`.
uint16_t several(uint16_t who, const Stamp& stamp) {
  const uint16_t me = static_cast<uint16_t>(current->linear);
  if (stamp.block != block_serial || who == kSeveralBlocks) return kSeveralBlocks;
  const uint16_t warp = static_cast<uint16_t>(kSeveralLanes | (me / kWarp));
  const bool same_warp = who & kSeveralLanes ? who == warp : who / kWarp == me / kWarp;
  return same_warp ? warp : kSeveralWarps;
}

void note_read(Cell* cell) {
  const uint16_t me = static_cast<uint16_t>(current->linear);
  Stamp& stamp = cell->read;
  cell->reader = happened_before(stamp, cell->reader) ? me : several(cell->reader, stamp);
  stamp = {block_serial, current->barriers, current->warp_syncs};
}

// Checks one access and notes it in the shadow.
void check(const void* pointer, size_t size, size_t alignment, bool writes, bool read_only,
           const void* code, bool atomic = false) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  if (address - current->stack_begin < current->stack_end - current->stack_begin) return;
  const char* verb = writes ? "write" : "read";
  if (!writes && address >= call_begin && address + size <= call_end) return;
  Region* region = find(address);
  if (region == nullptr || address + size > region->begin + region->size) {
    if (!writes && region == nullptr && is_constant(address)) return;
    auto after = regions.upper_bound(address);
    const Region* near = after == regions.begin() ? nullptr : &std::prev(after)->second;
    if (near != nullptr && address - near->begin < near->size + kGap / 2) {
      fault(code, "out-of-bounds %s of %zu bytes at '%s' + %zu, which has %zu bytes", verb, size,
            near->name.c_str(), address - near->begin, near->size);
    }
    if (after != regions.end() && after->first - address < kGap / 2) {
      fault(code, "out-of-bounds %s of %zu bytes at '%s' - %zu", verb, size,
            after->second.name.c_str(), after->first - address);
    }
    fault(code, "%s of %zu bytes at %p, which is no memory of the kernel", verb, size, pointer);
  }
  const size_t offset = address - region->begin;
  if (address % alignment != 0) {
    fault(code, "misaligned %s of %zu bytes at '%s' + %zu", verb, size, region->name.c_str(),
          offset);
  }
  Cell* cells = region->cells + offset;
  for (size_t i = 0; i < size; ++i) {
    Cell& cell = cells[i];
    if (cell.forbidden) {
      fault(code, "%s of %zu bytes at '%s' + %zu, which is not a part of the tensor", verb, size,
            region->name.c_str(), offset + i);
    }
    if (region->shared) {  // what other blocks did with it is gone
      if (cell.write.block != block_serial) cell.write.block = 0;
      if (cell.read.block != block_serial) cell.read.block = 0;
    }
    if (cell.in_flight) {
      fault(code, "%s of %zu bytes at '%s' + %zu, where a cp.async is in flight", verb, size,
            region->name.c_str(), offset + i);
    }
    const bool written_now = cell.write.block >= first_block_serial;
    const bool ordered = !written_now || happened_before(cell.write, cell.writer);
    if (!ordered && !(atomic && cell.atomic)) {
      fault(code, "race: %s of %zu bytes at '%s' + %zu, which %s has written unsynchronised", verb,
            size, region->name.c_str(), offset + i, who_text(cell.writer, cell.write).c_str());
    }
    if (!writes || atomic) {
      if (cell.write.block == 0) {
        fault(code, "read of %zu bytes at '%s' + %zu, which nothing wrote", size,
              region->name.c_str(), offset + i);
      }
    }
    if (!writes) {
      if (read_only && written_now) {
        fault(code, "read-only load (ld.global.nc) at '%s' + %zu, which this kernel writes",
              region->name.c_str(), offset + i);
      }
      cell.read_only = read_only || (cell.read_only && cell.read.block >= first_block_serial);
      note_read(&cell);
    } else {
      const bool read_now = cell.read.block >= first_block_serial;
      if (read_now && !happened_before(cell.read, cell.reader)) {
        fault(code, "race: write of %zu bytes at '%s' + %zu, which %s has read unsynchronised",
              size, region->name.c_str(), offset + i, who_text(cell.reader, cell.read).c_str());
      }
      if (read_now && cell.read_only) {
        fault(code, "write at '%s' + %zu, which was read as read-only (ld.global.nc)",
              region->name.c_str(), offset + i);
      }
      cell.writer =
          ordered ? static_cast<uint16_t>(current->linear) : several(cell.writer, cell.write);
      // A write that is none stays one, to the atomics of others, until the next barrier.
      const bool retired = !written_now || cell.write.block != block_serial ||
                           cell.write.barriers < current->barriers;
      cell.atomic = atomic && (cell.atomic || retired);
      cell.write = {block_serial, current->barriers, current->warp_syncs};
    }
  }
}

}  // namespace

void begin_launch(const Launch& launch) {
  call_begin = reinterpret_cast<uintptr_t>(launch.call);
  call_end = call_begin + launch.call_bytes;
  if (known_kernel_base == nullptr) {
    dl_iterate_phdr(add_library, const_cast<void*>(launch.kernel));
    known_kernel_base = launch.kernel;
  }
  if (launch.shared_bytes > 0) {
    Region region;
    region.name = "dynamic shared memory";
    region.begin = reinterpret_cast<uintptr_t>(shared_buffer());
    region.size = launch.shared_bytes;
    region.shared = true;
    add_region(region);
    has_dynamic_shared = true;
  }
}

void end_launch() {
  if (has_dynamic_shared) remove_region(reinterpret_cast<uintptr_t>(shared_buffer()));
  has_dynamic_shared = false;
}

// Behind the library's own data, so that accesses past its end are out of bounds.
void* shared_buffer() {
  static void* buffer = [] {
    void* memory = mmap(nullptr, kMaxSharedBytes + 2 * kGap, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    return static_cast<void*>(static_cast<char*>(memory) + kGap);
  }();
  return buffer;
}

void set_in_flight(void* address, size_t size, bool in_flight, const void* code) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  Region* region = find(begin);
  if (in_flight) check(address, size, size, true, false, code);
  Cell* cells = region->cells + (begin - region->begin);
  for (size_t i = 0; i < size; ++i) cells[i].in_flight = in_flight;
  if (!in_flight) check(address, size, size, true, false, code);
}

void* dynamic_shared() { return shared_buffer(); }

void on_vector_read(const void* address, size_t size, size_t alignment, bool read_only) {
  if (current != nullptr) {
    check(address, size, alignment, false, read_only, __builtin_return_address(0));
  }
}

void on_vector_write(const void* address, size_t size, size_t alignment) {
  if (current != nullptr) {
    check(address, size, alignment, true, false, __builtin_return_address(0));
  }
}

uint32_t atomic_add(uint32_t* address, uint32_t value) {
  check(address, sizeof(value), sizeof(value), true, false, __builtin_return_address(0), true);
  const uint32_t before = *address;
  *address = before + value;
  return before;
}

}  // namespace emulator

// ---------------------------------------------------------------- device memory, for the tests

// `size` bytes aligned to 256, of which a kernel may use none before fi_emulator_mark allows it.
extern "C" __attribute__((visibility("default"))) void* fi_emulator_alloc(const char* name,
                                                                          size_t size) {
  using namespace emulator;
  void* memory = mmap(nullptr, size + 2 * kGap, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  Region region;
  region.name = name;
  region.begin = reinterpret_cast<uintptr_t>(memory) + kGap;
  region.size = size;
  mappings[region.begin] = size + 2 * kGap;
  const uintptr_t begin = region.begin;
  if (size > 0) {
    add_region(std::move(region));
    for (size_t i = 0; i < size; ++i) regions[begin].cells[i].forbidden = true;
  }
  return reinterpret_cast<void*>(begin);
}

// Lets kernels use these bytes; reads are faults until somebody has written them: a kernel, or,
// where `written`, the caller already.
extern "C" __attribute__((visibility("default"))) void fi_emulator_mark(void* address, size_t size,
                                                                        int written) {
  using namespace emulator;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  Region* region = find(begin);
  if (region == nullptr) return;
  Cell* cells = region->cells + (begin - region->begin);
  for (size_t i = 0; i < size; ++i) {
    cells[i].forbidden = false;
    cells[i].write.block = written ? kBeforeAllBlocks : 0;
  }
}

extern "C" __attribute__((visibility("default"))) void fi_emulator_free(void* memory) {
  using namespace emulator;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  const auto mapping = mappings.find(begin);
  if (mapping == mappings.end()) return;
  remove_region(begin);
  munmap(reinterpret_cast<void*>(begin - kGap), mapping->second);
  mappings.erase(mapping);
}

// ---------------------------------------------------------------- hooks that the compiler calls

#define HOOKS(size)                                                                    \
  extern "C" void __tsan_read##size(void* address) {                                   \
    if (emulator::current != nullptr)                                                  \
      emulator::check(address, size, size, false, false, __builtin_return_address(0)); \
  }                                                                                    \
  extern "C" void __tsan_write##size(void* address) {                                  \
    if (emulator::current != nullptr)                                                  \
      emulator::check(address, size, size, true, false, __builtin_return_address(0));  \
  }                                                                                    \
  extern "C" void __tsan_unaligned_read##size(void* address) {                         \
    if (emulator::current != nullptr)                                                  \
      emulator::check(address, size, 1, false, false, __builtin_return_address(0));    \
  }                                                                                    \
  extern "C" void __tsan_unaligned_write##size(void* address) {                        \
    if (emulator::current != nullptr)                                                  \
      emulator::check(address, size, 1, true, false, __builtin_return_address(0));     \
  }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
extern "C" void __tsan_read_range(void* address, unsigned long size) {
  if (emulator::current != nullptr)
    emulator::check(address, size, 1, false, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, unsigned long size) {
  if (emulator::current != nullptr)
    emulator::check(address, size, 1, true, false, __builtin_return_address(0));
}
// Of launchers: whether a static variable has been made. Kernels have no such.
extern "C" unsigned char __tsan_atomic8_load(const volatile unsigned char* address, int) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
extern "C" void __tsan_init(void) {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit(void) {}

namespace {

// The beginning of what every handler gets.
struct SourceLocation {
  const char* file;
  uint32_t line, column;
};

[[noreturn]] void undefined(const void* data, const char* what) {
  const auto* location = static_cast<const SourceLocation*>(data);
  if (emulator::current == nullptr) {
    std::fprintf(stderr, "%s:%u: %s in host code\n", location->file, location->line, what);
    std::abort();
  }
  emulator::fault(nullptr, "%s at %s:%u", what, location->file, location->line);
}

}  // namespace

extern "C" void __ubsan_handle_out_of_bounds(void* data, uintptr_t) {
  undefined(data, "array index out of bounds");
}
extern "C" void __ubsan_handle_shift_out_of_bounds(void* data, uintptr_t, uintptr_t) {
  undefined(data, "shift by more than the width");
}
extern "C" void __ubsan_handle_add_overflow(void* data, uintptr_t, uintptr_t) {
  undefined(data, "signed addition overflows");
}
extern "C" void __ubsan_handle_sub_overflow(void* data, uintptr_t, uintptr_t) {
  undefined(data, "signed subtraction overflows");
}
extern "C" void __ubsan_handle_mul_overflow(void* data, uintptr_t, uintptr_t) {
  undefined(data, "signed multiplication overflows");
}
extern "C" void __ubsan_handle_negate_overflow(void* data, uintptr_t) {
  undefined(data, "signed negation overflows");
}
extern "C" void __ubsan_handle_divrem_overflow(void* data, uintptr_t, uintptr_t) {
  undefined(data, "division by zero");
}
