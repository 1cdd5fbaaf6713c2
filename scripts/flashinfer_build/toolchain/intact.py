"""Whether an unpacked archive is still what was unpacked, at the cost of asking for file times.

As git does it: a file whose size, times and place on the disk are those of when it was last seen
whole is whole. Every write moves the change time, also one that puts the modification time back.
Any other file is read and compared with the wheel, and written again from there where it differs.
Where the archive is not kept (Debian's packages), a digest of the whole folder says it, its seal.
What changes bytes below the file system moves no time, and is not seen here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from conda_bridge.system import atomic

__all__ = ["changed", "repair", "seal", "sealed", "seen"]

# Size, modification time, change time.
Stamp = tuple[int, int, int]


def _list(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.seen.json")


def _stamp(path: Path) -> Stamp | None:
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _read(tree: Path) -> dict[str, Stamp]:
    try:
        return {name: tuple(stamp) for name, stamp in json.loads(_list(tree).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def seen(tree: Path, names: Iterable[str] | None = None) -> None:
    """Records that the files of `tree` are whole as they are now.

    Args:
        tree: a folder; the record lies beside it.
        names: the files, relative to it; those of the record so far without.
    """
    known = _read(tree) if names is None else names
    stamps = {name: stamp for name in sorted(known) if (stamp := _stamp(tree / name))}
    atomic.write_text(_list(tree), json.dumps(stamps))


def changed(tree: Path) -> bool:
    """Whether a file of `tree` is not as it was last seen, or nothing was recorded."""
    known = _read(tree)
    folder = os.fspath(tree)
    for name, stamp in known.items():
        try:
            facts = os.lstat(f"{folder}/{name}")
        except OSError:
            return True
        if (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) != stamp:
            return True
    return not known


def repair(
    tree: Path,
    wheel: Callable[[], Path],
    members: Callable[[zipfile.ZipFile], Mapping[str, zipfile.ZipInfo]],
    executable: Callable[[str, zipfile.ZipInfo], bool],
) -> list[str]:
    """Compares the files of `tree` that are not as last seen with the wheel, and mends them.

    Args:
        tree: what `wheel` was unpacked into.
        wheel: gives the file of the wheel, verified.
        members: what of an archive goes where in the tree.
        executable: whether a file of the tree is.

    Returns:
        The files that had to be written again, relative to `tree`.
    """
    known = _read(tree)
    mended = []
    with zipfile.ZipFile(wheel()) as archive:
        found = members(archive)
        for name, member in found.items():
            path = tree / name
            stamp = _stamp(path)
            if stamp is not None and (stamp == known.get(name) or _same(path, member)):
                continue
            mode = 0o755 if executable(name, member) else 0o644
            with archive.open(member) as source, atomic.writing(path, mode=mode) as output:
                shutil.copyfileobj(source, output, 1 << 20)
            mended.append(name)
    seen(tree, found)
    return mended


def seal(tree: Path) -> None:
    """Records the bytes of all files of `tree`, of which there will be no other copy."""
    names = _names(tree)
    atomic.write_text(_seal(tree), _digest(tree, names))
    seen(tree, names)


def sealed(tree: Path) -> bool:
    """Whether the files of `tree` have the bytes that they were sealed with.

    Read only where a time has moved. A folder that was never sealed is sealed as it is: it appeared
    whole, and its maker was killed before it could do so.
    """
    if not _seal(tree).is_file():
        seal(tree)
        return True
    if not changed(tree):
        return True
    names = _names(tree)
    if _digest(tree, names) != _seal(tree).read_text():
        return False
    seen(tree, names)
    return True


def _seal(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.sha256")


def _names(tree: Path) -> list[str]:
    paths = [path for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(path.relative_to(tree).as_posix() for path in paths)


def _digest(tree: Path, names: Iterable[str]) -> str:
    """The sha256 over names, kinds, modes and bytes."""
    total = hashlib.sha256()
    for name in names:
        path = tree / name
        if path.is_symlink():
            total.update(f"{name}\0link {path.readlink()}\0".encode())
            continue
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{name}\0{path.stat().st_mode & 0o111:o} {content}\0".encode())
    return total.hexdigest()


def _same(path: Path, member: zipfile.ZipInfo) -> bool:
    """Whether a file has the size and the checksum of a wheel's member."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum == member.CRC
