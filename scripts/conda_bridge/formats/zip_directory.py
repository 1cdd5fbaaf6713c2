"""Reads zip archives of the one plain form that builders write, and refuses every other.

A zip says everything twice: before each member, and in the directory at its end. Some readers go by
the one, some by the other (rattler and uv read from the front, Python from the end), so an archive
in which they differ is two archives. Here they have to be equal, field by field, and every byte
belongs to a member or to the directory, in its order: nothing before, between or behind them.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import ArtifactError
from . import limits
from .member_names import Names

__all__ = ["DEFLATED", "STORED", "ZipArchive", "ZipMember", "ZipStream"]

STORED = 0
DEFLATED = 8

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_EXTRA = struct.Struct("<2H")
_MAX32 = 0xFFFFFFFF
_MAX16 = 0xFFFF
_COMMENT = 0xFFFF  # the longest one

_SYSTEMS = {0, 3}  # DOS and Unix
_VERSIONS = {10, 20, 45}
_UTF8 = 0x800
_ENCRYPTED = 0x2041  # each of its forms
_DESCRIPTOR = 0x8
_LEVELS = 0x6  # how hard the deflater tried
_ZIP64 = 0x0001
# Info-ZIP's times and owners, which installers pass over. Their lengths before a member and in the
# directory; a field that carries a name (0x7075) is not among them.
_UNREAD = {0x5455: ({5, 9, 13}, {5}), 0x7875: ({11}, {11})}
_DEFLATE_RATIO = 1032  # no deflate stream grows by more
_CHUNK = 1 << 16
_REFETCH = "fetch it or build it again"


@dataclass(frozen=True, slots=True)
class ZipMember:
    """One member; what both of its headers say.

    Attributes:
        name: as it is, checked; a folder's without the slash at its end.
        size: in bytes, unpacked.
        compressed: in bytes, as it is in the archive.
        method: :data:`STORED` or :data:`DEFLATED`.
        crc: CRC-32 of the content.
        mode: Unix type and permissions; 0 where there are none.
        folder: whether it is a folder.
        header: offset of its local header.
        start: offset of its content.
    """

    name: str
    size: int
    compressed: int
    method: int
    crc: int
    mode: int
    folder: bool
    header: int
    start: int


@dataclass(frozen=True, slots=True)
class _Central:
    """A line of the directory, with what the local header has to repeat."""

    raw: bytes
    name: str
    fixed: tuple[int, ...]  # version, flags, method, time, date
    crc: int
    compressed: int
    size: int
    mode: int
    offset: int

    @property
    def flags(self) -> int:
        return self.fixed[1]

    @property
    def method(self) -> int:
        return self.fixed[2]

    @property
    def folder(self) -> bool:
        return self.name.endswith("/")


class ZipArchive:
    """An archive whose directory has been read and compared with every header in it.

    Args:
        path: the file.
        methods: the compression methods that its members may have.
        max_members: how many members there may be.
        max_unpacked: bytes of all members together.

    Raises:
        ArtifactError: it cannot be read, is damaged, has another form than builders write, or a
            member with a name, kind or size that is not allowed.
    """

    def __init__(
        self,
        path: Path,
        *,
        methods: Sequence[int] = (STORED, DEFLATED),
        max_members: int = limits.MEMBERS,
        max_unpacked: int = limits.UNPACKED,
    ) -> None:
        self._file = path.name
        self._methods = methods
        try:
            self._raw: IO[bytes] = path.open("rb")
        except OSError as error:
            raise ArtifactError(
                f"cannot be read: {error}", where=path.name[:300], fix=_REFETCH
            ) from error
        try:
            self._length = self._raw.seek(0, os.SEEK_END)
            entries, self._directory = self._read_directory(max_members)
            self._check_names(entries, max_members, max_unpacked)
            self.members = self._located(entries)
        except BaseException:
            self._raw.close()
            raise
        self._by_name = {member.name: member for member in self.members if not member.folder}

    def __enter__(self) -> ZipArchive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._raw.close()

    @property
    def files(self) -> list[ZipMember]:
        """The members that are no folders, in the archive's order."""
        return [member for member in self.members if not member.folder]

    def open(self, name: str) -> ZipStream:
        """The content of a file, while the archive is open; of one member at a time.

        Raises:
            ArtifactError: there is no such file.
        """
        member = self._by_name.get(name)
        if member is None:
            raise ArtifactError(
                "the member is missing", where=f"{self._file}: {name}", fix=_REFETCH
            )
        return ZipStream(self._raw, member, f"{self._file}: {name}")

    def read(self, name: str, limit: int) -> bytes:
        """The whole content of a file of at most `limit` bytes.

        Raises:
            ArtifactError: there is no such file, it is larger, or damaged.
        """
        with self.open(name) as stream:
            if stream.member.size > limit:
                raise ArtifactError(f"larger than {limit} bytes", where=f"{self._file}: {name}")
            return stream.read()

    # ------------------------------------------------------------ the directory

    def _bytes(self, offset: int, size: int, what: str) -> bytes:
        self._raw.seek(offset)
        data = self._raw.read(size)
        if len(data) != size:
            raise self._fault(f"{what} is cut off", offset)
        return data

    def _fault(self, what: str, offset: int, readings: str = "", name: str = "") -> ArtifactError:
        """What is wrong at a byte, and how two readers would take it."""
        return ArtifactError(
            f"{what} (at byte {offset})" + (f": {readings}" if readings else ""),
            where=f"{self._file}: {name[:200]!r}" if name else self._file,
            expected="a zip archive of the form that builders write, which all tools read alike",
            fix=_REFETCH,
        )

    def _end(self) -> tuple[int, int, int, int]:
        """Where the directory's end begins, and the directory's entries, length and offset."""
        at = self._length - _END.size
        tail_at = max(0, at - _COMMENT)
        tail = self._bytes(tail_at, self._length - tail_at, "the archive")
        if at < 0 or not tail.startswith(b"PK\x05\x06", at - tail_at):
            found = tail.rfind(b"PK\x05\x06")
            if found < 0 or len(tail) - found < _END.size:
                raise ArtifactError(
                    "not a zip archive, or one that is cut off", where=self._file, fix=_REFETCH
                )
            more = len(tail) - found - _END.size
            raise self._fault(
                f"{more} bytes after the end of the directory",
                tail_at + found + _END.size,
                "one reader passes over them, for another the archive is cut off or another one",
            )
        _, disk, first, here, count, length, offset, comment = _END.unpack(tail[at - tail_at :])
        if (disk, first, comment) != (0, 0, 0) or here != count:
            raise self._fault("an end of several disks, or with a comment", at)
        locator_at = at - _LOCATOR64.size
        if locator_at < tail_at or not tail.startswith(b"PK\x06\x07", locator_at - tail_at):
            return at, count, length, offset
        return self._end64(at, (count, length, offset))

    def _end64(self, at: int, short: tuple[int, int, int]) -> tuple[int, int, int, int]:
        locator_at = at - _LOCATOR64.size
        start = locator_at - _END64.size
        _, disk, offset64, disks = _LOCATOR64.unpack(
            self._bytes(locator_at, _LOCATOR64.size, "the zip64 locator")
        )
        if start < 0 or (disk, offset64, disks) != (0, start, 1):
            raise self._fault("a zip64 end that is not where its locator says", locator_at)
        magic, size, _made, _needed, disk, first, here, *long = _END64.unpack(
            self._bytes(start, _END64.size, "the zip64 end")
        )
        if (magic, size, disk, first) != (b"PK\x06\x06", _END64.size - 12, 0, 0) or here != long[0]:
            raise self._fault("a zip64 end of another form", start)
        largest = (_MAX16, _MAX32, _MAX32)
        for value, held, most in zip(long, short, largest, strict=True):
            if held not in (value, most):
                raise self._fault(
                    f"the zip64 end says {value} where the end says {held}",
                    start,
                    "one reader takes the one, another the other",
                )
        if all(held != most for held, most in zip(short, largest, strict=True)):
            raise self._fault("a zip64 end where nothing needs one", start)
        return start, long[0], long[1], long[2]

    def _read_directory(self, max_members: int) -> tuple[list[_Central], int]:
        end, count, length, offset = self._end()
        if offset + length != end:
            raise self._fault(
                f"{end - offset - length} bytes before the first member or before the directory"
                " that no header counts",
                offset,
                "one reader counts offsets from the file's first byte, another from the archive's",
            )
        if length > limits.ZIP_DIRECTORY or count > max_members:
            raise self._fault(f"a directory of {count} members and {length} bytes", offset)
        data = self._bytes(offset, length, "the directory")
        entries = []
        at = 0
        while at < length:
            entry, size = self._central(data, at, offset)
            entries.append(entry)
            at += size
        if len(entries) != count:
            raise self._fault(
                f"the directory has {len(entries)} members, and its end says {count}",
                end,
                "one reader takes all of them, another as many as it was told",
            )
        return entries, offset

    def _central(self, data: bytes, at: int, base: int) -> tuple[_Central, int]:
        here = base + at
        if len(data) - at < _CENTRAL.size or data[at : at + 4] != b"PK\x01\x02":
            raise self._fault("something else than a member in the directory", here)
        _, made, version, flags, method, time, date, *numbers = _CENTRAL.unpack_from(data, at)
        crc, compressed, size, name_length, extra_length, comment, *numbers = numbers
        disk, _internal, external, offset = numbers
        total = _CENTRAL.size + name_length + extra_length + comment
        if len(data) - at < total:
            raise self._fault("a line of the directory that runs over its end", here)
        raw = data[at + _CENTRAL.size : at + _CENTRAL.size + name_length]
        name = self._name(raw, flags, here)
        self._check_kind(name, flags, method, made >> 8, version, external, here)
        if comment or disk:
            raise self._fault("a comment, or a member of another disk", here, name=name)
        extra = data[at + _CENTRAL.size + name_length : at + total]
        places = [value == _MAX32 for value in (size, compressed, offset)]
        long = self._extra(extra, here, name, central=True)
        wide = self._long(long, sum(places), here, name)
        values = [
            wide.pop(0) if place else value
            for place, value in zip(places, (size, compressed, offset), strict=True)
        ]
        size, compressed, offset = values
        mode = external >> 16 if made >> 8 == 3 else 0
        fixed = (version, flags, method, time, date)
        return _Central(raw, name, fixed, crc, compressed, size, mode, offset), total

    def _name(self, raw: bytes, flags: int, at: int) -> str:
        shown = repr(raw[:200])
        if b"\0" in raw:
            raise self._fault(
                f"a name with a zero byte, {shown}", at, "one reader cuts it off there"
            )
        try:
            return raw.decode("utf-8" if flags & _UTF8 else "ascii")
        except UnicodeDecodeError:
            raise self._fault(
                f"a name that is not in the encoding it says it has, {shown}",
                at,
                "readers guess one, each its own",
            ) from None

    def _check_kind(
        self, name: str, flags: int, method: int, system: int, version: int, external: int, at: int
    ) -> None:
        """What the directory says of a member besides its name and sizes."""
        if flags & _ENCRYPTED:
            raise self._fault("the member is encrypted", at, name=name)
        if method not in self._methods:
            allowed = " or ".join({STORED: "stored", DEFLATED: "deflate"}[m] for m in self._methods)
            raise self._fault(
                f"the member is compressed by another compression method, {method}, than {allowed}",
                at,
                name=name,
            )
        if flags & _DESCRIPTOR:
            raise self._fault(
                "the member has its sizes behind it (a data descriptor)",
                at,
                "one reader goes by these, another by the directory",
                name,
            )
        unknown = flags & ~(_UTF8 | (_LEVELS if method == DEFLATED else 0x2))
        if unknown or version not in _VERSIONS or system not in _SYSTEMS:
            raise self._fault(
                f"flags {flags:#x}, version {version}, system {system}", at, name=name
            )
        folder = name.endswith("/")
        kind = stat.S_IFMT(external >> 16) if system == 3 else 0
        if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG) or (
            not folder and external & 0x10
        ):
            raise self._fault(
                f"not a regular file (a link, perhaps): attributes {external:#010x}", at, name=name
            )

    def _extra(self, data: bytes, at: int, name: str, *, central: bool) -> bytes | None:
        """The zip64 values in an extra field."""
        seen: set[int] = set()
        long = None
        place = 0
        while place < len(data):
            kind, size = _EXTRA.unpack_from(data, place) if len(data) - place >= 4 else (-1, -1)
            body = data[place + 4 : place + 4 + size]
            if kind < 0 or len(body) != size or kind in seen:
                raise self._fault("an extra field that is cut off or there twice", at, name=name)
            seen.add(kind)
            if kind == _ZIP64:
                long = body
            elif kind not in _UNREAD or size not in _UNREAD[kind][central]:
                raise self._fault(
                    f"an extra field {kind:#06x} of {size} bytes",
                    at,
                    "it may carry another name or size for the reader that knows it",
                    name,
                )
            elif kind == 0x5455 and body[0] > 7:
                raise self._fault(f"an extra field {kind:#06x} of unknown flags", at, name=name)
            place += 4 + size
        return long

    def _long(self, field: bytes | None, count: int, at: int, name: str) -> list[int]:
        """The `count` numbers of 64 bits of a zip64 field."""
        if len(field or b"") != 8 * count or (field is not None and not count):
            raise self._fault(
                f"a zip64 field of {len(field or b'')} bytes for {count} numbers",
                at,
                "one reader takes the numbers in it, another those before it",
                name,
            )
        return list(struct.unpack(f"<{count}Q", field or b""))

    def _check_names(self, entries: list[_Central], max_members: int, max_unpacked: int) -> None:
        names = Names(self._file, max_members, fold=True)
        total = 0
        for entry in entries:
            if entry.folder:
                names.add_folder(entry.name.removesuffix("/"))
                if entry.size or entry.crc or entry.compressed > 2:
                    raise self._fault(
                        f"a folder of {entry.size} bytes",
                        entry.offset,
                        "one reader passes over them, another takes it for a file",
                        entry.name,
                    )
            else:
                names.add(entry.name)
            total += entry.size
        if total > max_unpacked:
            raise ArtifactError(
                f"unpacks to {total} bytes", where=self._file, expected=f"at most {max_unpacked}"
            )

    # ------------------------------------------------------------ the members

    def _located(self, entries: list[_Central]) -> tuple[ZipMember, ...]:
        """The members, which follow one another from the first byte to the directory."""
        members = []
        at = 0
        for entry in entries:
            if entry.offset != at:
                self._wrong_place(entry, at)
            start = self._compare(entry)
            if start + entry.compressed > self._directory:
                raise self._fault("the member runs into the directory", at, name=entry.name)
            if entry.method == STORED and entry.size != entry.compressed:
                raise self._fault(
                    f"stored, and {entry.compressed} bytes for {entry.size}", at, name=entry.name
                )
            if entry.size > _DEFLATE_RATIO * entry.compressed:
                raise self._fault(
                    f"{entry.compressed} bytes cannot unpack to {entry.size}", at, name=entry.name
                )
            members.append(
                ZipMember(
                    name=entry.name.removesuffix("/"),
                    size=entry.size,
                    compressed=entry.compressed,
                    method=entry.method,
                    crc=entry.crc,
                    mode=entry.mode,
                    folder=entry.folder,
                    header=at,
                    start=start,
                )
            )
            at = start + entry.compressed
        if at != self._directory:
            raise self._gap(at, self._directory)
        return tuple(members)

    def _wrong_place(self, entry: _Central, expected: int) -> None:
        if entry.offset < expected:
            raise self._fault(
                "shares its bytes with another member, or is not in the directory's order",
                entry.offset,
                name=entry.name,
            )
        raise self._gap(expected, entry.offset)

    def _gap(self, start: int, end: int) -> ArtifactError:
        place = "before the first member" if start == 0 else "that belong to no member"
        return self._fault(
            f"{end - start} bytes {place}",
            start,
            "one that reads from the front finds there what the directory does not name",
        )

    def _compare(self, entry: _Central) -> int:
        """Where the content begins; the local header has to say what the directory does."""
        at = entry.offset
        header = self._bytes(at, _LOCAL.size, "a local header")
        magic, *fields = _LOCAL.unpack(header)
        fixed, (crc, compressed, size, name_length, extra_length) = tuple(fields[:5]), fields[5:]
        if magic != b"PK\x03\x04":
            raise self._fault("no local header where the directory has one", at, name=entry.name)
        more = self._bytes(at + _LOCAL.size, name_length + extra_length, "a local header")
        start = at + _LOCAL.size + len(more)
        if start + entry.compressed > self._directory:
            raise self._fault("the member runs into the directory", at, name=entry.name)
        long = self._extra(more[name_length:], at, entry.name, central=False)
        if long is not None:
            # Some writers give both numbers here even where they are small.
            wide = self._long(long, 2, at, entry.name)
            if {size, compressed} != {_MAX32} and [size, compressed] != wide:
                raise self._fault("two sizes in one local header", at, name=entry.name)
            size, compressed = wide
        readings = "one that reads from the front takes the first, one from the end the second"
        found = {"name": more[:name_length], "crc": crc, "size": size, "compressed": compressed}
        said = {
            "name": entry.raw,
            "crc": entry.crc,
            "size": entry.size,
            "compressed": entry.compressed,
        }
        labels = ("version", "flags", "method", "time", "date")
        found |= dict(zip(labels, fixed, strict=True))
        said |= dict(zip(labels, entry.fixed, strict=True))
        for key, value in found.items():
            if value != said[key]:
                raise self._fault(
                    f"{key} {value!r:.200} before the member, {said[key]!r:.200} in the directory",
                    at,
                    readings,
                    entry.name,
                )
        return start


class ZipStream:
    """A file in a zip archive, read front to back; damage is reported as an ArtifactError."""

    def __init__(self, raw: IO[bytes], member: ZipMember, where: str) -> None:
        self.member = member
        self._raw = raw
        self._where = where
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
        self._at = member.start  # of the next compressed byte
        self._end = member.start + member.compressed
        self._waiting = b""
        self._left = member.size
        self._crc = 0
        self._checked = False

    def __enter__(self) -> ZipStream:
        return self

    def __exit__(self, *_error: object) -> None:
        self._waiting = b""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, and fewer only at the end; none at the end.

        Raises:
            ArtifactError: it cannot be unpacked, or not to what both headers say.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        parts = []
        while wanted:
            part = self._unpack(wanted)
            if not part:
                raise self._fault(f"ends {self._left} bytes before its end")
            parts.append(part)
            wanted -= len(part)
            self._left -= len(part)
            self._crc = zlib.crc32(part, self._crc)
        if not self._left and not self._checked:
            self._check_end()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _unpack(self, size: int) -> bytes:
        """Some bytes, at most `size`; none when there are no more."""
        if self._inflater is None:
            return self._take(size)
        while not self._inflater.eof:
            if not self._waiting:
                self._waiting = self._take(_CHUNK)
            drained = not self._waiting
            try:
                data = self._inflater.decompress(self._waiting, size)
            except zlib.error as error:
                raise self._fault(f"{error}") from error
            self._waiting = self._inflater.unconsumed_tail
            if data or drained:
                return data
        return b""

    def _take(self, size: int) -> bytes:
        try:
            self._raw.seek(self._at)
            data = self._raw.read(min(size, self._end - self._at))
        except (OSError, ValueError) as error:
            raise self._fault(str(error)) from error
        self._at += len(data)
        return data

    def _check_end(self) -> None:
        """The content ends where both headers say, and is what was put in."""
        self._checked = True
        if self._inflater is not None:
            if self._unpack(1):
                raise self._fault(f"unpacks to more than the {self.member.size} bytes it has")
            rest = len(self._inflater.unused_data) or len(self._waiting)
            rest += self._end - self._at
            if not self._inflater.eof or rest:
                raise self._fault(
                    f"the deflate stream ends {rest} bytes before the member does"
                    if rest
                    else "the deflate stream has no end"
                )
        elif self._at != self._end:
            raise self._fault(f"has {self._end - self._at} more bytes")
        if self._crc != self.member.crc:
            raise self._fault(f"CRC-32 is {self._crc:#010x}, and {self.member.crc:#010x} was said")

    def _fault(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"cannot be unpacked: {what} (member at byte {self.member.header})",
            where=self._where,
            fix=_REFETCH,
        )
