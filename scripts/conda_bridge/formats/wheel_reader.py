"""Reads wheels as streams, and refuses what is damaged or hostile.

What a wheel says of itself wrongly (RECORD, METADATA) is no error here: ``verify`` reports it as a
finding. What cannot be read safely is an :class:`~conda_bridge.errors.ArtifactError`.
"""

from __future__ import annotations

import base64
import csv
import email.parser
import email.policy
import hashlib
import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO

from ..errors import ArtifactError
from .member_names import Names

__all__ = ["MemberStream", "Record", "Wheel", "WheelMember", "bytes_sha256", "file_sha256", "read"]

_CHUNK = 1 << 20
_MAX_MEMBERS = 200_000
_MAX_UNPACKED = 16 << 30
_MAX_METADATA = 16 << 20
_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)
_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[^-/]+)(?:-(?P<build>\d[^-/]*))?"
    r"-(?P<python>[\w.]+)-(?P<abi>[\w.]+)-(?P<platform>[\w.]+)\.whl",
    re.ASCII,
)


@dataclass(frozen=True)
class Record:
    """One line of RECORD; digest in hexadecimal, empty (and size None) where it gives none."""

    sha256: str
    size: int | None


@dataclass(frozen=True)
class WheelMember:
    """One file of a wheel.

    Attributes:
        path: with ``/`` between its parts; checked.
        size: in bytes.
        executable: whether an installer sets the executable bits.
    """

    path: str
    size: int
    executable: bool


@dataclass(frozen=True)
class Wheel:
    """A wheel whose metadata has been read and whose files can be streamed.

    Attributes:
        path: the file.
        name, version, build: from the file name, as written there; `build` is empty without one.
        tags: python, ABI and platform tag of the file name, compressed sets as written.
        dist_info: the name of its ``.dist-info`` folder.
        members: every file, in the order of the archive.
        metadata: METADATA, parsed.
        metadata_bytes: METADATA as it is.
        wheel: WHEEL, parsed.
        record: RECORD, by path.
    """

    path: Path
    name: str
    version: str
    build: str
    tags: tuple[str, str, str]
    dist_info: str
    members: tuple[WheelMember, ...]
    metadata: Message
    metadata_bytes: bytes
    wheel: Message
    record: Mapping[str, Record]

    def stream(self) -> Iterator[tuple[WheelMember, MemberStream]]:
        """Every file with an open stream, to be read before the next one is asked for.

        Raises:
            ArtifactError: while reading, a member that is damaged.
        """
        with _opened(self.path) as archive:
            for member in self.members:
                with _member(archive, member.path, self.path.name) as raw:
                    yield member, raw


class MemberStream:
    """A file in a wheel, read front to back; damage is reported as an ArtifactError."""

    def __init__(self, raw: IO[bytes], where: str) -> None:
        self._raw = raw
        self._where = where

    def __enter__(self) -> MemberStream:
        return self

    def __exit__(self, *_error: object) -> None:
        self._raw.close()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        try:
            return self._raw.read(size)
        except _ERRORS as error:
            raise ArtifactError(
                f"cannot be unpacked: {error}", where=self._where, fix="fetch or build it again"
            ) from error


def file_sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while data := stream.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()


def bytes_sha256(data: bytes) -> str:
    """The digest of `data`, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> Wheel:
    """Reads what `path` says of itself, after checking that its archive is safe.

    Raises:
        ArtifactError: no such file, not a wheel, damaged, or an archive with names that leave the
            folder, links, duplicates, overlaps or unpacked sizes out of bounds.
    """
    found = _NAME.fullmatch(path.name)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise ArtifactError(what, where=str(path), expected="a wheel (.whl)")
    if not found:
        raise ArtifactError(
            "the file name is not that of a wheel",
            where=path.name,
            expected="<name>-<version>[-<build>]-<python>-<abi>-<platform>.whl",
        )
    with _opened(path) as archive:
        members = _check(archive, path)
        folders = {member.path.split("/")[0] for member in members}
        dist_infos = sorted(folder for folder in folders if folder.endswith(".dist-info"))
        if len(dist_infos) != 1:
            raise ArtifactError(
                f"has {len(dist_infos)} .dist-info folders", where=path.name, expected="one"
            )
        dist_info = dist_infos[0]
        metadata = _read(archive, f"{dist_info}/METADATA", path.name)
        return Wheel(
            path=path,
            name=found["name"],
            version=found["version"],
            build=found["build"] or "",
            tags=(found["python"], found["abi"], found["platform"]),
            dist_info=dist_info,
            members=members,
            metadata=_message(metadata, f"{path.name}: {dist_info}/METADATA"),
            metadata_bytes=metadata,
            wheel=_message(
                _read(archive, f"{dist_info}/WHEEL", path.name), f"{path.name}: {dist_info}/WHEEL"
            ),
            record=_record(
                _read(archive, f"{dist_info}/RECORD", path.name), f"{path.name}: {dist_info}/RECORD"
            ),
        )


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _ERRORS as error:
        raise ArtifactError(
            f"not a zip archive, or one that is cut off: {error}",
            where=path.name,
            fix="fetch or build the wheel again",
        ) from error


def _check(archive: zipfile.ZipFile, path: Path) -> tuple[WheelMember, ...]:
    names = Names(path.name, _MAX_MEMBERS)
    members = []
    for entry in archive.infolist():
        where = f"{path.name}: {entry.filename[:200]!r}"
        if "\0" in entry.orig_filename:
            raise ArtifactError("a name with a zero byte", where=where)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir():
            names.add_folder(entry.filename.rstrip("/"))
            continue
        names.add(entry.filename)
        if kind not in (0, stat.S_IFREG):
            raise ArtifactError("not a regular file (a link, perhaps)", where=where)
        if entry.flag_bits & 0x1:
            raise ArtifactError("encrypted", where=where)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArtifactError(
                f"compression method {entry.compress_type}", where=where, expected="deflate"
            )
        mode = entry.external_attr >> 16
        members.append(WheelMember(entry.filename, entry.file_size, bool(mode & 0o111)))
    total = sum(member.size for member in members)
    if total > _MAX_UNPACKED:
        raise ArtifactError(f"unpacks to {total} bytes", where=path.name)
    _check_layout(archive, path)
    return tuple(members)


def _check_layout(archive: zipfile.ZipFile, path: Path) -> None:
    """Members follow one another from the first byte on: none hidden, none shared by two names."""
    end = 0
    for entry in sorted(archive.infolist(), key=lambda item: item.header_offset):
        where = f"{path.name}: {entry.filename[:200]!r}"
        if entry.header_offset < end:
            raise ArtifactError("shares its bytes with another member", where=where)
        if end == 0 and entry.header_offset != 0:
            raise ArtifactError(
                f"{entry.header_offset} bytes before the first member", where=path.name
            )
        end = entry.header_offset + 30 + len(entry.orig_filename) + entry.compress_size
    if end > archive.start_dir:
        raise ArtifactError("a member runs into the directory", where=path.name)


def _member(archive: zipfile.ZipFile, name: str, where: str) -> MemberStream:
    try:
        return MemberStream(archive.open(name), f"{where}: {name}")
    except KeyError:
        raise ArtifactError("the member is missing", where=f"{where}: {name}") from None
    except (*_ERRORS, RuntimeError) as error:
        raise ArtifactError(
            f"cannot be read: {error}", where=f"{where}: {name}", fix="fetch or build it again"
        ) from error


def _read(archive: zipfile.ZipFile, name: str, where: str, limit: int = _MAX_METADATA) -> bytes:
    with _member(archive, name, where) as raw:
        data = raw.read(limit + 1)
    if len(data) > limit:
        raise ArtifactError(f"larger than {limit} bytes", where=f"{where}: {name}")
    return data


def _message(data: bytes, where: str) -> Message:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ArtifactError(f"not UTF-8: {error}", where=where) from error
    return email.parser.Parser(policy=email.policy.compat32).parsestr(text)


def _record(data: bytes, where: str) -> dict[str, Record]:
    entries: dict[str, Record] = {}
    try:
        rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"not a RECORD: {error}", where=where) from error
    for row in rows:
        if len(row) != 3 or (row[2] and not re.fullmatch(r"\d{1,18}", row[2], re.ASCII)):
            raise ArtifactError(f"the line {row!r:.200}", where=where, expected="path,hash,size")
        path, digest, size = row
        if path in entries:
            raise ArtifactError("the path is there twice", where=f"{where}: {path[:200]}")
        entries[path] = Record(_hex_digest(digest, f"{where}: {path}"), int(size) if size else None)
    return entries


def _hex_digest(text: str, where: str) -> str:
    """``sha256=<urlsafe base64 without padding>`` in hexadecimal."""
    if not text:
        return ""
    algorithm, _, encoded = text.partition("=")
    try:
        digest = base64.b64decode(
            encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True
        )
    except ValueError:
        digest = b""
    if algorithm != "sha256" or len(digest) != 32 or "=" in encoded:
        raise ArtifactError(f"the digest {text[:80]!r}", where=where, expected="sha256=<base64>")
    return digest.hex()
