"""Wheels unpacked once, and environments that share their files.

A wheel's tree has the folders of an environment: ``site`` (what goes into site-packages), ``bin``
and ``data``. Environments get links to it, so torch is inflated once on a machine.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from conda_bridge.errors import ArtifactError, ToolchainError
from conda_bridge.system import atomic

from . import Report, intact
from .download import fetch
from .lock import LockedWheel

__all__ = ["SITE", "files_of", "join", "link_tree", "symlink_site", "unpack"]

SITE = "site"
# A wheel's .data folders (binary distribution format, PEP 427) -> folders of the tree.
_SCHEME = {
    "purelib": SITE,
    "platlib": SITE,
    "scripts": "bin",
    "data": "data",
    "headers": "data/include",
}


def _target(name: str, where: str) -> PurePosixPath | None:
    """Where a wheel's member goes in the tree; None for a folder entry."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise ArtifactError(f"member {name!r} points outside", where=where)
    if name.endswith("/"):
        return None
    if path.parts[0].endswith(".data") and len(path.parts) > 2:
        folder = _SCHEME.get(path.parts[1])
        if folder is None:
            raise ArtifactError(f"member {name!r} has an unknown scheme", where=where)
        return PurePosixPath(folder, *path.parts[2:])
    return PurePosixPath(SITE, path)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of a tree, by their path there."""
    found = {}
    for member in archive.infolist():
        relative = _target(member.filename, str(archive.filename))
        if relative is not None:
            found[str(relative)] = member
    return found


def _executable(name: str, member: zipfile.ZipInfo) -> bool:
    return bool(member.external_attr >> 16 & 0o111) or name.startswith("bin/")


def _inflate(wheel: Path, tree: Path) -> list[str]:
    made: set[Path] = set()
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _members(archive)
            for name, member in members.items():
                path = tree / name
                if path.parent not in made:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    made.add(path.parent)
                with archive.open(member) as source, path.open("wb") as output:
                    shutil.copyfileobj(source, output, 1 << 20)
                if _executable(name, member):
                    path.chmod(0o755)
            return list(members)
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"not a wheel: {error}", where=str(wheel)) from None


def unpack(
    path: Path, wheel: LockedWheel, cache: Path, report: Report = lambda _line: None
) -> Path:
    """The tree of `wheel`, whose file is `path`; made on first use, mended where it was damaged.

    Args:
        path: the wheel in the cache; fetched again where it is not what was locked.
        wheel: what it is.
        cache: where trees are kept, by the wheel's digest.
        report: is told what was damaged.

    Raises:
        ArtifactError: it is no zip file, or a member points outside.
        ToolchainError: it was damaged, and cannot be fetched again.
    """

    def verified() -> Path:
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == wheel.sha256:
                return path
        report(f"{wheel.filename} was damaged in the cache; fetching it again")
        path.unlink()
        return fetch([[wheel]], cache, report)[0]

    tree = cache / "unpacked" / wheel.sha256
    if tree.is_dir() and not intact.changed(tree):
        return tree
    with atomic.lock(tree.with_name(tree.name + ".lock")):
        if not tree.is_dir():
            with atomic.directory(tree) as fresh:
                names = _inflate(verified(), fresh)
            intact.seen(tree, names)
        elif intact.changed(tree):
            for name in intact.repair(tree, verified, _members, _executable):
                report(f"{tree / name} was damaged; written again from {wheel.filename}")
    return tree


def files_of(tree: Path) -> list[Path]:
    """The files of a tree, sorted, without what Python compiled there later."""
    return sorted(
        path
        for path in tree.rglob("*")
        if "__pycache__" not in path.parts and (path.is_file() or path.is_symlink())
    )


def link_tree(source: Path, target: Path, *, shared: bool = False) -> None:
    """Fills `target` with hard links to the files of `source`, copies where that cannot be.

    Folders may exist in `target` already, files may not. Python's compiled files come along: they
    are valid, because a hard link has its source's time and size.

    Args:
        source: a folder.
        target: where its content goes.
        shared: a file may exist if it has the same bytes, as NVIDIA's ``nvidia/__init__.py`` in
            each of the wheels for CUDA 12.
    """
    copy = False
    for folder, _names, files in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir(parents=True, exist_ok=True)
        for name in files:
            original = Path(folder, name)
            if shared and (here / name).is_file() and filecmp.cmp(original, here / name, False):
                continue
            if not copy:
                try:
                    os.link(original, here / name, follow_symlinks=False)
                    continue
                except FileExistsError:
                    raise
                except OSError:
                    copy = True
            shutil.copy2(original, here / name, follow_symlinks=False)


def symlink_site(trees: Sequence[Path], site_packages: Path) -> None:
    """Gives an environment everything of `trees`, by one symbolic link a package.

    Raises:
        ToolchainError: two trees have the same package; :func:`join` them first.
    """
    for tree in trees:
        for entry in sorted((tree / SITE).iterdir()):
            if entry.name == "__pycache__":
                continue
            try:
                (site_packages / entry.name).symlink_to(entry)
            except FileExistsError:
                raise ToolchainError(
                    f"two wheels have {entry.name}", where=str(site_packages)
                ) from None


def join(trees: Sequence[Path], target: Path) -> Path:
    """One tree of hard links with everything of `trees`, made on first use.

    Libraries that find each other by ``$ORIGIN/../..`` (torch and the CUDA libraries beside it)
    need to lie in one real folder where an environment only holds links to it.
    """
    with atomic.lock(target.with_name(target.name + ".lock")):
        if not target.is_dir():
            with atomic.directory(target) as fresh:
                for tree in trees:
                    link_tree(tree, fresh, shared=True)
            for tree in trees:
                intact.seen(tree)  # a new link to a file moves its change time
        else:
            for tree in trees:
                _link_again(tree, target)
    return target


def _link_again(tree: Path, target: Path) -> None:
    """Mends what was mended in `tree`, or lost, in a folder that it was joined into."""
    linked = False
    for folder, names, files in os.walk(tree):
        if "__pycache__" in names:
            names.remove("__pycache__")
        here = target / Path(folder).relative_to(tree)
        for name in files:
            original, other = os.lstat(f"{folder}/{name}"), _lstat(here / name)
            if other and _alike(original, other, Path(folder, name), here / name):
                continue
            here.mkdir(parents=True, exist_ok=True)
            with atomic.scratch(here) as scratch:
                _link(Path(folder, name), scratch / name)
                os.replace(scratch / name, here / name)
            linked = True
    if linked:
        intact.seen(tree)


def _alike(original: os.stat_result, other: os.stat_result, source: Path, target: Path) -> bool:
    """Whether the file `target` of a joined folder is as its `source`, whose facts are these."""
    if other.st_size != original.st_size:
        return False
    # Copies, where there are no hard links, have their source's time. One that several trees share
    # has the time of one of them, and is read.
    return other.st_mtime_ns == original.st_mtime_ns or filecmp.cmp(source, target, shallow=False)


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
