#ifndef FLASHINFER_CPU_ROPE_TURNS_H_
#define FLASHINFER_CPU_ROPE_TURNS_H_

#include "flashinfer/api.h"

namespace flashinfer {
namespace cpu {

// turns[i] = f(i) / (2 pi) in fp64 for i < rotary_dim / 2, f as fi_rope_args has it: what pair i
// turns by from one position to the next.
void fill_turns(const fi_rope_args& args, double* turns);

}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_ROPE_TURNS_H_
