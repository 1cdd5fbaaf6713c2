// What attention and multi-head latent attention do alike around their kernels.
#ifndef FLASHINFER_CPU_ATTENTION_JOB_H_
#define FLASHINFER_CPU_ATTENTION_JOB_H_

#include "cpu/isa.h"

namespace flashinfer {
namespace cpu {

// Takes the plan of `args` apart: fills the job's args, items and merges, and refuses numbers from
// which an address out of place would be computed, in the name of `op`.
fi_status open_plan(const char* op, const fi_attention_args& args, AttentionJob* job);

// Elements that an (item, KV head) pair touches, on average.
int64_t unit_elements(const AttentionJob& job);

}  // namespace cpu
}  // namespace flashinfer

#endif  // FLASHINFER_CPU_ATTENTION_JOB_H_
