"""Where releases are published: what a folder and an object store both have to offer.

A store keeps files that never change once they have their name, and documents, which all change
together. Paths are relative to it, with ``/`` between their parts.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from ..errors import ConfigError
from .unit import Unit

__all__ = ["LINGER", "MEMORY", "Documents", "Shown", "Site", "Store", "open_store"]

# Where a store keeps what it remembers; see memory.py.
MEMORY = ".site/memory.msgpack.zst"
# A client that has read which shards there are asks for them a moment later, or from a cache.
LINGER = timedelta(days=1)


class Site:
    """The documents of a record, each made when it is asked for.

    Args:
        number: of the newest entry of the record.
        units: of all documents, in the order in which they are to be written.
        right: of units that were made before: their key, and the tags of their documents.

    Attributes:
        number: as given.
        units: as given.
        tags: that the documents have which were right when they were looked at last.
    """

    def __init__(
        self,
        number: int,
        units: Sequence[Unit],
        right: Mapping[str, tuple[str, Mapping[str, str]]],
    ) -> None:
        self.number = number
        self.units = units
        self.tags: dict[str, str] = {}
        self._made: dict[str, Mapping[str, bytes]] = {}
        self._paths: dict[str, Collection[str]] = {}
        self._owner: dict[str, Unit] = {}
        for unit in units:
            key, tags = right.get(unit.name, ("", {}))
            if key == unit.key:
                self.tags.update(tags)
                self._paths[unit.name] = tags
            else:
                self._paths[unit.name] = self._made[unit.name] = unit.make()
            self._owner.update(dict.fromkeys(self._paths[unit.name], unit))

    @property
    def paths(self) -> Sequence[str]:
        """Of all documents; what another names comes before it."""
        return list(self._owner)

    def paths_of(self, unit: Unit) -> Collection[str]:
        """The documents of a unit."""
        return self._paths[unit.name]

    def content(self, path: str) -> bytes:
        """A document."""
        unit = self._owner[path]
        if unit.name not in self._made:
            self._made[unit.name] = unit.make()
        return self._made[unit.name][path]


@dataclass
class Shown:
    """What came of it.

    Attributes:
        changed: documents that were not yet as they are now, or are there no more.
        tags: of all documents.
    """

    changed: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)


# Reads the record anew.
Documents = Callable[[], Site]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::|://)")


class Store(ABC):
    """A folder or an object store that is published to.

    Every method raises :class:`~conda_bridge.errors.TargetError` where the store does not answer.

    Attributes:
        name: as a person gave it.
    """

    name: str

    @abstractmethod
    def files(self, folder: str, after: str = "") -> dict[str, tuple[str, bytes]]:
        """The tags and contents of the files in a folder, by their names.

        A tag is another one where the content is.

        Args:
            folder: which may be missing.
            after: leaves out all names up to this one.
        """

    @abstractmethod
    def tags(self, folder: str) -> dict[str, str]:
        """The tags of the files in a folder, by their names."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Makes a file, whole or not at all.

        Returns:
            False where there is a file of that name already, which is left as it is.
        """

    @abstractmethod
    def upload(self, path: str, source: Path) -> bool:
        """Copies a file, whole or not at all; returns as :meth:`create`."""

    @abstractmethod
    def restore(self, path: str, source: Path) -> None:
        """Gives a file that was damaged or lost its own bytes back."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """How many bytes a file has; None where there is none."""

    @abstractmethod
    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, as they are read from there.

        Raises:
            FileNotFoundError: there is none.
        """

    def digest(self, path: str) -> str | None:
        """The sha256 of a file, of the bytes that are read from there; None where there is none."""
        found = hashlib.sha256()
        try:
            for chunk in self.chunks(path):
                found.update(chunk)
        except FileNotFoundError:
            return None
        return found.hexdigest()

    @abstractmethod
    def remove(self, path: str) -> None:
        """Removes a file, if there is one."""

    @abstractmethod
    def is_foreign(self) -> bool:
        """Whether there is a channel or an index that no record of ours tells of."""

    @abstractmethod
    def show(self, documents: Documents) -> Shown:
        """Makes the documents those of the newest record, for every client.

        Args:
            documents: is called as often as another publisher comes between.
        """

    @abstractmethod
    def remembered(self) -> bytes | None:
        """What was remembered last."""

    @abstractmethod
    def remember(self, data: bytes) -> None:
        """Keeps what nothing depends on."""


def open_store(target: str) -> Store:
    """The store of a command line.

    Args:
        target: a folder, or ``s3://bucket/prefix``.

    Raises:
        ConfigError: another kind of address, or one without a bucket.
    """
    if target.startswith("s3://"):
        from .object_store import ObjectStore

        return ObjectStore(target)
    if _URL.match(target) or not target:
        raise ConfigError(
            f"{target!r} is no place that can be published to",
            expected="a folder, or s3://bucket/prefix",
            fix="other object stores answer as S3 does: set AWS_ENDPOINT_URL to theirs",
        )
    from .folder_store import FolderStore

    return FolderStore(Path(target))
