"""The two forms of a conda package: ``.conda``, and the older ``.tar.bz2``.

A ``.conda`` is a zip of three stored members, two of which are tar archives: what conda knows about
the package, and the files to install. A ``.tar.bz2`` is one tar archive with both, in any order.
Here they are two readers with one interface; what is inside is checked by :mod:`.conda_package`,
in the same way for both.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ..errors import ArtifactError
from . import limits as bounds
from . import tar_stream
from .json_reader import parse_object
from .tar_stream import TarMember
from .zip_directory import STORED, ZipArchive
from .zstd_frame import ZstdFrame

__all__ = ["INFO", "REFETCH", "Container", "Limits", "open_container"]

INFO = "info/"
REFETCH = "fetch or build the package again"
_METADATA = "metadata.json"
_FORMAT = 2
_PER_MEMBER = 4 << 10  # header, extensions and padding of one member of a tar archive


@dataclass(frozen=True)
class Limits:
    """How large a package may be once unpacked.

    Attributes:
        payload: bytes of all its files together.
        info: bytes of everything below ``info/``.
        members: number of files.
    """

    payload: int = bounds.UNPACKED
    info: int = bounds.INFO_SIZE
    members: int = bounds.MEMBERS


class Container(Protocol):
    """A package's file. Both streams raise ArtifactError for what is damaged or hostile."""

    def info(self) -> Iterator[TarMember]:
        """The members below ``info/``; all other checks of the file's form are made here, too."""

    def payload(self, size: int, count: int) -> Iterator[TarMember]:
        """The members that are installed, which are `count` and have `size` bytes together."""


def open_container(path: Path, stem: str, ending: str, limits: Limits) -> Container:
    """The reader of the package `path`.

    Args:
        path: the file.
        stem: its name without the ending.
        ending: one of :data:`.label.CONDA_ENDINGS`.
        limits: of what it may unpack to.
    """
    reader = _TarBz2 if ending == ".tar.bz2" else _Zip
    return reader(path, stem, limits)


def _room(size: int, count: int) -> int:
    """How large a tar archive of `count` members with `size` bytes may be."""
    return size + _PER_MEMBER * (2 * count + 256)


# ---------------------------------------------------------------- .conda


@dataclass(frozen=True)
class _Zip:
    path: Path
    stem: str
    limits: Limits

    def info(self) -> Iterator[TarMember]:
        with self._outer() as outer:
            self._check(outer)
            limit = self.limits.info
            for member in self._members(outer, f"info-{self.stem}.tar.zst", limit):
                if not member.path.startswith(INFO):
                    raise ArtifactError("not below info/", where=f"{self.path.name}: {member.path}")
                yield member

    def payload(self, size: int, count: int) -> Iterator[TarMember]:
        with self._outer() as outer:
            name = f"pkg-{self.stem}.tar.zst"
            for member in self._members(outer, name, _room(size, count)):
                if member.path == INFO.rstrip("/"):
                    raise ArtifactError(
                        "a file where the folder info/ is, for which each half of a package is"
                        " unpacked into another place",
                        where=f"{self.path.name}: {member.path}",
                    )
                yield member

    def _members(self, outer: ZipArchive, name: str, max_bytes: int) -> Iterator[TarMember]:
        where = f"{self.path.name}: {name}"
        with outer.open(name) as raw:
            yield from tar_stream.members(
                ZstdFrame(raw, where), where, max_bytes=max_bytes, max_members=self.limits.members
            )

    def _outer(self) -> ZipArchive:
        return ZipArchive(self.path, methods=[STORED])

    def _check(self, outer: ZipArchive) -> None:
        """The three members, and the format version."""
        expected = {_METADATA, f"pkg-{self.stem}.tar.zst", f"info-{self.stem}.tar.zst"}
        file = self.path.name
        for member in outer.members:
            if member.name not in expected or member.folder:
                raise ArtifactError(
                    "an unknown member (or the package was renamed)",
                    where=f"{file}: {member.name[:200]!r}",
                    expected=", ".join(sorted(expected)),
                )
        for name in sorted(expected - {member.name for member in outer.members}):
            raise ArtifactError("the member is missing", where=f"{file}: {name}", fix=REFETCH)
        where = f"{file}: {_METADATA}"
        text = outer.read(_METADATA, bounds.CONTAINER_METADATA)
        version = parse_object(text, where).get("conda_pkg_format_version")
        if version != _FORMAT or isinstance(version, bool | float):
            raise ArtifactError(f"format version {version!r}", where=where, expected=str(_FORMAT))


# ---------------------------------------------------------------- .tar.bz2


@dataclass(frozen=True)
class _TarBz2:
    path: Path
    stem: str
    limits: Limits

    def info(self) -> Iterator[TarMember]:
        # paths.json may come last, so how large the files may be is not known before the end: until
        # then it is what any package may have. A size is compared before the content is unpacked.
        left = {True: self.limits.info, False: self.limits.payload}
        names = {True: "info/", False: "the files to install"}
        largest = _room(self.limits.info + self.limits.payload, 2 * self.limits.members)
        for member in self._members(largest):
            of_info = member.path.startswith(INFO)
            left[of_info] -= member.size
            if left[of_info] < 0:
                limit = self.limits.info if of_info else self.limits.payload
                raise ArtifactError(
                    f"{names[of_info]} unpacks to more than the {limit} bytes it may have",
                    where=self.path.name,
                )
            if of_info:
                yield member

    def payload(self, size: int, count: int) -> Iterator[TarMember]:
        for member in self._members(_room(self.limits.info + size, self.limits.members + count)):
            if not member.path.startswith(INFO):
                yield member

    def _members(self, max_bytes: int) -> Iterator[TarMember]:
        try:
            raw = self.path.open("rb")
        except OSError as error:
            raise ArtifactError(
                f"cannot be read: {error}", where=self.path.name, fix=REFETCH
            ) from error
        with raw:
            yield from tar_stream.members(
                _Bz2(raw, self.path.name),
                self.path.name,
                max_bytes=max_bytes,
                max_members=2 * self.limits.members,  # as many below info/ as beside it
            )


class _Bz2:
    """A file that is one bz2 stream from its first byte to its last.

    Of several streams in a row rattler unpacks the first and conda all: a package that is more than
    one would be another for each of them.
    """

    def __init__(self, raw: IO[bytes], where: str) -> None:
        self._raw = raw
        self._where = where
        self._stream = bz2.BZ2Decompressor()

    def read(self, size: int, /) -> bytes:
        while not self._stream.eof:
            compressed = b""
            if self._stream.needs_input and not (compressed := self._raw.read(tar_stream.CHUNK)):
                raise EOFError("the file ends within its bz2 stream")
            # `size` bounds what a byte of the file can become in memory.
            if data := self._stream.decompress(compressed, size):
                return data
        if self._stream.unused_data or self._raw.read(1):
            raise ArtifactError(
                "there is data after the end of the bz2 stream",
                where=self._where,
                expected="one stream, which all of conda's tools read alike",
                fix=REFETCH,
            )
        return b""
