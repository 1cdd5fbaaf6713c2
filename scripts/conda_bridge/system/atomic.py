"""Outputs that appear whole or not at all: temporary name, fsync, rename, one lock a name.

What a killed process leaves has a name that starts with ``.partial-``. Whoever makes something
takes a lock on it that ends with the process, so the next one that writes into the folder knows
what nobody works on any more, and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = [
    "PREFIX",
    "copy",
    "directory",
    "lock",
    "remove",
    "scratch",
    "sync_folder",
    "write_bytes",
    "write_text",
    "writing",
]

PREFIX = ".partial-"  # every name that is not final begins with it
# Ends the name of a temporary folder of ours. Its maker keeps it locked, and the file in it too:
# network file systems lock files alone, and the file is not there in the first and last moment.
_OURS = ".d"
_HELD = "held"
# A temporary folder of another kind of maker has no lock.
_UNHELD_FOR = 3600.0


def sync_folder(folder: Path) -> None:
    """Has the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Whether nobody else holds the file, which is held from now on."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks, where nothing is ever swept
        return False
    return True


def _locks(path: Path) -> list[Path]:
    """What the maker of a temporary file or folder keeps locked; nothing where it is not ours."""
    if not path.is_dir() or path.is_symlink():
        return [path]
    held = path / _HELD
    # The folder first: the file is there a moment before it is locked.
    return [*([path] if path.name.endswith(_OURS) else []), *([held] if held.exists() else [])]


def _sweep(folder: Path) -> None:
    """Removes what processes that are gone left in `folder` under temporary names."""
    for path in folder.glob(f"{PREFIX}*"):
        # Another may sweep too, and a maker may end: then there is nothing to open or remove.
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            locks = _locks(path)
            if not locks and time.time() - path.stat().st_mtime <= _UNHELD_FOR:
                continue
            for name in locks:
                descriptor = os.open(name, os.O_RDONLY if name.is_dir() else os.O_RDWR)
                opened.callback(os.close, descriptor)
                if not _try_lock(descriptor):
                    break
            else:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def _temporary(path: Path) -> tuple[int, Path]:
    """A new locked file beside `path`."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=PREFIX, suffix="-" + path.name, dir=path.parent)
        temporary = Path(name)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():
            return descriptor, temporary
        os.close(descriptor)  # swept before it was locked


def _temporary_folder(folder: Path) -> tuple[int, Path]:
    """A new locked folder in `folder`."""
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=_OURS, dir=folder))
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:  # swept before it was locked
            continue
        with contextlib.suppress(OSError):  # a file system that does not lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():
            return descriptor, temporary
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` only when the block ends without an exception.

    Readers see the old file or the new one, never a part. What is left over after a kill has a
    name that starts with ``.partial-``; the next call for this folder removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    descriptor, temporary = _temporary(path)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
            os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with writing(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def copy(source: Path, target: Path) -> None:
    """Copies a file to the name `target`, whole or not at all."""
    with source.open("rb") as reader, writing(target) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder with a temporary name in `folder`, removed when the block ends.

    After a kill it is removed by the next call that makes something in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    descriptor, temporary = _temporary_folder(folder)
    try:
        with (temporary / _HELD).open("w") as held:
            with contextlib.suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(descriptor)


@contextlib.contextmanager
def directory(path: Path) -> Iterator[Path]:
    """A new folder that takes the name `path` only when the block ends without an exception.

    The block fills the folder it is given. Where `path` exists already by then (another process
    was faster), the new folder is dropped and the existing one stays.
    """
    with scratch(path.parent) as temporary:
        fresh = temporary / path.name
        fresh.mkdir()
        yield fresh
        fresh.chmod(0o755)
        try:
            os.rename(fresh, path)
        except OSError:
            if not path.is_dir():
                raise
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Removes a folder so that a kill in between never leaves a part of it under its name."""
    if not path.exists():
        return
    with scratch(path.parent) as grave:
        os.rename(path, grave / path.name)


@contextlib.contextmanager
def lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds `path` as a lock between processes; a killed holder releases it by dying.

    Args:
        path: the lock; an empty file that stays.
        shared: with others who read what the lock guards; without one who changes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
