"""Writes zip archives front to back, deflated by several threads, with bytes that never vary.

A member is cut into pieces of one size. Each piece is deflated by itself and ended on a byte
boundary, so that the pieces in a row are one valid deflate stream: the bytes depend on the content
and on nothing else, whatever the number of threads. ISA-L does the work; its level 2 is the
smallest of its levels whose output is the same on every x86-64 with SSE 4.2 (level 3 has another
match finder for AVX2).
"""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from isal import isal_zlib

__all__ = ["LEVEL", "PIECE", "ZipWriter", "default_threads"]

LEVEL = 2
PIECE = 1 << 20
_MAX_THREADS = 8

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_DEFLATED = 8
_UNIX = 3 << 8
_UTF8 = 0x800
_MAX32 = 0xFFFFFFFF
_MAX16 = 0xFFFF
# What does not compress grows by less than 1 in 1000.
_ZIP64_FROM = _MAX32 - (_MAX32 >> 9)


def default_threads() -> int:
    """One a core that this process may use, up to 8, less the one that reads and hashes."""
    return max(1, min(_MAX_THREADS, len(os.sched_getaffinity(0)) - 1))


@dataclass
class _Entry:
    """One member: what its local header and its line in the central directory say."""

    name: bytes
    executable: bool
    large: bool
    offset: int = -1
    crc: int = 0
    size: int = 0
    compressed: int = 0


@dataclass(frozen=True)
class _Piece:
    entry: _Entry
    work: Future[tuple[bytes, int, int]]
    last: bool


def _deflate(data: bytes, last: bool) -> tuple[bytes, int, int]:
    """A piece, deflated; its CRC-32 and its size."""
    deflater = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -15)
    body = deflater.compress(data)
    body += deflater.flush() if last else deflater.flush(isal_zlib.Z_FULL_FLUSH)
    return body, isal_zlib.crc32(data), len(data)


class ZipWriter:
    """A zip archive that is written to a seekable stream.

    Args:
        stream: empty, writable and seekable.
        timestamp: seconds since 1970, the time of every member; zip begins in 1980.
        threads: that deflate; 0 for :func:`default_threads`. The bytes are the same for every
            number.
    """

    def __init__(self, stream: IO[bytes], *, timestamp: int, threads: int = 0) -> None:
        workers = threads or default_threads()
        self._stream = stream
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="deflate")
        self._queue: deque[_Piece] = deque()
        self._depth = 2 * workers + 2
        self._entries: list[_Entry] = []
        self._position = 0
        self._date, self._time = _dos_time(timestamp)

    def __enter__(self) -> ZipWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def add(
        self, name: str, content: Iterable[bytes], *, size: int, executable: bool = False
    ) -> None:
        """Adds a member.

        Args:
            name: its path, with ``/`` between the parts.
            content: the bytes, in pieces of :data:`PIECE`, the last one shorter.
            size: how many bytes there will be; decides whether the header has 64-bit sizes.
            executable: permissions 0755 instead of 0644.
        """
        entry = _Entry(name.encode(), executable, size >= _ZIP64_FROM)
        self._entries.append(entry)
        held = b""
        for data in content:
            if held:
                self._submit(entry, held, last=False)
            held = data
        self._submit(entry, held, last=True)

    def _submit(self, entry: _Entry, data: bytes, last: bool) -> None:
        while len(self._queue) >= self._depth:
            self._write_piece(self._queue.popleft())
        self._queue.append(_Piece(entry, self._pool.submit(_deflate, data, last), last))

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._position += len(data)

    def _write_piece(self, piece: _Piece) -> None:
        entry = piece.entry
        if entry.offset < 0:
            entry.offset = self._position
            self._write(self._local_header(entry))
        body, crc, size = piece.work.result()
        self._write(body)
        entry.crc = isal_zlib.crc32_combine(entry.crc, crc, size) if entry.size else crc
        entry.size += size
        entry.compressed += len(body)
        if piece.last:
            self._stream.seek(entry.offset)
            self._stream.write(self._local_header(entry))
            self._stream.seek(self._position)

    def _local_header(self, entry: _Entry) -> bytes:
        extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.compressed) if entry.large else b""
        sizes = (_MAX32, _MAX32) if entry.large else (entry.compressed, entry.size)
        fields = (self._version(entry.large), self._flags(entry), _DEFLATED, self._time, self._date)
        header = _LOCAL.pack(b"PK\x03\x04", *fields, entry.crc, *sizes, len(entry.name), len(extra))
        return header + entry.name + extra

    def _central_header(self, entry: _Entry) -> bytes:
        extra = b""
        size, compressed, offset = entry.size, entry.compressed, entry.offset
        if entry.large:
            extra += struct.pack("<2Q", size, compressed)
            size = compressed = _MAX32
        if offset >= _MAX32:
            extra += struct.pack("<Q", offset)
            offset = _MAX32
        if extra:
            extra = struct.pack("<2H", 1, len(extra)) + extra
        mode = 0o100755 if entry.executable else 0o100644
        version = self._version(bool(extra))
        fields = (_UNIX | version, version, self._flags(entry), _DEFLATED, self._time, self._date)
        header = _CENTRAL.pack(
            b"PK\x01\x02", *fields, entry.crc, compressed, size, len(entry.name), len(extra),
            0, 0, 0, mode << 16, offset,
        )  # fmt: skip
        return header + entry.name + extra

    @staticmethod
    def _version(large: bool) -> int:
        return 45 if large else 20

    @staticmethod
    def _flags(entry: _Entry) -> int:
        return 0 if entry.name.isascii() else _UTF8

    def _finish(self) -> None:
        while self._queue:
            self._write_piece(self._queue.popleft())
        start, count = self._position, len(self._entries)
        for entry in self._entries:
            self._write(self._central_header(entry))
        length = self._position - start
        if start >= _MAX32 or length >= _MAX32 or count >= _MAX16:
            end64 = self._position
            self._write(_END64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start))
            self._write(_LOCATOR64.pack(b"PK\x06\x07", 0, end64, 1))
        short = (min(count, _MAX16),) * 2
        self._write(
            _END.pack(b"PK\x05\x06", 0, 0, *short, min(length, _MAX32), min(start, _MAX32), 0)
        )


def _dos_time(timestamp: int) -> tuple[int, int]:
    """Date and time as a zip has them: 1980 to 2107, UTC, in steps of two seconds."""
    moment = time.gmtime(timestamp)
    if moment.tm_year < 1980:
        moment = time.gmtime(315532800)
    if moment.tm_year > 2107:
        moment = time.gmtime(4354819198)
    date = (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday
    return date, moment.tm_hour << 11 | moment.tm_min << 5 | min(moment.tm_sec, 59) // 2
