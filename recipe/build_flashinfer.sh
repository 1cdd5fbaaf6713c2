#!/usr/bin/env bash
# flashinfer: the Python package and the binding to one torch minor, over an installed libflashinfer.
set -euo pipefail

# Set by both builders, it would leak the build prefix into the RUNPATH and the build id.
unset LD_RUN_PATH
# The packages have the same bytes whatever builds them: the flags are the project's own, and not
# those that each builder's compilers set when they are activated.
unset CPPFLAGS CXXFLAGS CFLAGS LDFLAGS NVCC_PREPEND_FLAGS NVCC_APPEND_FLAGS
unset CUDAHOSTCXX NVCC_CCBIN CUDAARCHS CMAKE_CUDA_ARCHITECTURES TORCH_CUDA_ARCH_LIST

if [[ $FLASHINFER_CUDA == None ]]; then
  export FLASHINFER_FORCE_CPU=1
  unset FLASHINFER_CUDA_ARCH_LIST
else
  export FLASHINFER_REQUIRE_CUDA=1
fi
export FLASHINFER_LIBRARY_DIR=$PREFIX/lib

# conda-build uses one work folder for all outputs and variants, and copies what a developer's
# own build left in the checkout.
rm -rf build wheels ./*.egg-info flashinfer/lib flashinfer/include flashinfer/*.so flashinfer/_build_info.py

"$PREFIX/bin/python" -m pip install . \
  --no-deps --no-build-isolation --no-compile --no-cache-dir --no-index -vv
"$PREFIX/bin/python" "$RECIPE_DIR/own_dist_info.py" "$SP_DIR" flashinfer
