"""Zip archives by their members and both headers of each."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import archive_mutations
from archive_mutations import ZipEntry, zip_entries, zip_of

from .chance import Chance, Mutate
from .listed import change_list

__all__ = ["Content", "archive"]

# Changes the content of a member with this name.
Content = Callable[[str, bytes, Chance], bytes]

_WHOLE = tuple({**archive_mutations.ZIP, **archive_mutations.WHEEL_ZIP}.values())
_FIELDS = {
    **{"crc": 32, "size": 32, "compressed": 32, "version": 16, "flags": 16, "method": 16},
    **{"time": 16, "date": 16},
}
_CENTRAL_FIELDS = {**_FIELDS, "made": 16, "disk": 16, "external": 32, "offset": 32}
_LARGEST = 1 << 20  # of a content that is unpacked here


def archive(content: Content, *, stored: bool = False) -> Mutate:
    """Changes an archive.

    Args:
        content: changes what is in a member.
        stored: members are not compressed.
    """

    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(16):
            return chance.bytes_near(data)
        try:
            entries = zip_entries(data)
            if chance.one_in(16):
                return chance.choice(_WHOLE)(data)
        except (struct.error, ValueError, IndexError):
            return chance.bytes_near(data)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            change_list(
                entries,
                chance,
                lambda entry: _changed(entry, chance, content, stored),
                lambda: ZipEntry.of(chance.choice(_NAMES), b"x" * chance.choice((0, 1, 30))),
            )
        try:
            return zip_of(entries, **_around(len(entries), chance))
        except (struct.error, TypeError, ValueError):
            return data

    return mutate


_NAMES = ("x", "a/b", "a/", "é", "../x", "/x", "a//b", "A", "x/y/z", "con", "a" * 300, "a\\b")


def _changed(entry: ZipEntry, chance: Chance, content: Content, stored: bool) -> ZipEntry:
    kind = chance.randrange(10)
    if kind < 5:
        return _refilled(entry, chance, content, stored)
    if kind == 5:
        field, bits = chance.choice(tuple(_FIELDS.items()))
        side = {field: chance.near(int(getattr(entry, field, 0)), bits)}
        return replace(entry, local={**entry.local, **side})
    if kind == 6:
        field, bits = chance.choice(tuple(_CENTRAL_FIELDS.items()))
        side = {field: chance.near(int(getattr(entry, field, 0)), bits)}
        return replace(entry, central={**entry.central, **side})
    if kind == 7:
        field = chance.choice(("version", "made", "flags", "method", "time", "date", "external"))
        bits = 32 if field == "external" else 16
        return replace(entry, **{field: chance.near(getattr(entry, field), bits)})
    if kind == 8:
        name = chance.bytes_near(entry.name, 400)
        return replace(entry, name=name, flags=entry.flags | (0 if name.isascii() else 0x800))
    return _elsewhere(entry, chance)


def _elsewhere(entry: ZipEntry, chance: Chance) -> ZipEntry:
    """Bytes in places that builders leave empty."""
    few = chance.randbytes(chance.choice((1, 4, 20)))
    long = struct.pack("<2H2Q", 1, 16, entry.size, len(entry.body))
    kind = chance.randrange(6)
    if kind == 0:
        return replace(entry, extra=chance.bytes_near(entry.extra or few, 100))
    if kind == 1:
        full = {"size": 0xFFFFFFFF, "compressed": 0xFFFFFFFF}
        return replace(entry, local={"extra": long, **full})
    if kind == 2:
        full = {"size": 0xFFFFFFFF, "compressed": 0xFFFFFFFF}
        return replace(entry, extra=long, local=full, central=full)
    if kind == 3:
        return replace(entry, extra=struct.pack("<2HBI", 0x5455, 5, 1, 0))
    if kind == 4:
        return replace(entry, before=few)
    return replace(entry, after=few)


def _refilled(entry: ZipEntry, chance: Chance, content: Content, stored: bool) -> ZipEntry:
    """The same member with another content, and numbers that are true."""
    data = entry.body
    if entry.method == 8:
        try:
            data = zlib.decompressobj(-15).decompress(entry.body, _LARGEST)
        except zlib.error:
            return replace(entry, body=chance.bytes_near(entry.body))
    if not chance.one_in(8):
        name = entry.name.decode("utf-8", "replace")
        data = content(name, data, chance)
    method = 0 if stored else chance.choice((0, 8))
    body = data
    if method == 8:
        deflater = zlib.compressobj(chance.choice((1, 6)), zlib.DEFLATED, -15)
        body = deflater.compress(data) + deflater.flush()
    return replace(entry, method=method, body=body, size=len(data), crc=zlib.crc32(data))


def _around(count: int, chance: Chance) -> dict[str, Any]:
    """What is wrong outside of the members; most of the time nothing."""
    kind = chance.randrange(30)
    few = chance.randbytes(chance.choice((1, 4, 30)))
    bytes_of = {0: "start", 1: "before_directory", 2: "comment", 3: "trailing"}
    if kind in bytes_of:
        return {bytes_of[kind]: few}
    if kind == 4:
        field = chance.choice(("count", "length", "offset"))
        return {"end": {field: chance.near(count, 16)}}
    if kind == 5:
        return {"end64": {}}
    if kind == 6:
        return {"end64": {"count": chance.near(count, 16)}, "end": {"count": 0xFFFF}}
    return {"reverse": True} if kind == 7 else {}
