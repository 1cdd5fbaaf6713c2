"""Reads wheels as streams, and refuses what is damaged or hostile.

What a wheel says of itself wrongly (RECORD, METADATA) is no error here: ``verify`` reports it as a
finding. What cannot be read safely is an :class:`~conda_bridge.errors.ArtifactError`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO

from ..errors import ArtifactError
from . import limits
from .headers import read_headers
from .member_names import check_path
from .zip_directory import ZipArchive, ZipStream

__all__ = [
    "MemberStream",
    "Record",
    "Wheel",
    "WheelMember",
    "bytes_sha256",
    "file_sha256",
    "read",
    "stream_sha256",
]

# What Wheel.stream gives.
MemberStream = ZipStream

_CHUNK = 1 << 20
_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[^-/]+)(?:-(?P<build>\d[^-/]*))?"
    r"-(?P<python>[\w.]+)-(?P<abi>[\w.]+)-(?P<platform>[\w.]+)\.whl",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Record:
    """One line of RECORD; digest in hexadecimal, empty (and size None) where it gives none."""

    sha256: str
    size: int | None


@dataclass(frozen=True, slots=True)
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
        with ZipArchive(self.path) as archive:
            for member in self.members:
                with archive.open(member.path) as raw:
                    yield member, raw


def file_sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return stream_sha256(stream)


def stream_sha256(stream: IO[bytes]) -> str:
    """The digest of what is left to read, in hexadecimal."""
    digest = hashlib.sha256()
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
    check_path(path)
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
    with ZipArchive(path) as archive:
        members = tuple(
            WheelMember(member.name, member.size, bool(member.mode & 0o111))
            for member in archive.files
        )
        folders = {member.path.split("/")[0] for member in members}
        dist_infos = sorted(folder for folder in folders if folder.endswith(".dist-info"))
        if len(dist_infos) != 1:
            raise ArtifactError(
                f"has {len(dist_infos)} .dist-info folders", where=path.name, expected="one"
            )
        dist_info = dist_infos[0]
        metadata = archive.read(f"{dist_info}/METADATA", limits.CORE_METADATA)
        wheel = archive.read(f"{dist_info}/WHEEL", limits.HEADER_SIZE)
        record = archive.read(f"{dist_info}/RECORD", limits.RECORD_SIZE)
    where = f"{path.name}: {dist_info}"
    told = read_headers(wheel, f"{where}/WHEEL")
    for field in ("Wheel-Version", "Root-Is-Purelib"):  # where and how it is unpacked
        if len(told.get_all(field, [])) > 1:
            raise ArtifactError(
                f"{field} twice: one reader takes the first, another the last",
                where=f"{where}/WHEEL",
                expected="one",
            )
    return Wheel(
        path=path,
        name=found["name"],
        version=found["version"],
        build=found["build"] or "",
        tags=(found["python"], found["abi"], found["platform"]),
        dist_info=dist_info,
        members=members,
        metadata=read_headers(metadata, f"{where}/METADATA"),
        metadata_bytes=metadata,
        wheel=told,
        record=_record(record, f"{where}/RECORD"),
    )


def _record(data: bytes, where: str) -> dict[str, Record]:
    entries: dict[str, Record] = {}
    try:
        text = io.StringIO(data.decode(), newline="")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"not a RECORD: {error}", where=where) from error
    for number, row in enumerate(_rows(text, where), 1):
        if number > limits.RECORD_LINES:
            raise ArtifactError(f"more than {limits.RECORD_LINES} lines", where=where)
        if len(row) != 3 or (row[2] and not re.fullmatch(r"\d{1,18}", row[2], re.ASCII)):
            raise ArtifactError(f"the line {row!r:.200}", where=where, expected="path,hash,size")
        path, digest, size = row
        if path in entries:
            raise ArtifactError("the path is there twice", where=f"{where}: {path[:200]}")
        entries[path] = Record(_hex_digest(digest, f"{where}: {path}"), int(size) if size else None)
    return entries


def _rows(text: io.StringIO, where: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(text, strict=True)
    except csv.Error as error:
        raise ArtifactError(f"not a RECORD: {error}", where=where) from error


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
