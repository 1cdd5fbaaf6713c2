#include "ops.h"

namespace flashinfer {
namespace binding {

namespace {

void check_bits(const Tensor& x, const Tensor& y) {
  if (x.dtype != DType::kByte) check_dtype(x, DType::kBool);
  check_dtype(y, DType::kByte);
  check_shape(x, {-1});
  check_contiguous(x);
  check_contiguous(y);
}

}  // namespace

void packbits(const fi_exec& exec, const Tensor& x, const Tensor& y, bool little_endian) {
  check_bits(x, y);
  fi_packbits_args args{};
  args.n = x.size(0);
  args.num_segments = 1;
  args.total_out = (args.n + 7) / 8;
  check_shape(y, {args.total_out});
  args.x = x.as<const uint8_t>();
  args.y = y.as<uint8_t>();
  args.little_endian = little_endian;
  if (args.n == 0) return;
  check_status(fi_packbits(&exec, &args));
}

void segment_packbits(const fi_exec& exec, const Tensor& x, const Tensor& in_indptr,
                      const Tensor& out_indptr, const Tensor& y, bool little_endian) {
  check_bits(x, y);
  check_shape(y, {-1});
  check_index(in_indptr, -1);
  check_index(out_indptr, in_indptr.size(0));
  fi_packbits_args args{};
  args.n = x.size(0);
  args.num_segments = in_indptr.size(0) - 1;
  args.total_out = y.size(0);
  if (args.num_segments < 0) value_error("%s is empty, expected [batch_size + 1]", in_indptr.name);
  args.x = x.as<const uint8_t>();
  args.y = y.as<uint8_t>();
  args.in_indptr = in_indptr.as<const int32_t>();
  args.out_indptr = out_indptr.as<const int32_t>();
  args.little_endian = little_endian;
  if (on_cpu(exec)) {
    for (int64_t b = 0; b < args.num_segments; ++b) {
      const int64_t begin = args.in_indptr[b], end = args.in_indptr[b + 1];
      const int64_t out_begin = args.out_indptr[b], out_end = args.out_indptr[b + 1];
      if (begin < 0 || end < begin || end > args.n) {
        value_error("%s[%lld:%lld] is (%lld, %lld), expected non-decreasing values in 0..%lld",
                    in_indptr.name, static_cast<long long>(b), static_cast<long long>(b + 2),
                    static_cast<long long>(begin), static_cast<long long>(end),
                    static_cast<long long>(args.n));
      }
      if (out_begin < 0 || out_end - out_begin != (end - begin + 7) / 8 ||
          out_end > args.total_out) {
        value_error("%s[%lld:%lld] is (%lld, %lld), expected %lld bytes within 0..%lld",
                    out_indptr.name, static_cast<long long>(b), static_cast<long long>(b + 2),
                    static_cast<long long>(out_begin), static_cast<long long>(out_end),
                    static_cast<long long>((end - begin + 7) / 8),
                    static_cast<long long>(args.total_out));
      }
    }
  }
  if (args.num_segments == 0 || args.total_out == 0) return;
  check_status(fi_packbits(&exec, &args));
}

}  // namespace binding
}  // namespace flashinfer
