"""Debian's binary packages: what is wanted of them, unpacked without root, dpkg or trust.

A .deb is an ``ar`` archive whose member ``data.tar.*`` holds the files. Links that are absolute in
it are meant for the root of a system; here they lead to the same place in the tree.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import posixpath
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import limits
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.formats.lenient_tar import TarHeader
from conda_bridge.formats.member_names import check_link, check_name
from conda_bridge.formats.zstd import zstd

from ..lock import LockedDeb

__all__ = ["package_file", "tree_of", "unpack"]

_MAGIC = b"!<arch>\n"
_HEADER = 60
_MEMBERS = 64  # of the ar archive; dpkg writes three
_LENGTH = re.compile(rb"[0-9]{1,10} *")
# xz -9 takes 65 MiB, and dpkg's default 9; of zstd it is the window.
_XZ_MEMORY = 128 << 20
_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: limits.ZSTD_WINDOW_LOG}
_UNREADABLE = (EOFError, OSError, lzma.LZMAError, tarfile.TarError, zstd.ZstdError, ValueError)
_BLOCK = 1 << 20


class _Xz(io.RawIOBase):
    """An xz file, read with no more memory than Debian's packages ask for."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._stream.eof:
            packed = self._raw.read(_BLOCK) if self._stream.needs_input else b""
            if self._stream.needs_input and not packed:
                raise EOFError("the file ends within its xz stream")
            data = self._stream.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0


# What decompresses data.tar, by its suffix.
_OPEN: Mapping[str, Callable[[Any], Any]] = {
    "": lambda raw: raw,
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".xz": _Xz,
    ".zst": lambda raw: zstd.ZstdFile(raw, options=_ZSTD_OPTIONS),
}


class _Bounded:
    """A stream that gives no more than a .deb may unpack to."""

    def __init__(self, raw: IO[bytes], where: str) -> None:
        self._raw = raw
        self._where = where
        self._left = limits.UNPACKED

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        data = self._raw.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArtifactError(
                "data.tar unpacks to more than it may have",
                where=self._where,
                expected=f"at most {limits.UNPACKED} bytes",
            )
        return data


class _Member(io.RawIOBase):
    """One member of an ``ar`` archive, as a stream that ends where it ends."""

    def __init__(self, raw: IO[bytes], size: int) -> None:
        self._raw = raw
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _data_member(raw: IO[bytes], where: str) -> tuple[str, _Member]:
    """(suffix, stream) of the archive's ``data.tar.*``."""
    if raw.read(len(_MAGIC)) != _MAGIC:
        raise ArtifactError("not a .deb: it is no ar archive", where=where)
    for _ in range(_MEMBERS):
        at = raw.tell()
        header = raw.read(_HEADER)
        if not header:
            break
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58]
        if len(header) < _HEADER or header[58:] != b"`\n" or not _LENGTH.fullmatch(size):
            raise ArtifactError(
                f"a damaged ar header (at byte {at}): {header[:60]!r}",
                where=where,
                expected="60 bytes with a size in decimal digits",
            )
        length = int(size)
        if name.startswith("data.tar"):
            return name.removeprefix("data.tar"), _Member(raw, length)
        raw.seek(length + length % 2, os.SEEK_CUR)
    raise ArtifactError("it has no data.tar", where=where)


def _relative_link(name: str, target: str) -> str:
    """`target` of the link `name`, as a path from the link's own folder."""
    if not target.startswith("/"):
        return target
    inside = posixpath.normpath(target).lstrip("/") or "."
    return posixpath.relpath(inside, posixpath.dirname(name) or ".")


def _members(tar: tarfile.TarFile, wanted: re.Pattern[str], where: str) -> Iterator[Any]:
    """(name, header) of the wanted members that are no folders."""
    for count, header in enumerate(tar):
        tar.members.clear()  # type: ignore[attr-defined]  # headers are not needed again
        if count >= limits.MEMBERS:
            raise ArtifactError(f"more than {limits.MEMBERS} members", where=where)
        name = header.name.removeprefix("./")
        if header.isdir() or name == ".":
            continue
        check_name(name, where)
        if wanted.match(name):
            yield name, header


def _place(tree: Path, name: str, where: str) -> Path:
    """The path of `name`, whose folders are made; none of them is a link."""
    folder = tree
    for part in name.split("/")[:-1]:
        folder = folder / part
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ArtifactError("lies below something that is no folder", where=f"{where}: {name}")
        folder.mkdir(exist_ok=True)
    path = folder / name.rpartition("/")[2]
    if path.is_symlink() or path.exists():
        raise ArtifactError("a second member with this name", where=f"{where}: {name}")
    return path


def _extract(tar: tarfile.TarFile, tree: Path, wanted: re.Pattern[str], where: str) -> None:
    for name, header in _members(tar, wanted, where):
        path = _place(tree, name, where)
        if header.issym():
            target = _relative_link(name, header.linkname)
            check_link(name, target, where)
            path.symlink_to(target)
        elif header.islnk():
            original = header.linkname.removeprefix("./")
            check_name(original, where)
            source = tree / original
            if source.is_symlink() or not source.is_file():
                raise ArtifactError(
                    f"a hard link to {original!r}, which is not there", where=f"{where}: {name}"
                )
            os.link(source, path)
        elif header.isreg():
            content = tar.extractfile(header)
            assert content is not None  # a regular file
            with path.open("wb") as output:
                shutil.copyfileobj(content, output, _BLOCK)
            path.chmod(0o755 if header.mode & 0o111 else 0o644)
        else:
            raise ArtifactError(
                f"a member of kind {header.type!r}",
                where=f"{where}: {name}",
                expected="files, symbolic links and hard links",
            )


def unpack(deb: Path, tree: Path, wanted: str = "") -> None:
    """Unpacks into the folder `tree` what of `deb` matches.

    Args:
        deb: the package.
        tree: an existing folder.
        wanted: a regular expression for the beginning of a path without ``./``; all by default.

    Raises:
        ArtifactError: no .deb, a damaged one, or a member or link that leads out of the tree.
    """
    where = deb.name
    try:
        with deb.open("rb") as raw:
            suffix, member = _data_member(raw, where)
            if suffix not in _OPEN:
                raise ArtifactError(
                    f"data.tar{suffix} is compressed in an unknown way", where=where
                )
            with _OPEN[suffix](io.BufferedReader(member, _BLOCK)) as stream:
                source: Any = _Bounded(stream, where)
                with tarfile.open(fileobj=source, mode="r|", tarinfo=TarHeader) as tar:
                    _extract(tar, tree, re.compile(wanted), where)
    except _UNREADABLE as error:
        raise ArtifactError(f"cannot be unpacked: {error}", where=where) from error


def package_file(path: Path, place: str) -> PackageFile:
    """The file or link `path` of a tree as a package's file with the name `place`."""
    if path.is_symlink():
        return PackageFile(place, None, 0o777, str(path.readlink()))
    return PackageFile(place, path, 0o755 if path.stat().st_mode & 0o111 else 0o644)


def tree_of(deb: LockedDeb, wanted: str, cache: Path) -> Path:
    """Where what is `wanted` of `deb` is kept once it is unpacked."""
    key = hashlib.sha256(f"{deb.sha256} {wanted}".encode()).hexdigest()
    return cache / "unpacked" / key
