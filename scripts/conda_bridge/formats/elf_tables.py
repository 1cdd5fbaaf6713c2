"""The tables of a 64-bit little-endian ELF file: where they are, and that a loader finds the same.

Programs that inspect go by sections, the loader by segments and addresses; here both have to lead
to the same bytes, so what is read is what will be loaded. Every offset, size and count is compared
with the file and with :mod:`.limits` before anything is read. Lists are followed forward only, and
the text of all names of a table is bounded, since names may overlap: the work grows with the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from elftools.elf.enums import ENUM_E_MACHINE, ENUM_E_TYPE

from ..errors import ArtifactError
from . import limits
from .content import Content, Held, Room

__all__ = ["ElfTables", "Section", "Strings", "SymbolTables"]

_FILE = struct.Struct("<6s10xHHI3QI6H")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<QQ")
_NEED = struct.Struct("<HHIII")  # version, count, file, first, next
_NEEDED_VERSION = struct.Struct("<IHHII")  # hash, flags, index, name, next
_DEFINITION = struct.Struct("<HHHHIII")  # version, flags, index, count, hash, first, next
_DEFINED_NAME = struct.Struct("<II")

_PLAIN = b"\x7fELF\x02\x01"
_ET_EXEC, _ET_DYN = 2, 3
_LOAD, _DYNAMIC_SEGMENT = 1, 2
_NULL, _STRINGS, _DYNAMIC_SECTION, _NOBITS, _SYMBOLS = 0, 3, 6, 8, 11
_DEFINED, _NEEDED, _INDICES = 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_COMPRESSED = 1 << 11  # SHF_COMPRESSED
_TYPES = {number: name for name, number in ENUM_E_TYPE.items() if isinstance(number, int)}
_MACHINES = {number: name for name, number in ENUM_E_MACHINE.items() if isinstance(number, int)}

# Tag of the dynamic section -> the section that has to lie at that address, and its type.
_ADDRESSES = {
    5: (".dynstr", _STRINGS),
    6: (".dynsym", _SYMBOLS),
    0x6FFFFFF0: (".gnu.version", _INDICES),
    0x6FFFFFFC: (".gnu.version_d", _DEFINED),
    0x6FFFFFFE: (".gnu.version_r", _NEEDED),
}
# Tag -> section and field that say the same number.
_NUMBERS = {
    10: (".dynstr", "size"),
    0x6FFFFFFD: (".gnu.version_d", "info"),
    0x6FFFFFFF: (".gnu.version_r", "info"),
}
_SONAME = 14
_ONCE = {*_ADDRESSES, *_NUMBERS, _SONAME}
_SYMBOL_SIZE = 24
_REBUILD = "build or fetch it again"


@dataclass(frozen=True, slots=True)
class Section:
    """A section's header.

    Attributes:
        name: unchecked, but not longer than a name may be.
        kind: its type.
        flags, address, offset, size, link, info, entry: as in the header.
    """

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    entry: int


@dataclass(frozen=True, slots=True)
class SymbolTables:
    """What dynamic symbols are read from.

    Attributes:
        symbols: the table.
        indices: the index of the version of each; empty where there are none.
        names: the table of names.
    """

    symbols: Content
    indices: Content
    names: Content

    def moved(self, room: Room) -> SymbolTables:
        """A copy in `room`."""
        return SymbolTables(
            room.keep(self.symbols.pieces()),
            room.keep(self.indices.pieces()),
            room.keep(self.names.pieces()),
        )


class Strings:
    """A table of names, each of which ends with a zero byte.

    Args:
        data: the table.
        offset: where it lies in the file, for messages.
        where: the file, for messages.
        room: characters of all names that may be read from it.
        longest: bytes of one.
    """

    def __init__(self, data: bytes, offset: int, where: str, *, room: int, longest: int) -> None:
        self._data = data
        self._offset = offset
        self._where = where
        self._room = self._left = room
        self._longest = longest

    def end(self, start: int) -> int:
        """Where the name at `start` ends; its length counts as read.

        Raises:
            ArtifactError: it lies outside the table, does not end, or is too long; or all names
                that were read are.
        """
        if not 0 <= start < len(self._data):
            raise self._fault(
                start, f"a name at {start:#x}", f"within a table of {len(self._data)} bytes"
            )
        end = self._data.find(b"\0", start, start + self._longest + 1)
        if end < 0:
            raise self._fault(
                start,
                "a name without an end",
                f"a zero byte within {self._longest} bytes, before the table's end",
            )
        self._left -= end - start
        if self._left < 0:
            raise self._fault(
                start,
                f"names of more than {self._room} characters together, which overlap",
                f"at most {self._room} from this table",
            )
        return end

    def text(self, start: int) -> str:
        """The name at `start`."""
        return self._data[start : self.end(start)].decode("utf-8", "backslashreplace")

    def _fault(self, start: int, what: str, expected: str) -> ArtifactError:
        return ArtifactError(
            f"{what} (at byte {self._offset + start} of the file)",
            where=self._where,
            expected=expected,
            fix=_REBUILD,
        )


class ElfTables:
    """The tables of one file.

    Args:
        content: the file.
        where: its name, for messages.
        program: it may be an executable file, too.

    Attributes:
        machine: e.g. ``EM_X86_64``.
        sections: by name, the first of each, in the file's order.
        twice: the names that several sections have.

    Raises:
        ArtifactError: no such file, or one whose headers lead out of it or are too many.
    """

    def __init__(self, content: Content, where: str, *, program: bool) -> None:
        self.content = content
        self.where = where
        head = content.at(0, _FILE.size)
        if not head.startswith(_PLAIN):
            raise self.fault("is no 64-bit little-endian ELF file", 0)
        if len(head) < _FILE.size:
            raise self.fault("is no ELF file: it ends within its header", len(head))
        (
            _, kind, machine, _, _, segments, sections, _, size,
            segment_size, segment_count, section_size, section_count, names,
        ) = _FILE.unpack(head)  # fmt: skip
        if kind != _ET_DYN and not (program and kind == _ET_EXEC):
            raise self.fault(f"is {_TYPES.get(kind, kind)}, not a shared object", 16)
        if size != _FILE.size:
            raise self.fault(f"a header of {size} bytes", 52, str(_FILE.size))
        self.machine = str(_MACHINES.get(machine, f"machine {machine}"))
        self._segments = self._read_segments(segments, segment_size, segment_count)
        self._all = self._read_sections(sections, section_size, section_count, names)
        self.sections: dict[str, Section] = {}
        self.twice: set[str] = set()
        for section in self._all:
            if self.sections.setdefault(section.name, section) is not section:
                self.twice.add(section.name)

    def fault(self, what: str, offset: int, expected: str = "") -> ArtifactError:
        """What is wrong with the file, and where."""
        return ArtifactError(
            f"{what} (at byte {offset})", where=self.where, expected=expected, fix=_REBUILD
        )

    # ------------------------------------------------------------ headers

    def _table(
        self, what: str, offset: int, item: struct.Struct, size: int, count: int, limit: int
    ) -> Iterator[tuple[int, ...]]:
        if count > limit:
            raise self.fault(f"has more than {limit} {what}s: {count}", offset)
        if size != item.size:
            raise self.fault(f"{what} headers of {size} bytes", offset, f"{item.size} bytes")
        if offset < _FILE.size or offset + count * size > self.content.size:
            raise self.fault(
                f"has no {what} table, or one that lies outside the file: {count} headers",
                offset,
                f"within its {self.content.size} bytes",
            )
        return item.iter_unpack(self.content.at(offset, count * size))

    def _read_segments(self, offset: int, size: int, count: int) -> list[tuple[int, ...]]:
        if not count:
            return []
        return list(self._table("segment", offset, _SEGMENT, size, count, limits.ELF_SEGMENTS))

    def _read_sections(self, offset: int, size: int, count: int, names: int) -> list[Section]:
        if not count:
            raise self.fault("has no section table, or one that lies outside the file", offset)
        found = list(self._table("section", offset, _SECTION, size, count, limits.ELF_SECTIONS))
        if names >= count:
            raise self.fault(f"names of sections in section {names}", 62, f"one of the {count}")
        _, kind, _, _, start, length, *_ = found[names]
        if kind != _STRINGS:
            raise self.fault(f"names of sections in a section of type {kind}", 62, "a string table")
        strings = self._strings(start, length, "the names of sections", limits.ELF_TEXT)
        made = []
        for name, kind, flags, address, start, length, link, info, _, entry in found:
            text = strings.text(name)
            if kind not in (_NOBITS, _NULL) and start + length > self.content.size:
                raise self.fault(
                    f"section {text!r} lies outside the file: {length} bytes",
                    start,
                    f"within its {self.content.size} bytes",
                )
            made.append(Section(text, kind, flags, address, start, length, link, info, entry))
        return made

    def _strings(self, offset: int, size: int, what: str, limit: int) -> Strings:
        """A table of few names, which are kept."""
        if offset + size > self.content.size:
            raise self.fault(f"{what} lie outside the file: {size} bytes", offset)
        if size > limit:
            raise self.fault(f"{what} take {size} bytes", offset, f"at most {limit} bytes")
        return Strings(
            self.content.at(offset, size),
            offset,
            self.where,
            room=limits.ELF_TEXT,
            longest=limits.NAME_LENGTH,
        )

    # ------------------------------------------------------------ sections

    def plain(self, section: Section, limit: int) -> Content:
        """The bytes of a section.

        Raises:
            ArtifactError: it has none in the file, they are compressed, or are more than `limit`.
        """
        if section.kind == _NOBITS or section.flags & _COMPRESSED:
            raise self.fault(f"section {section.name!r} holds no plain bytes", section.offset)
        if section.size > limit:
            raise self.fault(
                f"section {section.name!r} has {section.size} bytes",
                section.offset,
                f"at most {limit} bytes",
            )
        return self.content.part(section.offset, section.size)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of the section `name`; none where there is no such section."""
        section = self.sections.get(name)
        if section is None:
            return b""
        content = self.plain(section, limit)
        return content.at(0, content.size)

    # ------------------------------------------------------------ what a loader reads

    @property
    def is_static(self) -> bool:
        """Whether there is nothing for a loader to do."""
        return ".dynamic" not in self.sections and not any(
            segment[0] == _DYNAMIC_SEGMENT for segment in self._segments
        )

    @cached_property
    def dynamic(self) -> list[tuple[int, int]]:
        """The entries of the dynamic section: (tag, value), up to the one that ends it.

        Raises:
            ArtifactError: there is none, or a loader would read another one than this.
        """
        section = self.sections.get(".dynamic")
        if section is None or section.kind != _DYNAMIC_SECTION:
            raise self.fault("has no dynamic section", 0)
        segments = [segment for segment in self._segments if segment[0] == _DYNAMIC_SEGMENT]
        if [(segment[2], segment[5]) for segment in segments] != [(section.offset, section.size)]:
            found = ", ".join(f"{item[5]} bytes at {item[2]:#x}" for item in segments[:4])
            raise self.fault(
                f"the section .dynamic has {section.size} bytes at {section.offset:#x}, and the"
                f" segment that a loader reads {found or 'is not there'}",
                section.offset,
                "one segment, the same bytes",
            )
        entries: list[tuple[int, int]] = []
        size = limits.ELF_DYNAMIC * _DYNAMIC.size
        data = self.content.at(section.offset, min(section.size, size + _DYNAMIC.size))
        for tag, value in _DYNAMIC.iter_unpack(data[: len(data) // _DYNAMIC.size * _DYNAMIC.size]):
            if tag == _NULL:
                break
            if len(entries) == limits.ELF_DYNAMIC:
                raise self.fault(
                    f"has more than {limits.ELF_DYNAMIC} dynamic entries", section.offset
                )
            entries.append((tag, value))
        self._check_dynamic(section, entries)
        return entries

    def _check_dynamic(self, section: Section, entries: list[tuple[int, int]]) -> None:
        """The addresses in the dynamic section lead to the sections that are read here."""
        values = dict(entries)
        tags = [tag for tag, _ in entries if tag in _ONCE]
        if len(tags) != len(set(tags)):
            raise self.fault("an entry of the dynamic section is there twice", section.offset)
        for tag, (name, kind) in _ADDRESSES.items():
            found = self.sections.get(name)
            if name in self.twice:
                raise self.fault(f"has two sections {name!r}", section.offset)
            if found is not None and found.kind != kind:
                raise self.fault(
                    f"section {name!r} is of type {found.kind:#x}", found.offset, f"{kind:#x}"
                )
            read = self._offset_of(values[tag]) if tag in values else None
            if (found.offset if found else None) != read or (tag in values) != (found is not None):
                raise self.fault(
                    f"section {name!r} is {_placed(found.offset if found else None)}, and what a"
                    f" loader reads in its place {_placed(read)}",
                    section.offset,
                    "the same place",
                )
        for tag, (name, field) in _NUMBERS.items():
            found = self.sections.get(name)
            if found is not None and values.get(tag) != getattr(found, field):
                raise self.fault(
                    f"{field} of {name!r} is {getattr(found, field)}, and the dynamic section says"
                    f" {values.get(tag)}",
                    section.offset,
                    "the same number",
                )

    def _offset_of(self, address: int) -> int | None:
        """Where the byte that is loaded to `address` lies in the file."""
        for kind, _, offset, start, _, size, *_ in self._segments:
            if kind == _LOAD and start <= address < start + size:
                return address - start + offset
        return None

    @cached_property
    def strings(self) -> Strings:
        """The names of what is needed, found and versioned; few, and kept."""
        section = self._required(".dynstr")
        content = self.names
        return Strings(
            content.at(0, content.size),
            section.offset,
            self.where,
            room=limits.ELF_TEXT,
            longest=limits.NAME_LENGTH,
        )

    @property
    def names(self) -> Content:
        """The table of all names."""
        return self.plain(self._required(".dynstr"), limits.ELF_STRINGS)

    def symbols(self) -> SymbolTables:
        """The symbols and what they are read with."""
        section = self._required(".dynsym")
        limit = limits.ELF_SYMBOLS * _SYMBOL_SIZE
        if section.entry != _SYMBOL_SIZE or section.size > limit:
            raise self.fault(
                f"{section.size} bytes of dynamic symbols, {section.entry} bytes each",
                section.offset,
                f"at most {limits.ELF_SYMBOLS}, of {_SYMBOL_SIZE} bytes each",
            )
        indices = self.sections.get(".gnu.version")
        return SymbolTables(
            self.plain(section, limit),
            self.plain(indices, 2 * limits.ELF_SYMBOLS) if indices else Held(b""),
            self.names,
        )

    def _required(self, name: str) -> Section:
        section = self.sections.get(name)
        if section is None:
            raise self.fault("has no dynamic symbols", 0, f"a section {name!r}")
        return section

    # ------------------------------------------------------------ versions

    def required_versions(self) -> dict[int, tuple[str, str]]:
        """(library, version) by version index, of what is required."""
        found: dict[int, tuple[str, str]] = {}
        walk = _Walk(self, ".gnu.version_r")
        for at, (_, count, file, first, _) in walk.items(0, _NEED, walk.count):
            library = self.strings.text(file)
            for _, (_, _, index, name, _) in walk.items(at + first, _NEEDED_VERSION, count):
                found[index & 0x7FFF] = library, self.strings.text(name)
        return found

    def defined_versions(self) -> dict[int, tuple[str, str]]:
        """The same of what is defined; the library is empty."""
        found: dict[int, tuple[str, str]] = {}
        walk = _Walk(self, ".gnu.version_d")
        for at, (_, _, index, count, _, first, _) in walk.items(0, _DEFINITION, walk.count):
            if count:  # the first name is the version's, those behind it are its parents'
                _, (name, _) = next(walk.items(at + first, _DEFINED_NAME, 1))
                found[index & 0x7FFF] = "", self.strings.text(name)
        return found


class _Walk:
    """Lists within a section of versions, each item of which says how far on the next one is."""

    def __init__(self, tables: ElfTables, name: str) -> None:
        self._tables = tables
        self._name = name
        section = tables.sections.get(name)
        self._offset = section.offset if section else 0
        self.count = section.info if section else 0
        self._data = tables.read(name, limits.ELF_VERSION_TABLE)
        # No two items of what a linker writes are in one place.
        self._room = self._left = min(limits.ELF_VERSIONS, len(self._data) // _DEFINED_NAME.size)

    def items(
        self, at: int, item: struct.Struct, count: int
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(position, fields) of the `count` items of a list; the last field leads on."""
        for number in range(count):
            self._left -= 1
            if self._left < 0:
                raise self._fault(at, f"more than {self._room} versions in", "fewer")
            if at + item.size > len(self._data):
                raise self._fault(
                    at, "an item that lies outside", f"within its {len(self._data)} bytes"
                )
            fields = item.unpack_from(self._data, at)
            yield at, fields
            step = fields[-1]
            if number + 1 < count and step < item.size:
                raise self._fault(
                    at,
                    f"an item whose next one is {step} bytes on, number {number} of {count}, in",
                    f"{item.size} bytes on, or more",
                )
            at += step

    def _fault(self, at: int, what: str, expected: str) -> ArtifactError:
        return self._tables.fault(f"{what} {self._name!r}", self._offset + at, expected)


def _placed(offset: int | None) -> str:
    return "nowhere" if offset is None else f"at {offset:#x}"
