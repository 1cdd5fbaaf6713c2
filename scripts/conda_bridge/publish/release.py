"""Publishes packages and wheels to a store: all of them or none, and for good.

In this order, so that a kill, or a store that fails, at any point leaves what clients can use, and
the same call again completes it:

1. Everything is read whole, and compared with the record of the store.
2. The artifacts get their final names, where no page leads to them yet, and are read back.
3. One entry of the record names them all. From then on they are published.
4. The documents that make them visible are those of the record.

Whoever comes next does step 4 for a publisher that was killed before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from packaging.version import Version

from ..errors import ArtifactError, ConfigError, ConflictError
from ..formats.wheel_reader import bytes_sha256, file_sha256
from ..label import split_conda_file
from ..project import Project
from . import channel as channel_index
from . import documents, intake
from .channel import CHANNEL
from .folder_store import FolderStore
from .index import published_digests
from .intake import WheelName
from .memory import Made, Memory
from .promotion import check_promotion
from .record import TIME, Action, File, Record, now
from .store import Site, Store
from .wheel_entry import WHEELS, entry_of

__all__ = [
    "Outcome",
    "Source",
    "digests_at",
    "opened",
    "prune_nightlies",
    "publish",
    "read_sources",
    "settle",
    "yank",
]

Tell = Callable[[str], None]
_TURNS = 100


@dataclass(frozen=True)
class Source:
    """An artifact that is to be published, read whole.

    Attributes:
        path: where it is now.
        file: what the record will say of it.
        metadata: of a wheel, the file that lies beside it.
    """

    path: Path
    file: File
    metadata: bytes = b""


@dataclass
class Outcome:
    """What a call did, or would do.

    Attributes:
        published: names that were not published before.
        unchanged: names that were.
        restored: names that were, and have their own bytes again.
        changed: names that were yanked, may be chosen again, or are listed no more.
        removed: names whose files are gone.
        documents: that were written.
        number: of the newest entry of the record.
    """

    published: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    number: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return dict(vars(self))


def digests_at(store: Store, project: Project) -> dict[str, set[str]]:
    """Under which sha256 each name is published; a folder without a record is asked for its pages.

    Raises:
        ArtifactError: the record, or a page, is damaged.
        TargetError: the store does not answer.
    """
    record = Record(store)
    if not record.number and store.is_foreign():
        if isinstance(store, FolderStore):
            return published_digests(store.root, project)
        raise ArtifactError(
            "holds a channel or an index, and no record of what was published",
            where=store.name,
            expected="what this program published to",
        )
    return {name: {item.file.sha256} for name, item in record.files.items()}


def read_sources(paths: Sequence[Path], project: Project, tell: Tell = print) -> list[Source]:
    """Reads artifacts whole.

    Raises:
        ArtifactError: one that cannot be read, or is not what its name says.
        LabelError: one with a name that the project does not give.
        ConflictError: two of one name with different bytes.
    """
    found: dict[str, Source] = {}
    for path in paths:
        tell(f"read {path.name}")
        source = _read(path, project)
        first = found.setdefault(source.file.name, source)
        if first.file.sha256 != source.file.sha256:
            raise ConflictError(
                f"is there twice, with different bytes: {first.path} and {path}",
                where=path.name,
                fix="keep the one that is to be published",
            )
    _refuse_other_forms(found, ())
    return list(found.values())


def _read(path: Path, project: Project) -> Source:
    if path.suffix == ".whl":
        named, wheel = intake.read_wheel(path, project)
        facts = intake.check_wheel(wheel)
        entry = entry_of(named, wheel)
        return Source(
            path,
            File(
                name=path.name,
                folder=WHEELS,
                sha256=entry.sha256,
                size=entry.size,
                version=named.label.version,
                commit=named.label.get("commit") or "",
                requires_python=entry.requires_python,
                metadata_sha256=entry.metadata_sha256,
                facts=facts,
            ),
            wheel.metadata_bytes,
        )
    package = intake.read_package(path, project)
    facts = intake.check_package(package)
    record = channel_index.record_of(package)
    _, label = intake.package_label(path.name, project)
    return Source(
        path,
        File(
            name=path.name,
            folder=f"{CHANNEL}/{package.index['subdir']}",
            sha256=record["sha256"],
            size=record["size"],
            version=label.version,
            commit=label.get("commit") or "",
            record=record,
            run_exports=channel_index.run_exports_of(package),
            facts=facts,
        ),
    )


def publish(
    sources: Sequence[Source],
    store: Store,
    project: Project,
    *,
    commit: str = "",
    promotes: str = "",
    dry_run: bool = False,
    tell: Tell = lambda _line: None,
) -> Outcome:
    """Publishes artifacts, all or none.

    Args:
        sources: that were read.
        store: where to.
        project: whose they are; it says what the index looks like.
        commit: what they were made of, for the record.
        promotes: the version of the nightly that they were before, which is checked.
        dry_run: compare everything, write nothing.
        tell: is told what happens, a line at a time.

    Raises:
        ConflictError: a name that is published with other bytes, or in the other form, or was
            pruned; or lies there with other bytes, from a publisher that did not complete; or
            is not what the nightly was.
        ConfigError: the commit is not that of a label, or there is no such nightly.
        ArtifactError: the store holds what is not ours, or its record is damaged.
        TargetError: it does not answer. The same call again continues.
    """
    if store.is_foreign():
        raise ArtifactError(
            "holds a channel, an index or a page that is of no record of what was published",
            where=store.name,
            expected="an empty place, or one that this program published to",
            fix="give another place, and publish the packages and wheels of this one there",
        )
    _check_commit(sources, commit)
    record = opened(store, project)
    outcome = _compared(sources, record, commit, promotes, project)
    if dry_run:
        _check_leftovers(_wanted(sources, outcome), store)
        outcome.number = record.number
        return outcome
    if record.number:
        settle(record, project, tell)
    there: set[str] = set()
    restored: list[str] = []
    for _ in _turns(store):
        # Nothing reads the record between this and the entry that is added: what another publisher
        # adds meanwhile keeps ours out, and all of this is done again.
        outcome = _compared(sources, record, commit, promotes, project)
        outcome.restored = restored
        _restore(sources, outcome, store, tell)
        wanted = _wanted(sources, outcome)
        if not wanted:
            break
        _place([item for item in wanted if item.file.name not in there], store, tell)
        there.update(item.file.name for item in wanted)
        files = tuple(item.file for item in wanted)
        if record.add("publish", time=now(), commit=commit, promotes=promotes, files=files):
            tell(f"entry {record.number} of the record names {len(files)} files")
            break
    outcome.documents = settle(record, project, tell)
    outcome.number = record.number
    return outcome


def _turns(store: Store) -> Iterator[None]:
    """The attempts that a call has: another publisher may add the next entry of the record first.

    Raises:
        ConflictError: there are no more.
    """
    for _ in range(_TURNS):
        yield
    raise ConflictError(
        f"other publishers came first {_TURNS} times", where=store.name, fix="try again"
    )


def _check_commit(sources: Sequence[Source], commit: str) -> None:
    for item in sources:
        if commit and not commit.startswith(item.file.commit):
            raise ConfigError(
                f"is of the commit {item.file.commit}, and {commit} is said to be published",
                where=item.file.name,
                fix="give the commit that it was built from, or none",
            )


def _wanted(sources: Sequence[Source], outcome: Outcome) -> list[Source]:
    names = set(outcome.published)
    return [item for item in sources if item.file.name in names]


def _compared(
    sources: Sequence[Source], record: Record, commit: str, promotes: str, project: Project
) -> Outcome:
    """Which are new to the record.

    Raises:
        ConflictError: one of them cannot be published under its name, or as that nightly's release.
        ConfigError: there is no such nightly.
    """
    if promotes:
        names = [item.file.name for item in sources]
        check_promotion(promotes, names, commit, record, project)
    outcome = Outcome()
    for item in sources:
        name = item.file.name
        known = record.files.get(name)
        if known is None:
            outcome.published.append(name)
            continue
        if known.file.sha256 != item.file.sha256:
            raise ConflictError(
                f"is published with other bytes (sha256 {known.file.sha256[:12]}..., now "
                f"{item.file.sha256[:12]}...)",
                where=name,
                expected="the same bytes, or a new name",
                fix="raise the build number: what is published stays as it is",
            )
        if known.pruned:
            raise ConflictError(
                f"was published on {known.time}, and pruned since",
                where=name,
                fix="raise the build number: a name is given once",
            )
        outcome.unchanged.append(name)
    new = {item.file.name: item for item in sources}
    _refuse_other_forms(new, (name for name in record.files if name not in new))
    return outcome


def _refuse_other_forms(sources: Mapping[str, Source], published: Iterable[str]) -> None:
    """A ``.conda`` and a ``.tar.bz2`` of one name: clients take one or the other."""
    stems: dict[str, str] = {}
    for name in (*published, *sources):
        stem, ending = split_conda_file(name)
        other = stems.setdefault(stem, name) if ending else name
        if other != name:
            raise ConflictError(
                f"is there as {other} too, and clients take one or the other",
                where=name,
                expected="one form of each package",
                fix="publish one of the two, or raise the build number",
            )


def _companions(item: Source) -> list[tuple[str, bytes]]:
    """What lies beside an artifact: of a wheel, its METADATA."""
    return [(f"{item.file.path}.metadata", item.metadata)] if item.file.record is None else []


def _check_leftovers(sources: Sequence[Source], store: Store) -> dict[str, bool]:
    """Which are there already, with these bytes, from a publisher that did not complete.

    Raises:
        ConflictError: one is there with other bytes.
    """
    found = {}
    for item in sources:
        here = [(item.file.path, item.file.sha256)]
        here += [(path, bytes_sha256(data)) for path, data in _companions(item)]
        for path, sha256 in here:
            digest = store.digest(path)
            found[path] = digest is not None
            if digest not in (None, sha256):
                raise ConflictError(
                    f"lies there with other bytes (sha256 {str(digest)[:12]}..., now "
                    f"{sha256[:12]}...), of a publisher that has not completed",
                    where=f"{store.name}/{path}",
                    expected="nothing, or the same bytes",
                    fix="let that publisher complete, or raise the build number; if nobody is at "
                    "work there, remove the file: it was never published",
                )
    return found


def _place(sources: Sequence[Source], store: Store, tell: Tell) -> None:
    """Gives all artifacts their names, and reads them back.

    Raises:
        ConflictError: a name has other bytes, or what is read back has.
    """
    there = _check_leftovers(sources, store)
    for item in sources:
        path, sha256 = item.file.path, item.file.sha256
        if not there[path]:
            tell(f"upload {path} ({item.file.size} bytes)")
            store.upload(path, item.path)
        for beside, data in _companions(item):
            if not there[beside]:
                store.create(beside, data)
    for item in sources:
        tell(f"verify {item.file.path}")
        checks = [(item.file.path, item.file.sha256)]
        checks += [(path, bytes_sha256(data)) for path, data in _companions(item)]
        for path, sha256 in checks:
            digest = store.digest(path)
            if digest != sha256:
                raise ConflictError(
                    f"reads as sha256 {digest or '-'} after it was written",
                    where=f"{store.name}/{path}",
                    expected=sha256,
                    fix="another publisher may have used the name: raise the build number; if "
                    "nobody else is at work there, remove the file, and run the same again",
                )


def _restore(sources: Sequence[Source], outcome: Outcome, store: Store, tell: Tell) -> None:
    """What is published and was lost or cut off gets its own bytes back."""
    for item in sources:
        if item.file.name not in outcome.unchanged:
            continue
        lost = store.size(item.file.path) != item.file.size
        if lost:
            if file_sha256(item.path) != item.file.sha256:
                raise ArtifactError("has changed since it was read", where=str(item.path))
            store.restore(item.file.path, item.path)
        for path, data in _companions(item):
            if store.size(path) != len(data):
                with tempfile.TemporaryDirectory() as folder:
                    copy = Path(folder) / "METADATA"
                    copy.write_bytes(data)
                    store.restore(path, copy)
                lost = True
        if lost:
            tell(f"restored {item.file.path}")
            if item.file.name not in outcome.restored:
                outcome.restored.append(item.file.name)


def settle(record: Record, project: Project, tell: Tell = lambda _line: None) -> list[str]:
    """Makes the documents of a store those of its record.

    Only what has changed is made: the store remembers what was right.

    Returns:
        The documents that were not.
    """
    memory = record.memory or Memory.read(None, project)
    right = {name: (made.key, made.tags) for name, made in memory.units.items()}
    sites: list[Site] = []

    def newest() -> Site:
        record.refresh()
        if not sites or sites[-1].number != record.number:
            units = documents.of_record(record.files.values(), project)
            sites.append(Site(record.number, units, right))
        return sites[-1]

    shown = record.store.show(newest)
    for path in shown.changed:
        tell(f"document {path}")
    site = sites[-1]
    wheels = [item.file.name for item in record.files.values() if item.file.record is None]
    now_known = Memory(
        memory.maker,
        dict(record.tags),
        record.last,
        dict(record.files),
        {name: WheelName.of(name, project) for name in wheels},
        {
            unit.name: Made(unit.key, {path: shown.tags[path] for path in site.paths_of(unit)})
            for unit in site.units
        },
    )
    if now_known != memory:
        record.store.remember(now_known.packed())
        record.memory = now_known
    return shown.changed


def opened(store: Store, project: Project) -> Record:
    """The record of a store, with what the store remembers of it."""
    return Record(store, Memory.read(store.remembered(), project))


def yank(
    names: Sequence[str],
    store: Store,
    project: Project,
    *,
    reason: str = "",
    undo: bool = False,
    dry_run: bool = False,
    tell: Tell = lambda _line: None,
) -> Outcome:
    """Takes files out of what installers choose from; who has pinned one still gets it.

    Args:
        names: of files; ``*`` and ``?`` stand for any characters.
        store: where they are published.
        project: whose they are.
        reason: that pip shows.
        undo: let them be chosen again.
        dry_run: say which, change nothing.
        tell: is told what happens.

    Raises:
        ConfigError: no reason, or a name that is not published.
        ConflictError: other publishers were faster every time; nothing was changed.
    """
    from fnmatch import fnmatchcase

    if not (undo or reason.strip()):
        raise ConfigError("there is no reason", fix="say it with --reason: pip shows it")
    record = opened(store, project)
    for _ in _turns(store):
        found: dict[str, None] = {}
        for pattern in names:
            fitting = [
                name
                for name, item in record.files.items()
                if fnmatchcase(name, pattern) and not item.pruned
            ]
            if not fitting:
                raise ConfigError(
                    f"no file {pattern!r} is published there",
                    where=store.name,
                    fix="its history has the names",
                )
            found.update(dict.fromkeys(fitting))
        wanted = None if undo else " ".join(reason.split())
        changed = tuple(name for name in found if record.files[name].yanked != wanted)
        if dry_run:
            return Outcome(changed=list(changed), number=record.number)
        action: Action = "unyank" if undo else "yank"
        if not changed or record.add(action, time=now(), reason=wanted or "", names=changed):
            break
    for name in changed:
        tell(f"{'may be chosen again' if undo else 'yanked'}: {name}")
    shown = settle(record, project, tell)
    return Outcome(changed=list(changed), documents=shown, number=record.number)


def prune_nightlies(
    store: Store,
    project: Project,
    *,
    keep: int,
    grace: timedelta = timedelta(days=1),
    dry_run: bool = False,
    tell: Tell = lambda _line: None,
) -> Outcome:
    """Lists old nightlies no more; their files go when no client can still be told of them.

    Args:
        store: where they are published.
        project: whose they are.
        keep: how many versions stay, the newest; one that is released is none of them.
        grace: how long a file stays after no document has named it.
        dry_run: say which, change nothing.
        tell: is told what happens.

    Raises:
        ConfigError: there would be no nightly left.
        ConflictError: other publishers were faster every time. The same call again continues.
    """
    if keep < 1:
        raise ConfigError(f"{keep} nightlies are none", expected="a number from 1", fix="--keep 30")
    record = opened(store, project)
    if not record.number:  # nothing was published there, and what there may be is not ours
        return Outcome()
    for _ in _turns(store):
        listed = {
            name: Version(item.file.version)
            for name, item in record.files.items()
            if not item.pruned and Version(item.file.version).is_devrelease
        }
        kept = sorted(set(listed.values()), reverse=True)[:keep]
        old = tuple(name for name, version in listed.items() if version not in kept)
        if dry_run or not old or record.add("prune", time=now(), names=old):
            break
    outcome = Outcome(changed=list(old), number=record.number)
    if dry_run:
        outcome.removed = _due(record, grace)
        return outcome
    for name in old:
        tell(f"listed no more: {name}")
    # Before any file goes: a publisher that was killed may have left documents that name it.
    outcome.documents = settle(record, project, tell)
    for _ in _turns(store):
        due = _due(record, grace)
        for name in due:
            tell(f"remove {record.files[name].file.path}")
            for path in _paths(record.files[name].file):
                store.remove(path)
        outcome.removed += [name for name in due if name not in outcome.removed]
        if not due or record.add("remove", time=now(), names=tuple(due)):
            break
    outcome.number = record.number
    return outcome


def _due(record: Record, grace: timedelta) -> list[str]:
    """The files that no document has named for that long."""
    until = datetime.strptime(now(), TIME) - grace
    return [
        name
        for name, item in record.files.items()
        if item.pruned and not item.removed and datetime.strptime(item.pruned, TIME) <= until
    ]


def _paths(file: File) -> list[str]:
    """An artifact, and what lies beside it."""
    return [file.path, *([f"{file.path}.metadata"] if file.record is None else [])]
