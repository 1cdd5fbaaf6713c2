"""Writes ``.conda`` packages whose bytes depend on nothing but what is put in.

A ``.conda`` is a zip of three stored members: ``metadata.json`` and two tar archives compressed
with zstd, ``pkg-`` (the files to install) and ``info-`` (what conda knows about them). Members are
sorted, times are fixed, owners are 0, permissions are 0644 or 0755, and the number of compression
threads does not reach the bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import re
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import ArtifactError, ConfigError
from ..system import atomic
from . import conda_package
from .json_reader import parse_object
from .member_names import Names, check_link
from .zstd import zstd

__all__ = [
    "DEFAULT_TIMESTAMP",
    "PackageFile",
    "default_timestamp",
    "json_bytes",
    "normalise",
    "write",
]

DEFAULT_TIMESTAMP = 315532800  # 1980-01-01, the first day a zip can hold
_CHUNK = 1 << 20
_ZIP64_FROM = 3 << 30  # below 4 GiB, with room for what does not compress
_MAX_MEMBERS = 1_000_000
# Up to a level of zstd, the threads that take at most 350 MB together (measured; level 19 takes 208
# MB for one, and 113 more for each further one).
_MANY = 20_000  # files, of which what is known takes the memory of a thread
_MOST_THREADS = {5: 8, 12: 4, 15: 3, 19: 2}
# So many that it takes the rest of what level 19 needs: 100 000 take 290 MB.
_VERY_MANY = 50_000
_LEVEL_OF_VERY_MANY = 15
# What builders record of the machine and the moment: prefixes, kernel, environment, time.
_OF_THE_BUILD = re.compile(
    r"info/(git|recipe/(rendered_recipe\.yaml|conda_build_config\.yaml|.*\.log|(.*/)?__pycache__/.*))"
)
# "name ==1.0 build", as rattler-build writes an exact pin. conda-build leaves out the "==".
_EXACT_PIN = re.compile(r"^(\S+) ==([^\s*,|<>=!~]+) ([^\s*]+)$")
_ABOUT_THE_BUILD = frozenset({"channels", "conda_private", "env_vars", "root_pkgs"})


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file or symbolic link of a package.

    Attributes:
        path: in the package, with ``/`` between the parts, relative to the prefix.
        source: a file to read or the content itself; None for a link.
        mode: permissions; only whether it is executable counts.
        link_target: what a symbolic link points to, relative to the link.
        prefix_placeholder: a text in the file in whose place an installer puts its prefix.
    """

    path: str
    source: Path | bytes | None
    mode: int = 0o644
    link_target: str | None = None
    prefix_placeholder: str = ""


def default_timestamp() -> int:
    """``SOURCE_DATE_EPOCH`` in seconds, or 1980-01-01 where it is not set.

    Raises:
        ConfigError: it is no time that an archive can have.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if not given:
        return DEFAULT_TIMESTAMP
    if not re.fullmatch(r"[0-9]{1,10}", given):
        raise ConfigError(
            f"{given!r} is no time of an archive",
            where="SOURCE_DATE_EPOCH",
            expected="whole seconds since 1970",
        )
    return int(given)


def write(
    dst: Path,
    *,
    index: Mapping[str, object],
    files: Iterable[PackageFile],
    about: Mapping[str, object] | None = None,
    info_files: Mapping[str, bytes] | None = None,
    level: int = 19,
    threads: int = 0,
    timestamp: int | None = None,
    outside_links: bool = False,
) -> None:
    """Writes the package `dst`, whole or not at all.

    Args:
        dst: ``<name>-<version>-<build>.conda``, as in `index`.
        index: ``info/index.json``; ``timestamp`` is set here.
        files: the payload, in any order.
        about: ``info/about.json``.
        info_files: further members below ``info/``, e.g. ``info/licenses/LICENSE``. An
            ``info/paths.json`` among them is kept (with its entries sorted); without one it is
            made from `files`.
        level: of zstd, 1 to 22. Level 19 is for what is distributed, 1 to 3 for large packages
            that stay on this machine. With 50 000 files or more it is 15 at most, for memory.
        threads: for compression; 0 for one a core, of as many as take 350 MB together. The bytes
            are the same for every number.
        timestamp: seconds since 1970 for every time in the package; default
            ``SOURCE_DATE_EPOCH``, else 1980-01-01.
        outside_links: let links lead out of the package, for packages that stay on this machine.

    Raises:
        ArtifactError: a name or a link that leaves the package, a name twice, or a file name that
            is not the one in `index`.
    """
    stem = f"{index['name']}-{index['version']}-{index['build']}"
    if dst.name != f"{stem}.conda":
        raise ArtifactError(
            "the file name is not that of index.json", where=str(dst), expected=stem
        )
    moment = default_timestamp() if timestamp is None else timestamp
    ordered = sorted(files, key=lambda file: file.path.encode())
    names = Names(dst.name, _MAX_MEMBERS)
    for file in ordered:
        names.add(file.path)
        if f"{file.path}/".startswith("info/"):
            raise ArtifactError("a payload file below info/", where=f"{dst.name}: {file.path}")
        if file.link_target is not None:
            if not outside_links:
                check_link(file.path, file.link_target, dst.name)
        elif file.source is None:
            raise ArtifactError("neither content nor link", where=f"{dst.name}: {file.path}")
    info = dict(info_files or {})
    if len(ordered) >= _VERY_MANY:
        level = min(level, _LEVEL_OF_VERY_MANY)
    workers = threads or _default_threads(level, len(ordered))
    with atomic.writing(dst) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as outer:
        with _member(outer, "metadata.json", 0) as member:
            member.write(json_bytes({"conda_pkg_format_version": 2}))
        total = sum(_size(file) for file in ordered)
        with _member(outer, f"pkg-{stem}.tar.zst", total) as member:
            entries = _write_tar(member, ordered, moment, level, workers)
        info["info/index.json"] = json_bytes({**index, "timestamp": moment * 1000})
        if about is not None or "info/about.json" not in info:
            info["info/about.json"] = json_bytes(about or {})
        given = info.get("info/paths.json")
        info["info/paths.json"] = _sorted_paths(given) if given else _paths_json(entries)
        members = [PackageFile(name, content) for name, content in sorted(info.items())]
        for file in members:
            if not file.path.startswith("info/"):
                raise ArtifactError("not below info/", where=f"{dst.name}: {file.path}")
        with _member(outer, f"info-{stem}.tar.zst", 0) as member:
            _write_tar(member, members, moment, level, workers)


def normalise(
    src: Path, dst: Path, *, timestamp: int | None = None, level: int = 19, threads: int = 0
) -> None:
    """Writes the package `src` again as `dst`, without what tells when and where it was built.

    The payload and ``info/paths.json`` stay as they are; members, times, owners and permissions
    are as :func:`write` has them; ``index.json`` gets the fixed timestamp and its requirements in
    one order and spelling, which mean nothing; members that builders fill with prefixes, kernel
    versions and times are left out. `dst` may be `src`.

    Args:
        src: a package of any builder, ``.conda`` or ``.tar.bz2``.
        dst: a file with the same name, ``.conda``.
        timestamp: seconds since 1970; default ``SOURCE_DATE_EPOCH``, else 1980-01-01.
        level: of zstd.
        threads: for compression; 0 as for :func:`write`.

    Raises:
        ArtifactError: `src` is damaged, or a file holds the build prefix, so that its bytes tell
            where it was built.
    """
    package = conda_package.read(src)
    for entry in package.paths.values():
        if entry.prefix_placeholder:
            raise ArtifactError(
                f"holds the build prefix {entry.prefix_placeholder[:40]}...",
                where=f"{src.name}: {entry.path}",
                expected="no absolute path in a file of this package",
            )
    info = {
        name: content
        for name, content in package.info.items()
        if not _OF_THE_BUILD.fullmatch(name) and name != "info/about.json"
    }
    about = {key: value for key, value in package.about.items() if key not in _ABOUT_THE_BUILD}
    # rattler-build lists what compilers export in an order that changes from run to run.
    index = dict(package.index)
    for key in ("depends", "constrains"):
        if isinstance(index.get(key), list):
            index[key] = sorted(_EXACT_PIN.sub(r"\1 \2 \3", spec) for spec in index[key])
    with atomic.scratch(dst.parent) as folder:
        files = []
        for number, member in enumerate(package.payload()):
            if member.link_target is not None:
                files.append(PackageFile(member.path, None, link_target=member.link_target))
                continue
            # A number for a name: nothing of the archive reaches the file system.
            blob = folder / str(number)
            with blob.open("wb") as stream:
                for data in member.chunks():
                    stream.write(data)
            files.append(PackageFile(member.path, blob, 0o755 if member.executable else 0o644))
        write(
            dst,
            index=index,
            files=files,
            about=about,
            info_files=info,
            level=level,
            threads=threads,
            timestamp=timestamp,
        )


def json_bytes(value: object) -> bytes:
    """JSON as every member below ``info/`` is written."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _size(file: PackageFile) -> int:
    if isinstance(file.source, Path):
        return file.source.stat().st_size
    return len(file.source or b"")


def _default_threads(level: int, files: int) -> int:
    most = next((count for highest, count in _MOST_THREADS.items() if level <= highest), 1)
    return max(1, min(os.cpu_count() or 1, most if files < _MANY else 1))


def _member(outer: zipfile.ZipFile, name: str, size: int) -> IO[bytes]:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o100644 << 16
    entry.create_system = 3
    return outer.open(entry, "w", force_zip64=size >= _ZIP64_FROM)


def _compressed(raw: IO[bytes], level: int, workers: int) -> zstd.ZstdFile:
    # At least one worker: with none zstd cuts the input differently, and the bytes would depend
    # on the number of threads.
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.nb_workers: max(1, workers),
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return zstd.ZstdFile(raw, "w", options=options)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What paths.json says of one file."""

    path: str
    sha256: str
    size: int
    link_target: str | None
    prefix_placeholder: str = ""


class _Hashing(io.RawIOBase):
    """A file that keeps the digest of what was read from it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data


def _write_tar(
    raw: IO[bytes], files: Iterable[PackageFile], moment: int, level: int, workers: int
) -> list[_Entry]:
    entries = []
    with (
        _compressed(raw, level, workers) as compressed,
        tarfile.TarFile(
            fileobj=compressed,
            mode="w",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            copybufsize=_CHUNK,
        ) as tar,
    ):
        for file in files:
            header = tarfile.TarInfo(file.path)
            header.mtime = moment
            if file.link_target is not None:
                header.type = tarfile.SYMTYPE
                header.linkname = file.link_target
                header.mode = 0o777
                tar.addfile(header)
                entries.append(_Entry(file.path, "", 0, file.link_target))
                continue
            header.mode = 0o755 if file.mode & 0o111 else 0o644
            header.size = _size(file)
            with _open(file) as stream:
                hashing = _Hashing(stream)
                tar.addfile(header, hashing)
            tar.members.clear()  # type: ignore[attr-defined]  # not needed again: 1 KB each
            digest = hashing.digest.hexdigest()
            entries.append(_Entry(file.path, digest, hashing.size, None, file.prefix_placeholder))
    return entries


def _open(file: PackageFile) -> IO[bytes]:
    if isinstance(file.source, Path):
        return file.source.open("rb")
    return io.BytesIO(file.source or b"")


def _paths_json(entries: list[_Entry]) -> bytes:
    by_path = {entry.path: entry for entry in entries}
    return json_bytes({"paths": [_path(entry, by_path) for entry in entries], "paths_version": 1})


def _path(entry: _Entry, by_path: Mapping[str, _Entry]) -> dict[str, object]:
    """One entry of paths.json; conda-build gives a link the digest of the file it leads to."""
    if entry.link_target is None:
        facts: dict[str, object] = {"path_type": "hardlink"}
        target: _Entry | None = entry
    else:
        facts = {"path_type": "softlink"}
        target = _follow(entry, by_path)
    facts["_path"] = entry.path
    facts["sha256"] = target.sha256 if target else hashlib.sha256(b"").hexdigest()
    facts["size_in_bytes"] = target.size if target else 0
    if entry.prefix_placeholder:
        facts |= {"file_mode": "text", "prefix_placeholder": entry.prefix_placeholder}
    return facts


def _follow(entry: _Entry, by_path: Mapping[str, _Entry]) -> _Entry | None:
    seen = set()
    current: _Entry | None = entry
    while current is not None and current.link_target is not None:
        if current.path in seen:
            return None
        seen.add(current.path)
        folder = posixpath.dirname(current.path)
        current = by_path.get(posixpath.normpath(posixpath.join(folder, current.link_target)))
    return current


def _sorted_paths(text: bytes) -> bytes:
    document = parse_object(text, "info/paths.json")
    document["paths"].sort(key=lambda entry: entry["_path"].encode())
    return json_bytes(document)
