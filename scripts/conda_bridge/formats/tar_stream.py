"""Reads a compressed tar archive front to back, trusting nothing in it.

:mod:`.tar_header` reads the headers; names, links, kinds and sizes are checked, and every byte has
to be a header's, a member's or a zero behind it. So an archive can neither fill the memory, nor
name a file outside the folder that it is for, nor hold one that another reader would find.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import ArtifactError
from . import limits
from .member_names import Names, check_link
from .readable import Readable
from .tar_header import BLOCK, FOLDER, LINK, TarHeader, read_header
from .zstd import zstd

__all__ = ["CHUNK", "Readable", "TarMember", "members"]

CHUNK = 1 << 20
_UNREADABLE = (zstd.ZstdError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)
_REFETCH = "fetch or build the package again"


class _Source:
    """The decompressed archive.

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

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._position

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes, or as many as there are."""
        parts = []
        left = size
        while left > 0 and (part := self._take(left)):
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def block(self) -> bytes:
        """The next block."""
        return self._whole(BLOCK)

    def content(self, size: int) -> bytes:
        """The next `size` bytes, and past the zeros that fill the last block."""
        data = self._whole(size)
        self.fill(size)
        return data

    def fill(self, size: int) -> None:
        """Goes past the zeros after a content of `size` bytes.

        Raises:
            ArtifactError: something else than zeros, or fewer.
        """
        at = self._position
        if any(self._whole(-size % BLOCK)):
            raise ArtifactError(
                f"bytes behind a member's end, where zeros fill its last block (at byte {at})",
                where=self._where,
                fix=_REFETCH,
            )

    def _whole(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) != size:
            raise ArtifactError(
                f"the tar archive is cut off or damaged (it ends early, at byte {self._position})",
                where=self._where,
                fix=_REFETCH,
            )
        return data

    def _take(self, size: int) -> bytes:
        try:
            data = self._raw.read(size)
        except _UNREADABLE as error:
            raise ArtifactError(
                f"cannot be decompressed: {error}", where=self._where, fix=_REFETCH
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
    while (header := read_header(source, where)) is not None:
        member = _checked(header, names, source, where)
        if member is not None:
            yield member
            member.digest()
            source.fill(header.size)
    _check_end(source, where)


def _check_end(source: _Source, where: str) -> None:
    """Zeros alone follow, to the end of a block: two blocks end an archive."""
    padding = BLOCK
    while rest := source.read(CHUNK):
        if rest.count(0) != len(rest):
            at = source.tell() - len(rest.lstrip(b"\0"))
            raise ArtifactError(
                f"there is data after the end of the tar archive (at byte {at}): one reader stops"
                " at the end, another goes on",
                where=where,
                fix=_REFETCH,
            )
        padding += len(rest)
        if padding > limits.TAR_PADDING:
            raise ArtifactError(
                f"unpacks to more than {limits.TAR_PADDING} zeros after its end", where=where
            )
    if padding < 2 * BLOCK or padding % BLOCK:
        raise ArtifactError(
            f"the tar archive is cut off or damaged ({padding} zeros at its end)",
            where=where,
            expected="two blocks of zeros or more",
            fix=_REFETCH,
        )


def _checked(header: TarHeader, names: Names, source: _Source, where: str) -> TarMember | None:
    """The member of `header`; None for a folder."""
    if header.kind == FOLDER:
        names.add_folder(header.path)
        return None
    names.add(header.path)
    if header.kind == LINK:
        check_link(header.path, header.target, where)
        return TarMember(header.path, False, 0, header.target, source, where)
    return TarMember(header.path, header.executable, header.size, None, source, where)
