"""Which code runs on which GPU: one rule, in Python and in C++, and the table it comes from."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from pathlib import Path

import pytest

from flashinfer_build import bootstrap

ROOT = bootstrap.project_root()
GPUS = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)]
# Of each list, the GPUs that have code of their own, and those that have PTX. NVIDIA, "CUDA
# Programming Guide", Compute Capabilities: binary, PTX, architecture- and family-specific code.
TABLE = {
    "8.0": ({(8, 0), (8, 6), (8, 9)}, set()),
    "8.6": ({(8, 6), (8, 9)}, set()),
    "8.0+PTX": ({(8, 0), (8, 6), (8, 9)}, {gpu for gpu in GPUS if gpu[0] >= 9}),
    "8.9+PTX": ({(8, 9)}, {gpu for gpu in GPUS if gpu[0] >= 9}),
    "8.0+PTX;9.0a": ({(8, 0), (8, 6), (8, 9), (9, 0)}, {gpu for gpu in GPUS if gpu[0] >= 10}),
    "9.0a, 10.0a": ({(9, 0), (10, 0)}, set()),
    "9.0a+PTX": ({(9, 0)}, set()),
    "10.0f 12.0f+PTX": ({(10, 0), (10, 3), (12, 0), (12, 1)}, set()),
    "10.0": ({(10, 0), (10, 3)}, set()),
    "12.0+PTX": ({(12, 0), (12, 1)}, set()),
}
UNKNOWN = [
    "",
    " ; ",
    "sm_80",
    "8",
    "8.",
    "8.x",
    "8.0b",
    "8.0+PTXa",
    "8.0+PT",
    "8.00",
    "emulated",
    "8.0;native",
]
WRAPPER = """
#include "gpu_code.h"
extern "C" int code_for(const char* archs, int major, int minor) {
  bool readable = false;
  const auto code = flashinfer::cuda::code_for(archs, major, minor, &readable);
  return readable ? static_cast<int>(code) : -1;
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("gpu_code")
    (folder / "wrapper.cpp").write_text(WRAPPER)
    csrc = ROOT / "csrc"
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += [f"-I{csrc / 'cuda'}", f"-I{csrc}", f"-I{csrc / 'include'}"]
    subprocess.run([*command, folder / "wrapper.cpp", "-o", folder / "wrapper.so"], check=True)
    return ctypes.CDLL(str(folder / "wrapper.so"))


def python_rule(archs: str, gpu: tuple[int, int]) -> str:
    from flashinfer import _gpu_code

    return _gpu_code.code_for(archs, *gpu)[0]


@pytest.mark.parametrize("archs", TABLE)
def test_which_code_runs_where(compiled: ctypes.CDLL, archs: str) -> None:
    native, ptx = TABLE[archs]
    for gpu in GPUS:
        expected = "native" if gpu in native else "PTX" if gpu in ptx else "none"
        assert python_rule(archs, gpu) == expected, gpu
        said = ["none", "PTX", "native"][compiled.code_for(archs.encode(), *gpu)]
        assert said == expected, gpu


@pytest.mark.parametrize("archs", UNKNOWN)
def test_what_is_no_list_is_left_to_the_runtime(compiled: ctypes.CDLL, archs: str) -> None:
    # Of a GPU that no entry before has code for.
    assert python_rule(archs, (12, 0)) == "unknown"
    assert compiled.code_for(archs.encode(), 12, 0) == -1


def test_ptx_and_drivers() -> None:
    from flashinfer import _gpu_code

    releases = [(11, 8), (12, 4), (12, 5), (12, 6), (12, 8), (13, 0), (13, 2)]
    for cuda, driver in itertools.product(releases, repeat=2):
        same_ptx = (cuda, driver) == ((12, 6), (12, 5))
        assert _gpu_code.ptx_runs(cuda, driver) is (driver >= cuda or same_ptx)
