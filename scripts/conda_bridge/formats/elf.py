"""What is truly inside a shared object, read without loading it, and without holding it.

Files come out of archives from outside: :mod:`.elf_tables` checks every size and count against the
file before anything is read, and whatever is wrong becomes one ArtifactError.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import Literal

from ..errors import ArtifactError
from . import fatbin, limits
from .content import PIECE, Content, Held, Room, as_content
from .elf_tables import ElfTables, Strings, SymbolTables

__all__ = [
    "SharedObject",
    "Symbol",
    "Symbols",
    "floors",
    "leaked_paths",
    "mangled_names",
    "parse_info",
    "read",
    "string_abi",
]

_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_AT_ONCE = 1 << 15  # symbols that are read in one piece
_TAGS = {1: "needed", 14: "soname", 15: "rpath", 29: "runpath"}
_FACT = 200  # bytes that one name or image takes beside its text
_GPU_SECTIONS = (*fatbin.SECTIONS, ".nvFatBinSegment", "__nv_module_id")
_VERSION = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC)_(\d{1,9}(?:\.\d{1,9})*)", re.ASCII)

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


@dataclass(frozen=True, slots=True)
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


class Symbols:
    """Dynamic symbols, read from the file each time that one goes through them.

    A library may have more of them than should be in memory.
    """

    def __init__(
        self, tables: SymbolTables, versions: Mapping[int, tuple[str, str]], *, undefined: bool
    ) -> None:
        self.tables = tables
        self._versions = versions
        self._undefined = undefined

    def moved(self, tables: SymbolTables) -> Symbols:
        """The same symbols, read from a copy of the tables."""
        return Symbols(tables, self._versions, undefined=self._undefined)

    def __iter__(self) -> Iterator[Symbol]:
        names = self.tables.names.at(0, self.tables.names.size)
        table = self.tables.symbols
        for at in range(0, table.size, _AT_ONCE * _SYMBOL.size):
            piece = table.at(at, _AT_ONCE * _SYMBOL.size)
            indices = self.tables.indices.at(at // _SYMBOL.size * 2, _AT_ONCE * 2)
            for number, (offset, info, other, section, _, _) in enumerate(_symbols(piece)):
                if offset == 0 or (section == 0) != self._undefined:
                    continue
                if section and (info >> 4 == 0 or other & 3 not in (0, 3)):
                    continue  # of this library alone
                name = names[offset : names.index(b"\0", offset)]
                index = int.from_bytes(indices[2 * number : 2 * number + 2], "little") & 0x7FFF
                library, version = self._versions.get(index, ("", ""))
                yield Symbol(
                    name.decode("utf-8", "backslashreplace"), version, library, info >> 4 == 2
                )


def _symbols(piece: bytes) -> Iterator[tuple[int, ...]]:
    return _SYMBOL.iter_unpack(piece[: len(piece) // _SYMBOL.size * _SYMBOL.size])


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
        undefined: symbols that other libraries must provide; read again each time.
        exported: symbols that it provides; so, too.
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
    undefined: Iterable[Symbol]
    exported: Iterable[Symbol]
    required_versions: Mapping[str, tuple[str, ...]]
    sections: tuple[str, ...]
    debug_sections: tuple[str, ...]
    info: Mapping[str, str] | None
    gpu: Mapping[str, tuple[fatbin.Container, ...]]
    build_id: str
    data: Content = field(repr=False)

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

    @property
    def weight(self) -> int:
        """Bytes of memory that its facts take, about; its symbols are not kept."""
        names = [self.soname, *self.needed, *self.rpath, *self.runpath, *self.sections]
        names += [name for versions in self.required_versions.values() for name in versions]
        images = sum(len(item.images) + 1 for found in self.gpu.values() for item in found)
        return sum(map(len, names)) + _FACT * (len(names) + images)

    def without_data(self, room: Room) -> SharedObject:
        """The same without the file; what its symbols are read from goes into `room`."""
        undefined, exported = self.undefined, self.exported
        if isinstance(undefined, Symbols) and isinstance(exported, Symbols):
            tables = undefined.tables.moved(room)
            undefined, exported = undefined.moved(tables), exported.moved(tables)
        return replace(self, undefined=undefined, exported=exported, data=Held(b""))

    @cached_property
    def leaks(self) -> tuple[str, ...]:
        """Paths of the machine that built it; see :func:`leaked_paths`."""
        return leaked_paths(self.data)

    @cached_property
    def compilers(self) -> tuple[str, ...]:
        """What ``.comment`` says, in order: ``GCC: (Debian 12.2.0-14+deb12u1) 12.2.0``.

        Each object that was linked in has its compiler's.
        """
        tables = ElfTables(self.data, self.name, program=False)
        if ".comment" not in tables.sections:
            return ()
        raw = tables.read(".comment", limits.ELF_INFO)
        words = (text.decode("utf-8", "backslashreplace") for text in raw.split(b"\0"))
        return tuple(dict.fromkeys(filter(None, words)))

    @cached_property
    def gpu_producers(self) -> frozenset[str]:
        """The releases of the CUDA tools that made its GPU code; see :func:`.fatbin.producer`.

        One cubin of each translation unit is looked at: one nvcc made all of a unit's.
        """
        tables = ElfTables(self.data, self.name, program=False)
        found = set()
        for section, containers in self.gpu.items():
            content = tables.plain(tables.sections[section], self.data.size)
            found |= {
                fatbin.producer(content, image)
                for container in containers
                for image in [one for one in container.images if one.kind == "cubin"][:1]
            }
        return frozenset(filter(None, found))


def floors(versions: Iterator[str] | tuple[str, ...]) -> dict[str, str]:
    """The newest of each family of symbol versions.

    >>> floors(("GLIBC_2.2.5", "GLIBC_2.34", "GLIBCXX_3.4.30"))
    {'GLIBC': '2.34', 'GLIBCXX': '3.4.30'}
    """
    newest: dict[str, tuple[int, ...]] = {}
    for version in versions:
        found = _VERSION.fullmatch(version)
        if found:
            number = tuple(int(part) for part in found[2].split("."))
            newest[found[1]] = max(newest.get(found[1], ()), number)
    return {family: ".".join(map(str, number)) for family, number in sorted(newest.items())}


def leaked_paths(data: bytes | Content) -> tuple[str, ...]:
    """Absolute paths of build places in `data`, each once, at most 20."""
    found: dict[bytes, list[str]] = {place: [] for place in (*_BUILD_PLACES, *_CONDA_PLACES)}
    left = dict.fromkeys(found, 100)  # of each place
    content = as_content(data)
    for start in range(0, content.size, PIECE):
        # What lies across the border of two pieces is seen with the first.
        before = min(start, _BEFORE)
        piece = content.at(start - before, before + PIECE + _BEHIND)
        for place, paths in found.items():
            for position in _occurrences(piece, place, before, before + PIECE):
                if not left[place]:
                    break
                left[place] -= 1
                if place in _CONDA_PLACES:
                    paths.append(_path_around(piece, position))
                elif path := _path_from(piece, position, len(place)):
                    paths.append(path)
    return tuple(islice(dict.fromkeys(chain.from_iterable(found.values())), 20))


_BEFORE, _BEHIND = 300, 400  # bytes of a path that are looked at


def _path_from(data: bytes, position: int, shortest: int) -> str:
    """The path that begins at `position`; empty where it begins before, or is not longer."""
    if _PATH_START.match(data, max(position - 1, 0), position):
        return ""
    path = _NOT_PATH.split(data[position : position + _BEHIND], maxsplit=1)[0]
    return path.decode("ascii") if len(path) > shortest + 1 else ""


def _path_around(data: bytes, position: int) -> str:
    before = _NOT_PATH.split(data[max(position - _BEFORE, 0) : position])[-1]
    after = _NOT_PATH.split(data[position : position + 100], maxsplit=1)[0]
    return (before + after).decode("ascii")


def _occurrences(data: bytes, what: bytes, start: int, end: int) -> Iterator[int]:
    """Where `what` begins in `data`, from `start` on and before `end`."""
    position = data.find(what, start, end + len(what) - 1)
    while position >= 0:
        yield position
        position = data.find(what, position + 1, end + len(what) - 1)


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
    while found := _CODE.search(name, position):
        position = found.end()
        if found["length"]:
            start, position = position, position + int(found["length"])
            yield name[start:position]
        elif found["string"]:
            yield "Ss"


# Back references (S_, S0_, T_, T1_), literals (Lb1E, Lin4E), array bounds (A10_), function
# parameters (fp0_), constructors and destructors (C1E): digits in them are no lengths. All are
# bounded, or a name without an end of one would be gone through again from each of its letters.
_CODE = re.compile(
    r"S[0-9A-Z]{0,13}_|T\d{0,9}_|L[a-z]n?\d{1,40}E|A\d{1,20}_|fL?\d{0,9}p[rVK]{0,3}\d{0,9}_"
    r"|[CD][0-5](?=[EIB])|(?P<length>[1-9]\d{0,4})|(?P<string>Ss)",
    re.ASCII,
)


def read(
    data: bytes | Content, name: str, *, info_section: str = "", program: bool = False
) -> SharedObject:
    """Reads a 64-bit little-endian ELF shared object.

    Args:
        data: the whole file; what is read keeps it.
        name: the file, for errors.
        info_section: the section in which a build wrote ``key=value`` lines; empty for none.
        program: it may be an executable file, too, and one that needs no loader.

    Raises:
        ArtifactError: not such a file, or one that contradicts itself.
    """
    content = as_content(data)
    tables = ElfTables(content, name, program=program)
    for unique in (info_section, *fatbin.SECTIONS, ".dynamic"):
        if unique and unique in tables.twice:
            raise ArtifactError(f"has two sections {unique!r}", where=name)
    if program and tables.is_static:
        return _made(tables, {})
    texts: dict[str, list[str]] = {key: [] for key in _TAGS.values()}
    for tag, value in tables.dynamic:
        if tag in _TAGS:
            texts[_TAGS[tag]].append(tables.strings.text(value))
    required = tables.required_versions()
    versions = {**tables.defined_versions(), **required}
    symbols = tables.symbols()
    _check_names(tables, symbols)
    libraries: dict[str, list[str]] = {}
    for library, version in required.values():
        libraries.setdefault(library, []).append(version)
    return _made(
        tables,
        texts,
        undefined=Symbols(symbols, versions, undefined=True),
        exported=Symbols(symbols, versions, undefined=False),
        required_versions={key: tuple(sorted(value)) for key, value in libraries.items()},
        info=_info(tables, info_section),
        gpu={
            section: fatbin.parse(
                tables.plain(tables.sections[section], content.size), where=f"{name} {section}"
            )
            for section in fatbin.SECTIONS
            if section in tables.sections
        },
        build_id=_build_id(tables),
    )


def _made(
    tables: ElfTables,
    texts: Mapping[str, list[str]],
    *,
    undefined: Iterable[Symbol] = (),
    exported: Iterable[Symbol] = (),
    required_versions: Mapping[str, tuple[str, ...]] | None = None,
    info: Mapping[str, str] | None = None,
    gpu: Mapping[str, tuple[fatbin.Container, ...]] | None = None,
    build_id: str = "",
) -> SharedObject:
    """What was read; without the rest a program that asks nothing of the system's libraries."""
    return SharedObject(
        name=tables.where,
        machine=tables.machine,
        soname="".join(texts.get("soname", ())),
        needed=tuple(texts.get("needed", ())),
        rpath=_entries(texts.get("rpath", ())),
        runpath=_entries(texts.get("runpath", ())),
        undefined=undefined,
        exported=exported,
        required_versions=required_versions or {},
        sections=tuple(tables.sections),
        debug_sections=tuple(
            section
            for section in tables.sections
            if texts and section.startswith((".debug", ".zdebug", ".stab"))
        ),
        info=info,
        gpu=gpu or {},
        build_id=build_id,
        data=tables.content,
    )


def _check_names(tables: ElfTables, symbols: SymbolTables) -> None:
    """Every symbol has a name that ends, and together they are no longer than such a table holds.

    Raises:
        ArtifactError: one has not, or they are.
    """
    names = Strings(
        symbols.names.at(0, symbols.names.size),
        tables.sections[".dynstr"].offset,
        tables.where,
        room=limits.ELF_OVERLAP * symbols.names.size,
        longest=limits.ELF_NAME,
    )
    for piece in symbols.symbols.pieces(_AT_ONCE * _SYMBOL.size):
        for offset, *_ in _symbols(piece):
            if offset:
                names.end(offset)


def _info(tables: ElfTables, name: str) -> Mapping[str, str] | None:
    if not name or name not in tables.sections:
        return None
    raw = tables.read(name, limits.ELF_INFO).rstrip(b"\0")
    try:
        return parse_info(raw.decode("ascii"))
    except ValueError as error:
        raise tables.fault(f"section {name!r}: {error}", tables.sections[name].offset) from error


def _build_id(tables: ElfTables) -> str:
    name = ".note.gnu.build-id"
    section = tables.sections.get(name)
    if section is None:
        return ""
    raw = tables.read(name, limits.ELF_INFO)
    size, start = 0, 0
    if len(raw) >= _NOTE.size:
        name_size, size, _kind = _NOTE.unpack_from(raw)
        start = _NOTE.size + (name_size + 3 & ~3)
    if not size or start + size > len(raw) or size > _LONGEST_ID:
        raise tables.fault(
            f"section {name!r} holds no build ID: {size} of {len(raw)} bytes", section.offset
        )
    return raw[start : start + size].hex()


_NOTE = struct.Struct("<III")  # sizes of name and content, kind
_LONGEST_ID = 64


def _entries(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(entry for path in paths for entry in path.split(":"))
