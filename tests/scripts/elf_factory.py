"""Small shared objects from their tables, right or wrong: what no linker would write."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["dynamic", "fat_binary", "image", "needs", "shared_object", "symbol"]

_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_TYPES = {
    ".dynamic": 6,
    ".dynsym": 11,
    ".dynstr": 3,
    ".gnu.version": 0x6FFFFFFF,
    ".gnu.version_r": 0x6FFFFFFE,
    ".gnu.version_d": 0x6FFFFFFD,
}
_TAGS = {
    ".dynstr": 5,
    ".dynsym": 6,
    ".gnu.version": 0x6FFFFFF0,
    ".gnu.version_r": 0x6FFFFFFE,
    ".gnu.version_d": 0x6FFFFFFC,
}
_COUNTS = {".gnu.version_r": 0x6FFFFFFF, ".gnu.version_d": 0x6FFFFFFD}
_HEADERS = 64 + 2 * _SEGMENT.size


def symbol(name: int, *, section: int = 1) -> bytes:
    """An entry of ``.dynsym``: a global function; of another library where `section` is 0."""
    return struct.pack("<IBBHQQ", name, 0x12, 0, section, 0, 0)


def needs(libraries: Sequence[tuple[int, Sequence[int]]]) -> bytes:
    """A ``.gnu.version_r``: the offset of each library's name, and of those of its versions."""
    made = b""
    for number, (library, versions) in enumerate(libraries):
        last = number + 1 == len(libraries)
        made += struct.pack(
            "<HHIII", 1, len(versions), library, 16, 0 if last else 16 + 16 * len(versions)
        )
        for index, name in enumerate(versions):
            following = 0 if index + 1 == len(versions) else 16
            made += struct.pack("<IHHII", 0, 0, 2 + index, name, following)
    return made


def dynamic(entries: Iterable[tuple[int, int]]) -> bytes:
    """Entries of the dynamic section."""
    return b"".join(struct.pack("<QQ", *entry) for entry in entries)


def shared_object(
    *,
    strings: bytes = b"\0",
    symbols: bytes = bytes(24),
    entries: Sequence[tuple[int, int]] = (),
    sections: Mapping[str, bytes] | None = None,
    counts: Mapping[str, int] | None = None,
    names: Sequence[bytes] = (),
) -> bytes:
    """A file whose sections, segments and dynamic section agree.

    Args:
        strings: ``.dynstr``.
        symbols: ``.dynsym``.
        entries: of the dynamic section, beside those that say where the tables are.
        sections: further ones.
        counts: of the items in sections of versions.
        names: further sections without bytes.
    """
    content = {".dynstr": strings, ".dynsym": symbols, **(sections or {})}
    counts = counts or {}
    offsets: dict[str, int] = {}
    at = _HEADERS
    for name, data in content.items():
        offsets[name] = at
        at += len(data) + -len(data) % 8
    tags = [(tag, offsets[name]) for name, tag in _TAGS.items() if name in content]
    tags += [(tag, counts.get(name, 0)) for name, tag in _COUNTS.items() if name in content]
    table = dynamic([*entries, *tags, (10, len(strings)), (0, 0)])
    content[".dynamic"], offsets[".dynamic"] = table, at
    at += len(table)
    every = [b"", *(name.encode() for name in content), *names, b".shstrtab"]
    starts = [sum(len(name) + 1 for name in every[:number]) for number in range(len(every))]
    joined = b"\0".join(every) + b"\0"
    offsets[".shstrtab"], content[".shstrtab"] = at, joined
    at += len(joined) + -len(joined) % 8
    rows = []
    for start, name in zip(starts, every, strict=True):
        text = name.decode("latin-1")
        size = len(content.get(text, b""))
        kind = 3 if text == ".shstrtab" else _TYPES.get(text, 1 if size else 0)
        entry = 24 if text == ".dynsym" else 0
        where = offsets.get(text, 0)
        rows.append(
            _SECTION.pack(start, kind, 0, where, where, size, 0, counts.get(text, 0), 8, entry)
        )
    end = at + len(rows) * _SECTION.size
    made = bytearray(end)
    struct.pack_into(
        "<16sHHIQQQIHHHHHH", made, 0, b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, at, 0, 64,
        _SEGMENT.size, 2, _SECTION.size, len(rows), len(rows) - 1,
    )  # fmt: skip
    _SEGMENT.pack_into(made, 64, 1, 4, 0, 0, 0, end, end, 4096)
    place = offsets[".dynamic"]
    _SEGMENT.pack_into(
        made, 64 + _SEGMENT.size, 2, 4, place, place, place, len(table), len(table), 8
    )
    for name, data in content.items():
        made[offsets[name] : offsets[name] + len(data)] = data
    made[at:] = b"".join(rows)
    return bytes(made)


def image(data: bytes = b"", *, kind: int = 2, arch: int = 80, flags: int = 0) -> bytes:
    """An entry of a fat binary."""
    return (
        struct.pack(
            "<HHIQI8xI8xQ8xQ", kind, 0x101, 64, len(data), len(data), arch, flags, len(data)
        )
        + data
    )


def fat_binary(images: bytes) -> bytes:
    """A container of images."""
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(images)) + images
