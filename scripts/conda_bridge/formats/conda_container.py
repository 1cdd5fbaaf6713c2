"""The two forms of a conda package: ``.conda``, and the older ``.tar.bz2``.

A ``.conda`` is a zip of three stored members, two of which are tar archives: what conda knows about
the package, and the files to install. A ``.tar.bz2`` is one tar archive with both, in any order.
Here they are two readers with one interface; what is inside is checked by :mod:`.conda_package`,
in the same way for both.
"""

from __future__ import annotations

import bz2
import contextlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from ..errors import ArtifactError
from . import tar_stream
from .member_names import check_name
from .tar_stream import TarMember
from .zstd import zstd

__all__ = ["INFO", "REFETCH", "Container", "Limits", "open_container", "parse_object"]

INFO = "info/"
REFETCH = "fetch or build the package again"
_METADATA = "metadata.json"
_FORMAT = 2
_MAX_METADATA = 64 << 10
_PER_MEMBER = 4 << 10  # header, extensions and padding of one member of a tar archive
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Limits:
    """How large a package may be once unpacked.

    Attributes:
        payload: bytes of all its files together.
        info: bytes of everything below ``info/``.
        members: number of files.
    """

    payload: int = 16 << 30
    info: int = 64 << 20
    members: int = 200_000


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


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object that `text` is.

    Raises:
        ArtifactError: it is something else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"not JSON: {error}", where=where) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"a JSON {type(value).__name__}", where=where, expected="an object")
    return value


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
            yield from self._members(outer, f"pkg-{self.stem}.tar.zst", _room(size, count))

    def _members(self, outer: zipfile.ZipFile, name: str, max_bytes: int) -> Iterator[TarMember]:
        where = f"{self.path.name}: {name}"
        # Level 22 has a window of 2**27; more memory than that no package needs.
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 27}
        try:
            raw = outer.open(name)
        except (*_ZIP_ERRORS, KeyError) as error:
            raise ArtifactError(f"cannot be read: {error}", where=where, fix=REFETCH) from error
        with raw, zstd.ZstdFile(raw, options=options) as stream:
            yield from tar_stream.members(
                stream, where, max_bytes=max_bytes, max_members=self.limits.members
            )

    @contextlib.contextmanager
    def _outer(self) -> Iterator[zipfile.ZipFile]:
        try:
            archive = zipfile.ZipFile(self.path)
        except _ZIP_ERRORS as error:
            raise ArtifactError(
                f"not a zip archive, or one that is cut off: {error}",
                where=self.path.name,
                fix=REFETCH,
            ) from error
        with archive:
            yield archive

    def _check(self, outer: zipfile.ZipFile) -> None:
        """The three members, stored, and the format version."""
        expected = {_METADATA, f"pkg-{self.stem}.tar.zst", f"info-{self.stem}.tar.zst"}
        file = self.path.name
        names = [entry.filename for entry in outer.infolist()]
        for entry in outer.infolist():
            where = f"{file}: {entry.filename[:200]!r}"
            check_name(entry.filename, file)
            if entry.filename not in expected:
                raise ArtifactError(
                    "an unknown member (or the package was renamed)",
                    where=where,
                    expected=", ".join(sorted(expected)),
                )
            if names.count(entry.filename) > 1:
                raise ArtifactError("the member is there twice", where=where)
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
                raise ArtifactError("the member is compressed or encrypted", where=where)
        for name in sorted(expected - set(names)):
            raise ArtifactError("the member is missing", where=f"{file}: {name}", fix=REFETCH)
        where = f"{file}: {_METADATA}"
        if outer.getinfo(_METADATA).file_size > _MAX_METADATA:
            raise ArtifactError(f"larger than {_MAX_METADATA} bytes", where=where)
        try:
            text = outer.read(_METADATA)
        except _ZIP_ERRORS as error:
            raise ArtifactError(f"cannot be read: {error}", where=where, fix=REFETCH) from error
        version = parse_object(text, where).get("conda_pkg_format_version")
        if version != _FORMAT:
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
