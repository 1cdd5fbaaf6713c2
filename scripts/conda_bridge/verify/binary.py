"""Checks of compiled libraries, whoever compiled them: what they need, and where they run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import PurePosixPath

from ..bridge import manylinux
from ..errors import ArtifactError
from ..formats import abi3, elf, fatbin, limits
from ..formats.content import Allowance, Content, Held, Room
from ..formats.elf import SharedObject
from .findings import ArtifactReport

__all__ = [
    "FOREIGN_LIBRARY",
    "LIBRARY",
    "SYSTEM",
    "Looked",
    "check_abi3",
    "check_archs",
    "check_libraries",
    "check_needed",
    "exports_module",
    "machine_of",
    "measure_floors",
    "member_of",
    "provided",
    "read_libraries",
    "read_library",
]

_ELF = b"\x7fELF"
# By its name; what begins with ELF is looked into as well.
LIBRARY = re.compile(r"\.so(\.\d+)*$", re.ASCII)
FOREIGN_LIBRARY = re.compile(r"\.(dylib|pyd|dll)$", re.ASCII)
_LINKER_SCRIPT = re.compile(rb"\s*(/\*|GROUP\b|INPUT\b|OUTPUT_FORMAT\b)")
_ET_DYN = b"\3\0"
_HEAD = 4096  # of what is called a library and is none: enough to say so

# Of glibc and of GCC; every Linux has them, and so has every conda environment.
SYSTEM = frozenset(
    {
        *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1"),
        *("libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "ld-linux-x86-64.so.2"),
    }
)
_MUSL = re.compile(r"libc\.musl-\w+\.so\.1|libc\.so|ld-musl-\w+\.so\.1|libz\.so\.1", re.ASCII)
# The last part of a platform tag or subdir, in the words of ELF; of those that can be read here.
_MACHINES = {
    **{"x86_64": "EM_X86_64", "64": "EM_X86_64", "aarch64": "EM_AARCH64"},
    **{"ppc64le": "EM_PPC64", "riscv64": "EM_RISCV", "loongarch64": "EM_LOONGARCH"},
}


def member_of(library: SharedObject) -> str:
    """The path in the artifact, which a library's name has after the artifact's."""
    return library.name.partition(": ")[2] or library.name


def machine_of(platform: str) -> str:
    """What ELF calls the processor of a Linux platform; empty where that is not known.

    >>> machine_of("manylinux_2_28_aarch64"), machine_of("linux-64"), machine_of("osx-arm64")
    ('EM_AARCH64', 'EM_X86_64', '')
    """
    found = re.fullmatch(r"(?:linux|manylinux\w*?|musllinux_\d+_\d+)[_-](\w+)", platform)
    if not found:
        return ""
    return next(
        (machine for name, machine in _MACHINES.items() if f"_{found[1]}".endswith(f"_{name}")), ""
    )


def read_library(
    report: ArtifactReport, path: str, content: Content, info_section: str
) -> SharedObject | None:
    """The library at `path`; None for what is none, or cannot be read (a finding of ``elf``).

    A program, and a library of 32 bits or in the other byte order, is not measured; the fact
    ``unmeasured`` names it.
    """
    named = LIBRARY.search(path) is not None
    head = content.at(0, _HEAD)
    if head[:4] != _ELF and named and _LINKER_SCRIPT.match(head):
        return None
    if head[:4] == _ELF and (head[4:6] != b"\2\1" or (not named and head[16:18] != _ET_DYN)):
        report.facts.setdefault("unmeasured", []).append(path)
        return None
    report.ran("elf")
    try:
        return elf.read(content, f"{report.artifact}: {path}", info_section=info_section)
    except ArtifactError as error:
        if not named:  # a program that is linked statically, for one
            report.facts.setdefault("unmeasured", []).append(path)
            return None
        report.add("elf", error.what, member=path)
        return None


def exports_module(library: SharedObject) -> bool:
    """Whether Python can import it."""
    return any(symbol.name.startswith("PyInit_") for symbol in library.exported)


def check_libraries(
    report: ArtifactReport,
    libraries: Sequence[SharedObject],
    platforms: Iterable[str],
    arch_list: str | None,
    prefixes: Mapping[str, str] | None = None,
) -> None:
    """What holds for every library: its processor, no search path of one machine, its GPU code.

    Args:
        report: takes the checks and findings.
        libraries: all that were read.
        platforms: platform tags, or the subdir.
        arch_list: the architectures that were asked for.
        prefixes: by path, the build prefix that installers replace in a file.
    """
    machines = {machine for name in platforms if (machine := machine_of(name))}
    for library in libraries:
        member = member_of(library)
        report.ran("machine")
        if machines and machines != {library.machine}:
            report.add(
                "machine", library.machine, member=member, expected=" and ".join(sorted(machines))
            )
        report.ran("runpath")
        replaced = (prefixes or {}).get(member, "")
        for kind, entries in (("DT_RPATH", library.rpath), ("RUNPATH", library.runpath)):
            for entry in entries:
                if replaced and entry.startswith(replaced):
                    continue
                if not entry.startswith(("$ORIGIN", "${ORIGIN}")):
                    report.add(
                        "runpath",
                        f"{kind} has {entry or 'an empty entry'}",
                        member=member,
                        expected="paths that begin with $ORIGIN",
                    )
        _check_images(report, library, arch_list)


def _check_images(report: ArtifactReport, library: SharedObject, arch_list: str | None) -> None:
    """The GPU code is what its table of contents says, and what was asked for."""
    containers = [container for found in library.gpu.values() for container in found]
    if not containers:
        return
    member = member_of(library)
    report.ran("archs")
    report.facts["archs"] = sorted({*report.facts.get("archs", ()), *library.gpu_codes})
    if arch_list is not None:
        check_archs(report, library, arch_list)
    lying = [image for found in containers for image in found.images if not image.consistent]
    if lying:
        report.add(
            "archs",
            f"fatbin header says {lying[0].code}, "
            f"the image is {lying[0].measured or 'of an unknown kind'}",
            member=member,
        )


def check_archs(report: ArtifactReport, library: SharedObject, arch_list: str) -> None:
    """Every translation unit of `library` has the images that a list asks for, and no other.

    Raises:
        ConfigError: it is no list of architectures.
    """
    expected = fatbin.expected_codes(arch_list)
    containers = [container for found in library.gpu.values() for container in found]
    wrong = [container for container in containers if container.codes != expected]
    if wrong:
        found = ", ".join(sorted(wrong[0].codes)) or "nothing"
        report.add(
            "archs",
            f"{len(wrong)} of {len(containers)} translation units hold {found}",
            member=member_of(library),
            expected=", ".join(sorted(expected)),
        )


def provided(
    files: Iterable[str], libraries: Iterable[SharedObject], promised: Iterable[str]
) -> frozenset[str]:
    """The libraries that a loader finds without the system: those inside, and those promised.

    Args:
        files: the paths of all files.
        libraries: those among them that were read.
        promised: names and patterns of the libraries that requirements bring.
    """
    inside = {PurePosixPath(path).name for path in files if LIBRARY.search(path)}
    named = {*inside, *(item.soname for item in libraries if item.soname)}
    # A name of the artifact's own is that name, whatever a pattern of these letters would fit.
    return frozenset({*filter(manylinux.is_name, named), *promised})


def check_needed(
    report: ArtifactReport, libraries: Sequence[SharedObject], found: Collection[str]
) -> None:
    """What the loader has to find is in the artifact, promised by a requirement, or the system's.

    Args:
        report: takes the check and its findings.
        libraries: all that were read.
        found: names and patterns of :func:`provided`.
    """
    if not libraries:
        return
    report.ran("needed")
    known = manylinux.policies(manylinux.architecture(libraries))
    newest = known[-1] if known else None
    for library in libraries:
        for name in manylinux.strangers(newest, library, found):
            if name not in SYSTEM and not _MUSL.fullmatch(name):
                report.add(
                    "needed",
                    f"needs {name}",
                    member=member_of(library),
                    expected="a library inside, one that a requirement is known to bring, "
                    "or one that every Linux has",
                )


def measure_floors(
    report: ArtifactReport, libraries: Sequence[SharedObject], found: Collection[str]
) -> dict[str, str]:
    """Notes the oldest systems that `libraries` run on, each by itself and all together.

    Args:
        report: takes the facts.
        libraries: all that were read.
        found: names and patterns of :func:`provided`.

    Returns:
        The newest version asked of each runtime, as :func:`elf.floors` has it.
    """
    together = elf.floors(
        f"{family}_{version}" for item in libraries for family, version in item.floors.items()
    )
    for family in ("GLIBC", "GLIBCXX", "CXXABI"):
        report.facts[family.lower()] = together.get(family, "")
    report.facts["gcc"] = together.get("GCC", "")
    report.facts["floors"] = {
        member_of(item): {**item.floors, "manylinux": _reached([item], found)} for item in libraries
    }
    report.facts["manylinux"] = _reached(libraries, found) if libraries else ""
    return together


def _reached(libraries: Sequence[SharedObject], found: Collection[str]) -> str:
    policy = manylinux.lowest(libraries, found)
    return policy.tag if policy else ""


def check_abi3(
    report: ArtifactReport, module: SharedObject, python: tuple[int, int] | None
) -> None:
    """The symbols of Python against CPython's stable ABI.

    Args:
        report: takes the check and its findings.
        module: the file.
        python: the oldest Python that the artifact promises to work with; None for none.
    """
    member = member_of(module)
    report.ran("abi3")
    found = abi3.audit(module)
    computed = "{}.{}".format(*found.python)
    report.facts["abi3"] = max(report.facts.get("abi3", ""), computed, key=_numbers)
    for name in found.strangers:
        report.add("abi3", f"{name} is not in the stable ABI", member=member)
    if python is not None and found.python > python:
        report.add(
            "abi3",
            f"needs Python {computed} ({', '.join(found.since(python))})",
            member=member,
            expected="{}.{} at most, as it promises".format(*python),
        )
    for name in found.libpython:
        report.add("abi3", f"needs {name}", member=member, expected="no library of one Python")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


class Looked:
    """The files of one artifact whose content is wanted: libraries, and texts that hooks ask for.

    Libraries wait in a file, of whatever size they are; texts are small, and kept in memory.

    Attributes:
        texts: the content of the latter, by path.
        binaries: the libraries, and what else begins as one, by path.
    """

    def __init__(self, artifact: str, wanted: Collection[str]) -> None:
        """Asks for the files `wanted`, paths and patterns, of `artifact`."""
        self.texts: dict[str, bytes] = {}
        self.binaries: dict[str, Content] = {}
        self._artifact = artifact
        self._exact = {name for name in wanted if manylinux.is_name(name)}
        self._patterns = [name for name in wanted if not manylinux.is_name(name)]
        self._room = Room()
        self._left = Allowance(limits.TEXTS, "the texts that are looked into")

    def take(self, path: str, size: int, chunks: Iterable[bytes]) -> None:
        """Takes what is wanted of a file, and reads all of it.

        Raises:
            ArtifactError: a text that is too large.
        """
        pieces = iter(chunks)
        first = next(pieces, b"")
        if path in self._exact or any(fnmatchcase(path, name) for name in self._patterns):
            where = f"{self._artifact}: {path}"
            if size > limits.TEXT_SIZE:
                raise ArtifactError(
                    f"{size} bytes, of a text that is looked into",
                    where=where,
                    expected=f"at most {limits.TEXT_SIZE} bytes",
                )
            self._left.spend(size, where)
            self.texts[path] = first + b"".join(pieces)
            first = self.texts[path]
        if first.startswith(_ELF):
            self.binaries[path] = self._room.keep(chain([first], pieces))
        elif LIBRARY.search(path):
            self.binaries[path] = Held(first[:_HEAD])
        for _ in pieces:
            pass


def read_libraries(
    report: ArtifactReport, contents: Mapping[str, Content], info_section: str
) -> dict[str, SharedObject]:
    """The shared objects of `contents` that can be read, by path.

    Raises:
        ArtifactError: they have more names and images together than may be kept.
    """
    left = Allowance(limits.LIBRARY_FACTS, "the facts of all libraries")
    found = {}
    for path in sorted(contents):
        library = read_library(report, path, contents[path], info_section)
        if library is not None:
            left.spend(library.weight, library.name)
            found[path] = library
    return found
