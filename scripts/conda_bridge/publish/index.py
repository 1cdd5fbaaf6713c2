"""Puts packages and wheels into a folder that conda and pip install from.

::

    <folder>/channel/{linux-64,noarch}/   conda packages, repodata.json
    <folder>/wheels/                      wheels and their .metadata files
    <folder>/index/<cu130>/<torch2.13>/   pages for pip

Everything is read and compared before anything is written, every file appears whole or not at all,
and pages are written after what they link to.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..bridge.agreement import check_same_files
from ..errors import ArtifactError
from ..formats import conda_package
from ..formats.wheel_reader import file_sha256
from ..label import CONDA_ENDINGS, LIBRARY_NAME, Label, LibraryLabel, split_conda_file
from ..system import atomic
from . import channel as channel_index
from . import wheels as wheel_index
from .channel import CHANNEL, SUBDIRS
from .immutable import refuse_damaged, refuse_other_bytes
from .wheels import INDEX, WHEELS

__all__ = ["Result", "consistent", "publish", "update", "update_channel", "update_wheel_index"]

_LOCK = ".lock"


@dataclass(frozen=True)
class Result:
    """What an update did, or would do.

    Attributes:
        packages: conda packages in the channel.
        wheels: wheels in the index.
        written: files that changed, relative to the folder.
        absent: entries that are kept though their file is not in the folder.
        pruned: such entries that were dropped.
    """

    packages: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, list[str]]:
        """For ``--json``."""
        return {
            "packages": list(self.packages),
            "wheels": list(self.wheels),
            "written": list(self.written),
            "absent": list(self.absent),
            "pruned": list(self.pruned),
        }


def _write_changed(files: dict[Path, bytes], root: Path, dry_run: bool) -> tuple[str, ...]:
    """Writes the files whose content differs; returns their paths relative to `root`."""
    changed = []
    for path, content in files.items():
        if path.is_file() and path.read_bytes() == content:
            continue
        if not dry_run:
            atomic.write_bytes(path, content)
        changed.append(path.relative_to(root).as_posix())
    return tuple(changed)


def update_channel(
    channel: Path, *, replace: bool = False, prune: bool = False, dry_run: bool = False
) -> Result:
    """Writes the repodata of `channel` from the packages in it.

    Args:
        channel: the folder with ``linux-64/`` and ``noarch/``.
        replace: accept packages that were published with other bytes.
        prune: drop entries whose package is no longer in the folder.
        dry_run: write nothing.

    Raises:
        ArtifactError: a package that cannot be read, or lies in the wrong subdir.
        ConflictError: a package that was published with other bytes, or one that is there as
            ``.conda`` and ``.tar.bz2`` with different files.
    """
    files: dict[Path, bytes] = {}
    packages: list[str] = []
    missing: list[str] = []
    for subdir in SUBDIRS:
        folder = channel / subdir
        known = channel_index.published(channel, subdir)
        digests = channel_index.published_digests(channel, subdir)
        found: channel_index.Records = {}
        paths = conda_package.in_folder(folder)
        _refuse_two_of_a_name(paths)
        for path in paths:
            record = channel_index.read_package(path)
            if record["subdir"] != subdir:
                raise ArtifactError(
                    f"is a package for {record['subdir']}", where=f"{subdir}/{path.name}"
                )
            if not replace:
                refuse_damaged(path.name, digests.get(path.name, ()), record["sha256"])
            found[path.name] = record
        gone = sorted(set(known) - set(found))
        if not prune:
            found.update({name: known[name] for name in gone})
        missing += gone
        packages += sorted(found)
        for name, content in channel_index.repodata(subdir, found).items():
            files[folder / name] = content
    written = _write_changed(files, channel, dry_run)
    absent, pruned = ((), missing) if prune else (missing, ())
    return Result(tuple(packages), (), written, tuple(absent), tuple(pruned))


def update_wheel_index(
    root: Path, *, replace: bool = False, prune: bool = False, dry_run: bool = False
) -> Result:
    """Writes ``index/`` and the ``.metadata`` files from the wheels in `root`/wheels.

    Args:
        root: the folder with ``wheels/``.
        replace: accept wheels that were published with other bytes.
        prune: drop entries whose wheel is no longer in the folder.
        dry_run: write nothing.

    Raises:
        ArtifactError: a wheel that cannot be read, or a page that this program did not write.
        ConflictError: a wheel that was published with other bytes.
        LabelError: a wheel without a label.
    """
    known = wheel_index.published(root)
    digests = wheel_index.published_digests(root)
    found: dict[str, wheel_index.WheelEntry] = {}
    files: dict[Path, bytes] = {}
    for path in sorted((root / WHEELS).glob("[!.]*.whl")):
        entry, metadata = wheel_index.read_wheel(path)
        if not replace:
            refuse_damaged(entry.file, digests.get(entry.file, ()), entry.sha256)
        found[entry.file] = entry
        files[path.with_name(path.name + ".metadata")] = metadata
    gone = sorted(set(known) - set(found))
    if not prune:
        found.update({name: known[name] for name in gone})
    wheels = tuple(entry.file for entry in sorted(found.values(), key=lambda entry: entry.order))
    pages = wheel_index.pages(found.values())
    # Pages of a folder first, the overview that leads there last.
    for name, text in pages.items():
        files[root / INDEX / name] = text.encode()
    written = _write_changed(files, root, dry_run)
    if prune and not dry_run:
        _remove_wheels(root, gone)
        _remove_folders(root / INDEX, {known[name].label.index_dir for name in gone}, pages)
    absent, pruned = ((), gone) if prune else (gone, ())
    return Result((), wheels, written, tuple(absent), tuple(pruned))


def _remove_wheels(root: Path, names: Iterable[str]) -> None:
    """Removes what lay beside wheels that are gone."""
    for name in names:
        (root / WHEELS / f"{name}.metadata").unlink(missing_ok=True)


def _remove_folders(root: Path, folders: Iterable[str], pages: Mapping[str, str]) -> None:
    """Removes the pages of variants that have no wheel any more."""
    for folder in folders:
        if f"{folder}/index.html" not in pages:
            atomic.remove(root / folder)
            with contextlib.suppress(OSError):  # other torch minors of the same CUDA
                (root / folder).parent.rmdir()


def update(
    root: Path, *, replace: bool = False, prune: bool = False, dry_run: bool = False
) -> Result:
    """Both the channel and the wheel index of `root`; see the two functions.

    Raises:
        ArtifactError: there is no such folder.
    """
    if not root.is_dir():
        raise ArtifactError(
            "there is no such folder",
            where=str(root),
            expected="a folder with channel/ and wheels/, such as dist/",
        )
    if dry_run:
        return _update(root, replace=replace, prune=prune, dry_run=True)
    with atomic.lock(root / _LOCK):
        return _update(root, replace=replace, prune=prune, dry_run=False)


def _update(root: Path, *, replace: bool, prune: bool, dry_run: bool) -> Result:
    if not dry_run:  # both are checked before either is written
        _update(root, replace=replace, prune=prune, dry_run=True)
    channel = update_channel(root / CHANNEL, replace=replace, prune=prune, dry_run=dry_run)
    written = tuple(f"{CHANNEL}/{name}" for name in channel.written)
    wheels = update_wheel_index(root, replace=replace, prune=prune, dry_run=dry_run)
    return Result(
        channel.packages,
        wheels.wheels,
        written + wheels.written,
        channel.absent + wheels.absent,
        channel.pruned + wheels.pruned,
    )


def publish(
    artifacts: Iterable[Path],
    output: Path,
    *,
    replace: bool = False,
    dry_run: bool = False,
    report: Callable[[str], None] = lambda _line: None,
) -> list[Path]:
    """Copies packages and wheels into `output` and updates channel and index: all or nothing.

    Args:
        artifacts: conda packages and wheels.
        output: the folder to publish in.
        replace: accept other bytes under a name that is there already.
        dry_run: check everything, write nothing.
        report: is told what happens, a line at a time.

    Returns:
        Where the artifacts are now.

    Raises:
        ArtifactError: an artifact that cannot be read.
        LabelError: an artifact with a name that this project does not produce.
        ConflictError: one of the names is published with other bytes, or there in another form
            with other files. Nothing has been copied.
    """
    sources = list(artifacts)
    with contextlib.nullcontext() if dry_run else atomic.lock(output / _LOCK):
        known = _published_digests(output)
        targets, new = [], []
        for path in sources:
            target, digest = _target(path, output)
            targets.append(target)
            existing = file_sha256(target) if target.is_file() else None
            published = known.get(path.name, set())
            if not replace:
                refuse_other_bytes(path.name, published, digest)
                if not published and existing:
                    refuse_other_bytes(path.name, {existing}, digest)
            if existing == digest:
                report(f"unchanged {target.name}")
            elif existing and published:
                # Its own bytes again: it was damaged after it was published.
                report(f"repair {target.name}: its sha256 was {existing}")
                new.append((path, target))
            else:
                report(f"publish {target.name}")
                new.append((path, target))
        there = [conda_package.in_folder(output / CHANNEL / subdir) for subdir in SUBDIRS]
        _refuse_two_of_a_name([*sources, *itertools.chain(*there)])
        if dry_run:
            return targets
        for path, target in new:
            atomic.copy(path, target)
        for name in _update(output, replace=replace, prune=False, dry_run=False).written:
            report(f"write {name}")
    return targets


def _refuse_two_of_a_name(paths: Iterable[Path]) -> None:
    """A ``.conda`` and a ``.tar.bz2`` of one name: clients take one or the other.

    Raises:
        ConflictError: they hold different files.
    """
    first: dict[str, Path] = {}
    for path in paths:
        stem, ending = split_conda_file(path.name)
        other = first.setdefault(stem, path) if ending else path
        if other.name != path.name:
            check_same_files(conda_package.read(other), conda_package.read(path))


def consistent(output: Path) -> bool:
    """Whether pages and repodata of `output` are all there and agree with each other."""
    channel = output / CHANNEL
    return wheel_index.consistent(output) and all(
        channel_index.consistent(channel, subdir) for subdir in SUBDIRS
    )


def _published_digests(output: Path) -> dict[str, set[str]]:
    """The sha256 of everything that pages and repodata list, by file name."""
    digests = wheel_index.published_digests(output)
    for subdir in SUBDIRS:
        digests.update(channel_index.published_digests(output / CHANNEL, subdir))
    return digests


def _target(path: Path, output: Path) -> tuple[Path, str]:
    """Where an artifact belongs, and its sha256."""
    endings = f"{', '.join(CONDA_ENDINGS)} or .whl"
    if not path.is_file():
        raise ArtifactError("there is no such file", where=str(path), expected=endings)
    if path.suffix == ".whl":
        return output / WHEELS / path.name, wheel_index.read_wheel(path)[0].sha256
    if not split_conda_file(path.name)[1]:
        raise ArtifactError(
            "neither a conda package nor a wheel", where=str(path), expected=endings
        )
    if path.name.startswith(f"{LIBRARY_NAME}-"):
        LibraryLabel.parse_conda_file(path.name)
    else:
        Label.parse_conda_file(path.name)
    record = channel_index.read_package(path)
    return output / CHANNEL / str(record["subdir"]) / path.name, str(record["sha256"])
