// The warp-wide matrix operations: every lane shows what it has and takes its part of the result.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "state.h"

namespace emulator {
namespace {

constexpr unsigned kRowBytes = 16;  // of an 8 x 8 matrix

// The two numbers of a word.
void widen(uint32_t word, bool bfloat, float* out) {
  for (int i = 0; i < 2; ++i) {
    const uint16_t bits = static_cast<uint16_t>(word >> (16 * i));
    out[i] = bfloat ? __bfloat162float({bits}) : __half2float({bits});
  }
}

// What a lane shows for a product: its words of A and B as floats.
struct Operands {
  float a[8], b[4];
};
static_assert(sizeof(Operands) <= kExchangeBytes, "fits into an exchange");

}  // namespace

void load_matrices(const void* row, uint32_t (&out)[4], bool transposed, const char* file,
                   int line) {
  on_vector_read(row, kRowBytes, kRowBytes, false);
  const unsigned char* rows = warp_exchange(row, kRowBytes, {file, line});
  const unsigned lane = current->linear % kWarp, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned char* matrix = rows + i * 8 * kRowBytes;
    if (!transposed) {
      memcpy(&out[i], matrix + g * kRowBytes + t * 4, 4);
      continue;
    }
    uint16_t pair[2];
    memcpy(&pair[0], matrix + 2 * t * kRowBytes + g * 2, 2);
    memcpy(&pair[1], matrix + (2 * t + 1) * kRowBytes + g * 2, 2);
    memcpy(&out[i], pair, 4);
  }
}

void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bool bfloat,
                  const char* file, int line) {
  Operands mine;
  for (int i = 0; i < 4; ++i) widen(a[i], bfloat, mine.a + 2 * i);
  widen(b0, bfloat, mine.b);
  widen(b1, bfloat, mine.b + 2);
  const unsigned char* shown = warp_exchange(&mine, sizeof(mine), {file, line});
  const auto* lanes = reinterpret_cast<const Operands*>(shown);
  const unsigned lane = current->linear % kWarp, g = lane / 4, t = lane % 4;
  for (unsigned row = 0; row < 2; ++row) {
    for (unsigned column = 0; column < 2; ++column) {
      float sum = c[2 * row + column];
      for (unsigned k = 0; k < 16; ++k) {
        // Of A, column k of row g + 8 row; of B, row k of column 2t + column.
        const Operands& of_a = lanes[g * 4 + k % 8 / 2];
        const Operands& of_b = lanes[(2 * t + column) * 4 + k % 8 / 2];
        sum += of_a.a[k / 8 * 4 + row * 2 + k % 2] * of_b.b[k / 8 * 2 + k % 2];
      }
      c[2 * row + column] = sum;
    }
  }
}

}  // namespace emulator
