"""Files for readers that take a path, in memory where the system has such a place."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..worker import ROOM, in_memory

__all__ = ["from_file", "made", "place", "scratch"]


@functools.cache
def _room() -> Path:
    """A folder of this process; a worker, which may die, has one that its starter removes."""
    given = os.environ.get(ROOM)
    room = Path(given or tempfile.mkdtemp(prefix="fuzz-", dir=in_memory()))
    if not given:
        atexit.register(shutil.rmtree, room, ignore_errors=True)
    return room


def place(name: str) -> Path:
    """Where a file or folder of this name may be written, by this process alone."""
    path = _room() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """An empty folder, which is removed with all that is in it."""
    folder = place(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of bytes, of one that reads a file called `name`."""

    def reader(data: bytes) -> object:
        path = place(name)
        path.write_bytes(data)
        return read(path)

    return reader


def made(name: str, write: Callable[[Path], Path]) -> bytes:
    """The bytes of the file that `write` makes in a folder."""
    with scratch(f"seeds-{name}") as folder:
        return write(folder).read_bytes()
