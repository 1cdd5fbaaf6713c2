"""Where releases are published: what a folder and an object store both have to offer.

A store keeps files that never change once they have their name, and documents, which all change
together. Paths are relative to it, with ``/`` between their parts.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import ConfigError

__all__ = ["Documents", "Store", "open_store"]

# Reads the record anew: its number, and the documents that belong to it.
Documents = Callable[[], tuple[int, Mapping[str, bytes]]]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::|://)")


class Store(ABC):
    """A folder or an object store that is published to.

    Every method raises :class:`~conda_bridge.errors.TargetError` where the store does not answer.

    Attributes:
        name: as a person gave it.
    """

    name: str

    @abstractmethod
    def files(self, folder: str, after: str = "") -> dict[str, bytes]:
        """The contents of the files in a folder, by their names.

        Args:
            folder: which may be missing.
            after: leaves out all names up to this one.
        """

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
    def digest(self, path: str) -> str | None:
        """The sha256 of a file, of the bytes that are read from there; None where there is none."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Removes a file, if there is one."""

    @abstractmethod
    def is_foreign(self) -> bool:
        """Whether there is a channel or an index that no record of ours tells of."""

    @abstractmethod
    def show(self, documents: Documents) -> list[str]:
        """Makes the documents those of the newest record, for every client.

        Args:
            documents: is called as often as another publisher comes between.

        Returns:
            The documents that were not so yet.
        """


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
