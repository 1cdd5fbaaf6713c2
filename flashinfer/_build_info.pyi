"""Facts of the build, in a module that the build writes (setup.py)."""

VARIANT: str
VERSION: str
PUBLIC_VERSION: str
TORCH: str
CUDA: str
CXX11_ABI: bool
ARCH_LIST: str
COMMIT: str
BUILD_NUMBER: int
WHEEL: (
    str  # how pip is asked for this build of another variant: {cuda} and {torch} are the variant's
)
CONDA: str  # how conda is; {torch:flat} is the torch without its dot
CONDA_LIBRARY: str  # the same of libflashinfer
INDEX_DIR: str  # the folder of the wheel index
