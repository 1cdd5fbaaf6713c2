"""One archive with a channel and an index, for machines without a network.

What is in it is what a place has published, for one variant or all: unpacked, it is a channel and
an index for ``file://`` and for any web server. The same selection gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from packaging.version import InvalidVersion, Version

from .. import commands
from ..bridge.dependencies import MatchSpec
from ..errors import ArtifactError, ConfigError
from ..formats.wheel_reader import file_sha256
from ..project import Project
from ..system import atomic
from . import channel as channel_index
from . import documents, intake
from . import wheels as wheel_index
from .channel import CHANNEL
from .folder_store import FolderStore
from .intake import WheelName
from .record import File, Published, Record
from .store import Store
from .wheel_entry import INDEX, WHEELS

__all__ = ["Export", "check_name", "select", "write"]

ENDINGS = (".tar", ".zip")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first day that a zip archive knows
_EPOCH_S = 315532800
_README = "README.txt"
_SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Export:
    """What an archive is to hold.

    Attributes:
        store: that it is taken from.
        project: whose it is.
        files: the artifacts.
        versions: of them, the public ones.
    """

    store: Store
    project: Project
    files: tuple[Published, ...]
    versions: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the artifacts."""
        return sum(item.file.size for item in self.files)

    @property
    def commands(self) -> list[str]:
        """What installs each, in the folder that the archive unpacks to."""
        pip, conda = [], []
        wheels = [item.file.name for item in self.files if item.file.record is None]
        for name in wheels:
            named = WheelName.of(name, self.project)
            place = f"{INDEX}/{named.folder}/" if named.folder else f"{INDEX}/"
            requirement = f"{named.project}=={named.version}"
            pip.append(commands.pip_alone(requirement, f"file://$PWD/{place}"))
        for item in self.files:
            record = item.file.record
            if record is not None and record["name"] not in self.project.folds:
                spec = f"{record['name']}={record['version']}={record['build']}"
                conda.append(commands.conda_alone(spec, f"file://$PWD/{CHANNEL}"))
        return [*dict.fromkeys(pip), *conda]


def select(
    store: Store,
    project: Project,
    *,
    variants: Sequence[str] = (),
    versions: Sequence[str] = (),
) -> Export:
    """What of a place belongs into an archive.

    Args:
        store: a place that was published to, or a folder with a channel and an index.
        project: whose they are.
        variants: folders of the index, as ``cu130/torch2.13`` or any other that lists the wheels;
            all for none.
        versions: public versions; the newest release for none, or the newest nightly.

    Raises:
        ConfigError: there is nothing of such a variant or version; the message says what there is.
        ArtifactError: what is published there is damaged.
        TargetError: the store does not answer.
    """
    there = [item for item in _published(store, project) if item.yanked is None]
    if not there:
        raise ConfigError(
            "nothing is published there", where=store.name, expected="packages and wheels"
        )
    folders = {item.file.name: _folders(item.file, project) for item in there}
    chosen = there
    for variant in (name.strip("/") for name in variants):
        if not any(variant in found for found in folders.values()):
            raise ConfigError(
                f"there is no variant {variant!r}",
                where=store.name,
                expected=", ".join(sorted({found[0] for found in folders.values() if found}))
                or "no variant: it has one flat index",
            )
    if variants:
        wanted = {name.strip("/") for name in variants}
        chosen = [item for item in there if wanted & set(folders[item.file.name])]
    asked = _versions(versions, chosen, store.name)
    chosen = [item for item in chosen if item.file.version in asked]
    files = {item.file.name: item for item in (*chosen, *_needed(chosen, there))}
    return Export(store, project, tuple(files[name] for name in sorted(files)), tuple(asked))


def _published(store: Store, project: Project) -> list[Published]:
    record = Record(store)
    if record.number:
        return [item for item in record.files.values() if not item.pruned]
    if not isinstance(store, FolderStore) or not store.is_foreign():
        return []
    found = []
    for entry in wheel_index.published(store.root, project).values():
        found.append(
            File(
                name=entry.file,
                folder=WHEELS,
                sha256=entry.sha256,
                size=entry.size,
                version=entry.name.label.version,
                requires_python=entry.requires_python,
                metadata_sha256=entry.metadata_sha256,
            )
        )
    channel = store.root / CHANNEL
    for subdir in intake.subdirs(channel):
        exports = channel_index.published_exports(channel, subdir)
        for name, about in channel_index.published(channel, subdir).items():
            found.append(
                File(
                    name=name,
                    folder=f"{CHANNEL}/{subdir}",
                    sha256=about["sha256"],
                    size=about["size"],
                    version=intake.package_label(name, project)[1].version,
                    record=about,
                    run_exports=exports.get(name, {}),
                )
            )
    return [Published(file, time="", commit="") for file in found]


def _folders(file: File, project: Project) -> tuple[str, ...]:
    """The folders of the index that list a wheel, or a package of the same label."""
    if file.record is None:
        return WheelName.of(file.name, project).folders
    if file.record["name"] in project.folds:
        return ()  # it comes with what needs it
    _, label = intake.package_label(file.name, project)
    return intake.folders_of(label, file.name, project)


def _versions(asked: Sequence[str], there: Sequence[Published], where: str) -> list[str]:
    known = {Version(item.file.version): item.file.version for item in there}
    if not asked:
        releases = [version for version in known if not version.is_prerelease]
        return [known[max(releases or known)]]
    found = []
    for text in asked:
        try:
            found.append(known[Version(text)])
        except (InvalidVersion, KeyError):
            raise ConfigError(
                f"the version {text!r} is not published for that",
                where=where,
                expected=", ".join(known[version] for version in sorted(known)[-5:]),
            ) from None
    return found


def _needed(chosen: Iterable[Published], there: Iterable[Published]) -> list[Published]:
    """The packages of the same place that packages need, and that these need."""
    named: dict[str, list[Published]] = {}
    for item in there:
        if item.file.record is not None:
            named.setdefault(item.file.record["name"], []).append(item)
    found: dict[str, Published] = {}
    waiting = list(chosen)
    while waiting:
        record = waiting.pop().file.record
        for text in record["depends"] if record else ():
            candidates = named.get(text.split(" ")[0], [])
            if not candidates:
                continue
            spec = MatchSpec.parse(text, "depends")
            for item in candidates:
                about = cast("dict[str, Any]", item.file.record)
                if item.file.name not in found and spec.matches(about["version"], about["build"]):
                    found[item.file.name] = item
                    waiting.append(item)
    return list(found.values())


# ---------------------------------------------------------------- the archive


def write(export: Export, archive: Path, tell: Callable[[str], None] = lambda _line: None) -> str:
    """Writes the archive, whole or not at all.

    Args:
        export: what it is to hold.
        archive: its name ends in ``.tar`` or ``.zip``; there is no such file yet.
        tell: is told what happens, a line at a time.

    Returns:
        Its sha256, in hexadecimal.

    Raises:
        ConfigError: the name has another ending, or the file is there.
        ArtifactError: an artifact has other bytes than were published.
        TargetError: the store does not answer.
    """
    check_name(archive)
    made = {
        path: content
        for unit in documents.of_record(export.files, export.project)
        for path, content in unit.make().items()
    }
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in made.items()}
    for item in export.files:
        sums[item.file.path] = item.file.sha256
        if item.file.record is None:
            sums[f"{item.file.path}.metadata"] = item.file.metadata_sha256
    made[_README] = _readme(export, archive).encode()
    lines = (f"{digest}  {path}\n" for path, digest in sorted(sums.items()))
    made[_SUMS] = "".join(lines).encode()
    artifacts = {item.file.path: item.file for item in export.files}
    with atomic.writing(archive) as stream, _writer(archive, stream) as writer:
        for path in sorted({*made, *sums}):
            if path in made:
                writer.add(path, len(made[path]), [made[path]])
                continue
            tell(f"add {path}")
            size = artifacts[path].size if path in artifacts else export.store.size(path)
            writer.add(path, size or 0, _checked(export.store, path, sums[path], size or 0))
    return file_sha256(archive)


def check_name(archive: Path) -> None:
    """Refuses a name that no archive gets.

    Raises:
        ConfigError: it has another ending, or the file is there.
    """
    if archive.suffix not in ENDINGS or not archive.stem:
        raise ConfigError(
            f"{archive.name!r} is no name of an archive that is written here",
            where=str(archive),
            expected=" or ".join(f"NAME{ending}" for ending in ENDINGS),
        )
    if archive.exists():
        raise ConfigError(
            "is there already", where=str(archive), fix="give another name, or remove it"
        )


def _checked(store: Store, path: str, sha256: str, size: int) -> Iterator[bytes]:
    """The bytes of an artifact, as they were published."""
    found, count = hashlib.sha256(), 0
    try:
        for chunk in store.chunks(path):
            found.update(chunk)
            count += len(chunk)
            if count > size:
                break
            yield chunk
    except FileNotFoundError:
        count = -1
    if count != size or found.hexdigest() != sha256:
        what = "is not there" if count < 0 else f"has the sha256 {found.hexdigest()}"
        raise ArtifactError(
            what,
            where=f"{store.name}/{path}",
            expected=f"{size} bytes with the sha256 {sha256}",
            fix="publish the same build again: it gets its own bytes back",
        )


class _Tar:
    def __init__(self, top: str, stream: IO[bytes]) -> None:
        self._top = top
        self._tar = tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, path: str, size: int, chunks: Iterable[bytes]) -> None:
        about = tarfile.TarInfo(f"{self._top}/{path}")
        about.size, about.mtime, about.mode = size, _EPOCH_S, 0o644
        reader = io.BufferedReader(_Chunks(chunks), 1 << 20)
        self._tar.addfile(about, cast("IO[bytes]", reader))
        reader.read(1)  # to the end of the chunks, where they are compared

    def close(self) -> None:
        self._tar.close()


class _Zip:
    """Nothing is compressed: what is large is already."""

    def __init__(self, top: str, stream: IO[bytes]) -> None:
        self._top = top
        self._zip = zipfile.ZipFile(stream, "w")

    def add(self, path: str, size: int, chunks: Iterable[bytes]) -> None:
        about = zipfile.ZipInfo(f"{self._top}/{path}", _EPOCH)
        about.create_system, about.external_attr = 3, 0o100644 << 16
        about.file_size = size
        with self._zip.open(about, "w", force_zip64=size >= 1 << 31) as member:
            for chunk in chunks:
                member.write(chunk)

    def close(self) -> None:
        self._zip.close()


class _Chunks(io.RawIOBase):
    """A file of chunks that come one after the other."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            try:
                self._left = next(self._chunks)
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


@contextlib.contextmanager
def _writer(archive: Path, stream: IO[bytes]) -> Iterator[_Tar | _Zip]:
    writer = (_Tar if archive.suffix == ".tar" else _Zip)(archive.stem, stream)
    try:
        yield writer
    finally:
        writer.close()


def _left_out(export: Export) -> list[str]:
    """The names of packages that those in the archive need."""
    records = [item.file.record for item in export.files if item.file.record is not None]
    within = {record["name"] for record in records}
    needed = {re.split(r"[\s=<>!~\[]", text)[0] for record in records for text in record["depends"]}
    return sorted(name for name in needed - within if not name.startswith("__")) or ["nothing"]


def _readme(export: Export, archive: Path) -> str:
    unpack = "tar -xf" if archive.suffix == ".tar" else "python -m zipfile -e"
    here = "" if archive.suffix == ".tar" else " ."
    named = export.project.config.package or "What is in it"
    pip = [line for line in export.commands if line.startswith("pip")]
    conda = [line for line in export.commands if not line.startswith("pip")]
    return "\n".join(
        [
            f"{named} {', '.join(export.versions)}: a conda channel and a pip index in one file.",
            "",
            "Unpack it and see that all of it arrived:",
            "",
            f"    {unpack} {archive.name}{here}",
            f"    cd {archive.stem}",
            f"    sha256sum --check --quiet {_SUMS}",
            "",
            f"What it depends on is not in it ({', '.join(_left_out(export))}):",
            "install that first. Then type the line of what you have, in this folder. None of them",
            "asks the network.",
            "",
            *(f"    {line}" for line in pip),
            "",
            *(f"    {line}" for line in conda),
            "",
            "A web server may serve the folder as it is: put its address in place of file://$PWD.",
            "",
        ]
    )
