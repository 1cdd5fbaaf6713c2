"""Bytes that are read where they lie, a piece at a time: a library may be larger than the memory.

What comes out of an archive and has to be looked into here and there waits in a file without a name
(:class:`Room`), of which nothing is left when the last that reads it is gone.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ..errors import ArtifactError
from ..system import atomic

__all__ = ["PIECE", "Allowance", "Content", "Held", "OpenFile", "Room", "Stored", "as_content"]

PIECE = 1 << 20


class OpenFile(Protocol):
    """What has a file open."""

    def fileno(self) -> int:
        """Its descriptor."""


class Content(ABC):
    """Some bytes.

    Attributes:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def at(self, offset: int, size: int) -> bytes:
        """The `size` bytes from `offset` on, or as many of them as there are."""
        if offset < 0 or offset >= self.size:
            return b""
        return self._read(offset, min(size, self.size - offset))

    @abstractmethod
    def part(self, offset: int, size: int) -> Content:
        """The `size` bytes from `offset` on, which have to be there."""

    @abstractmethod
    def _read(self, offset: int, size: int) -> bytes:
        """Bytes that are there."""

    def pieces(self, size: int = PIECE) -> Iterator[bytes]:
        """All of it, in pieces of `size` bytes, the last one shorter."""
        for offset in range(0, self.size, size):
            yield self.at(offset, size)


class Held(Content):
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data)
        super().__init__(len(self._view))

    def part(self, offset: int, size: int) -> Content:
        """The same memory."""
        return Held(self._view[offset : offset + size])

    def _read(self, offset: int, size: int) -> bytes:
        return bytes(self._view[offset : offset + size])


class Stored(Content):
    """Bytes in an open file.

    Args:
        file: that is open; what has it open lives as long as this does.
        offset: of the first byte.
        size: how many.
    """

    def __init__(self, file: OpenFile, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        super().__init__(size)

    def part(self, offset: int, size: int) -> Content:
        """The same file."""
        return Stored(self._file, self._offset + offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        parts = []
        while size > 0:
            part = os.pread(self._file.fileno(), size, self._offset + offset)
            if not part:
                break  # the file was cut off while it is read
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Room:
    """A file without a name, for the large members of one artifact.

    Args:
        folder: which has room for them; that for temporary files by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._descriptor = -1
        self._size = 0

    def fileno(self) -> int:
        """The descriptor; the file is made when it is first asked for."""
        if self._descriptor < 0:
            with tempfile.TemporaryFile(prefix=atomic.PREFIX, dir=self._folder) as file:
                self._descriptor = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor

    def keep(self, chunks: Iterable[bytes]) -> Stored:
        """Writes `chunks` down; what is given reads them as long as it lives."""
        start = self._size
        for data in chunks:
            view = memoryview(data)
            while view:
                written = os.pwrite(self.fileno(), view, self._size)
                self._size += written
                view = view[written:]
        return Stored(self, start, self._size - start)

    def only(self, chunks: Iterable[bytes]) -> Stored:
        """Writes `chunks` down in the place of all that was kept before, which is gone then."""
        self._size = 0
        kept = self.keep(chunks)
        os.ftruncate(self.fileno(), self._size)
        return kept


def as_content(data: bytes | bytearray | memoryview | Content) -> Content:
    """`data` as it is, or bytes as a content."""
    return data if isinstance(data, Content) else Held(data)


class Allowance:
    """What all files of one artifact may take together of the memory in which facts are kept.

    Args:
        limit: in bytes.
        what: takes it, for the message.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit = self._left = limit
        self._what = what

    def spend(self, size: int, where: str) -> None:
        """Takes `size` bytes off.

        Raises:
            ArtifactError: there are not so many left.
        """
        self._left -= size
        if self._left < 0:
            raise ArtifactError(
                f"with it, {self._what} take {self._limit - self._left} bytes",
                where=where,
                expected=f"at most {self._limit} bytes",
            )
