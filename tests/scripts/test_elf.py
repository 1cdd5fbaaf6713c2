"""Shared objects, read: libraries compiled here, and files that lie about themselves."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
import toy_artifacts as toy
from hypothesis import given, settings
from hypothesis import strategies as st

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import elf
from flashinfer_build.checks import torch_abi

INFO = "flashinfer_info"


def test_what_the_linker_was_told() -> None:
    library = elf.read(toy.binding(), "_C.abi3.so")
    assert library.needed[:3] == ("libflashinfer.so", "libtorch_cpu.so", "libc10.so")
    assert library.runpath == ("$ORIGIN/lib", "$ORIGIN/../../..", "$ORIGIN/../torch/lib")
    assert library.rpath == ()
    assert library.machine == "EM_X86_64"
    assert library.soname == ""
    assert elf.read(toy.library(), "x").soname == "libflashinfer.so"
    assert "PyInit__C" in {symbol.name for symbol in library.exported}
    undefined = {symbol.name for symbol in library.undefined}
    assert {toy.NEW_ABI, "PyModule_Create2", "fi_rmsnorm"} <= undefined
    assert "PyModule_Create2" not in {symbol.name for symbol in library.exported}


def test_agrees_with_readelf(tmp_path: Path) -> None:
    path = tmp_path / "toy.so"
    path.write_bytes(
        toy.binding(more="#include <math.h>\ndouble f(double x) { return pow(x, x); }\n")
    )
    text = subprocess.run(
        ["readelf", "--dyn-syms", "--wide", str(path)], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]
    theirs = {row[7].partition("@")[0] for row in rows if len(row) > 7 and row[6] == "UND"}
    ours = {symbol.name for symbol in elf.read(path.read_bytes(), "toy.so").undefined}
    assert ours == theirs - {""}


def test_rpath_is_not_runpath() -> None:
    data = toy.binding(runpath="", flags=("-Wl,-s", "-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib"))
    library = elf.read(data, "x")
    assert (library.rpath, library.runpath) == (("$ORIGIN/lib",), ())


def test_information_section() -> None:
    info = elf.read(
        toy.library(cuda="13.0.88", archs="8.0+PTX;9.0a", gpu="zstd"), "x", info_section=INFO
    ).info
    assert info is not None
    assert info["cuda"] == "13.0.88"
    assert info["archs"] == "8.0+PTX;9.0a"
    assert elf.read(toy.library(info=False), "x", info_section=INFO).info is None
    assert elf.read(toy.library(), "x").info is None, "nobody said that there is one"


@pytest.mark.parametrize(
    ("more", "message"),
    [("no equals sign\n", "key=value"), ("cuda=12.4\n", "twice"), ("1=2\n", "key=value")],
)
def test_information_of_another_form(more: str, message: str) -> None:
    data = toy.library(archs="x\\n" + more.replace("\n", "\\n"))
    with pytest.raises(ArtifactError, match=message):
        elf.read(data, "x", info_section=INFO)


def test_gpu_code() -> None:
    library = elf.read(toy.library(gpu="zstd lz4"), "x")
    assert library.gpu_codes == {"sm_80", "compute_80", "sm_90a"}
    assert [len(found) for found in library.gpu.values()] == [2]
    assert elf.read(toy.library(), "x").gpu_sections == ()


def test_floors() -> None:
    source = "void* memcpy();\nvoid* f(void* a, void* b, long n) { return memcpy(a, b, n); }"
    library = elf.read(toy.library(more=source), "x")
    assert library.floors["GLIBC"] == "2.14"
    assert "GLIBC_2.14" in library.required_versions["libc.so.6"]
    (symbol,) = [symbol for symbol in library.undefined if symbol.name == "memcpy"]
    assert (symbol.version, symbol.library) == ("GLIBC_2.14", "libc.so.6")


def test_floors_compare_numbers_not_text() -> None:
    versions = (
        "GLIBC_2.9",
        "GLIBC_2.34",
        "GLIBC_2.4",
        "GLIBCXX_3.4.30",
        "GLIBCXX_3.4.9",
        "OTHER_9",
    )
    assert elf.floors(versions) == {"GLIBC": "2.34", "GLIBCXX": "3.4.30"}


@pytest.mark.parametrize(
    ("symbols", "abi"),
    [
        ((toy.NEW_ABI,), "new"),
        ((toy.OLD_ABI,), "old"),
        ((toy.NEW_ABI, toy.OLD_ABI), "mixed"),
        ((toy.NO_STRING,), ""),
        # A function that returns a std::string carries its tag.
        (("_ZNK3c106Device3strB5cxx11Ev",), "new"),
        # "Ss" within an identifier, and strings of symbols that are not torch's.
        (("_ZN2at9ClassSsSsEv",), ""),
        (("_ZNSsC1EPKcRKSaIcE",), ""),
    ],
)
def test_string_abi(symbols: tuple[str, ...], abi: str) -> None:
    assert torch_abi.measured(elf.read(toy.binding(symbols=symbols), "x")) == abi


@pytest.mark.parametrize(
    ("name", "abi"),
    [
        ("_ZN2at6Tensor3fooILi12EEEvSs", "old"),  # Li12E is a literal, no length
        ("_ZN2at3fooIcLb1EEEvRKSsS2_", "old"),
        ("_ZN2at3fooEA10_KSs", "old"),
        ("_ZN2at3fooES1_T0_", ""),
        ("_ZN2at999fooSs", ""),  # a length past the end hides what follows
        ("at::foo(std::string)", ""),
        ("", ""),
    ],
)
def test_string_abi_of_a_mangled_name(name: str, abi: str) -> None:
    assert elf.string_abi((name,)) == abi


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/home/someone/csrc/norm.cu", True),
        ("in /tmp/build-1/x.h: 3", True),
        ("/opt/p/_h_env_placehold_placehold_/include/x.h", True),
        ("/croot/flashinfer_1/work/csrc", True),
        ("flashinfer/csrc/norm.cu", False),
        ("$ORIGIN/../home/x", False),
        ("/usr/include/c++/12/string", False),
        ("/proc/self/tmp/x", False),
        ("/tmp/", False),
    ],
)
def test_leaked_paths(text: str, found: bool) -> None:
    assert bool(elf.leaked_paths(b"\0before\0" + text.encode() + b"\0after\0")) is found


def test_a_leaked_path_is_whole_and_is_there_once() -> None:
    data = b"\0/root/a/b.cpp\0x/root/a/b.cpp\0/root/a/b.cpp\0/root/cd\xff\0"
    assert elf.leaked_paths(data) == ("/root/a/b.cpp", "/root/cd")


def test_debug_sections() -> None:
    assert elf.read(toy.library(flags=("-g",)), "x").debug_sections
    assert elf.read(toy.library(), "x").debug_sections == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no 64-bit"),
        (b"\x7fELF\x01\x01" + bytes(60), "no 64-bit"),
        (b"PK\x03\x04" + bytes(60), "no 64-bit"),
        (b"\x7fELF\x02\x01\x01" + bytes(9), "ELF"),
    ],
)
def test_no_elf_file(data: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        elf.read(data, "lib.so")


def test_an_object_file_is_no_shared_object() -> None:
    data = bytearray(toy.library())
    data[16] = 1  # ET_REL
    with pytest.raises(ArtifactError, match="ET_REL"):
        elf.read(bytes(data), "lib.so")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (".dynamic", "no dynamic section"),
        (".dynsym", "'.dynsym' is nowhere, and what a loader reads in its place at 0x"),
        (".dynstr", "'.dynstr' is nowhere"),
    ],
)
def test_without_what_a_loader_needs(section: str, message: str) -> None:
    data = bytearray(toy.library())
    at = _section_header(data, section)
    struct.pack_into("<I", data, at, 0)  # another name
    with pytest.raises(ArtifactError, match=message):
        elf.read(bytes(data), "lib.so")


def test_two_sections_of_one_name() -> None:
    data = bytearray(toy.library())
    name = struct.unpack_from("<I", data, _section_header(data, "flashinfer_info"))[0]
    struct.pack_into("<I", data, _section_header(data, ".comment"), name)
    with pytest.raises(ArtifactError, match="two sections 'flashinfer_info'"):
        elf.read(bytes(data), "lib.so", info_section=INFO)
    assert elf.read(bytes(data), "lib.so").info is None


def test_versions_that_it_defines() -> None:
    library = elf.read(toy.library(flags=("-Wl,-s", "-Wl,--default-symver")), "x")
    versions = {symbol.name: symbol.version for symbol in library.exported}
    assert versions["fi_rmsnorm"] == "libflashinfer.so"


def test_a_cut_file() -> None:
    data = toy.library(gpu="zstd")
    for size in range(64, len(data), 997):
        with pytest.raises(ArtifactError):
            elf.read(data[:size], "lib.so")


def _section_header(data: bytearray, name: str) -> int:
    """The offset of a section's header."""
    offset, size, count, strings = (
        struct.unpack_from("<Q", data, 40)[0],
        *struct.unpack_from("<HHH", data, 58),
    )
    names = struct.unpack_from("<Q", data, offset + strings * size + 24)[0]
    for number in range(count):
        at = offset + number * size
        start = names + struct.unpack_from("<I", data, at)[0]
        if data[start : data.index(b"\0", start)].decode() == name:
            return int(at)
    raise AssertionError(name)


@pytest.mark.parametrize("section", [".dynsym", ".dynstr", ".dynamic", INFO])
def test_a_section_larger_than_the_file(section: str) -> None:
    data = bytearray(toy.library())
    struct.pack_into("<Q", data, _section_header(data, section) + 32, 24 << 55)
    with pytest.raises(ArtifactError, match="outside the file"):
        elf.read(bytes(data), "lib.so")


def test_a_section_without_bytes_takes_no_memory() -> None:
    data = bytearray(toy.library())
    at = _section_header(data, "flashinfer_info")
    struct.pack_into("<I", data, at + 4, 8)  # SHT_NOBITS
    struct.pack_into("<Q", data, at + 32, 24 << 55)
    with pytest.raises(ArtifactError, match="no plain bytes"):
        elf.read(bytes(data), "lib.so", info_section=INFO)


@settings(max_examples=250, deadline=2000)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=8,
    )
)
def test_any_damage_is_an_answer_or_an_artifact_error(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(toy.library(gpu="zstd"))
    size = len(data)
    for offset, value in changes:
        # Half of the changes in the headers, where they matter.
        at = offset % size if offset & 1 else (size - 1 - offset % 2400) % size
        data[at : at + len(value)] = value
    try:
        found = elf.read(bytes(data[:size]), "lib.so", info_section=INFO)
    except ArtifactError:
        return
    assert torch_abi.measured(found) in ("", "old", "new", "mixed")
    assert isinstance(found.leaks, tuple)
