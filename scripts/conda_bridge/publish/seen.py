"""What a folder's artifacts were when they were read, so that only new ones are read.

A file counts as the one that was read as long as its size, its times and its inode are the same.
Nothing depends on it: without it every artifact is read.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from ..formats.zstd import zstd
from ..project import Project
from ..system import atomic
from .intake import WheelName
from .memory import maker

__all__ = ["Package", "Seen", "Wheel"]

_NAME = ".seen.msgpack.zst"
_LARGEST = 1 << 30


class Package(msgspec.Struct, frozen=True, array_like=True):
    """A conda package: what the channel says of it."""

    tag: str
    record: dict[str, Any]
    run_exports: dict[str, list[str]]


class Wheel(msgspec.Struct, frozen=True, array_like=True):
    """A wheel: what the index says of it."""

    tag: str
    name: WheelName
    sha256: str
    size: int
    requires_python: str
    metadata_sha256: str


class _All(msgspec.Struct, array_like=True):
    maker: str
    packages: dict[str, Package] = {}
    wheels: dict[str, Wheel] = {}


class Seen:
    """What was read in a folder.

    Args:
        root: the folder.
        project: whose artifacts they are; what was read for another configuration is not taken.
    """

    def __init__(self, root: Path, project: Project) -> None:
        self._path = root / _NAME
        self._root = root
        self._old = _All(maker(project))
        self._new = _All(self._old.maker)
        with contextlib.suppress(OSError, msgspec.MsgspecError, zstd.ZstdError, ValueError):
            data = zstd.ZstdDecompressor().decompress(self._path.read_bytes(), _LARGEST)
            found = msgspec.msgpack.decode(data, type=_All)
            if found.maker == self._old.maker:
                self._old = found
                for name, wheel in found.wheels.items():
                    project.names.setdefault(Path(name).name, wheel.name)

    def package(self, path: Path) -> Package | None:
        """What was read of a package that has not changed since."""
        found = self._old.packages.get(self._place(path))
        return found if found is not None and found.tag == tag_of(path) != "" else None

    def wheel(self, path: Path) -> Wheel | None:
        """What was read of a wheel that has not changed since."""
        found = self._old.wheels.get(self._place(path))
        return found if found is not None and found.tag == tag_of(path) != "" else None

    def keep(self, path: Path, what: Package | Wheel) -> None:
        """Has it known the next time."""
        if isinstance(what, Package):
            self._new.packages[self._place(path)] = what
        else:
            self._new.wheels[self._place(path)] = what

    def save(self) -> None:
        """Keeps what was read; a folder that cannot be written to is read again."""
        if (self._new.packages, self._new.wheels) == (self._old.packages, self._old.wheels):
            return
        with contextlib.suppress(OSError):
            atomic.write_bytes(self._path, zstd.compress(msgspec.msgpack.encode(self._new), 3))

    def _place(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def tag_of(path: Path) -> str:
    """Which is another one after a file was written to, or another has taken its name.

    Empty where there is no file.
    """
    try:
        about = path.stat()
    except OSError:
        return ""
    return f"{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}-{about.st_ino}"
