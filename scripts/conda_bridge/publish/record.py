"""What was published when: a record that a store keeps, to which one can only add.

``history/000001.json`` and so on are its entries. A file of such a name is made once and never
changed, so making the next one is how a publisher gets its turn; and each entry has the sha256 of
the one before it. All documents follow from the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from ..errors import ArtifactError
from .channel import CHANNEL
from .facts import Facts
from .intake import SUBDIR, is_artifact
from .store import Store
from .wheel_entry import WHEELS

if TYPE_CHECKING:
    from .memory import Memory

__all__ = ["HISTORY", "TIME", "Action", "Entry", "File", "Published", "Record", "now"]

HISTORY = "history"

Action = Literal["publish", "yank", "unyank", "prune", "remove"]
TIME = "%Y-%m-%dT%H:%M:%SZ"
_SCHEMA = 1
_DIGITS = 6
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Time = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An artifact.

    Attributes:
        name: of the file.
        folder: where it is, such as ``wheels`` or ``channel/linux-64``.
        sha256: of the file, in hexadecimal.
        size: in bytes.
        version: the public version.
        commit: of its label; empty without one.
        record: of a conda package, what the repodata says of it.
        run_exports: of a conda package, what a build that uses it depends on, by kind.
        requires_python: of a wheel, as in METADATA.
        metadata_sha256: of a wheel's METADATA, which lies beside it.
        facts: what was measured of its libraries; older entries say nothing of them.
    """

    name: str
    folder: str
    sha256: _Sha256
    size: Annotated[int, msgspec.Meta(ge=0)]
    version: str
    commit: str = ""
    record: dict[str, Any] | None = None
    run_exports: dict[str, list[str]] = {}
    requires_python: str = ""
    metadata_sha256: str = ""
    facts: Facts = Facts()

    @property
    def path(self) -> str:
        """Relative to the store."""
        return f"{self.folder}/{self.name}"


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of the record.

    Attributes:
        schema: of this form.
        number: from 1.
        action: what was done: new files; names that are no longer to be chosen, may be chosen
            again, are listed no more, or are gone.
        time: in UTC, such as ``2026-11-30T03:00:00Z``.
        previous: the sha256 of the entry before; empty for the first.
        commit: what the files were made of, as whoever published them said.
        reason: why names were yanked.
        promotes: the nightly, by its version, that a release was before.
        files: that were published.
        names: that it is about, where it publishes none.
    """

    schema: int = msgspec.field(default=_SCHEMA)
    number: int
    action: Action
    time: _Time
    previous: str = ""
    commit: str = ""
    reason: str = ""
    promotes: str = ""
    files: tuple[File, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """What the whole record says of a file.

    Attributes:
        file: the file.
        time: when it was published.
        commit: what it was made of; empty where nobody said.
        yanked: why it is not to be chosen; None where it is.
        pruned: since when no document names it; empty where one does.
        removed: whether the file is gone, too.
    """

    file: File
    time: str
    commit: str
    yanked: str | None = None
    pruned: str = ""
    removed: bool = False


class Record:
    """The record of a store, as far as it was read.

    Args:
        store: that keeps it.
        memory: what the store remembers of it: entries that have not changed since then are not
            read again, and are not in :attr:`entries`.

    Raises:
        ArtifactError: it was changed, has a gap, or is of a newer form than this program knows.
        TargetError: the store does not answer.
    """

    def __init__(self, store: Store, memory: Memory | None = None) -> None:
        self.store = store
        self.memory = memory
        self.entries: list[Entry] = []
        self.files: dict[str, Published] = {}
        self.tags: dict[str, str] = {}
        self.last = ""
        if memory and memory.entries:
            there = store.tags(HISTORY)
            newest = max(memory.entries)
            if {name: tag for name, tag in there.items() if name <= newest} == memory.entries:
                self.files, self.tags = dict(memory.files), dict(memory.entries)
                self.last = memory.last
        self.refresh()

    @property
    def number(self) -> int:
        """Of the newest entry; 0 without any."""
        return len(self.tags)

    def refresh(self) -> None:
        """Reads what was added since."""
        after = _name(self.number) if self.number else ""
        for name, (tag, data) in sorted(self.store.files(HISTORY, after).items()):
            entry = self._parsed(name, data)
            self.files.update(_changes(entry, self.files, self._where(name)))
            self.entries.append(entry)
            self.tags[name] = tag
            self.last = hashlib.sha256(data).hexdigest()

    def add(self, action: Action, **what: Any) -> bool:
        """Adds an entry.

        Returns:
            False where another publisher has added one before; it was read, and this one was not
            added.

        Raises:
            ArtifactError: it says what cannot be after the entries that were read. An entry stays
                for good, so one that no reader would take is never written.
        """
        entry = Entry(number=self.number + 1, action=action, previous=self.last, **what)
        _changes(entry, self.files, self._where(_name(entry.number)))
        text = msgspec.json.format(msgspec.json.encode(entry), indent=1) + b"\n"
        added = self.store.create(f"{HISTORY}/{_name(entry.number)}", text)
        self.refresh()
        return added

    def _where(self, name: str) -> str:
        return f"{self.store.name}/{HISTORY}/{name}"

    def _parsed(self, name: str, data: bytes) -> Entry:
        expected = _name(self.number + 1)
        try:
            if name != expected:
                raise ValueError(f"{expected} is not there")
            schema = msgspec.json.decode(data).get("schema", _SCHEMA)
            if schema != _SCHEMA:
                raise ValueError(f"is of form {schema}, which this program does not know")
            entry = msgspec.json.decode(data, type=Entry)
            if entry.number != self.number + 1:
                raise ValueError(f"its number is {entry.number}")
            if entry.previous != self.last:
                raise ValueError("the entry before it has other bytes than when it was added to")
            for file in entry.files:
                _check_place(file)
        except (msgspec.MsgspecError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"the record of what was published is damaged: {error}",
                where=self._where(name),
                expected="entries that nobody has changed, each made by this program",
                fix="get the file back from a backup; nothing is published until then",
            ) from error
        return entry


def now() -> str:
    """The time as the record has it."""
    return datetime.now(timezone.utc).strftime(TIME)


def _name(number: int) -> str:
    return f"{number:0{_DIGITS}d}.json"


def _check_place(file: File) -> None:
    """A name that leads out of its folder is none that was published."""
    top, _, subdir = file.folder.partition("/")
    fits = (file.folder == WHEELS and file.name.endswith(".whl") and file.record is None) or (
        top == CHANNEL
        and SUBDIR.fullmatch(subdir) is not None
        and not file.name.endswith(".whl")
        and file.record is not None
    )
    if not fits or not is_artifact(file.name) or "/" in file.name or file.name[0] == ".":
        raise ValueError(f"{file.path} is no place of an artifact")


def _changes(entry: Entry, files: Mapping[str, Published], where: str) -> dict[str, Published]:
    """What the files are that an entry is about, after it."""
    if entry.action == "publish":
        twice = [file.name for file in entry.files if file.name in files]
        if twice:
            raise ArtifactError(f"{twice[0]} was published before", where=where)
        return {file.name: Published(file, entry.time, entry.commit) for file in entry.files}
    unknown = [name for name in entry.names if name not in files]
    if unknown:
        raise ArtifactError(f"{unknown[0]} was never published", where=where)
    named = {name: files[name] for name in entry.names}
    if entry.action == "prune":
        return {name: replace(file, pruned=entry.time) for name, file in named.items()}
    if entry.action == "remove":
        return {name: replace(file, removed=True) for name, file in named.items()}
    reason = entry.reason if entry.action == "yank" else None
    return {name: replace(file, yanked=reason) for name, file in named.items()}
