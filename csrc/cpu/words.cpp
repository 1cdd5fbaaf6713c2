#include <algorithm>

#include "backend.h"

namespace flashinfer {
namespace cpu {

fi_status upload_words(const fi_exec&, const fi_upload_words_args& args) {
  if (args.count > 0) std::copy_n(args.words, args.count, args.out);
  return FI_OK;
}

}  // namespace cpu
}  // namespace flashinfer
