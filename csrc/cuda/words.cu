// Launcher of the upload of words.
#include <cstring>

#include "flashinfer/words.cuh"
#include "launcher.h"

namespace flashinfer {
namespace cuda {

fi_status upload_words(const fi_exec& exec, const fi_upload_words_args& args) {
  if (args.count <= 0) return FI_OK;
  constexpr int kThreads = 256;
  Device device(exec);
  UploadWordsParams p{};
  for (int64_t first = 0; first < args.count; first += kUploadWords) {
    p.out = args.out + first;
    p.count = static_cast<int>(std::min<int64_t>(args.count - first, kUploadWords));
    std::memcpy(p.words, args.words + first, sizeof(int32_t) * p.count);
    const fi_status status =
        device.launch("upload_words", upload_words_kernel, dim3(1), dim3(kThreads), 0, p);
    if (status != FI_OK) return status;
  }
  return FI_OK;
}

}  // namespace cuda
}  // namespace flashinfer
