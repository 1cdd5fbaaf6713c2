"""Looks into the files of a package that decide what its wheel is, before any of it is written.

The metadata, the scripts and the shared objects tell the wheel's name, its tags, and which of its
libraries find each other. Everything else is not looked at here, and a package is read no further
than to the last file that is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import posixpath
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArtifactError
from ..formats.conda_package import CondaPackage, PathEntry
from ..formats.tar_stream import TarMember

if TYPE_CHECKING:  # it takes its time to import
    from ..formats.elf import SharedObject

__all__ = ["SMALL", "Survey", "read_small", "survey"]

SMALL = 4 << 20  # of a file that is kept in memory
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
    with contextlib.closing(package.payload()) as members:
        for member in members:
            left.discard(member.path)
            _look(package, member, found, text, binary, whole, folder)
            if not left:
                break
    found.links = {path: _end(package, found.links, path) for path in found.links}
    return found


def _look(
    package: CondaPackage,
    member: TarMember,
    found: Survey,
    text: Callable[[str], bool],
    binary: Callable[[str], bool],
    whole: bool,
    folder: Path | None,
) -> None:
    path = member.path
    where = f"{package.path.name}: {path}"
    if member.link_target is not None:
        target = posixpath.join(posixpath.dirname(path), member.link_target)
        found.links[path] = posixpath.normpath(target)
        return
    if not (whole or text(path) or binary(path)):
        return
    chunks = member.chunks()
    first = next(chunks, b"")
    found.heads[path] = first[:_HEAD]
    if member.executable:
        found.executable.add(path)
    is_elf = first.startswith(_ELF)
    if binary(path) and not is_elf:
        raise ArtifactError(
            "is called as a shared object is, and is no ELF file",
            where=where,
            expected="a library for Linux",
            fix="if the wheel is right without it (a linker's script, a library for another "
            f'system), say so in [tool.conda-bridge.files]: "{path}" = "drop"',
        )
    if is_elf:
        from ..formats import elf  # only here: it takes its time to import

        with tempfile.TemporaryFile(dir=folder if folder and folder.is_dir() else None) as room:
            room.write(first)
            for data in chunks:
                room.write(data)
            room.flush()
            mapped = mmap.mmap(room.fileno(), 0, access=mmap.ACCESS_READ)
            try:
                read = elf.read(mapped, where, program=not binary(path))
            except ArtifactError:
                if binary(path):
                    raise
                return  # data that begins so: of a test, or for another machine
            # A copy that does not hold the file.
            found.objects[path] = dataclasses.replace(read, data=b"")
    elif text(path):
        if member.size > SMALL:
            raise ArtifactError(f"is larger than {SMALL} bytes", where=where)
        found.texts[path] = first + b"".join(chunks)


def _end(package: CondaPackage, links: dict[str, str], path: str) -> str:
    """The file that a link leads to, in the end."""
    seen = [path]
    while seen[-1] in links:
        following = links[seen[-1]]
        if following in seen:
            raise ArtifactError(
                "a link that leads to itself",
                where=f"{package.path.name}: {path}",
                expected="a link to a file of the package",
            )
        seen.append(following)
    if seen[-1] not in package.paths:
        folder = any(name.startswith(f"{seen[-1]}/") for name in package.paths)
        raise ArtifactError(
            f"a link to {'the folder' if folder else 'what is not in the package:'} {seen[-1]}",
            where=f"{package.path.name}: {path}",
            expected="a link to a file of the package; a wheel has files only",
        )
    return seen[-1]


def read_small(member: TarMember, where: str, limit: int = SMALL) -> bytes:
    """The content of a small file.

    Raises:
        ArtifactError: it is larger than `limit`.
    """
    if member.size > limit:
        raise ArtifactError(f"is larger than {limit} bytes", where=where)
    return member.read()
