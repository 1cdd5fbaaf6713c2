"""A folder that is published to; any web server, or ``file://``, serves it.

All documents are links that lead through one other, ``.site/current``::

    index, versions              -> .site/current/index, .site/current/versions
    index.html, index.json       -> .site/current/index.html, .site/current/index.json
    channel/<subdir>/<document>  -> ../../.site/current/channel/<subdir>/<document>
    .site/current                -> 000007

Replacing that one is a rename: a client has the documents before it or those after it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import TargetError, full_disk_fix
from ..system import atomic
from .channel import CHANNEL
from .listing import LISTING
from .site_page import PAGE, VERSIONS
from .store import Documents, Store
from .wheels import INDEX

__all__ = ["FolderStore"]

_SITE = ".site"
_CURRENT = f"{_SITE}/current"
_LOCK = ".lock"
_GENERATION = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)
# Who has opened the link may still be on the way to a document behind it.
_KEPT = 3
_CHUNK = 1 << 20


class FolderStore(Store):
    """A folder on a file system that has symbolic and hard links.

    Args:
        root: the folder; it need not be there yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def files(self, folder: str, after: str = "") -> dict[str, bytes]:
        """The contents of the files in a folder, by their names."""
        with self._explained():
            try:
                paths = sorted((self.root / folder).iterdir())
            except FileNotFoundError:
                return {}
            found = [path for path in paths if path.name[0] != "." and path.name > after]
            return {path.name: path.read_bytes() for path in found}

    def create(self, path: str, data: bytes) -> bool:
        """Makes a file, whole or not at all, unless there is one."""
        with self._explained(), self._new(path) as temporary:
            if temporary is None:
                return False
            temporary.write_bytes(data)
            return self._settle(temporary, path)

    def upload(self, path: str, source: Path) -> bool:
        """Copies a file, whole or not at all, unless there is one."""
        with self._explained(), self._new(path) as temporary:
            if temporary is None:
                return False
            with source.open("rb") as reader, temporary.open("wb") as writer:
                while chunk := reader.read(_CHUNK):
                    writer.write(chunk)
            return self._settle(temporary, path)

    def restore(self, path: str, source: Path) -> None:
        """Gives a file that was damaged or lost its own bytes back."""
        with self._explained():
            atomic.copy(source, self.root / path)

    def size(self, path: str) -> int | None:
        """How many bytes a file has; None where there is none."""
        with self._explained():
            try:
                return (self.root / path).stat().st_size
            except FileNotFoundError:
                return None

    def digest(self, path: str) -> str | None:
        """The sha256 of a file, as it is read from there; None where there is none."""
        found = hashlib.sha256()
        with self._explained():
            try:
                with (self.root / path).open("rb") as stream:
                    while chunk := stream.read(_CHUNK):
                        found.update(chunk)
            except FileNotFoundError:
                return None
        return found.hexdigest()

    def remove(self, path: str) -> None:
        """Removes a file, if there is one."""
        with self._explained():
            (self.root / path).unlink(missing_ok=True)

    def is_foreign(self) -> bool:
        """Whether there is a channel, an index or a page that no record of ours tells of."""
        made = [self.root / name for name in (INDEX, VERSIONS, PAGE, LISTING)]
        made += (self.root / CHANNEL).glob("*/repodata.json*")
        return any(path.exists() and not path.is_symlink() for path in made)

    def show(self, documents: Documents) -> list[str]:
        """Makes the documents those of the newest record, for every client."""
        with self._explained(), atomic.lock(self.root / _LOCK):
            number, wanted = documents()
            current = self.root / _CURRENT
            changed = [
                path
                for path, content in wanted.items()
                if not (current / path).is_file() or (current / path).read_bytes() != content
            ]
            there = {
                path.relative_to(current).as_posix()
                for path in current.rglob("*")
                if path.is_file()
            }
            changed += sorted(there - set(wanted))
            if changed:
                self._write(self._free_name(number), wanted)
            self._link(wanted)
            return changed

    # ------------------------------------------------------------ files

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(error.filename or self.root)
            raise TargetError(
                f"{type(error).__name__}: {error.strerror or error}",
                where=where,
                fix=full_disk_fix(str(error)) or "make it writable, and run the same command again",
            ) from error

    @contextlib.contextmanager
    def _new(self, path: str) -> Iterator[Path | None]:
        """A temporary file for `path`; None where there is a file of that name."""
        target = self.root / path
        if os.path.lexists(target):
            yield None
            return
        with atomic.scratch(target.parent) as folder:
            yield folder / target.name

    def _settle(self, temporary: Path, path: str) -> bool:
        """Gives a finished file its name, unless another has it by now."""
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        target = self.root / path
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        atomic.sync_folder(target.parent)
        return True

    # ------------------------------------------------------------ documents

    def _free_name(self, number: int) -> str:
        """A name for what follows; the same number again after a document was damaged."""
        name, again = f"{number:06d}", 1
        while (self.root / _SITE / name).exists():
            again += 1
            name = f"{number:06d}-{again}"
        return name

    def _write(self, name: str, wanted: Mapping[str, bytes]) -> None:
        site = self.root / _SITE
        with atomic.directory(site / name) as folder:
            for path, content in wanted.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            for inside in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
                inside.chmod(0o755)
                atomic.sync_folder(inside)
        # What is new has to be reachable before it is there: its link leads nowhere until then.
        self._link(wanted)
        _replace_link(self.root / _CURRENT, name)
        self._forget(name)

    def _link(self, wanted: Mapping[str, bytes]) -> None:
        """The links of all documents; one that is right already stays."""
        links = {INDEX: f"{_CURRENT}/{INDEX}"}
        for path in wanted:
            top = path.partition("/")[0]
            if top in (INDEX, VERSIONS):
                links[top] = f"{_CURRENT}/{top}"
            else:
                links[path] = "../" * path.count("/") + f"{_CURRENT}/{path}"
        for path, to in links.items():
            link = self.root / path
            if not (link.is_symlink() and link.readlink() == Path(to)):
                link.parent.mkdir(parents=True, exist_ok=True)
                _replace_link(link, to)

    def _forget(self, current: str) -> None:
        """Removes documents that no client can be reading any more."""
        site = self.root / _SITE
        old = sorted(
            (int(found[1]), int(found[2] or 1), path)
            for path in site.iterdir()
            if (found := _GENERATION.fullmatch(path.name)) and path.name != current
        )
        for _, _, path in old[: max(0, len(old) - _KEPT + 1)]:
            atomic.remove(path)


def _replace_link(link: Path, to: str) -> None:
    with atomic.scratch(link.parent) as folder:
        fresh = folder / link.name
        fresh.symlink_to(to)
        try:
            os.replace(fresh, link)
        except OSError as error:
            if error.errno != errno.EISDIR:
                raise
            raise TargetError(
                "is a folder, and no link to the documents",
                where=str(link),
                fix="publish to a folder of its own",
            ) from error
    atomic.sync_folder(link.parent)
