"""What is compressed, changed inside: zstd, bzip2, xz, gzip; and ar with such members."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable

import archive_mutations
from deb_factory import ar

from conda_bridge.formats.zstd import zstd

from .chance import Chance, Mutate
from .listed import change_list
from .text import plain

__all__ = ["bzip2", "deb", "zstd_frame"]

_LARGEST = 1 << 20


def _unzstd(data: bytes) -> bytes:
    return zstd.ZstdDecompressor().decompress(data, _LARGEST)


def _unzstd_all(data: bytes) -> bytes:
    return bytes(zstd.decompress(data)) if len(data) < _LARGEST else b""


def _packed(
    inner: Mutate, unpack: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]
) -> Mutate:
    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(12):
            return chance.bytes_near(data)
        try:
            content = unpack(data)
        except (OSError, ValueError, EOFError, zstd.ZstdError, lzma.LZMAError, zlib.error):
            return chance.bytes_near(data)
        return pack(inner(content, chance))

    return mutate


def zstd_frame(inner: Mutate = plain) -> Mutate:
    """Changes a zstd frame: what is in it, or its form."""
    whole = tuple(archive_mutations.ZSTD.values())
    packed = _packed(inner, _unzstd, lambda data: zstd.compress(data, 1))

    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(12) and len(data) > 12:
            return chance.choice(whole)(data)
        if chance.one_in(8):
            flags: dict[int, int] = {
                zstd.CompressionParameter.content_size_flag: chance.randrange(2)
            }
            flags[zstd.CompressionParameter.checksum_flag] = chance.randrange(2)
            return _packed(inner, _unzstd, lambda raw: zstd.compress(raw, options=flags))(
                data, chance
            )
        return packed(data, chance)

    return mutate


def bzip2(inner: Mutate) -> Mutate:
    """Changes a bzip2 stream: what is in it, or its form."""
    packed = _packed(
        inner,
        lambda data: bz2.BZ2Decompressor().decompress(data, _LARGEST),
        lambda data: bz2.compress(data, 1),
    )

    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(20):
            return data + chance.choice((b"\0", data, bz2.compress(b""), data[:20]))
        return packed(data, chance)

    return mutate


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


_SUFFIXES: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "": (bytes, bytes),
    ".gz": (lambda data: zlib.decompressobj(31).decompress(data, _LARGEST), _gzip),
    ".xz": (
        lambda data: lzma.LZMADecompressor().decompress(data, _LARGEST),
        lambda data: lzma.compress(data, preset=0),
    ),
    ".zst": (_unzstd, lambda data: zstd.compress(data, 1)),
}


def _members(data: bytes) -> list[tuple[bytes, bytes]]:
    """Headers and contents, as far as they can be told apart."""
    found, at = [], 8
    while at + 60 <= len(data) and data[at + 48 : at + 58].strip().isdigit():
        size = int(data[at + 48 : at + 58])
        found.append((data[at : at + 60], data[at + 60 : at + 60 + size]))
        at += 60 + size + size % 2
    return found


def deb(inner: Mutate) -> Mutate:
    """Changes a Debian package.

    Args:
        inner: changes ``data.tar``.
    """

    def member(part: tuple[bytes, bytes], chance: Chance) -> tuple[bytes, bytes]:
        header, body = part
        name = header[:16].strip().decode("ascii", "replace").rstrip("/")
        kind = chance.randrange(6)
        suffix = name.removeprefix("data.tar")
        if kind < 3 and name.startswith("data.tar") and suffix in _SUFFIXES:
            unpack, pack = _SUFFIXES[suffix]
            if chance.one_in(4):
                suffix = chance.choice(tuple(_SUFFIXES))
                pack = _SUFFIXES[suffix][1]
            body = _packed(inner, unpack, pack)(body, chance)
            header = f"data.tar{suffix}".encode().ljust(16) + header[16:]
        elif kind == 3:
            header = chance.bytes_near(header, 60).ljust(60)
            return header, body
        elif kind == 4:
            size = chance.choice((b"0", b"9" * 10, b"-1", b" 5", b"+5", b"1_0", b"\xb2", b"5\0"))
            return header[:48] + size.ljust(10) + header[58:], body
        else:
            body = chance.bytes_near(body)
        return header[:48] + b"%-10d" % len(body) + header[58:], body

    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(16):
            return chance.bytes_near(data)
        parts = _members(data)
        if not parts:
            return chance.bytes_near(data)
        for _ in range(chance.choice((1, 1, 2))):
            change_list(
                parts,
                chance,
                lambda part: member(part, chance),
                lambda: (ar({chance.choice(("data.tar", "x", "data.tar.bz2")): b"x"})[8:68], b"x"),
            )
        return data[:8] + b"".join(head + body + b"\n" * (len(body) % 2) for head, body in parts)

    return mutate
