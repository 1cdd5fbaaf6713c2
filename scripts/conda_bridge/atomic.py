"""Outputs that appear whole or not at all: temporary name, fsync, rename, one lock a name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["copy", "directory", "lock", "remove", "write_bytes", "write_text", "writing"]

_PREFIX = ".partial-"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` only when the block ends without an exception.

    Readers see the old file or the new one, never a part. What is left over after a kill has a
    name that starts with ``.partial-``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix="-" + path.name, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
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
def directory(path: Path) -> Iterator[Path]:
    """A new folder that takes the name `path` only when the block ends without an exception.

    The block fills the folder it is given. Where `path` exists already by then (another process
    was faster), the new folder is dropped and the existing one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix="-" + path.name, dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(path: Path) -> None:
    """Removes a folder so that a kill in between never leaves a part of it under its name."""
    if not path.exists():
        return
    grave = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=path.parent))
    os.rename(path, grave / path.name)
    shutil.rmtree(grave, ignore_errors=True)


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
