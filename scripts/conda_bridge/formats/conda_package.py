"""Reads conda packages as a stream, and refuses what is damaged, hostile or misnamed.

What a package says of itself is checked before any of it is used: the file name against
``info/index.json``, and every file of the payload against ``info/paths.json`` by size and sha256.
``.conda`` and ``.tar.bz2`` differ in :mod:`.conda_container` alone.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError
from ..label import CONDA_ENDINGS, split_conda_file
from . import limits as bounds
from .conda_container import INFO, REFETCH, Container, Limits, open_container
from .index_json import check_index
from .json_reader import parse_object
from .member_names import check_name, check_path
from .tar_stream import TarMember

__all__ = ["CondaPackage", "Limits", "PathEntry", "in_folder", "read"]

_STEM = re.compile(r"(?P<name>[^/]+)-(?P<version>[^-/]+)-(?P<build>[^-/]+)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KINDS = ("hardlink", "softlink", "directory")
_ENTRY = "_path, sha256, size_in_bytes, path_type (hardlink, softlink), file_mode (text, binary)"


@dataclass(frozen=True, slots=True)
class PathEntry:
    """One entry of ``info/paths.json``.

    Attributes:
        path: relative to the prefix.
        sha256: in hexadecimal; of a link, that of the file it leads to, or empty.
        size: in bytes; of a link, that of the file it leads to, or 0.
        is_link: a symbolic link.
        prefix_placeholder: the build prefix that the file holds and an installer replaces.
        binary: how it is replaced: in a text, or in a binary, where the length has to stay.
    """

    path: str
    sha256: str
    size: int
    is_link: bool
    prefix_placeholder: str
    binary: bool = False


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
    container: Container

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
    def entry_points(self) -> list[str]:
        """``name = module:function``, of a ``noarch: python`` package's ``info/link.json``.

        Raises:
            ArtifactError: it says something that is no list of entry points.
        """
        name = "info/link.json"
        if name not in self.info:
            return []
        noarch = _json_object(self.info, name, self.path).get("noarch")
        listed = noarch.get("entry_points", []) if isinstance(noarch, dict) else []
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            raise ArtifactError(
                f"entry_points is {str(listed)[:80]}",
                where=f"{self.path.name}: {name}",
                expected='a list such as ["tool = package.module:main"]',
            )
        return listed

    @property
    def payload_size(self) -> int:
        """Bytes of all files together, as ``info/paths.json`` has it."""
        return sum(entry.size for entry in self.paths.values() if not entry.is_link)

    def payload(self) -> Generator[TarMember, None, None]:
        """The files and links to install, in the order of the archive.

        Each one has to be read before the next is asked for; what is left unread is read, and its
        size and sha256 are compared with ``info/paths.json``, when the next is asked for.

        Raises:
            ArtifactError: anything in the archive that is damaged, unsafe, undeclared, missing or
                not what ``info/paths.json`` says.
        """
        missing = set(self.paths)
        for member in self.container.payload(self.payload_size, len(self.paths)):
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
                where=self.path.name,
                fix=REFETCH,
            )


def in_folder(folder: Path) -> list[Path]:
    """The packages that lie in `folder`, by name; not those that are still being written."""
    found = sorted(folder.glob("[!.]*"))
    return [path for path in found if split_conda_file(path.name)[1] and path.is_file()]


def read(path: Path, *, limits: Limits | None = None) -> CondaPackage:
    """Reads what `path` says of itself; :meth:`CondaPackage.payload` reads the payload later.

    Raises:
        ArtifactError: no such file, not a conda package, or one that is damaged, hostile or
            renamed.
    """
    limits = limits or Limits()
    endings = " or ".join(CONDA_ENDINGS)
    check_path(path)
    if not path.is_file():
        raise ArtifactError(
            "there is no such file", where=str(path), expected=f"a conda package, {endings}"
        )
    stem, ending = split_conda_file(path.name)
    found = _STEM.fullmatch(stem)
    if not found:
        raise ArtifactError(
            "the file name is not that of a conda package",
            where=path.name,
            expected=f"<name>-<version>-<build>, and {endings}",
        )
    container = open_container(path, stem, ending, limits)
    info = {member.path: member.read() for member in container.info() if member.link_target is None}
    index = _json_object(info, "info/index.json", path, max_bytes=bounds.INDEX_SIZE)
    check_index(index, f"{path.name}: info/index.json")
    for key in ("name", "version", "build"):
        if index.get(key) != found[key]:
            raise ArtifactError(
                f"{key} is {index.get(key)!r} inside, and {found[key]!r} in the file name",
                where=f"{path.name}: info/index.json",
                fix="a package must not be renamed; fetch or build it again",
            )
    about = {}
    if "info/about.json" in info:
        about = _json_object(info, "info/about.json", path, max_bytes=bounds.ABOUT_SIZE)
    paths = _read_paths(info, path, limits)
    return CondaPackage(
        path, found["name"], found["version"], found["build"], index, about, paths, info, container
    )


# ---------------------------------------------------------------- info/


def _json_object(
    info: Mapping[str, bytes], name: str, path: Path, max_bytes: int = bounds.JSON_SIZE
) -> dict[str, Any]:
    if name not in info:
        raise ArtifactError("the member is missing", where=f"{path.name}: {name}", fix=REFETCH)
    return parse_object(info[name], f"{path.name}: {name}", max_bytes=max_bytes)


def _read_paths(info: Mapping[str, bytes], path: Path, limits: Limits) -> dict[str, PathEntry]:
    where = f"{path.name}: info/paths.json"
    listed = _json_object(info, "info/paths.json", path).get("paths")
    if not isinstance(listed, list):
        raise ArtifactError("has no list of paths", where=where)
    entries: dict[str, PathEntry] = {}
    for item in listed:
        entry = _path_entry(item, where)
        check_name(entry.path, where)
        if f"{entry.path}/".startswith(INFO):
            raise ArtifactError("an entry below info/", where=f"{where}: {entry.path}")
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
    kind = item.get("path_type", "hardlink")
    is_link = kind == "softlink"
    nothing = ("", 0) if is_link else (None, None)
    name = item.get("_path")
    sha256 = item.get("sha256") or nothing[0]
    size = item.get("size_in_bytes", nothing[1])
    placeholder = item.get("prefix_placeholder") or ""
    if (
        not isinstance(name, str)
        or kind not in _KINDS
        or item.get("file_mode") not in (None, "text", "binary")
        or not isinstance(placeholder, str)
        or not isinstance(sha256, str)
        or not (_SHA256.fullmatch(sha256) or (is_link and not sha256))
        or not isinstance(size, int)
        or isinstance(size, bool)
        or size < 0
    ):
        raise ArtifactError(f"an entry is {str(item)[:200]}", where=where, expected=_ENTRY)
    binary = bool(placeholder) and item.get("file_mode") == "binary"
    return PathEntry(name, sha256, size, is_link, placeholder, binary)


# ---------------------------------------------------------------- payload against paths.json


def _compare_kind(member: TarMember, entry: PathEntry, package: str) -> None:
    where = f"{package}: {member.path}"
    if entry.is_link != (member.link_target is not None):
        raise ArtifactError(
            "a link in one of tar archive and info/paths.json, a file in the other", where=where
        )
    if not entry.is_link and entry.size != member.size:
        raise ArtifactError(
            f"{member.size} bytes, and {entry.size} in info/paths.json", where=where, fix=REFETCH
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
            fix=REFETCH,
        )
