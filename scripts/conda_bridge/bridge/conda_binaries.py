"""What the shared objects of a wheel need of a machine, measured: dependencies and refusals."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch

from ..errors import ArtifactError, LabelMismatch
from ..formats import elf
from ..formats.content import Content, as_content
from ..formats.elf import SharedObject, Symbol
from .conda_target import MACHINES
from .layout import is_library
from .name_tables import LIBRARIES, LINUX_LIBRARIES

__all__ = ["Needs", "Object", "measure", "read_object"]

_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64", "EM_PPC64": "ppc64le"}
# GLIBCXX_3.4.N -> the gcc whose libstdc++ brought it (GCC's manual, "ABI Policy and Guidelines").
_GCC_OF_GLIBCXX = {
    **{21: "5", 22: "6", 23: "7", 24: "7", 25: "8", 26: "9", 27: "9", 28: "9", 29: "11"},
    **{30: "12", 31: "13", 32: "13", 33: "14", 34: "15"},
}
_NAME = 150  # bytes that a name takes beside its text
_CUDA_RUNTIME = re.compile(r"libcudart\.so\.(\d+)")
_CUDA_IN_LOCAL = re.compile(r"(?<![a-z])cu(\d{2})\d*(?![0-9])")


@dataclass(frozen=True)
class Object:
    """What is kept of a shared object.

    Attributes:
        path: in the wheel.
        machine: of a platform tag.
        soname: its own name, where it has one.
        needed: libraries that it needs.
        floors: the newest version that it asks of each runtime.
        gpu: whether it has GPU code.
        old_strings: symbols that it wants of other libraries with the C++ strings of before 2015.
        exported: names that it provides, of those with such strings.
        weight: bytes of memory that all of this takes, about.
    """

    path: str
    machine: str
    soname: str
    needed: tuple[str, ...]
    floors: Mapping[str, str]
    gpu: bool
    old_strings: tuple[str, ...]
    exported: frozenset[str]
    weight: int = 0


@dataclass
class Needs:
    """What the shared objects need.

    Attributes:
        depends, constrains: for ``index.json``.
        remarks: what a person should know.
        linked: names of those whose libraries are needed, as in `brought` of :func:`measure`.
        unknown: libraries that are not in the wheel and that no known package brings.
    """

    depends: list[str] = field(default_factory=list)
    constrains: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    linked: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def read_object(data: bytes | Content, path: str, where: str) -> Object | None:
    """The facts of a file; None for what is no shared object that a loader would load.

    A wheel may have other ELF files: objects for a linker, GPU code, libraries for another system.

    Raises:
        ArtifactError: a file with a shared object's name that contradicts itself.
    """
    # 64 bits, little-endian, and of the type ET_DYN.
    content = as_content(data)
    head = content.at(0, 18)
    if head[:6] != b"\x7fELF\x02\x01" or head[16:18] != b"\x03\x00":
        return None
    try:
        found = elf.read(content, where)
    except ArtifactError:
        if is_library(path):
            raise
        return None  # data that begins so
    old, provided = _old_strings(found), _provided(found)
    return Object(
        path=path,
        machine=_MACHINES.get(found.machine, found.machine),
        soname=found.soname,
        needed=found.needed,
        floors=dict(found.floors),
        gpu=bool(found.gpu_codes),
        old_strings=old,
        exported=provided,
        weight=found.weight + sum(len(name) + _NAME for name in (*old, *provided)),
    )


def _old_strings(found: SharedObject) -> tuple[str, ...]:
    def foreign(symbol: Symbol) -> bool:
        # libstdc++ has its own functions for both kinds of strings; they are versioned.
        return not symbol.weak and not symbol.version.startswith(("GLIBCXX", "CXXABI"))

    return tuple(
        symbol.name
        for symbol in found.undefined
        if foreign(symbol) and _has_old_string(symbol.name)
    )


def _provided(found: SharedObject) -> frozenset[str]:
    return frozenset(symbol.name for symbol in found.exported if _has_old_string(symbol.name))


def _has_old_string(name: str) -> bool:
    return "Ss" in name and elf.string_abi((name,)) in ("old", "mixed")


def measure(
    objects: Sequence[Object],
    subdir: str,
    local: str,
    brought: Mapping[str, Sequence[str]],
    where: str,
) -> Needs:
    """What conda has to provide for `objects`.

    Args:
        objects: every shared object of the package, and of those it is installed with.
        subdir: the package's.
        local: the wheel's local version, which may name a CUDA.
        brought: projects that the wheel requires -> patterns of the shared libraries that each
            brings.
        where: the wheel, for messages.

    Raises:
        LabelMismatch: an object wants C++ functions with the old kind of strings from a library
            that is not in the wheel. conda-forge builds all of its C++ with the new kind.
    """
    needs = Needs()
    machine = MACHINES.get(subdir)
    foreign = [item for item in objects if item.machine != machine]
    if foreign:
        needs.remarks.append(
            f"{foreign[0].path} is for {foreign[0].machine}, the package for {subdir}"
            + (f"; so are {len(foreign) - 1} more" if foreign[1:] else "")
        )
    native = [item for item in objects if item.machine == machine]
    _check_strings(native, where)
    floors = elf.floors(tuple(f"{k}_{v}" for item in native for k, v in item.floors.items()))
    if "GLIBC" in floors:
        needs.depends.append(f"__glibc >={floors['GLIBC']},<3.0.a0")
    inside = {posixpath.basename(item.path) for item in native} | {
        item.soname for item in native if item.soname
    }
    outside = {name for item in native for name in item.needed} - inside
    for name in sorted(outside):
        package = LIBRARIES.get(name)
        if package:
            needs.depends.append(f"{package} {_compiler(name, floors)}".strip())
    needs.linked = tuple(
        package
        for package, patterns in brought.items()
        if any(fnmatch(name, one) for name in outside for one in patterns)
    )
    needs.unknown = tuple(
        name
        for name in sorted(outside)
        if name not in LIBRARIES
        and name not in LINUX_LIBRARIES
        and not any(fnmatch(name, one) for patterns in brought.values() for one in patterns)
    )
    _cuda(native, outside, local, needs)
    return needs


def _compiler(library: str, floors: Mapping[str, str]) -> str:
    """The version of a compiler's runtime that has the symbols."""
    if library != "libstdc++.so.6" or "GLIBCXX" not in floors:
        return ""
    number = floors["GLIBCXX"].split(".")
    if number[:2] != ["3", "4"] or len(number) < 3:
        return ""
    newer = [gcc for last, gcc in sorted(_GCC_OF_GLIBCXX.items()) if last >= int(number[2])]
    return f">={newer[0]}" if newer else ""


def _check_strings(objects: Sequence[Object], where: str) -> None:
    provided = frozenset().union(*(item.exported for item in objects))
    for item in objects:
        missing = sorted(set(item.old_strings) - provided)
        if missing:
            raise LabelMismatch(
                f"wants {missing[0]}, which takes the old kind of C++ strings "
                f"(_GLIBCXX_USE_CXX11_ABI=0), from a library that is not in the wheel",
                where=f"{where}: {item.path}",
                expected="the new kind (_GLIBCXX_USE_CXX11_ABI=1), which all of conda-forge has",
                fix="take the wheel that is built with the new one, if there is one (a name with "
                "cxx11abiTRUE), or build it again",
            )


def _cuda(objects: Sequence[Object], outside: set[str], local: str, needs: Needs) -> None:
    if not any(item.gpu for item in objects):
        return
    majors = {found[1] for name in outside if (found := _CUDA_RUNTIME.fullmatch(name))}
    if not majors and (found := _CUDA_IN_LOCAL.search(local.lower())):
        majors = {found[1]}
    if len(majors) != 1:
        needs.depends.append("__cuda")
        needs.remarks.append("has GPU code, and does not say of which CUDA: any driver is taken")
        return
    [major] = majors
    needs.depends.append(f"__cuda >={major}")
    needs.constrains.append(f"cuda-version >={major},<{int(major) + 1}")
