"""Looks into the files of a package that decide what its wheel is, before any of it is written.

The metadata, the scripts and the shared objects tell the wheel's name, its tags, and which of its
libraries find each other. Everything else is not looked at here, and a package is read no further
than to the last file that is.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArtifactError
from ..formats import limits
from ..formats.conda_package import CondaPackage, PathEntry
from ..formats.content import Allowance, Room
from ..formats.tar_stream import TarMember

if TYPE_CHECKING:  # it takes its time to import
    from ..formats.elf import SharedObject

__all__ = ["SMALL", "Survey", "read_small", "survey"]

SMALL = limits.TEXT_SIZE  # of a file that is kept in memory
_ELF = b"\x7fELF"
_HEAD = 64


@dataclass
class Survey:
    """What was seen in one package.

    Attributes:
        texts: the small files that were asked for.
        heads: the first bytes of every file that was looked at.
        objects: the shared objects and programs, without their bytes.
        links: where each link leads, as a path in the package.
        executable: the files that were looked at and may be run, as the package has it.
    """

    texts: dict[str, bytes] = field(default_factory=dict)
    heads: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, SharedObject] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    executable: set[str] = field(default_factory=set)

    def is_program(self, path: str) -> bool:
        """Whether a file that was looked at is run by the system, a binary or a script."""
        return self.heads.get(path, b"").startswith((_ELF, b"#!"))

    def is_binary(self, path: str) -> bool:
        """Whether a file that was looked at is an ELF file."""
        return self.heads.get(path, b"").startswith(_ELF)


def survey(
    package: CondaPackage,
    text: Callable[[str], bool],
    binary: Callable[[str], bool],
    *,
    whole: bool,
    folder: Path | None = None,
) -> Survey:
    """Looks into a package.

    Args:
        package: that has been read.
        text: which files to keep.
        binary: which files to look into as shared objects.
        whole: look at the beginning of every file, and into all that are ELF files.
        folder: where a large file lies while it is looked into.

    Raises:
        ArtifactError: what :meth:`.CondaPackage.payload` refuses, a link that leads to no file of
            the package, or a file that is called as a shared object is and is none.
    """
    found = Survey()

    def wanted(entry: PathEntry) -> bool:
        return entry.is_link or whole or text(entry.path) or binary(entry.path)

    left = {entry.path for entry in package.paths.values() if wanted(entry)}
    if not left:
        return found
    look = _Look(package, found, text, binary, whole, folder)
    with contextlib.closing(package.payload()) as members:
        for member in members:
            left.discard(member.path)
            look.at(member)
            if not left:
                break
    found.links = _ends(package, found.links)
    return found


class _Look:
    """Looks into one member after the other."""

    def __init__(
        self,
        package: CondaPackage,
        found: Survey,
        text: Callable[[str], bool],
        binary: Callable[[str], bool],
        whole: bool,
        folder: Path | None,
    ) -> None:
        self._package = package
        self._found = found
        self._text = text
        self._binary = binary
        self._whole = whole
        place = folder if folder and folder.is_dir() else None
        self._file, self._tables = Room(place), Room(place)
        self._texts = Allowance(limits.TEXTS, "the files that are looked into")
        self._facts = Allowance(limits.LIBRARY_FACTS, "the facts of all libraries")

    def at(self, member: TarMember) -> None:
        """Takes what is wanted of a member.

        Raises:
            ArtifactError: what :func:`survey` refuses.
        """
        path, found = member.path, self._found
        where = f"{self._package.path.name}: {path}"
        if member.link_target is not None:
            target = posixpath.join(posixpath.dirname(path), member.link_target)
            found.links[path] = posixpath.normpath(target)
            return
        if not (self._whole or self._text(path) or self._binary(path)):
            return
        chunks = member.chunks()
        first = next(chunks, b"")
        found.heads[path] = first[:_HEAD]
        if member.executable:
            found.executable.add(path)
        is_elf = first.startswith(_ELF)
        if self._binary(path) and not is_elf:
            raise ArtifactError(
                "is called as a shared object is, and is no ELF file",
                where=where,
                expected="a library for Linux",
                fix="if the wheel is right without it (a linker's script, a library for another "
                f'system), say so in [tool.conda-bridge.files]: "{path}" = "drop"',
            )
        if is_elf:
            self._read_object(path, chain([first], chunks), where)
        elif self._text(path):
            if member.size > SMALL:
                raise ArtifactError(f"is larger than {SMALL} bytes", where=where)
            self._texts.spend(member.size, where)
            found.texts[path] = first + b"".join(chunks)

    def _read_object(self, path: str, chunks: Iterable[bytes], where: str) -> None:
        from ..formats import elf  # only here: it takes its time to import

        try:
            read = elf.read(self._file.only(chunks), where, program=not self._binary(path))
        except ArtifactError:
            if self._binary(path):
                raise
            return  # data that begins so: of a test, or for another machine
        self._facts.spend(read.weight, where)
        self._found.objects[path] = read.without_data(self._tables)


def _ends(package: CondaPackage, links: dict[str, str]) -> dict[str, str]:
    """The file that each link leads to, in the end."""
    ends: dict[str, str] = {}
    for path in links:
        seen = {path: None}
        last = path
        while last in links and last not in ends:
            last = links[last]
            if last in seen:
                raise ArtifactError(
                    "a link that leads to itself",
                    where=f"{package.path.name}: {path}",
                    expected="a link to a file of the package",
                )
            seen[last] = None
        last = ends.get(last, last)
        if last not in package.paths:
            folder = any(name.startswith(f"{last}/") for name in package.paths)
            raise ArtifactError(
                f"a link to {'the folder' if folder else 'what is not in the package:'} {last}",
                where=f"{package.path.name}: {path}",
                expected="a link to a file of the package; a wheel has files only",
            )
        ends.update((name, last) for name in seen if name in links)
    return ends


def read_small(member: TarMember, where: str, limit: int = SMALL) -> bytes:
    """The content of a small file.

    Raises:
        ArtifactError: it is larger than `limit`.
    """
    if member.size > limit:
        raise ArtifactError(f"is larger than {limit} bytes", where=where)
    return member.read()
