"""Which names and links an archive member may have; one rule for every archive we read or write."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from pathlib import Path

from ..errors import ArtifactError
from . import limits

__all__ = ["Names", "check_link", "check_name", "check_path"]

_ENDINGS = (".whl", ".conda", ".bz2")
_DRIVE = re.compile(r"[A-Za-z]:")


def check_path(path: Path) -> None:
    """Raises ArtifactError where the path of an artifact is one that no file can have."""
    shown = repr(path.name[:80])
    try:
        whole = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ArtifactError(f"a path that no file has: {error}", where=shown) from error
    longest = max(map(len, whole.split(os.fsencode(os.sep))))
    if longest > limits.FILE_NAME or len(whole) > limits.NAME_LENGTH:
        raise ArtifactError(
            f"a path with a name of {longest} bytes",
            where=shown,
            expected=f"at most {limits.FILE_NAME} bytes a name, {limits.NAME_LENGTH} in all",
        )
    if b"\0" in whole:
        raise ArtifactError("a zero byte in a path", where=shown)
    if path.suffix in _ENDINGS and not path.name.isprintable():  # a folder's is its owner's
        raise ArtifactError(
            "a name with characters that cannot be printed",
            where=shown,
            expected="a name as builders give it",
        )


def _fault(name: str) -> str:
    """What makes `name` unfit for a member, or an empty string."""
    if not name:
        return "the name is empty"
    if len(name.encode("utf-8", "surrogatepass")) > limits.NAME_LENGTH:
        return f"the name is longer than {limits.NAME_LENGTH} bytes"
    if name.startswith("/"):
        return "the name is absolute"
    if "\\" in name:
        return "the name has a backslash"
    if not name.isprintable():
        return "the name has characters that cannot be printed"
    if _DRIVE.match(name):
        return "the name begins with a drive letter"
    parts = name.split("/")
    if len(parts) > limits.NAME_DEPTH:
        return f"the name has {len(parts)} parts, and may have {limits.NAME_DEPTH}"
    if ".." in parts:
        return "the name leaves the package (..)"
    if "" in parts or "." in parts:
        return "the name is not in its plain form (// or . or a slash at the end)"
    if any(len(part.encode()) > limits.NAME_PART for part in parts):
        return f"a part of the name is longer than {limits.NAME_PART} bytes"
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
    """Raises ArtifactError unless the link `name` -> `target` stays inside the package.

    It stays there through other links too: a target goes up first and down after that, and no
    member's folder is a link, so each step up is one that the name has. After a step down there may
    be no step up, since what it went down to can be a link (``s -> ..``, then ``e -> s/../x``).
    """

    def fault(what: str) -> ArtifactError:
        return ArtifactError(
            f"{what}: {target[:200]!r}",
            where=f"{where}: {name[:200]}",
            expected="a relative path inside the package",
        )

    if not target or target.startswith("/") or "\\" in target or not target.isprintable():
        raise fault("the link points to what is no relative path")
    if len(target.encode()) > limits.NAME_LENGTH or _DRIVE.match(target):
        raise fault("the link points to what is no path")
    end = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if end == ".." or end.startswith("../"):
        raise fault("the link points outside the package")
    steps = target.split("/")
    if "" in steps or "." in steps:
        raise fault("the link's target is not in its plain form, and one reader makes it so")
    downs = [part != ".." for part in steps]
    if downs != sorted(downs):
        raise fault(
            "the link goes up again behind a folder, which as a link would lead elsewhere, perhaps"
            " outside the package"
        )


class Names:
    """The names seen so far in one archive; refuses a second member where one is already.

    Args:
        where: the archive, for messages.
        limit: how many members there may be, and how many folders.
        fold: refuse also two names that a file system takes for one, which does not tell capital
            from small letters, or the ways of writing one letter.
    """

    def __init__(self, where: str, limit: int, *, fold: bool = False) -> None:
        self._where = where
        self._limit = limit
        self._fold = fold
        self._leaves: set[str] = set()
        self._folders: set[str] = set()
        self._folded: dict[str, str] = {}
        self._characters = 0
        self._folder_members = 0

    def add(self, name: str) -> None:
        """Takes the name of a file or a link.

        Raises:
            ArtifactError: the name is unfit, is there already, is also a folder, or lies below a
                file or a link; or there are too many members.
        """
        check_name(name, self._where)
        if len(self._leaves) >= self._limit:
            raise self._fault(name, f"more than {self._limit} members")
        if name in self._leaves:
            raise self._fault(name, "a second member with this name, which is there twice")
        if name in self._folders:
            raise self._fault(name, "this name is both a file and a folder")
        self._add_parents(name)
        self._count(name)
        self._leaves.add(name)

    def add_folder(self, name: str) -> None:
        """Takes the name of a folder, which may come more than once.

        Raises:
            ArtifactError: the name is unfit or belongs to a file or a link.
        """
        check_name(name, self._where)
        if name in self._leaves:
            raise self._fault(name, "this name is both a file and a folder")
        self._folder_members += 1
        if self._folder_members > self._limit:
            raise self._fault(name, f"more than {self._limit} folders")
        self._add_parents(name)
        self._add_folder(name)

    def _add_parents(self, name: str) -> None:
        parent = posixpath.dirname(name)
        while parent and parent not in self._folders:
            if parent in self._leaves:
                raise self._fault(name, f"lies below {parent[:200]}, which is not a folder")
            self._add_folder(parent)
            parent = posixpath.dirname(parent)

    def _add_folder(self, name: str) -> None:
        if name not in self._folders:
            if len(self._folders) >= self._limit:
                raise self._fault(name, f"more than {self._limit} folders")
            self._count(name)
            self._folders.add(name)

    def _count(self, name: str) -> None:
        self._characters += len(name)
        if self._characters > limits.NAMES:
            raise self._fault(name, f"names of more than {limits.NAMES} characters together")
        if not self._fold:
            return
        folded = unicodedata.normalize("NFC", name.casefold())
        other = self._folded.setdefault(folded, name)
        if other != name:
            raise self._fault(name, f"on some file systems the same as {other[:200]!r}")

    def _fault(self, name: str, what: str) -> ArtifactError:
        return ArtifactError(
            what,
            where=f"{self._where}: {name[:200]}",
            fix="fetch or build it again: it cannot be unpacked as it is",
        )
