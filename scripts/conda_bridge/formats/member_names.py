"""Which names and links an archive member may have; one rule for every archive we read or write."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from ..errors import ArtifactError

__all__ = ["Names", "check_link", "check_name"]

_MAX_LENGTH = 4096
_MAX_PART = 255


def _fault(name: str) -> str:
    """What makes `name` unfit for a member, or an empty string."""
    if not name:
        return "the name is empty"
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_LENGTH:
        return f"the name is longer than {_MAX_LENGTH} bytes"
    if name.startswith("/"):
        return "the name is absolute"
    if "\\" in name:
        return "the name has a backslash"
    if not name.isprintable():
        return "the name has characters that cannot be printed"
    parts = name.split("/")
    if ".." in parts:
        return "the name leaves the package (..)"
    if "" in parts or "." in parts:
        return "the name is not in its plain form (// or . or a slash at the end)"
    if any(len(part.encode()) > _MAX_PART for part in parts):
        return f"a part of the name is longer than {_MAX_PART} bytes"
    return ""


def check_name(name: str, where: str) -> None:
    """Raises ArtifactError unless `name` is a plain relative path that stays where it is put.

    Args:
        name: a member's path, with ``/`` between its parts.
        where: the archive, for the message.
    """
    fault = _fault(name)
    if fault:
        raise ArtifactError(fault, where=f"{where}: {name[:200]!r}")


def check_link(name: str, target: str, where: str) -> None:
    """Raises ArtifactError unless the link `name` -> `target` stays inside the package."""
    if not target or target.startswith("/") or "\\" in target or not target.isprintable():
        raise ArtifactError(
            f"the link points to {target[:200]!r}",
            where=f"{where}: {name}",
            expected="a relative path inside the package",
        )
    end = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if end == ".." or end.startswith("../"):
        raise ArtifactError(
            f"the link points outside the package: {target[:200]!r}",
            where=f"{where}: {name}",
            expected="a relative path inside the package",
        )


class Names:
    """The names seen so far in one archive; refuses a second member where one is already.

    Args:
        where: the archive, for messages.
        limit: how many members there may be.
    """

    def __init__(self, where: str, limit: int) -> None:
        self._where = where
        self._limit = limit
        self._leaves: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str) -> None:
        """Takes the name of a file or a link.

        Raises:
            ArtifactError: the name is unfit, is there already, is also a folder, or lies below a
                file or a link; or there are too many members.
        """
        check_name(name, self._where)
        fail: Callable[[str], ArtifactError] = lambda what: ArtifactError(  # noqa: E731
            what, where=f"{self._where}: {name}"
        )
        if len(self._leaves) >= self._limit:
            raise fail(f"more than {self._limit} members")
        if name in self._leaves:
            raise fail("a second member with this name")
        if name in self._folders:
            raise fail("this name is both a file and a folder")
        parent = posixpath.dirname(name)
        while parent and parent not in self._folders:
            if parent in self._leaves:
                raise fail(f"lies below {parent}, which is not a folder")
            self._folders.add(parent)
            parent = posixpath.dirname(parent)
        self._leaves.add(name)

    def add_folder(self, name: str) -> None:
        """Takes the name of a folder, which may come more than once.

        Raises:
            ArtifactError: the name is unfit or belongs to a file or a link.
        """
        check_name(name, self._where)
        if name in self._leaves:
            raise ArtifactError(
                "this name is both a file and a folder", where=f"{self._where}: {name}"
            )
        if len(self._folders) >= self._limit:
            raise ArtifactError(f"more than {self._limit} folders", where=f"{self._where}: {name}")
        parent = posixpath.dirname(name)
        if parent:
            self.add_folder(parent) if parent not in self._folders else None
        self._folders.add(name)
