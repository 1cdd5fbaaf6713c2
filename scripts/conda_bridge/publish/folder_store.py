"""A folder that is published to; any web server, or ``file://``, serves it.

All documents are links that lead through one other, ``.site/current``::

    index, versions              -> .site/current/index, .site/current/versions
    index.html, index.json       -> .site/current/index.html, .site/current/index.json
    channel/<subdir>/<document>  -> ../../.site/current/channel/<subdir>/<document>
    channel/<subdir>/shards      -> ../../.site/current/channel/<subdir>/shards
    .site/current                -> 000007

Replacing that one is a rename: a client has the documents before it or those after it.
What has not changed has a name in both folders, and is not written again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import TargetError, full_disk_fix
from ..system import atomic
from .channel import CHANNEL
from .channel_forms import is_shard
from .listing import LISTING
from .site_page import PAGE, VERSIONS
from .store import LINGER, MEMORY, Documents, Shown, Store
from .wheel_entry import INDEX

__all__ = ["FolderStore"]

_SITE = ".site"
_CURRENT = f"{_SITE}/current"
_LOCK = ".lock"
_GENERATION = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)
# Who has opened the link may still be on the way to a document behind it.
_KEPT = 3
_CHUNK = 1 << 20
# From so many folders on, one call for all that is to outlive a power cut takes less time.
_MANY = 100


class FolderStore(Store):
    """A folder on a file system that has symbolic and hard links.

    Args:
        root: the folder; it need not be there yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def files(self, folder: str, after: str = "") -> dict[str, tuple[str, bytes]]:
        """The tags and contents of the files in a folder, by their names."""
        with self._explained():
            found = {name: tag for name, tag in self.tags(folder).items() if name > after}
            return {
                name: (tag, (self.root / folder / name).read_bytes()) for name, tag in found.items()
            }

    def tags(self, folder: str) -> dict[str, str]:
        """The tags of the files in a folder, by their names."""
        with self._explained():
            try:
                paths = sorted((self.root / folder).iterdir())
            except FileNotFoundError:
                return {}
            return {path.name: _tag(path.stat()) for path in paths if path.name[0] != "."}

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

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, as they are read from there."""
        try:
            with self._explained(), (self.root / path).open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except TargetError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise

    def remove(self, path: str) -> None:
        """Removes a file, if there is one."""
        with self._explained():
            (self.root / path).unlink(missing_ok=True)

    def is_foreign(self) -> bool:
        """Whether there is a channel, an index or a page that no record of ours tells of."""
        made = [self.root / name for name in (INDEX, VERSIONS, PAGE, LISTING)]
        made += (self.root / CHANNEL).glob("*/repodata.json*")
        return any(path.exists() and not path.is_symlink() for path in made)

    def show(self, documents: Documents) -> Shown:
        """Makes the documents those of the newest record, for every client."""
        with self._explained(), atomic.lock(self.root / _LOCK):
            site = documents()
            current = self.root / _CURRENT
            there = _tree(current)
            fresh: dict[str, bytes] = {}
            for path in site.paths:
                tag = there.get(path)
                if tag and tag == site.tags.get(path):
                    continue
                content = site.content(path)
                if not tag or (current / path).read_bytes() != content:
                    fresh[path] = content
            wanted = set(site.paths)
            others = set(there) - wanted
            lingering = {path for path in others if _lingers(current / path, path)}
            gone = sorted(others - lingering)
            if fresh or gone:
                kept = (wanted | lingering) - set(fresh)
                self._write(self._free_name(site.number), site.paths, fresh, kept)
            self._link(site.paths)
            return Shown(
                [*fresh, *gone],
                {path: tag for path, tag in _tree(current).items() if path in wanted},
            )

    def remembered(self) -> bytes | None:
        """What was remembered last."""
        with self._explained():
            try:
                return (self.root / MEMORY).read_bytes()
            except FileNotFoundError:
                return None

    def remember(self, data: bytes) -> None:
        """Keeps what nothing depends on."""
        with self._explained():
            atomic.write_bytes(self.root / MEMORY, data)

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

    def _write(
        self, name: str, wanted: Sequence[str], fresh: Mapping[str, bytes], kept: Collection[str]
    ) -> None:
        """A folder of what is new, and of what stays, under one more name each."""
        site = self.root / _SITE
        with atomic.directory(site / name) as folder:
            for above in {path.rpartition("/")[0] for path in (*fresh, *kept)}:
                (folder / above).mkdir(parents=True, exist_ok=True)
            for path, content in fresh.items():
                with (folder / path).open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            current = self.root / _CURRENT
            for path in sorted(kept):
                os.link(f"{current}/{path}", f"{folder}/{path}")
            folders = [Path(inside) for inside, _, _ in os.walk(folder)]
            for inside in folders:
                inside.chmod(0o755)
                if len(folders) <= _MANY:
                    atomic.sync_folder(inside)
            if len(folders) > _MANY:
                os.sync()
        # What is new has to be reachable before it is there: its link leads nowhere until then.
        self._link(wanted)
        _replace_link(self.root / _CURRENT, name)
        self._forget(name)

    def _link(self, wanted: Iterable[str]) -> None:
        """The links of all documents; one that is right already stays."""
        links = {INDEX: f"{_CURRENT}/{INDEX}"}
        for path in wanted:
            top = path.partition("/")[0]
            folder, _, name = path.rpartition("/")
            # There are many shards, and they come and go: one link for all.
            linked = folder if is_shard(name) else path
            if top in (INDEX, VERSIONS):
                links[top] = f"{_CURRENT}/{top}"
            else:
                links[linked] = "../" * linked.count("/") + f"{_CURRENT}/{linked}"
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


def _tag(about: os.stat_result) -> str:
    """Which is another one after a file was written to, or another has taken its name."""
    return f"{about.st_size}-{about.st_mtime_ns}-{about.st_ino}"


def _tree(folder: Path) -> dict[str, str]:
    """The tags of all files below a folder, by their paths in it."""
    found, waiting = {}, [""]
    while waiting:
        above = waiting.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(folder / above) as listed:
            for item in listed:
                if item.is_dir(follow_symlinks=False):
                    waiting.append(f"{above}{item.name}/")
                else:
                    found[above + item.name] = _tag(item.stat())
    return found


def _lingers(file: Path, path: str) -> bool:
    """Whether a client may still ask for what no document names any more."""
    return is_shard(path.rpartition("/")[2]) and (
        time.time() - file.stat().st_mtime < LINGER.total_seconds()
    )


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
