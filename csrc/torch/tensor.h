// What the checks and calls of the binding need to know of a torch tensor, without torch's headers:
// only registration.cpp and parallel.cpp include those, so the families compile in half a second.
#ifndef FLASHINFER_TORCH_TENSOR_H_
#define FLASHINFER_TORCH_TENSOR_H_

#include <cstdint>
#include <exception>
#include <initializer_list>
#include <string>

#include "flashinfer/api.h"

namespace flashinfer {
namespace binding {

enum class DType : uint8_t {
  kHalf,
  kBFloat16,
  kFloat,
  kE4M3,
  kE5M2,
  kInt,
  kLong,
  kByte,
  kBool,
  kOther
};

// A strided tensor; `sizes` and `strides` (in elements) live as long as the torch tensor does.
struct Tensor {
  const char* name = "";  // of the argument, from the op's schema
  void* data = nullptr;
  DType dtype = DType::kOther;
  const char* dtype_name = "";
  int64_t element_size = 0;  // in bytes
  int64_t dim = 0;
  const int64_t* sizes = nullptr;
  const int64_t* strides = nullptr;

  int64_t size(int64_t d) const { return sizes[d]; }
  int64_t stride(int64_t d) const { return strides[d]; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// A tensor of the host in an op of any device.
struct HostTensor : Tensor {};

enum class ErrorKind : uint8_t { kValue, kType, kNotImplemented, kRuntime };

// Becomes the Python exception of the same kind where registration.cpp hands over to torch.
class ArgumentError : public std::exception {
 public:
  ArgumentError(ErrorKind kind, std::string text) : kind_(kind), text_(std::move(text)) {}
  ErrorKind kind() const { return kind_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  ErrorKind kind_;
  std::string text_;
};

[[noreturn]] void value_error(const char* format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void type_error(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Each check throws an ArgumentError that names the argument, what came and what was expected.
void check_shape(const Tensor& t, std::initializer_list<int64_t> shape);  // -1: any size
void check_dtype(const Tensor& t, DType dtype);
void check_same_dtype(const Tensor& t, const Tensor& reference);
void check_inner_contiguous(const Tensor& t);  // the last dimension has stride 1
void check_contiguous(const Tensor& t);
void check_index(const Tensor& t, int64_t size);  // int32, contiguous, [size]; -1: any size

// fp16, bf16 or fp32; `fp8` also lets the two 8-bit formats in.
fi_dtype float_dtype(const Tensor& t, bool fp8 = false);

// Turns a status of the C interface into an exception with fi_last_error() as its text.
void check_status(fi_status status);

inline bool on_cpu(const fi_exec& exec) { return exec.device < 0; }

}  // namespace binding
}  // namespace flashinfer

#endif  // FLASHINFER_TORCH_TENSOR_H_
