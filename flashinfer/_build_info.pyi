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
