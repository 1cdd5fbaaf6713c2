"""Reads a compressed tar archive front to back, trusting nothing in it.

:mod:`tarfile` parses the headers, over a stream that gives it no more than a header's worth of
bytes at a time and never seeks back; names, links, kinds and sizes are checked here. So an archive
can neither fill the memory nor name a file outside the folder that it is for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import ArtifactError
from .member_names import Names, check_link
from .zstd import zstd

__all__ = ["CHUNK", "Readable", "TarMember", "members"]

CHUNK = 1 << 20
# A header with its extensions (long names, pax records); what is larger is not a name.
_HEADER_LIMIT = 16 << 10
# An archive is filled up to a whole record, of 10 KiB unless somebody asked for another.
_PADDING_LIMIT = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_UNREADABLE = (zstd.ZstdError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)


class Readable(Protocol):
    """A stream of bytes that can be read front to back."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class _Source:
    """The decompressed archive, as tarfile wants it: read, tell, and seek forward.

    Args:
        raw: the decompressing stream.
        limit: decompressed bytes after which the archive is refused.
        where: for messages.
    """

    def __init__(self, raw: Readable, limit: int, where: str) -> None:
        self._raw = raw
        self._limit = limit
        self._where = where
        self._position = 0
        self._header_left: int | None = None
        self.last_block = b""

    def expect_header(self, expected: bool) -> None:
        """Whether a header is being read from now on, not a member's content."""
        self._header_left = _HEADER_LIMIT if expected else None

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ArtifactError("the tar archive leads backwards", where=self._where)
        while self._position < position:
            if not self._take(min(CHUNK, position - self._position)):
                raise ArtifactError("the tar archive ends early", where=self._where)

    def read(self, size: int) -> bytes:
        if self._header_left is not None:
            self._header_left -= max(size, 1)
            if size < 0 or self._header_left < 0:
                raise ArtifactError(
                    f"a tar header of more than {_HEADER_LIMIT} bytes", where=self._where
                )
        parts = []
        left = size
        while left > 0 and (part := self._take(left)):
            parts.append(part)
            left -= len(part)
        self.last_block = parts[0] if len(parts) == 1 else b"".join(parts)
        return self.last_block

    def _take(self, size: int) -> bytes:
        try:
            data = self._raw.read(size)
        except _UNREADABLE as error:
            raise ArtifactError(
                f"cannot be decompressed: {error}",
                where=self._where,
                fix="fetch or build the package again",
            ) from error
        self._position += len(data)
        if self._position > self._limit:
            raise ArtifactError(
                f"unpacks to more than the {self._limit} bytes it may have", where=self._where
            )
        return data


@dataclass
class TarMember:
    """One file or symbolic link; its content can be read once, until the next one is asked for.

    Attributes:
        path: with ``/`` between its parts; checked.
        executable: whether any executable bit is set.
        size: in bytes.
        link_target: of a symbolic link, else None; checked.
    """

    path: str
    executable: bool
    size: int
    link_target: str | None
    _source: Readable = field(repr=False)
    _where: str = field(repr=False)

    def __post_init__(self) -> None:
        self._left = self.size
        self._digest = hashlib.sha256()

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The content in pieces of `size` bytes, the last one shorter.

        Raises:
            ArtifactError: the archive ends within the member, or cannot be decompressed.
        """
        while self._left:
            data = self._source.read(min(size, self._left))
            if len(data) < min(size, self._left):
                raise ArtifactError(
                    f"ends {self._left - len(data)} bytes before its end",
                    where=f"{self._where}: {self.path}",
                    fix="fetch or build the package again",
                )
            self._left -= len(data)
            self._digest.update(data)
            yield data

    def again(self, copy: Readable) -> TarMember:
        """The same member unread, with its content to come from `copy`."""
        return dataclasses.replace(self, _source=copy)

    def read(self) -> bytes:
        """The whole content."""
        return b"".join(self.chunks())

    def digest(self) -> bytes:
        """The sha256 of the content; reads what has not been read yet."""
        for _ in self.chunks():
            pass
        return self._digest.digest()


def members(raw: Readable, where: str, *, max_bytes: int, max_members: int) -> Iterator[TarMember]:
    """The files and symbolic links of the decompressed tar archive `raw`, in its order.

    Args:
        raw: a decompressing stream.
        where: file and member, for messages.
        max_bytes: how large the archive may be once decompressed.
        max_members: how many members it may have.

    Raises:
        ArtifactError: a name or link that leaves the package, a name twice, a hard link, a device,
            a sparse file, too many or too large members, or an archive that is cut off or damaged.
    """
    source = _Source(raw, max_bytes, where)
    names = Names(where, max_members)
    try:
        source.expect_header(True)
        tar = tarfile.TarFile(fileobj=source, mode="r")  # type: ignore[arg-type]
        while True:
            source.expect_header(True)
            header = tar.next()
            if header is None:
                break
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header
            source.expect_header(False)
            member = _checked(header, names, source, where)
            if member is not None:
                yield member
                member.digest()
            source.seek(tar.offset)
    except (tarfile.TarError, UnicodeError, OverflowError, ValueError) as error:
        raise ArtifactError(f"damaged tar archive: {error}", where=where) from error
    source.expect_header(False)
    # tarfile takes a damaged header for the end of the archive; the end is a block of zeros.
    if len(source.last_block) != _BLOCK or any(source.last_block):
        raise ArtifactError(
            "the tar archive is cut off or damaged",
            where=where,
            fix="fetch or build the package again",
        )
    padding = 0
    while rest := source.read(CHUNK):
        padding += len(rest)
        if rest.count(0) != len(rest):
            raise ArtifactError("there is data after the end of the tar archive", where=where)
        if padding > _PADDING_LIMIT:
            raise ArtifactError(
                f"unpacks to more than {_PADDING_LIMIT} zeros after its end", where=where
            )


def _checked(
    header: tarfile.TarInfo, names: Names, source: _Source, where: str
) -> TarMember | None:
    """The member of `header`; None for a folder."""
    if header.isdir():
        names.add_folder(header.name.removesuffix("/"))
        return None
    names.add(header.name)
    shown = f"{where}: {header.name}"
    if header.issym():
        check_link(header.name, header.linkname, where)
        return TarMember(header.name, False, 0, header.linkname, source, where)
    if header.islnk():
        raise ArtifactError("a hard link", where=shown, expected="files and symbolic links")
    if not header.isreg() or header.issparse():
        raise ArtifactError(
            f"a member of kind {header.type!r}" if not header.isreg() else "a sparse file",
            where=shown,
            expected="files and symbolic links",
        )
    if header.size < 0:
        raise ArtifactError(f"a size of {header.size} bytes", where=shown)
    executable = bool(header.mode & 0o111)
    return TarMember(header.name, executable, header.size, None, source, where)
