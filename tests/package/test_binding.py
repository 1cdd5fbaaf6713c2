"""What the compiled binding takes from torch, from the interpreter and from the build."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from flashinfer import _C, _build_info

BINDING = Path(_C.__file__)


def info(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_build_info_lies_in_the_file() -> None:
    with BINDING.open("rb") as file:
        section = ELFFile(file).get_section_by_name("flashinfer_info")
        assert section is not None
        text = section.data().rstrip(b"\0").decode()
    binding, library = _C.build_info()
    assert text == binding
    assert info(binding)["component"] == "binding"
    assert info(library)["component"] == "libflashinfer"


def test_build_info_is_true() -> None:
    binding = info(_C.build_info()[0])
    assert torch.__version__.startswith(binding["torch"] + ".")
    assert binding["cxx11_abi"] == str(int(torch.compiled_with_cxx11_abi()))
    assert binding["variant"] == _build_info.VARIANT
    assert binding["version"] == _build_info.PUBLIC_VERSION
    assert re.fullmatch(r"(gcc|clang) \d+\.\d+", binding["cxx"])


def test_needs_no_cuda_no_python_and_no_openmp_library() -> None:
    with BINDING.open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        needed = {
            getattr(tag, "needed", "")
            for tag in dynamic.iter_tags()
            if tag.entry.d_tag == "DT_NEEDED"
        }
    assert {"libflashinfer.so", "libtorch_cpu.so", "libc10.so"} <= needed
    # What is left is the C++ runtime, which torch needs too.
    rest = needed - {"libflashinfer.so", "libtorch_cpu.so", "libc10.so"}
    assert all(
        re.match(r"(libstdc\+\+|libgcc_s|libc|libm|libdl|libpthread|ld-linux-x86-64)\.so", name)
        for name in rest
    ), rest


def test_exports_nothing_but_the_module() -> None:
    with BINDING.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym")
        assert isinstance(symbols, SymbolTableSection)
        exported = {
            symbol.name
            for symbol in symbols.iter_symbols()
            if symbol["st_shndx"] != "SHN_UNDEF"
            and symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT")
            and not symbol.name.startswith("_Z")  # templates of the C++ library, shared by all
        }
    assert exported == {"PyInit__C", "flashinfer_binding_info"}


THREADS = """
import os, re, sys, torch, flashinfer
torch.set_num_threads(int(sys.argv[1]))
before = len(os.listdir("/proc/self/task"))
x = torch.randn(4096, 1024)
flashinfer.rmsnorm(x, x[0])
maps = open("/proc/self/maps").read()
runtimes = set(re.findall(r"/\\S*(?:gomp|iomp|libomp)\\S*", maps))
print(len(os.listdir("/proc/self/task")) - before, len(runtimes))
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_cpu_ops_run_on_torchs_threads(threads: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(threads)],
        cwd=BINDING.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    started, runtimes = map(int, done.stdout.split())
    assert started == threads - 1
    assert runtimes == 1
