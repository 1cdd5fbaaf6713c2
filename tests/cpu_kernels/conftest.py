"""The library under test, once for every instruction set."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from capi import UNSUPPORTED, Failed, Library

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Werror",
    f"-I{ROOT / 'csrc'}",
    f"-I{ROOT / 'csrc' / 'include'}",
    '-DFLASHINFER_VERSION="0"',
    '-DFLASHINFER_ARCH_LIST=""',
]


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def compile_sources(sources: list[Path], folder: Path, flags: list[str]) -> dict[str, Path]:
    """Compile every source and return the objects by source name."""
    compiler = os.environ.get("CXX", "g++")
    objects = {source.name: folder / f"{source.name}.o" for source in sources}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [
            pool.submit(run, [compiler, *flags, "-c", str(source), "-o", str(objects[source.name])])
            for source in sources
        ]:
            done.result()
    return objects


def link(objects: list[Path], library: Path) -> Path:
    run([os.environ.get("CXX", "g++"), "-shared", *map(str, objects), "-o", str(library)])
    return library


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The CPU part's object files, compiled as the build compiles them, by source name."""
    csrc = ROOT / "csrc"
    sources = [*sorted(csrc.glob("*.cpp")), *sorted((csrc / "cpu").glob("*.cpp"))]
    return compile_sources(sources, tmp_path_factory.mktemp("objects"), FLAGS)


@pytest.fixture(scope="session")
def library_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLASHINFER_LIBRARY, or a library compiled from the sources."""
    built = os.environ.get("FLASHINFER_LIBRARY")
    if built:
        return Path(built)
    objects: dict[str, Path] = request.getfixturevalue("objects")
    return link(list(objects.values()), tmp_path_factory.mktemp("library") / "libflashinfer.so")


@pytest.fixture(scope="session")
def wide_library_path(objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose avx512 level is wide.cpp: 16 lanes without AVX-512 instructions."""
    folder = tmp_path_factory.mktemp("wide")
    flags = ["-O1" if flag == "-O3" else flag for flag in FLAGS]
    wide = compile_sources([Path(__file__).with_name("wide.cpp")], folder, [*flags, "-Wno-psabi"])
    rest = [path for name, path in objects.items() if name != "isa_avx512.cpp"]
    return link([*rest, wide["wide.cpp"]], folder / "libflashinfer.so")


@pytest.fixture(scope="session", params=["baseline", "avx2", "avx512", "wide"])
def lib(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The library, at each level that this CPU can run."""
    level: str = request.param
    folder = tmp_path_factory.mktemp(f"lib-{level}")
    if level == "wide":
        return Library(request.getfixturevalue("wide_library_path"), folder, "avx512")
    library = Library(request.getfixturevalue("library_path"), folder, level)
    try:
        library("packbits")
    except Failed as error:
        if error.status != UNSUPPORTED:
            raise
        pytest.skip(f"this CPU does not have {level}")
    return library


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)
