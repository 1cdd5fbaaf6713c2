#!/usr/bin/env bash
# libflashinfer: the kernels and their C interface, compiled once per CUDA release.
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

# conda-build uses one work folder for all outputs and variants.
rm -rf build third-party-licenses
# With what is in the library, and the licences of it (docs/sbom.md).
python scripts/native.py lib --prefix "$PREFIX" --build-dir build/library --sbom
# What the compiler says it was has to be what the variant says.
python "$RECIPE_DIR/test_library.py"
