"""Compiled files: ELF, the GPU code in them, and what they ask of Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import foreign
import toy_artifacts as toy

from conda_bridge.formats import abi3, elf, fatbin
from conda_bridge.formats.elf import SharedObject, Symbol
from flashinfer_build.checks import torch_abi

from ..mutators.elf import elf as change_elf
from ..mutators.fatbin import fatbin as change_fatbin
from ..mutators.text import lines
from ..target import Target
from ._names import SYMBOL

__all__ = ["SMALL", "TARGETS", "libraries"]

_INFO = "flashinfer_info"
# As small as a linker makes them, so that a change meets what is read.
SMALL = ("-nostdlib", "-Wl,-s,-z,noseparate-code,-z,max-page-size=64,-z,norelro")


def libraries() -> Mapping[str, bytes]:
    """Libraries and a program as gcc and ld make them."""
    defined = (
        '__asm__(".symver new_name,name@@TOY_2.0");__asm__(".symver old_name,name@TOY_1.0");'
        '__attribute__((visibility("default"))) int new_name(void){return 2;}'
        '__attribute__((visibility("default"))) int old_name(void){return 1;}'
    )
    return {
        "library": toy.library(gpu="zstd lz4", flags=SMALL),
        "plain": toy.library(gpu="lto plain", flags=SMALL, soname="x.so"),
        "binding": toy.binding(flags=SMALL, needed=("libc10.so",)),
        "versions": foreign.compiled(
            "void *memcpy(); void *f(void *a, void *b, long n) { return memcpy(a, b, n); }",
            rpath="$ORIGIN/lib:$ORIGIN",
            old_rpath=True,
            soname="libversions.so.1",
        ),
        "defines": _defines(defined),
        "program": foreign.compiled("int main(void) { return 0; }", program=True),
    }


def _defines(source: str) -> bytes:
    """A library with versions of its own."""
    script = Path(__file__).with_name("versions.map")
    return toy.shared_object(source, (*SMALL, f"-Wl,--version-script={script}"), "libdefines.so")


def read_elf(data: bytes) -> None:
    """All that is asked of a library or a program."""
    found = elf.read(data, "input", info_section=_INFO, program=True)
    _ = found.gpu_sections, found.gpu_codes, found.floors, found.leaks
    _read_symbols(found)


def _read_symbols(found: SharedObject) -> None:
    abi3.audit(found).since((3, 8))
    torch_abi.measured(found)
    elf.string_abi(symbol.name for symbol in found.exported)


def read_fatbin(data: bytes) -> None:
    """A section of GPU code."""
    for container in fatbin.parse(data, where="input"):
        for image in container.images:
            assert image.code in container.codes
            _ = image.consistent


def read_symbols(data: bytes) -> None:
    """Names of symbols, one a line, in an extension module that is made up around them."""
    names = data.decode("utf-8", "backslashreplace").split("\n")
    half = len(names) // 2
    module = SharedObject(
        "input", "EM_X86_64", "", tuple(names[:1]), (), (),
        tuple(Symbol(name, weak=not number % 3) for number, name in enumerate(names[half:])),
        tuple(map(Symbol, names[:half])), {"x": tuple(names)}, (), (), None, {}, "", b"",
    )  # fmt: skip
    _ = module.floors
    _read_symbols(module)


def _symbols() -> Iterable[bytes]:
    yield "\n".join((toy.NEW_ABI, toy.OLD_ABI, toy.NO_STRING, "PyModule_Create2")).encode()
    yield b"libpython3.so\nGLIBC_2.34\nGLIBCXX_3.4.30\nPyInit_x\nPyUnicode_AsUTF8\n_Py_Dealloc"


_FORMATS = "conda_bridge.formats."
TARGETS = (
    Target(
        "elf",
        read_elf,
        (_FORMATS + "elf", _FORMATS + "elf_tables", _FORMATS + "fatbin"),
        libraries,
        change_elf,
        ("GLIBC_2.34", "_ZN3c10", "Ss", "$ORIGIN/", "/home/", "component=", "_h_env_placehold"),
    ),
    Target(
        "fatbin",
        read_fatbin,
        (_FORMATS + "fatbin",),
        lambda: [path.read_bytes() for path in sorted(toy.FATBIN.glob("*.bin"))],
        change_fatbin,
        (".target sm_80", "\x7fELF", ".target sm_90a\n", "\x28\x01"),
    ),
    Target(
        "symbols",
        read_symbols,
        (
            _FORMATS + "abi3",
            _FORMATS + "elf:string_abi mangled_names floors",
            "flashinfer_build.checks.torch_abi:measured _is_torchs",
        ),
        _symbols,
        lines(SYMBOL),
        ("_ZN", "PyObject_", "Ss", "__cxx11", "GLIBC_", "3c10", "2at"),
        1 << 13,
    ),
)
