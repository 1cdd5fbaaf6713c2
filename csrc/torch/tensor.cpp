#include "tensor.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace flashinfer {
namespace binding {

namespace {

std::string render(const char* format, va_list args) {
  char text[512];
  std::vsnprintf(text, sizeof(text), format, args);
  return text;
}

std::string render_shape(const int64_t* sizes, int64_t dim) {
  std::string text = "[";
  for (int64_t d = 0; d < dim; ++d) {
    if (d != 0) text += ", ";
    text += sizes[d] < 0 ? "*" : std::to_string(sizes[d]);
  }
  return text + "]";
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kFloat:
      return "float32";
    case DType::kInt:
      return "int32";
    case DType::kByte:
      return "uint8";
    case DType::kBool:
      return "bool";
    default:
      return "another dtype";
  }
}

bool is_contiguous(const Tensor& t) {
  int64_t expected = 1;
  for (int64_t d = t.dim; d-- > 0;) {
    if (t.size(d) == 0) return true;
    if (t.size(d) != 1 && t.stride(d) != expected) return false;
    expected *= t.size(d);
  }
  return true;
}

}  // namespace

void value_error(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text = render(format, args);
  va_end(args);
  throw ArgumentError(ErrorKind::kValue, std::move(text));
}

void type_error(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text = render(format, args);
  va_end(args);
  throw ArgumentError(ErrorKind::kType, std::move(text));
}

void check_shape(const Tensor& t, std::initializer_list<int64_t> shape) {
  bool same = t.dim == static_cast<int64_t>(shape.size());
  for (int64_t d = 0; same && d < t.dim; ++d) {
    const int64_t expected = shape.begin()[d];
    same = expected < 0 || t.size(d) == expected;
  }
  if (!same) {
    value_error("%s has shape %s, expected %s", t.name, render_shape(t.sizes, t.dim).c_str(),
                render_shape(shape.begin(), static_cast<int64_t>(shape.size())).c_str());
  }
}

void check_dtype(const Tensor& t, DType dtype) {
  if (t.dtype != dtype) {
    type_error("%s has dtype %s, expected %s", t.name, t.dtype_name, dtype_name(dtype));
  }
}

void check_same_dtype(const Tensor& t, const Tensor& reference) {
  // Those that no kernel computes in are one DType, and have their own names.
  if (t.dtype != reference.dtype || std::strcmp(t.dtype_name, reference.dtype_name) != 0) {
    type_error("%s has dtype %s, expected %s as %s has", t.name, t.dtype_name, reference.dtype_name,
               reference.name);
  }
}

void check_inner_contiguous(const Tensor& t) {
  if (t.dim == 0) value_error("%s has no dimensions", t.name);
  if (t.size(t.dim - 1) > 1 && t.stride(t.dim - 1) != 1) {
    value_error("%s has stride %lld in its last dimension, expected 1", t.name,
                static_cast<long long>(t.stride(t.dim - 1)));
  }
}

void check_contiguous(const Tensor& t) {
  if (!is_contiguous(t)) {
    value_error("%s has shape %s and strides %s, expected a contiguous tensor", t.name,
                render_shape(t.sizes, t.dim).c_str(), render_shape(t.strides, t.dim).c_str());
  }
}

void check_index(const Tensor& t, int64_t size) {
  check_dtype(t, DType::kInt);
  check_shape(t, {size});
  check_contiguous(t);
}

fi_dtype float_dtype(const Tensor& t, bool fp8) {
  switch (t.dtype) {
    case DType::kHalf:
      return FI_FLOAT16;
    case DType::kBFloat16:
      return FI_BFLOAT16;
    case DType::kFloat:
      return FI_FLOAT32;
    case DType::kE4M3:
      if (fp8) return FI_FLOAT8_E4M3;
      break;
    case DType::kE5M2:
      if (fp8) return FI_FLOAT8_E5M2;
      break;
    default:
      break;
  }
  type_error("%s has dtype %s, expected float16, bfloat16, float32%s", t.name, t.dtype_name,
             fp8 ? ", float8_e4m3fn or float8_e5m2" : "");
}

void check_status(fi_status status) {
  switch (status) {
    case FI_OK:
      return;
    case FI_INVALID_ARGUMENT:
      throw ArgumentError(ErrorKind::kValue, fi_last_error());
    case FI_UNSUPPORTED:
      throw ArgumentError(ErrorKind::kNotImplemented, fi_last_error());
    case FI_CUDA_ERROR:
      break;
  }
  throw ArgumentError(ErrorKind::kRuntime, fi_last_error());
}

}  // namespace binding
}  // namespace flashinfer
