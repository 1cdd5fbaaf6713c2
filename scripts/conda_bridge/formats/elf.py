"""What is truly inside a shared object, read without loading it.

Files come out of archives from outside: every size and count is checked against the file before
anything is read, and whatever is wrong becomes one ArtifactError.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from elftools.elf.constants import SH_FLAGS
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import Section

from ..errors import ArtifactError
from . import fatbin

__all__ = [
    "SharedObject",
    "Symbol",
    "floors",
    "leaked_paths",
    "mangled_names",
    "parse_info",
    "read",
    "string_abi",
]

_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_MAX_ITEMS = 1 << 12  # of libraries, versions and dynamic entries; real files have hundreds
_GPU_SECTIONS = (*fatbin.SECTIONS, ".nvFatBinSegment", "__nv_module_id")
_VERSION = re.compile(r"^(GLIBC|GLIBCXX|CXXABI|GCC)_(\d+(?:\.\d+)*)$")

# Where people, build farms and conda put a build; such a path in a release is of no use to anyone.
_BUILD_PLACES = (
    *(
        b"/home/",
        b"/root/",
        b"/tmp/",
        b"/var/tmp/",
        b"/work/",
        b"/workspace/",
        b"/build/",
        b"/builds/",
    ),
    *(b"/mnt/", b"/Users/", b"/private/", b"/croot/", b"/feedstock_root/", b"/github/", b"/__w/"),
)
_CONDA_PLACES = (b"_h_env_placehold", b"/_build_env/", b"_test_env_placehold", b"/conda-bld/")
_PATH_START = re.compile(rb"[\w.$}/-]")  # before a path's first slash: it is not the start
_NOT_PATH = re.compile(rb"[^\x21-\x7e]")


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol.

    Attributes:
        name: as in the file, mangled.
        version: such as ``GLIBC_2.34``; empty where it has none.
        library: the library that has to provide it, where the file says so.
        weak: whether it may stay unresolved.
    """

    name: str
    version: str = ""
    library: str = ""
    weak: bool = False


@dataclass(frozen=True)
class SharedObject:
    """One ELF shared object.

    Attributes:
        name: for errors.
        machine: e.g. ``EM_X86_64``.
        soname: of a library; empty for an extension module.
        needed: the libraries the loader brings in, in order.
        rpath: DT_RPATH entries, which beat LD_LIBRARY_PATH.
        runpath: DT_RUNPATH entries.
        undefined: symbols that other libraries must provide.
        exported: symbols that it provides.
        required_versions: every symbol version asked of each library.
        sections: the names of all sections.
        debug_sections: those that only a debugger reads.
        info: the keys of its information section; None where there is none.
        gpu: the fat binaries, by section.
        build_id: in hexadecimal.
        data: the file.
    """

    name: str
    machine: str
    soname: str
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    undefined: tuple[Symbol, ...]
    exported: tuple[Symbol, ...]
    required_versions: Mapping[str, tuple[str, ...]]
    sections: tuple[str, ...]
    debug_sections: tuple[str, ...]
    info: Mapping[str, str] | None
    gpu: Mapping[str, tuple[fatbin.Container, ...]]
    build_id: str
    data: bytes | mmap.mmap = field(repr=False)

    @property
    def gpu_sections(self) -> tuple[str, ...]:
        """The sections that nvcc makes, with or without an image in them."""
        return tuple(name for name in self.sections if name in _GPU_SECTIONS)

    @property
    def gpu_codes(self) -> frozenset[str]:
        """All GPU code inside, e.g. ``{"sm_80", "compute_80", "sm_90a"}``."""
        containers = [c for found in self.gpu.values() for c in found]
        return frozenset().union(*(container.codes for container in containers))

    @cached_property
    def floors(self) -> dict[str, str]:
        """The newest version asked of each runtime: keys GLIBC, GLIBCXX, CXXABI, GCC."""
        return floors(name for versions in self.required_versions.values() for name in versions)

    @cached_property
    def leaks(self) -> tuple[str, ...]:
        """Paths of the machine that built it; see :func:`leaked_paths`."""
        return leaked_paths(self.data)


def floors(versions: Iterator[str] | tuple[str, ...]) -> dict[str, str]:
    """The newest of each family of symbol versions.

    >>> floors(("GLIBC_2.2.5", "GLIBC_2.34", "GLIBCXX_3.4.30"))
    {'GLIBC': '2.34', 'GLIBCXX': '3.4.30'}
    """
    newest: dict[str, tuple[int, ...]] = {}
    for version in versions:
        found = _VERSION.match(version)
        if found:
            number = tuple(int(part) for part in found[2].split("."))
            newest[found[1]] = max(newest.get(found[1], ()), number)
    return {family: ".".join(map(str, number)) for family, number in sorted(newest.items())}


def leaked_paths(data: bytes | mmap.mmap) -> tuple[str, ...]:
    """Absolute paths of build places in `data`, each once, at most 20."""
    found: dict[str, None] = {}
    for place in _BUILD_PLACES:
        for position in _occurrences(data, place):
            if _PATH_START.match(data, max(position - 1, 0), position):
                continue
            path = _NOT_PATH.split(data[position : position + 400], maxsplit=1)[0]
            if len(path) > len(place) + 1:
                found[path.decode("ascii")] = None
    for place in _CONDA_PLACES:
        for position in _occurrences(data, place):
            before = _NOT_PATH.split(data[max(position - 300, 0) : position])[-1]
            after = _NOT_PATH.split(data[position : position + 100], maxsplit=1)[0]
            found[(before + after).decode("ascii")] = None
    return tuple(islice(found, 20))


def _occurrences(data: bytes | mmap.mmap, what: bytes) -> Iterator[int]:
    position = data.find(what)
    for _ in range(100):
        if position < 0:
            return
        yield position
        position = data.find(what, position + 1)


def parse_info(text: str) -> dict[str, str]:
    """The keys of an information section: lines of ``key=value``.

    Raises:
        ValueError: a line of another form, or a key that is there twice.
    """
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"{line[:80]!r} is not of the form key=value")
        if key in values:
            raise ValueError(f"{key!r} is there twice")
        values[key] = value
    return values


def string_abi(names: Iterator[str] | tuple[str, ...]) -> Literal["", "old", "new", "mixed"]:
    """Which of libstdc++'s two ``std::string`` types occur in mangled names.

    >>> string_abi(("_ZN3c105ErrorC1ENS_14SourceLocationESs",))
    'old'
    """
    old = new = False
    for name in names:
        tokens = set(mangled_names(name))
        new = new or "__cxx11" in tokens or "cxx11" in tokens
        old = old or "Ss" in tokens
    if old and new:
        return "mixed"
    return "new" if new else "old" if old else ""


def mangled_names(name: str) -> Iterator[str]:
    """The identifiers and the ``Ss`` in an Itanium-mangled name.

    Lengths are followed, so letters inside an identifier are not taken for codes.

    >>> list(mangled_names("_ZN3c105ErrorC1ENS_14SourceLocationESs"))
    ['c10', 'Error', 'SourceLocation', 'Ss']
    """
    if not name.startswith("_Z"):
        return
    position = 2
    while position < len(name):
        literal = _NOT_A_LENGTH.match(name, position)
        if literal:
            position = literal.end()
            continue
        length = _LENGTH.match(name, position)
        if length:
            position = length.end() + int(length[0])
            yield name[length.end() : position]
        elif name.startswith("Ss", position):
            yield "Ss"
            position += 2
        else:
            position += 1


_LENGTH = re.compile(r"[1-9]\d{0,4}")
# Back references (S_, S0_, T_, T1_), literals (Lb1E, Lin4E), array bounds (A10_), function
# parameters (fp0_), constructors and destructors (C1E): digits in them are no lengths.
_NOT_A_LENGTH = re.compile(
    r"S[0-9A-Z]*_|T\d*_|L[a-z]n?\d+E|A\d+_|fL?\d*p[rVK]*\d*_|[CD][0-5](?=[EIB])"
)


def read(
    data: bytes | mmap.mmap, name: str, *, info_section: str = "", program: bool = False
) -> SharedObject:
    """Reads a 64-bit little-endian ELF shared object.

    Args:
        data: the whole file; in memory or mapped.
        name: the file, for errors.
        info_section: the section in which a build wrote ``key=value`` lines; empty for none.
        program: it may be an executable file, too, and one that needs no loader.

    Raises:
        ArtifactError: not such a file, or one that contradicts itself.
    """
    try:
        return _Reader(data, name, info_section, program).read()
    except ArtifactError:
        raise
    except Exception as error:  # pyelftools raises many kinds for a malformed file
        raise ArtifactError(
            f"cannot be read as an ELF file ({type(error).__name__}: {error})", where=name
        ) from error


class _Reader:
    def __init__(
        self, data: bytes | mmap.mmap, name: str, info_section: str, program: bool
    ) -> None:
        self.data = data
        self.view = memoryview(data)
        self.name = name
        self.info_section = info_section
        self.program = program

    def fail(self, what: str) -> ArtifactError:
        return ArtifactError(what, where=self.name)

    def read(self) -> SharedObject:
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise self.fail("is no 64-bit little-endian ELF file")
        stream: Any = io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data
        elf = ELFFile(stream)
        if elf.header.e_type != "ET_DYN" and not (self.program and elf.header.e_type == "ET_EXEC"):
            raise self.fail(f"is {elf.header.e_type}, not a shared object")
        sections = self._sections(elf)
        dynamic = sections.get(".dynamic")
        if not isinstance(dynamic, DynamicSection):
            if self.program and ".dynamic" not in sections:
                return self._static(elf.header.e_machine, sections)
            raise self.fail("has no dynamic section")
        tags: dict[str, list[str]] = {
            "DT_NEEDED": [],
            "DT_RPATH": [],
            "DT_RUNPATH": [],
            "DT_SONAME": [],
        }
        for tag in self._limited(dynamic.iter_tags(), "dynamic entries"):
            if tag.entry.d_tag in tags:
                attribute = tag.entry.d_tag.removeprefix("DT_").lower()
                tags[tag.entry.d_tag].append(getattr(tag, attribute))
        required, defined = self._versions(sections)
        undefined, exported = self._symbols(sections, {**defined, **required})
        libraries: dict[str, list[str]] = {}
        for library, version in required.values():
            libraries.setdefault(library, []).append(version)
        return SharedObject(
            name=self.name,
            machine=elf.header.e_machine,
            soname="".join(tags["DT_SONAME"]),
            needed=tuple(tags["DT_NEEDED"]),
            rpath=_entries(tags["DT_RPATH"]),
            runpath=_entries(tags["DT_RUNPATH"]),
            undefined=undefined,
            exported=exported,
            required_versions={key: tuple(sorted(value)) for key, value in libraries.items()},
            sections=tuple(sections),
            debug_sections=tuple(
                section
                for section in sections
                if section.startswith((".debug", ".zdebug", ".stab"))
            ),
            info=self._info(sections),
            gpu={
                section: fatbin.parse(
                    self._bytes(sections[section]), where=f"{self.name} {section}"
                )
                for section in fatbin.SECTIONS
                if section in sections
            },
            build_id=self._build_id(sections),
            data=self.data,
        )

    def _static(self, machine: str, sections: Mapping[str, Section]) -> SharedObject:
        """A program that asks nothing of the system's libraries."""
        return SharedObject(
            self.name, machine, "", (), (), (), (), (), {}, tuple(sections), (), None, {}, "",
            self.data,
        )  # fmt: skip

    def _limited(self, items: Iterator[Any], what: str) -> Iterator[Any]:
        for count, item in enumerate(items):
            if count >= _MAX_ITEMS:
                raise self.fail(f"has more than {_MAX_ITEMS} {what}")
            yield item

    def _sections(self, elf: ELFFile) -> dict[str, Section]:
        """The sections by name, each of them within the file."""
        count = elf.num_sections()
        if count == 0 or elf["e_shoff"] + count * elf["e_shentsize"] > len(self.data):
            raise self.fail("has no section table, or one that lies outside the file")
        sections: dict[str, Section] = {}
        for section in self._limited(elf.iter_sections(), "sections"):
            occupies = section["sh_type"] not in ("SHT_NOBITS", "SHT_NULL")
            if occupies and section["sh_offset"] + section["sh_size"] > len(self.data):
                raise self.fail(f"section {section.name!r} lies outside the file")
            if section.name in sections:
                if section.name and section.name in (
                    *(self.info_section, ".dynamic", ".dynsym"),
                    *fatbin.SECTIONS,
                ):
                    raise self.fail(f"has two sections {section.name!r}")
                continue
            sections[section.name] = section
        return sections

    def _bytes(self, section: Section) -> memoryview:
        if section["sh_type"] == "SHT_NOBITS" or section["sh_flags"] & SH_FLAGS.SHF_COMPRESSED:
            raise self.fail(f"section {section.name!r} holds no plain bytes")
        return self.view[section["sh_offset"] : section["sh_offset"] + section["sh_size"]]

    def _info(self, sections: Mapping[str, Section]) -> Mapping[str, str] | None:
        if not self.info_section or self.info_section not in sections:
            return None
        raw = bytes(self._bytes(sections[self.info_section])).rstrip(b"\0")
        try:
            return parse_info(raw.decode("ascii"))
        except ValueError as error:
            raise self.fail(f"section {self.info_section!r}: {error}") from error

    def _build_id(self, sections: Mapping[str, Section]) -> str:
        section = sections.get(".note.gnu.build-id")
        if section is None:
            return ""
        raw = self._bytes(section)
        name_size, size, _kind = struct.unpack_from("<III", raw)
        start = 12 + (name_size + 3 & ~3)
        return bytes(raw[start : start + size]).hex()

    def _versions(
        self, sections: Mapping[str, Section]
    ) -> tuple[dict[int, tuple[str, str]], dict[int, tuple[str, str]]]:
        """(library, version) by version index: what is required, what is defined."""
        required: dict[int, tuple[str, str]] = {}
        defined: dict[int, tuple[str, str]] = {}
        needs, defines = sections.get(".gnu.version_r"), sections.get(".gnu.version_d")
        if isinstance(needs, GNUVerNeedSection):
            for library, versions in self._limited(needs.iter_versions(), "versioned libraries"):
                for version in self._limited(versions, "versions"):
                    required[version.entry.vna_other & 0x7FFF] = (library.name, version.name)
        if isinstance(defines, GNUVerDefSection):
            for definition, names in self._limited(defines.iter_versions(), "versions"):
                name = next(iter(names)).name
                defined[definition.entry.vd_ndx & 0x7FFF] = ("", name)
        return required, defined

    def _symbols(
        self, sections: Mapping[str, Section], versions: Mapping[int, tuple[str, str]]
    ) -> tuple[tuple[Symbol, ...], tuple[Symbol, ...]]:
        """The undefined and the exported symbols of ``.dynsym``."""
        if ".dynsym" not in sections or ".dynstr" not in sections:
            raise self.fail("has no dynamic symbols")
        table = self._bytes(sections[".dynsym"])
        names = bytes(self._bytes(sections[".dynstr"]))
        indices = b""
        if isinstance(sections.get(".gnu.version"), GNUVerSymSection):
            indices = bytes(self._bytes(sections[".gnu.version"]))
        count = len(table) // _SYMBOL.size
        undefined, exported = [], []
        for number, (offset, info, other, section, _, _) in enumerate(
            _SYMBOL.iter_unpack(table[: count * _SYMBOL.size])
        ):
            if offset == 0 or offset >= len(names):
                continue
            name = names[offset : names.index(b"\0", offset)].decode("utf-8", "backslashreplace")
            index = int.from_bytes(indices[2 * number : 2 * number + 2], "little") & 0x7FFF
            library, version = versions.get(index, ("", ""))
            symbol = Symbol(name, version, library, info >> 4 == 2)
            if section == 0:
                undefined.append(symbol)
            elif info >> 4 != 0 and other & 3 in (0, 3):
                exported.append(symbol)
        return tuple(undefined), tuple(exported)


def _entries(paths: list[str]) -> tuple[str, ...]:
    return tuple(entry for path in paths for entry in path.split(":"))
