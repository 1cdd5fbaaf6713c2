"""Archives that two readers may read differently: every way known, as functions of bytes.

Each takes a whole archive or document and gives back another. Nothing here knows the readers under
test, so that tests and fuzzers can use all of it.
"""

from __future__ import annotations

import json
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = [
    "CONDA_ZIP",
    "JSON",
    "TAR",
    "WHEEL_ZIP",
    "ZIP",
    "ZSTD",
    "Block",
    "ZipEntry",
    "long_name",
    "pax",
    "tar_of",
    "zip_entries",
    "zip_of",
]

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_MAX32 = 0xFFFFFFFF

# ---------------------------------------------------------------- zip


@dataclass(frozen=True)
class ZipEntry:
    """A member as both of its headers have it; `local` and `central` say what one has instead.

    The keys of `local` and `central` are the names of the other attributes.
    """

    name: bytes
    body: bytes  # as it lies in the archive
    method: int = 8
    crc: int = 0
    size: int = 0
    version: int = 20
    made: int = 0x314
    flags: int = 0
    time: int = 0
    date: int = 33
    disk: int = 0
    comment: bytes = b""
    external: int = 0o100644 << 16
    extra: bytes = b""
    before: bytes = b""  # bytes that no header counts, in front of the local one
    after: bytes = b""  # the same behind the body
    local: Mapping[str, Any] = field(default_factory=dict)
    central: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, data: bytes, **changes: Any) -> ZipEntry:
        """A stored member with this content."""
        entry = cls(name.encode(), data, method=0, crc=zlib.crc32(data), size=len(data), **changes)
        return replace(entry, flags=entry.flags | (0 if name.isascii() else 0x800))

    def _values(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        mine = {key: getattr(self, key) for key in self.__dataclass_fields__}
        return {**mine, "compressed": len(self.body), **changes}

    def local_header(self) -> bytes:
        """The header before the member."""
        v = self._values(self.local)
        return (
            _LOCAL.pack(
                *(b"PK\x03\x04", v["version"], v["flags"], v["method"], v["time"], v["date"]),
                *(v["crc"], v["compressed"], v["size"], len(v["name"]), len(v["extra"])),
            )
            + v["name"]
            + v["extra"]
        )

    def central_header(self, offset: int) -> bytes:
        """The line of the directory."""
        v = {"offset": offset, **self._values(self.central)}
        return (
            _CENTRAL.pack(
                *(b"PK\x01\x02", v["made"], v["version"], v["flags"], v["method"], v["time"]),
                *(v["date"], v["crc"], v["compressed"], v["size"], len(v["name"])),
                *(len(v["extra"]), len(v["comment"]), v["disk"], 0, v["external"], v["offset"]),
            )
            + v["name"]
            + v["extra"]
            + v["comment"]
        )


def zip_entries(data: bytes) -> list[ZipEntry]:
    """The members of an archive of the plain form (no zip64, nothing between them)."""
    *_, count, _length, at, _comment = _END.unpack(data[-_END.size :])
    entries = []
    for _ in range(count):
        (
            _,
            made,
            version,
            flags,
            method,
            time,
            date,
            crc,
            packed,
            size,
            n,
            x,
            c,
            disk,
            _,
            ext,
            at0,
        ) = _CENTRAL.unpack_from(data, at)
        name = data[at + 46 : at + 46 + n]
        extra = data[at + 46 + n : at + 46 + n + x]
        at += 46 + n + x + c
        local = _LOCAL.unpack_from(data, at0)
        start = at0 + 30 + local[9] + local[10]
        own = data[at0 + 30 + n : start]
        entries.append(
            ZipEntry(
                name, data[start : start + packed], method, crc, size, version, made, flags, time,
                date, disk, b"", ext, extra, local={} if own == extra else {"extra": own},
            )
        )  # fmt: skip
    return entries


def zip_of(
    entries: Iterable[ZipEntry],
    *,
    start: bytes = b"",
    before_directory: bytes = b"",
    reverse: bool = False,
    end: Mapping[str, int] | None = None,
    end64: Mapping[str, int] | None = None,
    comment: bytes = b"",
    trailing: bytes = b"",
) -> bytes:
    """An archive of these members.

    Args:
        entries: the members.
        start: bytes before the first; offsets count them.
        before_directory: bytes before the directory.
        reverse: turn the order of the directory around.
        end: values of the end that are others than the right ones.
        end64: write a zip64 end, with these values other than the right ones.
        comment: of the archive.
        trailing: what follows the archive.
    """
    made = bytearray(start)
    lines = []
    for entry in entries:
        made += entry.before
        lines.append(entry.central_header(len(made)))
        made += entry.local_header() + entry.body + entry.after
    made += before_directory
    offset = len(made)
    directory = b"".join(reversed(lines) if reverse else lines)
    made += directory
    right = {"count": len(lines), "length": len(directory), "offset": offset}
    if end64 is not None:
        v = {**right, **end64}
        at = len(made)
        made += _END64.pack(
            *(b"PK\x06\x06", 44, 45, 45, 0, 0, v["count"], v["count"], v["length"], v["offset"])
        )
        made += _LOCATOR64.pack(b"PK\x06\x07", 0, at, 1)
    v = {**right, **(end or {})}
    made += _END.pack(
        *(b"PK\x05\x06", 0, 0, v["count"], v["count"], v["length"], v["offset"], len(comment))
    )
    return bytes(made) + comment + trailing


Mutation = Callable[[bytes], bytes]


def _all(**how: Any) -> Mutation:
    return lambda data: zip_of(zip_entries(data), **how)


def _first(**changes: Any) -> Mutation:
    def change(data: bytes) -> bytes:
        first, *others = zip_entries(data)
        return zip_of([replace(first, **changes), *others])

    return change


def _last(change: Callable[[ZipEntry], Mapping[str, Any]]) -> Mutation:
    def changed(data: bytes) -> bytes:
        *others, last = zip_entries(data)
        return zip_of([*others, replace(last, **change(last))])

    return changed


def _more(*entries: ZipEntry, first: bool = False) -> Mutation:
    def change(data: bytes) -> bytes:
        others = zip_entries(data)
        return zip_of([*entries, *others] if first else [*others, *entries])

    return change


_HIDDEN = ZipEntry.of("evil.pth", b"import evil\n")
_HIDDEN_BYTES = _HIDDEN.local_header() + _HIDDEN.body


def _shared(data: bytes) -> bytes:
    """One member's bytes under a second name."""
    first, *others = zip_entries(data)
    return zip_of([first, *others, replace(first, name=b"copy", central={"offset": 0})])


def _two_ends(data: bytes) -> bytes:
    """A second archive behind the first, in whose comment it lies."""
    other = zip_of([_HIDDEN])
    return zip_of(zip_entries(data), comment=other)


def _descriptor(sizes_before: bool) -> Mutation:
    def change(data: bytes) -> bytes:
        first, *others = zip_entries(data)
        behind = struct.pack("<4s3I", b"PK\x07\x08", first.crc, len(first.body), first.size)
        before = {} if sizes_before else {"crc": 0, "compressed": 0, "size": 0}
        return zip_of([replace(first, flags=first.flags | 8, after=behind, local=before), *others])

    return change


def _zip64(*values: int) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def _unicode_path(name: bytes, path: bytes) -> bytes:
    body = struct.pack("<BI", 1, zlib.crc32(name)) + path
    return struct.pack("<2H", 0x7075, len(body)) + body


def _folder(data: bytes) -> bytes:
    """A folder with a content, which is a member for one that reads from the front."""
    inside = replace(ZipEntry.of("folder/", _HIDDEN_BYTES), external=0o040755 << 16 | 0x10)
    return _more(inside)(data)


# By name; each makes of an archive one that is read in more than one way, or not by everybody.
ZIP: dict[str, Mutation] = {
    "a member before the directory that it does not name": _all(before_directory=_HIDDEN_BYTES),
    "bytes before the directory": _all(before_directory=b"\0"),
    "a member between two that the directory does not name": _first(after=_HIDDEN_BYTES),
    "a member before the first, counted": _all(start=_HIDDEN_BYTES),
    "bytes before the first, not counted": lambda data: b"#!/bin/sh\n" + data,
    "trailing bytes": _all(trailing=b"\n"),
    "another archive behind": lambda data: data + zip_of([_HIDDEN]),
    "an archive before": lambda data: zip_of([_HIDDEN]) + data,
    "a comment": _all(comment=b"made by hand"),
    "an archive in the comment": _two_ends,
    "the directory in another order": _all(reverse=True),
    "the end counts one less": lambda data: zip_of(
        zip_entries(data), end={"count": len(zip_entries(data)) - 1}
    ),
    "the end counts one more": lambda data: zip_of(
        zip_entries(data), end={"count": len(zip_entries(data)) + 1}
    ),
    "a zip64 end that nothing needs": _all(end64={}),
    "a zip64 end with another count": lambda data: zip_of(
        zip_entries(data), end64={"count": len(zip_entries(data)) - 1}, end={"count": 0xFFFF}
    ),
    "a zip64 end with another offset": _all(end64={"offset": 0}, end={"offset": _MAX32}),
    "another name before": _first(local={"name": b"evil.pth"}),
    "another crc before": _first(local={"crc": 1}),
    "another size before": _first(local={"size": 1}),
    "another packed size before": _first(local={"compressed": 1}),
    "another method before": _first(local={"method": 12}),
    "other flags before": _first(local={"flags": 0x800}),
    "another time before": _first(local={"time": 1}),
    "another version before": _first(local={"version": 10}),
    "zip64 sizes before, of others": _first(local={"extra": _zip64(1, 1)}),
    "one zip64 size before": _first(local={"extra": _zip64(1)}),
    "zip64 in the directory, not needed": _first(central={"extra": _zip64(1, 1)}),
    "a size of zip64 without it": _first(central={"size": _MAX32}),
    "a name in an extra field, before": _first(
        local={"extra": _unicode_path(b"evil.pth", b"evil.pth")}
    ),
    "a name in an extra field": _last(
        lambda entry: {"extra": _unicode_path(entry.name, b"evil.pth")}
    ),
    "an extra field that is cut off": _first(extra=b"\x01\x00\x10\x00"),
    "an extra field of three bytes": _first(extra=b"\0\0\0"),
    "an unknown extra field": _first(extra=struct.pack("<2H", 0xCAFE, 0)),
    "an extra field twice": _first(
        extra=struct.pack("<2HBI", 0x5455, 5, 1, 0) * 2,
    ),
    "a descriptor": _descriptor(False),
    "a descriptor, and sizes before": _descriptor(True),
    "encrypted": _first(flags=1),
    "strongly encrypted": _first(flags=0x40),
    "a patch": _first(flags=0x20),
    "a masked header": _first(flags=0x2000),
    "lzma": _first(method=14),
    "zstd": _first(method=93),
    "a member of another disk": _first(central={"disk": 1}),
    "a member with a comment": _first(central={"comment": b"x"}),
    "made by another system": _first(made=0x114),
    "version 6.3": _first(version=63),
    "a link": _last(lambda entry: {"external": 0o120777 << 16}),
    "a device": _last(lambda entry: {"external": 0o020644 << 16}),
    "a folder by its attributes": _last(lambda entry: {"external": 0o040755 << 16 | 0x10}),
    "a folder for DOS": _last(lambda entry: {"external": entry.external | 0x10}),
    "a folder with a content": _folder,
    "a name twice": lambda data: zip_of([*zip_entries(data), zip_entries(data)[0]]),
    "the bytes of another": _shared,
    "a member that runs over the next": _first(central={"compressed": 1 << 20}),
    "a member past the end": _last(lambda entry: {"central": {"compressed": 1 << 30}}),
    "no local header": _first(before=b"x", central={"offset": 0}),
    "bytes behind the content": _last(lambda entry: {"body": entry.body + b"hidden"}),
    "a wrong crc": _last(lambda entry: {"crc": entry.crc ^ 1}),
    "a smaller size": _last(lambda entry: {"size": entry.size - 1}),
    "a larger size": _last(lambda entry: {"size": entry.size + 1}),
    "a size of terabytes": _last(lambda entry: {"size": 0xFFFFFFFE}),
}
ZIP |= {
    f"the name {name!r:.40}": _more(replace(ZipEntry.of("x", b"x"), name=name, flags=flags))
    for name, flags in (
        (b"../evil", 0),
        (b"a/../../evil", 0),
        (b"/evil", 0),
        (b"C:/evil", 0),
        (b"C:evil", 0),
        (b"a\\..\\evil", 0),
        (b"a//evil", 0),
        (b"./evil", 0),
        (b"evil\0.txt", 0),
        (b"evil\n", 0),
        (b"", 0),
        (b"evil\xff", 0),
        (b"evil\xff", 0x800),
        (b"evil\xed\xa0\x80", 0x800),
        ("evil\u202e".encode(), 0x800),
        (b"/".join([b"d"] * 1900), 0),
        (b"n" * 300, 0),
    )
}
# What only a wheel may be made to, since its names are free.
WHEEL_ZIP: dict[str, Mutation] = {
    "two names in one, by case": _more(ZipEntry.of("pkg/a", b""), ZipEntry.of("pkg/A", b"")),
    "two folders in one, by case": _more(ZipEntry.of("pkg/a/x", b""), ZipEntry.of("pkg/A/y", b"")),
    "two names in one, by their form": _more(
        *(
            ZipEntry.of(unicodedata.normalize(form, "pkg/é"), b"")  # type: ignore[arg-type]
            for form in ("NFC", "NFD")
        )
    ),
    "below a file": _more(ZipEntry.of("pkg/a", b""), ZipEntry.of("pkg/a/b", b"")),
    "a file and a folder": _more(
        ZipEntry.of("pkg/a", b""),
        replace(ZipEntry.of("pkg/a/", b""), external=0o040755 << 16 | 0x10),
    ),
}
# What only a .conda has: the names of its members say what they are.
CONDA_ZIP: dict[str, Mutation] = {
    "one more member": _more(_HIDDEN),
    "a payload under another name": _more(ZipEntry.of("pkg-evil-1-0.tar.zst", b"")),
    "a folder": _more(replace(ZipEntry.of("folder/", b""), external=0o040755 << 16 | 0x10)),
    "a member less": lambda data: zip_of(zip_entries(data)[:-1]),
}

# ---------------------------------------------------------------- tar


@dataclass(frozen=True)
class Block:
    """A header and what follows it, each part free to be wrong."""

    name: bytes
    content: bytes = b""
    kind: bytes = b"0"
    size: int | bytes | None = None  # None: that of the content; bytes: the field as it is
    link: bytes = b""
    magic: bytes = b"ustar\x0000"
    prefix: bytes = b""
    mode: bytes = b"0000644\0"
    tail: bytes = b""  # bytes 500 to 512
    padding: bytes | None = None
    checksum: int = 0  # is added to the right one

    def pack(self) -> bytes:
        """The header and the content, up to a whole block."""
        size = len(self.content) if self.size is None else self.size
        field_of = size if isinstance(size, bytes) else b"%011o\0" % size
        head = (
            self.name.ljust(100, b"\0")[:100]
            + self.mode
            + b"0000000\0" * 2
            + field_of.ljust(12, b"\0")
            + b"00000000000\0"
            + b" " * 8
            + self.kind
            + self.link.ljust(100, b"\0")
            + self.magic
            + bytes(80)
            + self.prefix.ljust(155, b"\0")
            + self.tail.ljust(12, b"\0")
        )
        total = sum(head) + self.checksum
        head = head[:148] + b"%06o\0 " % total + head[156:]
        rest = bytes(-len(self.content) % 512) if self.padding is None else self.padding
        return head + self.content + rest


def tar_of(blocks: Iterable[Block | bytes], *, end: bytes = bytes(1024)) -> bytes:
    """An archive of these headers, or of bytes as they are."""
    return b"".join(b if isinstance(b, bytes) else b.pack() for b in blocks) + end


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def pax(*records: tuple[bytes, bytes] | bytes, kind: bytes = b"x") -> Block:
    """A header of pax records, or of bytes in their place."""
    content = b"".join(r if isinstance(r, bytes) else _record(*r) for r in records)
    return Block(b"./PaxHeaders/x", content, kind)


_EVIL = Block(b"evil.pth", b"import evil\n")
_FILE = Block(b"lib/file", b"content\n")
_GNU = b"ustar  \0"


def long_name(text: bytes, kind: bytes = b"L") -> Block:
    """GNU's header with the next one's name, or with kind ``K`` its link's target."""
    return Block(b"././@LongLink", text, kind, magic=_GNU)


# By name, what comes after the members of a payload whose last file is lib/file (`content\n`) or,
# where a header before it is meant, instead of them. Nothing of it may be read.
TAR: dict[str, list[Block | bytes]] = {
    "a folder with a content": [Block(b"d/", _EVIL.pack(), b"5")],
    "a folder with a size and nothing behind": [Block(b"d/", b"", b"5", size=1024), _EVIL],
    "a link with a content": [Block(b"l", _EVIL.pack(), b"2", link=b"lib/file")],
    "a link with a size": [Block(b"l", b"", b"2", size=1024, link=b"lib/file"), _EVIL],
    "a path twice": [pax((b"path", b"x"), (b"path", b"evil.pth")), _FILE],
    "a path for all": [pax((b"path", b"evil.pth"), kind=b"g"), _FILE],
    "a comment for all": [pax((b"comment", b"x"), kind=b"g"), _FILE],
    "a sparse name": [pax((b"GNU.sparse.name", b"evil.pth")), _FILE],
    "sparse 0.1": [
        pax(
            (b"GNU.sparse.map", b"0,8"), (b"GNU.sparse.size", b"8"), (b"GNU.sparse.numblocks", b"1")
        ),
        _FILE,
    ],
    "sparse 1.0": [
        pax(
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"8"),
        ),
        _FILE,
    ],
    "sparse of old": [Block(b"lib/file", b"content\n", b"S", magic=_GNU)],
    "a pax size of another": [pax((b"size", b"1024")), Block(b"lib/file", _EVIL.pack(), size=0)],
    "a pax size that is smaller": [pax((b"size", b"0")), Block(b"lib/file", _EVIL.pack())],
    "a pax size of a folder": [pax((b"size", b"1024")), Block(b"d/", _EVIL.pack(), b"5", size=0)],
    "a pax size that is none": [pax((b"size", b"0x8")), _FILE],
    "a pax size of 5000 digits": [pax((b"size", b"9" * 5000)), _FILE],
    "another character set": [pax((b"hdrcharset", b"BINARY"), (b"path", b"\xff")), _FILE],
    "a path that is empty": [pax((b"path", b"")), _FILE],
    "a path with a zero byte": [pax((b"path", b"lib/file\0evil")), _FILE],
    "a path that is not UTF-8": [pax((b"path", b"\xff")), _FILE],
    "a record that is too long": [pax(b"99 path=evil.pth\n"), _FILE],
    "a record that is too short": [pax(b"5 path=evil.pth\n"), _FILE],
    "a record without its end": [pax(b"15 path=evil.pth"), _FILE],
    "a record that is none": [pax(b"nothing"), _FILE],
    "a record with a leading zero": [pax(b"018 path=evil.pth\n"), _FILE],
    "an unknown record": [pax((b"VENDOR.path", b"evil.pth")), _FILE],
    "two pax headers": [pax((b"path", b"x")), pax((b"mtime", b"0")), _FILE],
    "pax and a long name": [pax((b"path", b"x")), long_name(b"evil.pth\0"), _FILE],
    "a long name and pax": [long_name(b"evil.pth\0"), pax((b"path", b"x")), _FILE],
    "a long name twice": [long_name(b"x\0"), long_name(b"evil.pth\0"), _FILE],
    "a long name with a zero byte": [long_name(b"x\0evil.pth\0"), _FILE],
    "a long name that is empty": [long_name(b"\0"), _FILE],
    "a long name in a header of POSIX": [Block(b"././@LongLink", b"evil.pth\0", b"L"), _FILE],
    "a long link for a file": [long_name(b"evil\0", b"K"), _FILE],
    "a header of extensions at the end": [pax((b"path", b"evil.pth"))],
    "a name with a zero byte": [Block(b"x\0evil.pth", b"1")],
    "a link name with a zero byte": [Block(b"l", b"", b"2", link=b"lib/file\0/../../evil")],
    "a prefix in a header of GNU": [Block(b"x", b"1", magic=_GNU, prefix=b"evil")],
    "a prefix with a zero byte": [Block(b"x", b"1", prefix=b"evil\0more")],
    "bytes at the header's end": [Block(b"x", b"1", tail=b"x")],
    "no magic": [Block(b"x", b"1", magic=bytes(8))],
    "another magic": [Block(b"x", b"1", magic=b"ustar\x0099")],
    "star": [Block(b"x", b"1", tail=b"\0\0\0\0\0\0\0\0tar\0")],
    "a wrong checksum": [Block(b"x", b"1", checksum=1)],
    "a signed checksum": [Block("é".encode(), b"1", checksum=-512)],
    "bytes behind a content": [Block(b"x", b"1", padding=b"hidden".ljust(511, b"\0"))],
    "a hard link": [Block(b"x", b"", b"1", link=b"lib/file")],
    "a hard link with a content": [Block(b"x", b"evil", b"1", link=b"lib/file")],
    "a contiguous file": [Block(b"x", b"1", b"7")],
    "a character device": [Block(b"x", b"", b"3")],
    "a block device": [Block(b"x", b"", b"4")],
    "a pipe": [Block(b"x", b"", b"6")],
    "a volume's name": [Block(b"x", b"", b"V")],
    "a folder of old": [Block(b"d/", b"", b"\0"), Block(b"d/x", b"1")],
    "a file that is a folder": [Block(b"d/", b"1")],
    "a file with a link name": [Block(b"x", b"1", link=b"evil")],
    "a size in binary that octal says": [Block(b"x", b"1", size=b"\x80" + bytes(10) + b"\x01")],
    "a negative size": [Block(b"x", b"1", size=b"\xff" * 12)],
    "a size in binary of 95 bits": [Block(b"x", b"1", size=b"\x80" + b"\xff" * 11)],
    "a size with a sign": [Block(b"x", b"1", size=b"-0000000001\0")],
    "a size with an underscore": [Block(b"x", b"12345678", size=b"0000000_010\0")],
    "a size with a zero byte": [Block(b"x", b"1", size=b"00001\0000001")],
    "a size that is empty": [Block(b"x", b"", size=bytes(12))],
    "a mode that is no number": [Block(b"x", b"1", mode=b"0o644\0\0\0")],
    "a folder's mode that is no number": [Block(b"d/", b"", b"5", mode=b"0000844\0")],
    "a link's mode that is no number": [Block(b"l", b"", b"2", link=b"x", mode=b"\x800000644")],
    "a mode of an extension that is no number": [
        Block(b"./PaxHeaders/x", _record(b"mtime", b"0"), b"x", mode=b"0000844\0"),
        _FILE,
    ],
    "a block of zeros between": [bytes(512), _EVIL],
    "two blocks of zeros between": [bytes(1024), _EVIL],
    "a link that leads out": [Block(b"l", b"", b"2", link=b"../evil")],
    "a link that leads out in two steps": [
        Block(b"lib/s", b"", b"2", link=b".."),
        Block(b"lib/e", b"", b"2", link=b"s/../evil"),
    ],
    "a link that leads out in two steps, turned around": [
        Block(b"lib/e", b"", b"2", link=b"s/../evil"),
        Block(b"lib/s", b"", b"2", link=b".."),
    ],
    "a link with a dot": [Block(b"lib/l", b"", b"2", link=b"./file")],
    "a link with two slashes": [Block(b"l", b"", b"2", link=b"lib//file")],
    "a link with a slash at its end": [Block(b"l", b"", b"2", link=b"lib/file/")],
    "a link to a drive": [Block(b"l", b"", b"2", link=b"C:/evil")],
    "a file below a link": [
        Block(b"lib/s", b"", b"2", link=b"../share"),
        Block(b"lib/s/file", b"1"),
    ],
    "a link above a file": [
        Block(b"lib/s/file", b"1"),
        Block(b"lib/s", b"", b"2", link=b"../share"),
    ],
    "a link where info is": [Block(b"info", b"", b"2", link=b"lib")],
    "a name of 1900 folders": [pax((b"path", b"/".join([b"d"] * 1900))), _FILE],
    "a folder of 1900 folders": [
        pax((b"path", b"/".join([b"d"] * 1900))),
        Block(b"d/", b"", b"5"),
    ],
    "a name on a drive": [Block(b"C:evil", b"1")],
}

# ---------------------------------------------------------------- zstd

_SKIPPABLE = struct.pack("<2I", 0x184D2A50, 4) + b"evil"
# By name, of one whole frame.
ZSTD: dict[str, Mutation] = {
    "a frame with unused bytes before": lambda frame: _SKIPPABLE + frame,
    "a frame with unused bytes behind": lambda frame: frame + _SKIPPABLE,
    "two frames": lambda frame: frame + frame,
    "an empty frame behind": lambda frame: frame + bytes.fromhex("28b52ffd2000010000"),
    "an empty frame before": lambda frame: bytes.fromhex("28b52ffd2000010000") + frame,
    "trailing bytes": lambda frame: frame + b"\0",
    "cut off": lambda frame: frame[:-1],
    "nothing": lambda frame: b"",
    "another size": lambda frame: _declared(frame, 7),
    "a size of terabytes": lambda frame: _declared(frame, 1 << 40),
    "an old magic": lambda frame: bytes.fromhex("27b52ffd") + frame[4:],
}


def _declared(frame: bytes, size: int) -> bytes:
    """The frame with another content size, of 8 bytes."""
    descriptor = frame[4]
    single = descriptor >> 5 & 1
    window = b"" if single else frame[5:6]
    held = {0: single, 1: 2, 2: 4, 3: 8}[descriptor >> 6]
    rest = frame[5 + len(window) + held :]
    return frame[:4] + bytes([descriptor | 0xC0]) + window + struct.pack("<Q", size) + rest


# ---------------------------------------------------------------- JSON


def _pair(key: str, value: str) -> Mutation:
    """One more key with a value as it is written, before the others."""
    return lambda text: b"{" + f"{json.dumps(key)}: {value}, ".encode() + text.lstrip()[1:]


# By name, of an object.
JSON: dict[str, Mutation] = {
    "a key twice": lambda text: _pair(next(iter(json.loads(text))), '"evil"')(text),
    "a key twice, deep": _pair("extra", '{"a": 1, "a": 2}'),
    "a key twice, escaped": _pair("extra", '{"a": 1, "\\u0061": 2}'),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.decode().encode("utf-16-le"),
    "UTF-32": lambda text: text.decode().encode("utf-32"),
    "Latin-1": lambda text: text.rstrip()[:-1] + b', "extra": "\xe9"}',
    "NaN": _pair("extra", "NaN"),
    "Infinity": _pair("extra", "-Infinity"),
    "a float without end": _pair("extra", "1e999"),
    "a number of 5000 digits": _pair("extra", "9" * 5000),
    "a number of 65 bits": _pair("extra", str(1 << 64)),
    "a float of 5000 digits": _pair("extra", "0." + "1" * 5000),
    "half a pair": _pair("extra", '"\\ud800"'),
    "half a pair as a key": _pair("\ud800", "1"),
    "deep lists": _pair("extra", "[" * 50_000 + "]" * 50_000),
    "deep objects": _pair("extra", '{"a":' * 5000 + "1" + "}" * 5000),
    "rather deep": _pair("extra", "[" * 200 + "]" * 200),
    "something behind": lambda text: text + b"{}",
    "a comma more": lambda text: text.rstrip()[:-1] + b",}",
    "a comment": lambda text: text + b"// evil",
    "a zero byte": lambda text: text + b"\0",
    "a line break in a text": _pair("extra", '"a\nb"'),
    "a list": lambda text: b"[" + text + b"]",
    "nothing": lambda text: b"",
}
