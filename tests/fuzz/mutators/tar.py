"""Tar archives by their headers, with checksums that are right again."""

from __future__ import annotations

import archive_mutations
from archive_mutations import Block, long_name, pax

from .chance import Chance, Mutate
from .listed import change_list
from .zip import Content

__all__ = ["archive", "joined", "name_of", "parts_of", "sized"]

_BLOCK = 512
# The fields of a header: offset, size, and some values.
_FIELDS: dict[str, tuple[int, int, tuple[bytes, ...]]] = {
    "name": (0, 100, (b"a", b"a/", b"a/b", b"..", b"./a", b"/a", b"a//b", b"info/x", b"n" * 100)),
    "mode": (100, 8, (b"0000644\0", b"0000755\0", b"0100644\0", b"       \0", b"\xff" * 8)),
    "uid": (108, 8, (b"0000000\0", bytes(8), b"\x80" + bytes(6) + b"\1", b"\xff" * 8)),
    "size": (124, 12, (b"00000000000\0", b"00000001000\0", b"77777777777\0", b"\x80" + bytes(11))),
    "mtime": (136, 12, (bytes(12), b"00000000000\0", b"\x80" + b"\1" * 11, b"-0000000001\0")),
    "kind": (156, 1, tuple(b"%c" % code for code in b"\x0001234567xgLKSDMNVAX")),
    "link": (157, 100, (b"a", b"../a", b"../../a", b"a/../b", b"/a", b"a//b", b"", b"l" * 100)),
    "magic": (257, 8, (b"ustar\x0000", b"ustar  \0", bytes(8))),
    "uname": (265, 32, (b"root", b"x\0y", b"u" * 32)),
    "device": (329, 8, (b"0000000\0", bytes(8), b"0000001\0")),
    "prefix": (345, 155, (b"p", b"p/", b"p\0q", b"p" * 155)),
    "rest": (500, 12, (bytes(12), b"x", b"\0\0\0\0\0\0\0\0tar\0")),
}
_KEYS = (
    *(b"path", b"linkpath", b"size", b"mtime", b"uid", b"uname", b"GNU.sparse.name", b"comment"),
    *(b"SCHILY.dev", b"LIBARCHIVE.creationtime", b"hdrcharset", b"atime"),
)
_VALUES = (
    b"0",
    b"1",
    b"8",
    b"1.5",
    b"a",
    b"a/b",
    b"../a",
    b"p/" * 60 + b"x",
    b"",
    b"a\0b",
    b"\xff",
)
_MORE = tuple(
    b"".join(part if isinstance(part, bytes) else part.pack() for part in parts)
    for parts in archive_mutations.TAR.values()
)
_LARGEST = 1 << 20


def parts_of(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The members, header and content of each, and what comes behind them."""
    parts, at = [], 0
    while at + _BLOCK <= len(data) and any(data[at : at + _BLOCK]):
        header = data[at : at + _BLOCK]
        field = header[124:136].strip(b" \0")
        size = int(field, 8) if field and all(48 <= code < 56 for code in field) else 0
        if size > _LARGEST:
            break
        parts.append((header, data[at + _BLOCK : at + _BLOCK + size]))
        at += _BLOCK + (size + _BLOCK - 1) // _BLOCK * _BLOCK
    return parts, data[at:]


def name_of(header: bytes) -> str:
    """The name in a header."""
    return header[:100].partition(b"\0")[0].decode("utf-8", "replace")


def summed(header: bytes) -> bytes:
    """The header with the right checksum."""
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return header[:148] + b"%06o\0 " % (total & 0o777777) + header[156:]


def sized(header: bytes, content: bytes) -> tuple[bytes, bytes]:
    """A member whose header says how long its content is."""
    return summed(header[:124] + b"%011o\0" % len(content) + header[136:]), content


def joined(parts: list[tuple[bytes, bytes]], end: bytes = bytes(1024)) -> bytes:
    """The archive of these members."""
    return b"".join(head + body + bytes(-len(body) % _BLOCK) for head, body in parts) + end


def archive(content: Content) -> Mutate:
    """Changes an archive.

    Args:
        content: changes what is in a member.
    """

    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(16):
            return chance.bytes_near(data)
        parts, end = parts_of(data)
        if not parts:
            return chance.bytes_near(data)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            change_list(
                parts,
                chance,
                lambda part: _changed(*part, chance, content),
                lambda: _member(chance),
            )
        made = joined(parts, b"")
        if chance.one_in(16):
            made += chance.choice(_MORE)
        if chance.one_in(16):
            end = chance.choice((b"", bytes(512), bytes(1025), bytes(10240), bytes(1024) + b"x"))
        return made + end

    return mutate


def _changed(header: bytes, body: bytes, chance: Chance, content: Content) -> tuple[bytes, bytes]:
    kind = chance.randrange(8)
    if kind < 3:
        return sized(header, content(name_of(header), body, chance))
    if kind == 3:
        return sized(header, chance.bytes_near(body))
    offset, size, values = _FIELDS[chance.choice(tuple(_FIELDS))]
    held = header[offset : offset + size]
    if kind < 6:
        field = chance.choice(values)
    elif kind == 6:
        field = b"%0*o\0" % (size - 1, chance.number(3 * (size - 1))) if size > 1 else held
    else:
        field = chance.bytes_near(held, size)
    field = field[:size].ljust(size, b"\0")
    changed = header[:offset] + field + header[offset + size :]
    return (changed if chance.one_in(20) else summed(changed)), body


def _member(chance: Chance) -> tuple[bytes, bytes]:
    """A member more, often one that speaks of the next."""
    kind = chance.randrange(6)
    name = chance.choice(_FIELDS["name"][2])
    if kind == 0:
        block = pax(
            *((chance.choice(_KEYS), chance.choice(_VALUES)) for _ in range(chance.choice((1, 2)))),
            kind=b"g" if chance.one_in(8) else b"x",
        )
    elif kind == 1:
        block = long_name(chance.choice(_VALUES) + b"\0", chance.choice((b"L", b"K")))
    elif kind == 2:
        block = Block(name, b"", b"2", link=chance.choice(_FIELDS["link"][2]))
    elif kind == 3:
        block = Block(name, b"", b"5")
    else:
        block = Block(name, b"x" * chance.choice((0, 1, 8, 512, 600)))
    packed = block.pack()
    return packed[:_BLOCK], packed[_BLOCK : _BLOCK + len(block.content)]
