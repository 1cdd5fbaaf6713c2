"""ELF files by their tables: segments, sections, dynamic entries, symbols, versions, strings.

Nothing is moved, so all that is not changed keeps its place; what a field says is changed to what
is near, or to what another such field says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .chance import Chance
from .fatbin import fatbin

__all__ = ["elf"]

_HEADER = struct.Struct("<16s2HI3QI6H")
_SECTION = struct.Struct("<2I4Q2I2Q")
_SECTION_FIELDS = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (56, 8))
_HEADER_FIELDS = (
    *((4, 1), (5, 1), (16, 2), (18, 2), (32, 8), (40, 8), (48, 4), (54, 2), (56, 2), (58, 2)),
    *((60, 2), (62, 2)),
)
_SEGMENT = 56  # bytes of a program header: type, flags, offset, address, (address), sizes
_SEGMENT_FIELDS = ((0, 4), (4, 4), (8, 8), (16, 8), (32, 8), (40, 8), (48, 8))
_SEGMENT_TYPES = (0, 1, 2, 3, 4, 6, 0x6474E550, 0x6474E551, 0x6474E552)
# Of what a table's sections of this type consist: entry size, and (offset, size) of its fields.
_TABLES = {
    6: (16, ((0, 8), (8, 8))),  # dynamic: tag, value
    11: (24, ((0, 4), (4, 1), (5, 1), (6, 2))),  # dynsym: name, info, other, section
    0x6FFFFFFF: (2, ((0, 2),)),  # versym
    0x6FFFFFFE: (16, ((0, 2), (2, 2), (4, 4), (8, 4), (12, 4))),  # verneed and vernaux
    0x6FFFFFFD: (4, ((0, 2), (2, 2), (0, 4))),  # verdef
    7: (4, ((0, 4),)),  # note
}
_TAGS = (0, 1, 5, 10, 14, 15, 29, 6, 0x6FFFFFFE, 0x6FFFFFFF, 30, 24)
_TYPES = (0, 1, 2, 3, 6, 7, 8, 11, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF, 4, 9)
_STRINGS = (3,)
_INFO = b"flashinfer_info\0"


class _Section(NamedTuple):
    at: int  # of its header
    kind: int
    offset: int
    size: int


def _sections(data: bytes) -> Iterator[_Section]:
    if len(data) < _HEADER.size:
        return
    *_, table, _flags, _ehsize, _phsize, _phnum, _shsize, count, _names = _HEADER.unpack_from(data)
    for number in range(min(count, 200)):
        at = table + number * _SECTION.size
        if at + _SECTION.size > len(data):
            return
        _name, kind, _flags, _addr, offset, size, *_ = _SECTION.unpack_from(data, at)
        if offset + size <= len(data):
            yield _Section(at, kind, offset, size)


def elf(data: bytes, chance: Chance) -> bytes:
    """Changes an ELF file."""
    sections = list(_sections(data))
    if not sections or chance.one_in(40):
        return chance.bytes_near(data)
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        kind = chance.randrange(10)
        section = chance.choice(sections)
        if kind == 0:
            _change(made, 0, _HEADER_FIELDS, chance)
        elif kind == 1:
            _change_segment(made, chance)
        elif kind == 2:
            _change(made, section.at, _SECTION_FIELDS, chance)
            if chance.one_in(3):
                struct.pack_into("<I", made, section.at + 4, chance.choice(_TYPES))
        elif kind < 8:
            tables = [item for item in sections if item.kind in _TABLES and item.size]
            if tables:
                _change_table(made, chance.choice(tables), chance)
        elif kind == 8:
            texts = [item for item in sections if item.kind in _STRINGS and item.size]
            if texts:
                _change_strings(made, chance.choice(texts), chance)
        elif section.size:
            _change_content(made, section, chance)
    return bytes(made)


def _change(data: bytearray, at: int, fields: tuple[tuple[int, int], ...], chance: Chance) -> None:
    """Another value for a field of the structure at `at`."""
    offset, size = chance.choice(fields)
    place = at + offset
    if place + size > len(data):
        return
    value = int.from_bytes(data[place : place + size], "little")
    other = len(data) if chance.one_in(6) else chance.near(value, 8 * size)
    data[place : place + size] = (other & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _change_segment(data: bytearray, chance: Chance) -> None:
    """Another value in a program header, by which a loader goes."""
    table, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    at = table + _SEGMENT * chance.randrange(max(count, 1))
    if at + _SEGMENT > len(data):
        return
    if chance.one_in(4):
        struct.pack_into("<I", data, at, chance.choice(_SEGMENT_TYPES))
    else:
        _change(data, at, _SEGMENT_FIELDS, chance)


def _change_table(data: bytearray, section: _Section, chance: Chance) -> None:
    size, fields = _TABLES[section.kind]
    count = max(section.size // size, 1)
    at = section.offset + size * chance.randrange(count)
    if chance.one_in(4):  # as another entry is
        other = section.offset + size * chance.randrange(count)
        data[at : at + size] = data[other : other + size]
    elif section.kind == 6 and chance.one_in(2):
        struct.pack_into("<Q", data, at, chance.choice(_TAGS))
    else:
        _change(data, at, fields, chance)


def _change_strings(data: bytearray, section: _Section, chance: Chance) -> None:
    """Strings that run into one another, end early, or are strange."""
    at = section.offset + chance.randrange(section.size)
    end = section.offset + section.size
    text = chance.choice(
        (
            *(b"\0", b"x", b"/", b":", b"\xff", b"$ORIGIN/", b"GLIBC_2.99\0", b"GLIBC_9.9.9.9\0"),
            *(b"_ZSs\0", b"_ZN9999a\0", b"/home/a/b\0", b"Py_X\0", b"\x1b[2J", b"GCC_" + b"9" * 40),
        )
    )
    made = text * chance.choice((1, 1, 30))
    data[at : min(end, at + len(made))] = made[: end - at]


def _change_content(data: bytearray, section: _Section, chance: Chance) -> None:
    start, end = section.offset, section.offset + section.size
    held = bytes(data[start:end])
    if held[:4] == b"\x50\xed\x55\xba":
        made = fatbin(held, chance)
    elif b"component=" in held and chance.one_in(2):
        made = held.replace(b"=", chance.choice((b":", b"\n", b"==")), 1)
    else:
        made = chance.bytes_near(held, len(held))
    data[start:end] = made[: len(held)].ljust(len(held), b"\0")
