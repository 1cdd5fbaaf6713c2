"""Fat binaries by their containers and entries."""

from __future__ import annotations

import struct

from .chance import Chance
from .listed import change_list

__all__ = ["fatbin"]

_CONTAINER = struct.Struct("<IHHQ")
_MAGIC = 0xBA55ED50
_ENTRY = 64  # bytes of an entry's header
# Offset and size of the fields of an entry's header.
_FIELDS = ((0, 2), (2, 2), (4, 4), (8, 8), (16, 4), (28, 4), (40, 8), (56, 8))
_FLAGS = (0, 1 << 13, 1 << 15, 1 << 20, 1 << 21, (1 << 15) | (1 << 20), 0x11)


def fatbin(data: bytes, chance: Chance) -> bytes:
    """Changes a section of fat binaries."""
    entries = _entries(data)
    if not entries or chance.one_in(12):
        return chance.bytes_near(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        change_list(
            entries,
            chance,
            lambda entry: _changed(entry, chance),
            lambda: _entry(chance),
        )
    if chance.one_in(8):  # in a container each
        made = b"".join(_container([entry]) for entry in entries)
    else:
        made = _container(entries)
    kind = chance.randrange(12)
    if kind == 0:
        return made + bytes(chance.choice((1, 7, 8, 24, 4096)))
    if kind == 1:
        return made + made
    if kind == 2:
        at, size = chance.choice(((0, 4), (4, 2), (6, 2), (8, 8)))
        value = chance.near(int.from_bytes(made[at : at + size], "little"), 8 * size)
        return made[:at] + value.to_bytes(size, "little") + made[at + size :]
    return made


def _entries(data: bytes) -> list[bytes]:
    """The entries of the first container, as far as they can be told apart."""
    if len(data) < _CONTAINER.size:
        return []
    magic, _version, header, size = _CONTAINER.unpack_from(data)
    if magic != _MAGIC:
        return []
    found, at, end = [], header, min(header + size, len(data))
    while at + _ENTRY <= end:
        head, padded = struct.unpack_from("<IQ", data, at + 4)
        if head < _ENTRY or at + head + padded > end:
            break
        found.append(data[at : at + head + padded])
        at += head + padded
    return found


def _container(entries: list[bytes]) -> bytes:
    payload = b"".join(entries)
    return _CONTAINER.pack(_MAGIC, 1, _CONTAINER.size, len(payload)) + payload


def _changed(entry: bytes, chance: Chance) -> bytes:
    kind = chance.randrange(5)
    if kind < 2:
        offset, size = chance.choice(_FIELDS)
        value = int.from_bytes(entry[offset : offset + size], "little")
        other = chance.near(value, 8 * size).to_bytes(size, "little")
        return entry[:offset] + other + entry[offset + size :]
    if kind == 2:
        return entry[:40] + struct.pack("<Q", chance.choice(_FLAGS)) + entry[48:]
    if kind == 3:
        return entry[:28] + struct.pack("<I", chance.choice((0, 80, 86, 90, 120))) + entry[32:]
    return _filled(entry[:_ENTRY], chance.bytes_near(entry[_ENTRY:]))


def _filled(header: bytes, image: bytes) -> bytes:
    """An entry with another image and sizes that are true."""
    padded = image + bytes(-len(image) % 8)
    return (
        header[:4]
        + struct.pack("<IQI", _ENTRY, len(padded), len(image))
        + header[20:_ENTRY]
        + padded
    )


def _entry(chance: Chance) -> bytes:
    header = struct.pack("<HHIQI8xI8xQ8xQ", chance.choice((1, 2, 8)), 257, 64, 0, 0, 80, 0, 0)
    header = header[:40] + struct.pack("<Q", chance.choice(_FLAGS)) + header[48:]
    images = (
        *(b"", b".version 8.0\n.target sm_80\n", b"\x7fELF" + bytes(60)),
        # A literal and a match in LZ4; then matches that lead before the beginning, and run long.
        *(b"\x12A\x01\x00\x00", b"\x0f\x05\x00" + b"\xff" * 20, b"\x1fA\x01\x00" + b"\xff" * 30),
    )
    return _filled(header, chance.choice(images))
