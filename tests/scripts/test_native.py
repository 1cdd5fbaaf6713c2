"""native: flags, job counts, and the compiled libraries themselves."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from conda_bridge.errors import BuildFailed, ConfigError, ToolchainError
from conda_bridge.formats import elf
from conda_bridge.formats.cuda_archs import gencode_flags
from flashinfer_build.artifact import BINDING_RUNPATH
from flashinfer_build.compile import native
from flashinfer_build.compile.measure import Torch
from flashinfer_build.pipeline.ledger import file_digest


def test_gencode_flags_in_torchs_notation() -> None:
    assert gencode_flags("8.0+PTX;9.0a") == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_80,code=compute_80",
        "-gencode=arch=compute_90a,code=sm_90a",
    ]
    assert gencode_flags("8.0 12.0") == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_120,code=sm_120",
    ]


@pytest.mark.parametrize("text", ["", "80", "8.0;sm_90", "9.0b", "8.0+ptx"])
def test_other_notations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^THE_LIST: "):
        gencode_flags(text, "THE_LIST")


def test_jobs_follow_processors_memory_and_max_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(native, "available_memory", lambda: 10 << 30)
    assert native.job_count(2 << 30, {}) == 5
    assert native.job_count(1 << 20, {}) == 64
    assert native.job_count(1 << 20, {"MAX_JOBS": "3"}) == 3
    assert native.job_count(2 << 30, {"MAX_JOBS": "30"}) == 5
    monkeypatch.setattr(native, "available_memory", lambda: 0)
    assert native.job_count(2 << 30, {}) == 1
    with pytest.raises(ConfigError, match="MAX_JOBS"):
        native.job_count(1, {"MAX_JOBS": "many"})


def test_available_memory_is_plausible() -> None:
    assert 1 << 20 < native.available_memory() < 1 << 50


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A csrc of the same shape with one small CPU file: these tests are about the build."""
    root = tmp_path / "one" / "project"
    for folder in ("cpu", "include/flashinfer"):
        (root / "csrc" / folder).mkdir(parents=True)
    (root / "csrc/include/flashinfer/api.h").write_text("// header\n")
    (root / "csrc/cpu/a.cpp").write_text(
        '#define PUBLIC extern "C" __attribute__((visibility("default")))\n'
        "PUBLIC const char* where() { return __FILE__; }\n"
    )
    (root / "csrc/api.cpp").write_text("int unused_api() { return 0; }\n")
    (root / "csrc/build_info.cpp").write_text(
        'extern "C" __attribute__((visibility("default"))) const char version[] ='
        " FLASHINFER_VERSION;\n"
    )
    return root


def _build(root: Path, prefix: Path, build_dir: Path) -> Path:
    return native.build_library(root, prefix, build_dir, version="0.1.6", nvcc=None)


def test_the_same_sources_in_another_folder_give_the_same_bytes(
    small: Path, tmp_path: Path
) -> None:
    first = _build(small, tmp_path / "p1", tmp_path / "b1")
    moved = tmp_path / "quite another place" / "x"
    moved.parent.mkdir()
    shutil.copytree(small, tmp_path / "moved")
    second = _build(tmp_path / "moved", tmp_path / "p2", tmp_path / "b2")
    assert file_digest(first) == file_digest(second)
    assert str(tmp_path).encode() not in first.read_bytes()
    assert b"0.1.6" in first.read_bytes()
    assert (tmp_path / "p1/include/flashinfer/api.h").read_text() == "// header\n"


def test_any_letter_in_any_path(small: Path, tmp_path: Path) -> None:
    """Checkout, build folder, compiler, torch and the library: names that shells and ninja read."""
    odd = tmp_path / 'it\'s a "$HOME" ü: {b} & c; `d` #\\' / ("long" * 50)
    shutil.copytree(small, odd / "root")
    torch = odd / "torch"
    (torch / "lib").mkdir(parents=True)
    (torch / "include").mkdir()
    (torch / "version.py").write_text("__version__ = '2.13.0'\n")
    tools = odd / "tools"
    tools.mkdir()
    compiler = tools / "g++"
    compiler.write_text('#!/bin/sh\nexec /usr/bin/g++ "$@"\n')
    compiler.chmod(0o755)
    binding = odd / "root/csrc/torch"
    binding.mkdir()
    (binding / "module.cpp").write_text(
        'extern "C" const char* where();\n'
        'extern "C" __attribute__((visibility("default"))) const char* b() { return where(); }\n'
    )
    environ = {
        **os.environ,
        "CXX": str(compiler),
    }
    environ["CXXFLAGS"] = shlex.join(['-DWORDS="two $HOME words"', f"-I{odd}"])
    environ["LDFLAGS"] = shlex.join([f"-L{odd}", "-Wl,-rpath,/of/the/user"])
    source = odd / "root/csrc/cpu/a.cpp"
    source.write_text(source.read_text().replace("__FILE__", "WORDS"))
    made = native.build_library(
        *(odd / "root", odd / "prefix", odd / "b1"), version="1", nvcc=None, environ=environ
    )
    assert b"two $HOME words" in made.read_bytes()
    # The binding asks for libtorch_cpu and libc10: stand-ins.
    for name in ("torch_cpu", "c10"):
        shutil.copyfile(made, torch / "lib" / f"lib{name}.so")
    native.build_binding(
        *(odd / "root", odd / "_C.abi3.so", odd / "b2"),
        version="1",
        variant="cpu_torch213",
        torch=Torch(torch, "2.13.0", (2, 13), None, True),
        library_dir=made.parent,
        environ=environ,
    )
    bound = elf.read((odd / "_C.abi3.so").read_bytes(), "x")
    assert bound.runpath == (*BINDING_RUNPATH.split(":"), "/of/the/user")
    assert str(tmp_path).encode() not in (odd / "_C.abi3.so").read_bytes()


@pytest.mark.parametrize("replaced", ["compiler", "torch"])
def test_what_another_compiler_or_torch_made_is_made_again(
    small: Path, tmp_path: Path, replaced: str
) -> None:
    """In the same place, with older files, as installers leave them: ninja sees no difference."""
    torch = tmp_path / "torch"
    (torch / "include").mkdir(parents=True)
    (torch / "lib").mkdir()
    for name in ("torch_cpu", "c10", "flashinfer"):
        subprocess.run(
            ["g++", "-shared", "-xc++", os.devnull, "-o", str(torch / f"lib/lib{name}.so")],
            check=True,
        )
    (small / "csrc/torch").mkdir()
    (small / "csrc/torch/module.cpp").write_text(
        '#include "which.h"\n'
        'extern "C" __attribute__((visibility("default"))) const char w[] = WHICH BY;\n'
    )
    compiler = tmp_path / "g++"

    def install(which: str, by: str) -> None:
        (torch / "version.py").write_text(f"__version__ = '2.13.{which}'\n")
        (torch / "include/which.h").write_text(f'#define WHICH "torch {which}"\n')
        compiler.write_text(f'#!/bin/sh\nexec /usr/bin/g++ \'-DBY=" by {by}"\' "$@"\n')
        compiler.chmod(0o755)
        for path in (torch / "version.py", torch / "include/which.h", compiler):
            os.utime(path, (0, 0))

    def build() -> bytes:
        native.build_binding(
            *(small, tmp_path / "_C.abi3.so", tmp_path / "b"),
            version="1",
            variant="cpu_torch213",
            torch=Torch(torch, "2.13.0", (2, 13), None, True),
            library_dir=torch / "lib",
            environ={**os.environ, "CXX": str(compiler)},
        )
        return (tmp_path / "_C.abi3.so").read_bytes()

    install("0", "one")
    assert b"torch 0 by one" in build()
    install(*(("1", "one") if replaced == "torch" else ("0", "two")))
    assert (b"torch 1 by one" if replaced == "torch" else b"torch 0 by two") in build()


def test_another_checkout_in_the_same_build_folder_is_compiled(small: Path, tmp_path: Path) -> None:
    """ninja alone would take its objects for up to date: same commands, older files."""
    first = _build(small, tmp_path / "p1", tmp_path / "b").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(small, other)
    source = other / "csrc/cpu/a.cpp"
    source.write_text(source.read_text().replace("__FILE__", '"changed"'))
    os.utime(source, (0, 0))
    second = _build(other, tmp_path / "p2", tmp_path / "b").read_bytes()
    assert (b"changed" in first, b"changed" in second) == (False, True)


def test_arguments_in_cxx_are_for_compiler_and_linker(small: Path, tmp_path: Path) -> None:
    source = small / "csrc/cpu/a.cpp"
    source.write_text(source.read_text().replace("__FILE__", "GIVEN"))
    environ = {**os.environ, "CXX": "g++ '-DGIVEN=\"two words\"' -Wl,--version-script=exports"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "exports").write_text("{ global: where; local: *; };\n")
    made = native.build_library(
        small, tmp_path / "p", tmp_path / "b", version="0.1.6", nvcc=None, environ=environ
    )
    assert b"two words" in made.read_bytes()
    exported = {symbol.name for symbol in elf.read(made.read_bytes(), "x").exported}
    assert exported == {"where"}


def test_a_compile_error_stops_and_leaves_no_library(small: Path, tmp_path: Path) -> None:
    (small / "csrc/cpu/a.cpp").write_text("int f() { int unused; return 0; }\n")  # a warning
    with pytest.raises(BuildFailed, match="ninja stopped"):
        _build(small, tmp_path / "p", tmp_path / "b")
    assert not (tmp_path / "p/lib/libflashinfer.so").exists()


def test_no_compiler_says_what_to_install(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="apt install"):
        native.build_library(
            small,
            tmp_path / "p",
            tmp_path / "b",
            version="0.1.6",
            nvcc=None,
            environ={"PATH": "", "CXX": "no-such-compiler"},
        )
