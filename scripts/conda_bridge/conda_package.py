"""Reads ``.conda`` packages as a stream, and refuses what is damaged, hostile or misnamed.

What a package says of itself is checked before any of it is used: the file name against
``info/index.json``, and every file of the payload against ``info/paths.json`` by size and sha256.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import tar_stream
from .errors import ArtifactError
from .member_names import check_name
from .tar_stream import Readable, TarMember
from .zstd import zstd

__all__ = ["CondaPackage", "Limits", "PathEntry", "read"]

_STEM = re.compile(r"(?P<name>[^/]+)-(?P<version>[^-/]+)-(?P<build>[^-/]+)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_METADATA = "metadata.json"
_FORMAT = 2
_MAX_METADATA = 64 << 10
_PER_MEMBER = 4 << 10  # header, extensions and padding of one member of a tar archive
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
_REFETCH = "fetch or build the package again"


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


@dataclass(frozen=True)
class PathEntry:
    """One entry of ``info/paths.json``.

    Attributes:
        path: relative to the prefix.
        sha256: in hexadecimal; of a link, that of the file it leads to, or empty.
        size: in bytes; of a link, that of the file it leads to, or 0.
        is_link: a symbolic link.
        prefix_placeholder: the build prefix that the file holds and an installer replaces.
    """

    path: str
    sha256: str
    size: int
    is_link: bool
    prefix_placeholder: str


@dataclass(frozen=True)
class CondaPackage:
    """A package whose ``info`` has been read and whose payload can be streamed.

    Attributes:
        path: the file.
        name, version, build: the same in the file name and in ``info/index.json``.
        index: ``info/index.json``.
        about: ``info/about.json``; empty where there is none.
        paths: ``info/paths.json``, by path.
        info: every file below ``info/``, by its path in the archive.
    """

    path: Path
    name: str
    version: str
    build: str
    index: Mapping[str, Any]
    about: Mapping[str, Any]
    paths: Mapping[str, PathEntry]
    info: Mapping[str, bytes]
    limits: Limits

    @property
    def stem(self) -> str:
        """``<name>-<version>-<build>``."""
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def licenses(self) -> dict[str, bytes]:
        """The licence files, by their path below ``info/licenses/``."""
        folder = "info/licenses/"
        return {
            name.removeprefix(folder): content
            for name, content in sorted(self.info.items())
            if name.startswith(folder)
        }

    @property
    def payload_size(self) -> int:
        """Bytes of all files together, as ``info/paths.json`` has it."""
        return sum(entry.size for entry in self.paths.values() if not entry.is_link)

    def payload(self) -> Iterator[TarMember]:
        """The files and links to install, in the order of the archive.

        Each one has to be read before the next is asked for; what is left unread is read, and its
        size and sha256 are compared with ``info/paths.json``, when the next is asked for.

        Raises:
            ArtifactError: anything in the archive that is damaged, unsafe, undeclared, missing or
                not what ``info/paths.json`` says.
        """
        member_name = f"pkg-{self.stem}.tar.zst"
        where = f"{self.path.name}: {member_name}"
        missing = set(self.paths)
        max_bytes = self.payload_size + _PER_MEMBER * (2 * len(self.paths) + 256)
        with _outer(self.path) as outer, _decompressed(outer, member_name, self.path) as raw:
            for member in tar_stream.members(
                raw, where, max_bytes=max_bytes, max_members=self.limits.members
            ):
                entry = self.paths.get(member.path)
                if entry is None:
                    raise ArtifactError(
                        "not in info/paths.json", where=f"{self.path.name}: {member.path}"
                    )
                missing.discard(member.path)
                _compare_kind(member, entry, self.path.name)
                yield member
                _compare_content(member, entry, self.path.name)
        if missing:
            raise ArtifactError(
                f"info/paths.json names {len(missing)} files that are not there,"
                f" {min(missing)!r} first",
                where=where,
                fix=_REFETCH,
            )


def read(path: Path, *, limits: Limits | None = None) -> CondaPackage:
    """Reads what `path` says of itself; :meth:`CondaPackage.payload` reads the payload later.

    Raises:
        ArtifactError: no such file, not a ``.conda``, or one that is damaged, hostile or renamed.
    """
    limits = limits or Limits()
    if not path.is_file():
        raise ArtifactError("there is no such file", where=str(path))
    found = _STEM.fullmatch(path.name.removesuffix(".conda"))
    if not found or path.suffix != ".conda":
        raise ArtifactError(
            "the file name is not that of a conda package",
            where=path.name,
            expected="<name>-<version>-<build>.conda",
        )
    stem = found[0]
    with _outer(path) as outer:
        _check_outer(outer, path, stem)
        with _decompressed(outer, f"info-{stem}.tar.zst", path) as raw:
            info = _read_info(raw, path, stem, limits)
    index = _json_object(info, "info/index.json", path)
    for key in ("name", "version", "build"):
        if index.get(key) != found[key]:
            raise ArtifactError(
                f"{key} is {index.get(key)!r} inside, and {found[key]!r} in the file name",
                where=f"{path.name}: info/index.json",
                fix="a package must not be renamed; fetch or build it again",
            )
    about = _json_object(info, "info/about.json", path) if "info/about.json" in info else {}
    paths = _read_paths(info, path, limits)
    return CondaPackage(
        path, found["name"], found["version"], found["build"], index, about, paths, info, limits
    )


# ---------------------------------------------------------------- the outer zip


@contextlib.contextmanager
def _outer(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise ArtifactError(
            f"not a zip archive, or one that is cut off: {error}", where=path.name, fix=_REFETCH
        ) from error
    with archive:
        yield archive


def _check_outer(outer: zipfile.ZipFile, path: Path, stem: str) -> None:
    """The three members, stored, and the format version."""
    expected = {_METADATA, f"pkg-{stem}.tar.zst", f"info-{stem}.tar.zst"}
    names = [entry.filename for entry in outer.infolist()]
    for entry in outer.infolist():
        where = f"{path.name}: {entry.filename[:200]!r}"
        check_name(entry.filename, path.name)
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
        raise ArtifactError("the member is missing", where=f"{path.name}: {name}", fix=_REFETCH)
    where = f"{path.name}: {_METADATA}"
    if outer.getinfo(_METADATA).file_size > _MAX_METADATA:
        raise ArtifactError(f"larger than {_MAX_METADATA} bytes", where=where)
    try:
        text = outer.read(_METADATA)
    except _ZIP_ERRORS as error:
        raise ArtifactError(f"cannot be read: {error}", where=where, fix=_REFETCH) from error
    version = _parse_object(text, where).get("conda_pkg_format_version")
    if version != _FORMAT:
        raise ArtifactError(f"format version {version!r}", where=where, expected=str(_FORMAT))


@contextlib.contextmanager
def _decompressed(outer: zipfile.ZipFile, name: str, path: Path) -> Iterator[Readable]:
    # Level 22 has a window of 2**27; more memory than that no package needs.
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 27}
    try:
        raw = outer.open(name)
    except (*_ZIP_ERRORS, KeyError) as error:
        raise ArtifactError(
            f"cannot be read: {error}", where=f"{path.name}: {name}", fix=_REFETCH
        ) from error
    with raw, zstd.ZstdFile(raw, options=options) as stream:
        yield stream


# ---------------------------------------------------------------- info/


def _read_info(raw: Readable, path: Path, stem: str, limits: Limits) -> dict[str, bytes]:
    where = f"{path.name}: info-{stem}.tar.zst"
    info = {}
    for member in tar_stream.members(raw, where, max_bytes=limits.info, max_members=limits.members):
        if not member.path.startswith("info/"):
            raise ArtifactError("not below info/", where=f"{where}: {member.path}")
        if member.link_target is None:
            info[member.path] = member.read()
    return info


def _parse_object(text: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"not JSON: {error}", where=where) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"a JSON {type(value).__name__}", where=where, expected="an object")
    return value


def _json_object(info: Mapping[str, bytes], name: str, path: Path) -> dict[str, Any]:
    if name not in info:
        raise ArtifactError("the member is missing", where=f"{path.name}: {name}", fix=_REFETCH)
    return _parse_object(info[name], f"{path.name}: {name}")


def _read_paths(info: Mapping[str, bytes], path: Path, limits: Limits) -> dict[str, PathEntry]:
    where = f"{path.name}: info/paths.json"
    listed = _json_object(info, "info/paths.json", path).get("paths")
    if not isinstance(listed, list):
        raise ArtifactError("has no list of paths", where=where)
    entries: dict[str, PathEntry] = {}
    for item in listed:
        entry = _path_entry(item, where)
        check_name(entry.path, where)
        if entry.path in entries:
            raise ArtifactError("an entry twice", where=f"{where}: {entry.path}")
        entries[entry.path] = entry
    total = sum(entry.size for entry in entries.values())
    if total > limits.payload or len(entries) > limits.members:
        raise ArtifactError(
            f"{len(entries)} files of {total} bytes",
            where=where,
            expected=f"at most {limits.members} files of {limits.payload} bytes",
        )
    return entries


def _path_entry(item: object, where: str) -> PathEntry:
    if not isinstance(item, dict):
        raise ArtifactError(f"an entry is {str(item)[:200]}", where=where, expected="an object")
    is_link = item.get("path_type") == "softlink"
    nothing = ("", 0) if is_link else (None, None)
    name = item.get("_path")
    sha256 = item.get("sha256") or nothing[0]
    size = item.get("size_in_bytes", nothing[1])
    placeholder = item.get("prefix_placeholder") or ""
    if (
        not isinstance(name, str)
        or not isinstance(placeholder, str)
        or not isinstance(sha256, str)
        or not (_SHA256.fullmatch(sha256) or (is_link and not sha256))
        or not isinstance(size, int)
        or size < 0
    ):
        raise ArtifactError(
            f"an entry is {str(item)[:200]}", where=where, expected="_path, sha256, size_in_bytes"
        )
    return PathEntry(name, sha256, size, is_link, placeholder)


# ---------------------------------------------------------------- payload against paths.json


def _compare_kind(member: TarMember, entry: PathEntry, package: str) -> None:
    where = f"{package}: {member.path}"
    if entry.is_link != (member.link_target is not None):
        raise ArtifactError(
            "a link in one of tar archive and info/paths.json, a file in the other", where=where
        )
    if not entry.is_link and entry.size != member.size:
        raise ArtifactError(
            f"{member.size} bytes, and {entry.size} in info/paths.json", where=where, fix=_REFETCH
        )


def _compare_content(member: TarMember, entry: PathEntry, package: str) -> None:
    if entry.is_link:
        return
    found = member.digest().hex()
    if found != entry.sha256:
        raise ArtifactError(
            f"sha256 is {found}",
            where=f"{package}: {member.path}",
            expected=f"{entry.sha256}, as info/paths.json has it",
            fix=_REFETCH,
        )
