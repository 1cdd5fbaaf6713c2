// cp.async: the bytes are read when the copy is made and written when its thread waits for it.
#include <deque>
#include <vector>

#include "state.h"

namespace emulator {
namespace {

struct Copy {
  void* to;
  size_t size;
  unsigned char bytes[16];
};

// Of a thread, the groups not waited for; the last one is still open.
struct Copies {
  std::deque<std::vector<Copy>> groups{1};
};

std::vector<Copies> of_thread;

Copies& mine() {
  if (of_thread.size() <= current->linear) of_thread.resize(current->linear + 1);
  return of_thread[current->linear];
}

}  // namespace

void forget_copies() { of_thread.clear(); }

bool has_copies_in_flight() {
  if (of_thread.size() <= current->linear) return false;
  for (const auto& group : mine().groups) {
    if (!group.empty()) return true;
  }
  return false;
}

void copy_async(void* shared, const void* from, size_t size, bool valid) {
  const void* code = __builtin_return_address(0);
  Copy copy{shared, size, {}};
  if (valid) {
    on_vector_read(from, size, size, false);
    memcpy(copy.bytes, from, size);
  }
  set_in_flight(shared, size, true, code);
  mine().groups.back().push_back(copy);
}

void copy_async_commit() { mine().groups.emplace_back(); }

void copy_async_wait(int groups_left) {
  auto& groups = mine().groups;
  while (static_cast<int>(groups.size()) - 1 > groups_left) {
    for (const Copy& copy : groups.front()) {
      set_in_flight(copy.to, copy.size, false, __builtin_return_address(0));
      memcpy(copy.to, copy.bytes, copy.size);
    }
    groups.pop_front();
  }
}

}  // namespace emulator
