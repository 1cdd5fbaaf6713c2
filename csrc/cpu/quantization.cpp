#include "cpu/check.h"
#include "cpu/parallel.h"

namespace flashinfer {
namespace cpu {

fi_status packbits(const fi_exec& exec, const fi_packbits_args& args) {
  const Kernels* table = nullptr;
  if (const fi_status chosen = choose_kernels(&table)) return chosen;
  int64_t bytes = args.total_out;
  if (args.in_indptr == nullptr) {
    bytes = (args.n + 7) / 8;
    if (bytes > args.total_out) {
      return fail(FI_INVALID_ARGUMENT, "packbits: %lld elements need %lld bytes, but y has %lld",
                  static_cast<long long>(args.n), static_cast<long long>(bytes),
                  static_cast<long long>(args.total_out));
    }
  } else {
    fi_status status =
        check_indptr("packbits", "in_indptr", args.in_indptr, args.num_segments, args.n);
    if (status == FI_OK) {
      status = check_indptr("packbits", "out_indptr", args.out_indptr, args.num_segments,
                            args.total_out);
    }
    if (status != FI_OK) return status;
    for (int64_t b = 0; b < args.num_segments; ++b) {
      const int64_t elements = args.in_indptr[b + 1] - args.in_indptr[b];
      const int64_t room = args.out_indptr[b + 1] - args.out_indptr[b];
      if (room < (elements + 7) / 8) {
        return fail(FI_INVALID_ARGUMENT,
                    "packbits: segment %lld has %lld elements, but %lld bytes of output",
                    static_cast<long long>(b), static_cast<long long>(elements),
                    static_cast<long long>(room));
      }
    }
  }
  for_ranges(exec, bytes, 8, table->packbits, args);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
