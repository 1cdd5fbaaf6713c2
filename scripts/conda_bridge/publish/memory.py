"""What a store remembers of its record and its documents, so that little is read and made again.

Nothing depends on it. It says which entries of the record it was made from and which documents were
right then, each with the tag that the store gave it; what has another tag now, or is not there, is
read or made again. Without it, or after the program or the project's configuration has changed,
everything is.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path

import msgspec

from ..formats.zstd import zstd
from ..project import Project
from .intake import WheelName
from .record import Published

__all__ = ["Made", "Memory", "maker"]

_LEVEL = 3
_LARGEST = 1 << 30


class Made(msgspec.Struct, frozen=True, array_like=True):
    """A unit of documents that a store has.

    Attributes:
        key: what they follow from.
        tags: of the documents, by path.
    """

    key: str
    tags: dict[str, str]


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """The whole of it.

    Attributes:
        maker: a digest of the program and of the project's configuration.
        entries: of the record, with their tags.
        last: the sha256 of the newest of them.
        files: what they say of each file, by name.
        names: what the wheels' names say.
        units: of the documents, by name.
    """

    maker: str
    entries: dict[str, str] = {}
    last: str = ""
    files: dict[str, Published] = {}
    names: dict[str, WheelName] = {}
    units: dict[str, Made] = {}

    @classmethod
    def read(cls, data: bytes | None, project: Project) -> Memory:
        """What was remembered; nothing where that is damaged, or another program's."""
        own = maker(project)
        try:
            found = msgspec.msgpack.decode(_unpacked(data or b""), type=cls)
        except (msgspec.MsgspecError, zstd.ZstdError, EOFError, ValueError):
            return cls(own)
        if found.maker != own:
            return cls(own)
        for name, read in found.names.items():
            project.names.setdefault(name, read)
        return found

    def packed(self) -> bytes:
        """As it is kept."""
        return zstd.compress(msgspec.msgpack.encode(self), _LEVEL)


def _unpacked(data: bytes) -> bytes:
    return zstd.ZstdDecompressor().decompress(data, _LARGEST)


def maker(project: Project) -> str:
    """A digest of all that makes documents of what is published: the program, the configuration."""
    digest = hashlib.sha256(msgspec.json.encode(project.config))
    own = type(project.hooks).__module__.partition(".")[0]
    for package in sorted({__name__.partition(".")[0], own}):
        digest.update(_sources(package))
    return digest.hexdigest()


@functools.cache
def _sources(package: str) -> bytes:
    """A digest of the modules and templates of a package: any may be what made a page."""
    digest = hashlib.sha256()
    file = getattr(sys.modules.get(package), "__file__", None)
    if file:
        folder = Path(file).parent
        for path in sorted((*folder.rglob("*.py"), *folder.rglob("templates/*"))):
            digest.update(f"{path.relative_to(folder)}\n".encode())
            digest.update(path.read_bytes())
    return digest.digest()
