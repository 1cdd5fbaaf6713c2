"""Puts packages and wheels into a folder that conda and pip install from.

::

    <folder>/channel/<subdir>/            conda packages, repodata.json and its other forms
    <folder>/wheels/                      wheels and their .metadata files
    <folder>/index/[<layout>/]<project>/  pages for pip
    <folder>/index.html, index.json       pages for people, and the same for programs

Everything is read and compared before anything is written, every file appears whole or not at all,
and pages are written after what they link to.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..bridge.agreement import check_same_files
from ..errors import ArtifactError, BridgeError
from ..formats import conda_package
from ..formats.member_names import check_path
from ..formats.wheel_reader import file_sha256
from ..label import CONDA_ENDINGS, split_conda_file
from ..project import Project
from ..system import atomic
from . import channel as channel_index
from . import documents, intake, site_page
from . import seen as seen_artifacts
from . import wheels as wheel_index
from .channel import CHANNEL
from .channel_forms import SHARDS, Listed, is_shard
from .facts import Facts
from .immutable import refuse_damaged, refuse_other_bytes
from .listing import LISTING, Item, read_listing
from .record import HISTORY
from .seen import Seen
from .site_page import PAGE, VERSIONS
from .wheel_entry import INDEX, WHEELS, WheelEntry, entry_of

__all__ = [
    "HISTORY",
    "Result",
    "consistent",
    "is_empty",
    "publish",
    "published_digests",
    "update",
    "update_channel",
    "update_wheel_index",
]

_LOCK = ".lock"
_HEAD = 4096  # bytes of a page that say who wrote it


@dataclass(frozen=True)
class Result:
    """What an update did, or would do.

    Attributes:
        packages: conda packages in the channel.
        wheels: wheels in the index.
        written: files that changed, relative to the folder.
        absent: entries that are kept though their file is not in the folder.
        pruned: such entries that were dropped.
    """

    packages: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, list[str]]:
        """For ``--json``."""
        return {
            "packages": list(self.packages),
            "wheels": list(self.wheels),
            "written": list(self.written),
            "absent": list(self.absent),
            "pruned": list(self.pruned),
        }


@dataclass
class _Plan:
    """What an update will do, known before anything is written.

    Attributes:
        files: to write, in this order, where their content differs.
        removed: to remove after that: files, and folders.
        items: what the pages for people show.
    """

    files: dict[Path, bytes] = field(default_factory=dict)
    removed: list[Path] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    packages: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()

    def done(self, root: Path, *, dry_run: bool) -> Result:
        """Does it, unless it is only asked for; paths in the result are relative to `root`."""
        changed = []
        for path, content in self.files.items():
            if path.is_file() and path.read_bytes() == content:
                continue
            if not dry_run:
                atomic.write_bytes(path, content)
            changed.append(path.relative_to(root).as_posix())
        if not dry_run:
            for path in self.removed:
                _remove(path, root)
        return Result(self.packages, self.wheels, tuple(changed), self.absent, self.pruned)


def _remove(path: Path, root: Path) -> None:
    """Removes a file, or a folder and those above it that are empty then."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    atomic.remove(path)
    with contextlib.suppress(OSError):
        while path.parent not in (root, root / INDEX):
            path = path.parent
            path.rmdir()


def update_channel(
    channel: Path,
    *,
    project: Project | None = None,
    replace: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> Result:
    """Writes the repodata of `channel` from the packages in it.

    Args:
        channel: the folder with ``linux-64/`` and the other subdirs.
        project: whose packages they are; None for anybody's.
        replace: accept packages that were published with other bytes.
        prune: drop entries whose package is no longer in the folder.
        dry_run: write nothing.

    Raises:
        ArtifactError: a package that cannot be read or lies in the wrong subdir, or a file that
            is none.
        ConflictError: a package that was published with other bytes, or one that is there as
            ``.conda`` and ``.tar.bz2`` with different files.
        LabelError: a package of another project.
    """
    project = project or Project()
    plan = _plan_channel(
        channel, project, replace, prune, frozenset(), Seen(channel.parent, project)
    )
    return plan.done(channel, dry_run=dry_run)


def _plan_channel(
    channel: Path,
    project: Project,
    replace: bool,
    prune: bool,
    read: Collection[str],
    seen: Seen,
    facts: dict[str, Facts] | None = None,
) -> _Plan:
    """The plan of the channel.

    Args:
        channel: the folder.
        project: whose packages they are.
        replace: as in :func:`update_channel`.
        prune: as there.
        read: the sha256 of what was just read whole.
        facts: what is known of artifacts by their sha256, and becomes known; None where nobody
            asks.
    """
    plan = _Plan()
    missing: list[str] = []
    for subdir in intake.subdirs(channel):
        folder = channel / subdir
        known = channel_index.published(channel, subdir)
        exports = channel_index.published_exports(channel, subdir)
        digests = channel_index.published_digests(channel, subdir)
        read_already = {*channel_index.read_already(channel, subdir), *read}
        found: dict[str, Listed] = {}
        paths = intake.packages_in(folder)
        _refuse_two_of_a_name(paths)
        for path in paths:
            about = seen.package(path) or _read_package(path, subdir, project)
            sha256 = about.record["sha256"]
            if not replace:
                refuse_damaged(path.name, digests.get(path.name, ()), sha256)
            if _is_to_be_read(sha256, read_already, facts):
                looked = intake.check_package(intake.read_package(path, project))
                if facts is not None:
                    facts[sha256] = looked
            found[path.name] = Listed(about.record, about.run_exports)
            seen.keep(path, about)
        gone = sorted(set(known) - set(found))
        if not prune:
            found.update({name: Listed(known[name], exports.get(name, {})) for name in gone})
        missing += gone
        plan.packages += tuple(sorted(found))
        plan.items += [
            _item(
                *(name, f"{CHANNEL}/{subdir}", item.record["sha256"]),
                *(item.record.get("size", 0), facts),
            )
            for name, item in found.items()
        ]
        made = documents.of_channel(subdir, found).make()
        for name, content in made.items():
            plan.files[folder / name.removeprefix(f"{CHANNEL}/{subdir}/")] = content
        shards = {Path(name).name for name in made}
        plan.removed += [
            path
            for path in sorted((folder / SHARDS).glob("*"))
            if is_shard(path.name) and path.name not in shards
        ]
    plan.absent, plan.pruned = ((), tuple(missing)) if prune else (tuple(missing), ())
    return plan


def _read_package(path: Path, subdir: str, project: Project) -> seen_artifacts.Package:
    tag = seen_artifacts.tag_of(path)
    package = intake.read_package(path, project)
    if package.index["subdir"] != subdir:
        raise ArtifactError(
            f"is a package for {package.index['subdir']}", where=f"{subdir}/{path.name}"
        )
    return seen_artifacts.Package(
        tag, channel_index.record_of(package), channel_index.run_exports_of(package)
    )


def update_wheel_index(
    root: Path,
    *,
    project: Project | None = None,
    replace: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> Result:
    """Writes ``index/`` and the ``.metadata`` files from the wheels in `root`/wheels.

    Args:
        root: the folder with ``wheels/``.
        project: whose wheels they are, with the layout of the index; None for anybody's, in one
            flat index.
        replace: accept wheels that were published with other bytes.
        prune: drop entries whose wheel is no longer in the folder.
        dry_run: write nothing.

    Raises:
        ArtifactError: a wheel that cannot be read, a file that is none, or a page that this program
            did not write.
        ConflictError: a wheel that was published with other bytes.
        LabelError: a wheel of another project, or one without a label.
    """
    project = project or Project()
    plan = _plan_wheels(root, project, replace, prune, frozenset(), Seen(root, project))
    return plan.done(root, dry_run=dry_run)


def _is_to_be_read(digest: str, read: Collection[str], facts: Mapping[str, Facts] | None) -> bool:
    return digest not in read or (facts is not None and digest not in facts)


def _item(
    name: str, folder: str, sha256: str, size: int, facts: Mapping[str, Facts] | None
) -> Item:
    """What the pages for people show of an artifact; a folder knows neither time nor commit."""
    known = (facts or {}).get(sha256, Facts())
    return Item(name=name, folder=folder, sha256=sha256, size=size, facts=known)


def _plan_wheels(
    root: Path,
    project: Project,
    replace: bool,
    prune: bool,
    read: Collection[str],
    seen: Seen,
    facts: dict[str, Facts] | None = None,
) -> _Plan:
    """The plan of the wheels; see :func:`_plan_channel`."""
    plan = _Plan()
    known = wheel_index.published(root, project)
    digests = wheel_index.published_digests(root, project)
    read_already = {*wheel_index.read_already(root, project), *read}
    found: dict[str, WheelEntry] = {}
    for path in intake.wheels_in(root / WHEELS):
        metadata = path.with_name(f"{path.name}.metadata")
        about = seen.wheel(path)
        if about is None or not _is(metadata, about.metadata_sha256):
            about, plan.files[metadata] = _read_wheel(path, project)
        if not replace:
            refuse_damaged(path.name, digests.get(path.name, ()), about.sha256)
        if _is_to_be_read(about.sha256, read_already, facts):
            looked = intake.check_wheel(intake.read_wheel(path, project)[1])
            if facts is not None:
                facts[about.sha256] = looked
        said = known.get(path.name)  # what a place with a record knows of it, and no wheel says
        found[path.name] = WheelEntry(
            *(about.name, about.sha256, about.size, about.requires_python, about.metadata_sha256),
            yanked=said.yanked if said else None,
            uploaded=said.uploaded if said else "",
        )
        seen.keep(path, about)
    gone = sorted(set(known) - set(found))
    if not prune:
        found.update({name: known[name] for name in gone})
    plan.wheels = tuple(
        entry.file for entry in sorted(found.values(), key=lambda entry: entry.order)
    )
    plan.items = [
        _item(name, WHEELS, entry.sha256, entry.size, facts) for name, entry in found.items()
    ]
    # Pages of a folder first, the overview that leads there last.
    pages: set[str] = set()
    for unit in documents.of_index(found.values(), project):
        for name, content in unit.make().items():
            pages.add(name)
            plan.files[root / name] = content
    if prune:
        plan.removed = [root / WHEELS / f"{name}.metadata" for name in gone]
        plan.removed += _unused_folders(root, {known[name] for name in gone}, pages)
    plan.absent, plan.pruned = ((), tuple(gone)) if prune else (tuple(gone), ())
    return plan


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _read_wheel(path: Path, project: Project) -> tuple[seen_artifacts.Wheel, bytes]:
    """What the index says of a wheel, and its METADATA."""
    tag = seen_artifacts.tag_of(path)
    named, wheel = intake.read_wheel(path, project)
    entry = entry_of(named, wheel)
    about = seen_artifacts.Wheel(
        *(tag, named, entry.sha256, entry.size, entry.requires_python, entry.metadata_sha256)
    )
    return about, wheel.metadata_bytes


def _unused_folders(root: Path, gone: Iterable[WheelEntry], pages: Collection[str]) -> list[Path]:
    """The folders of entries that are gone, with what is above them that has no page any more."""
    folders = {page for entry in gone for page in (*entry.pages, *entry.name.folders)}
    return [
        root / INDEX / folder
        for folder in sorted(folders, key=len)
        if folder and not any(page.startswith(f"{INDEX}/{folder}/") for page in pages)
    ]


def is_empty(root: Path) -> bool:
    """Whether nothing in `root` was or can be published."""
    held = [root / CHANNEL, root / WHEELS]
    return not wheel_index.has_pages(root) and not any(
        intake.is_artifact(path.name) or path.name.startswith("repodata.json")
        for folder in held
        for path in folder.rglob("*")
    )


def update(
    root: Path,
    *,
    project: Project | None = None,
    replace: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> Result:
    """Both the channel and the wheel index of `root`; see the two functions.

    Raises:
        ArtifactError: there is no such folder, or nothing in it to publish.
    """
    expected = f"a folder with {CHANNEL}/ and {WHEELS}/, such as dist/"
    if not root.is_dir():
        what = "is a file" if root.exists() else "there is no such folder"
        raise ArtifactError(what, where=str(root), expected=expected)
    _refuse_record(root)
    if is_empty(root):
        raise ArtifactError(
            f"holds no conda package below {CHANNEL}/ and no wheel in {WHEELS}/",
            where=str(root),
            expected=expected,
            fix=_nearby(root) or "put them there, or add them with --add FILE",
        )
    with contextlib.nullcontext() if dry_run else atomic.lock(root / _LOCK):
        project = project or Project()
        known = _facts_known(root, project)
        return _update(root, project, replace, prune, dry_run, frozenset(), known)


def _refuse_record(root: Path) -> None:
    """A place that releases are published to has documents that follow from its record alone."""
    if (root / HISTORY).is_dir():
        raise ArtifactError(
            f"keeps a record of what was published, in {HISTORY}/",
            where=str(root),
            expected="a folder of a build, such as dist/",
            fix="publish to it; its index follows from the record",
        )


def _nearby(root: Path) -> str:
    """Where the folder is the channel, or has the artifacts themselves: what to do about it."""
    if root.name in (CHANNEL, WHEELS) and not is_empty(root.parent):
        return f"give the folder above, {root.parent}"
    if any(intake.is_artifact(path.name) for path in root.iterdir()):
        return "publish them in a folder of their own: --add FILE puts each where it belongs"
    return ""


def _update(
    root: Path,
    project: Project,
    replace: bool,
    prune: bool,
    dry_run: bool,
    read: Collection[str],
    facts: dict[str, Facts],
) -> Result:
    # All are checked before any is written.
    seen = Seen(root, project)
    packages = _plan_channel(root / CHANNEL, project, replace, prune, read, seen, facts)
    wheels_of = _plan_wheels(root, project, replace, prune, read, seen, facts)
    people = _plan_pages(root, project, [*packages.items, *wheels_of.items])
    channel, wheels, pages = (
        plan.done(root, dry_run=dry_run) for plan in (packages, wheels_of, people)
    )
    if not dry_run:
        seen.save()
    return Result(
        channel.packages,
        wheels.wheels,
        channel.written + wheels.written + pages.written,
        channel.absent + wheels.absent,
        channel.pruned + wheels.pruned,
    )


def _plan_pages(root: Path, project: Project, items: Sequence[Item]) -> _Plan:
    """The pages for people; those of versions that are gone are removed."""
    _refuse_other_page(root)
    plan = _Plan()
    for name, content in site_page.documents(items, project).items():
        plan.files[root / name] = content
    own = [root / PAGE, root / LISTING, *(root / VERSIONS).glob("*.html")]
    plan.removed = [path for path in own if path.is_file() and path not in plan.files]
    return plan


def _refuse_other_page(root: Path) -> None:
    """A page of somebody else's is not written over.

    Raises:
        ArtifactError: there is one.
    """
    page = root / PAGE
    if not page.is_file() or read_listing(root / LISTING) is not None:
        return
    with page.open("rb") as stream:
        if site_page.MARK in stream.read(_HEAD):
            return
    raise ArtifactError(
        "is a page that this program did not write",
        where=str(page),
        expected=f"the page for people, which is written to {PAGE}",
        fix="move it to another folder, or publish in another one",
    )


def _facts_known(root: Path, project: Project) -> dict[str, Facts]:
    """What the listing says of artifacts, where the pages that were made of it agree with it."""
    return {item.sha256: item.facts for item in _listed(root, project)}


def _listed(root: Path, project: Project) -> list[Item]:
    """The listing; nothing where it or a page for people is not as it was written."""
    items = read_listing(root / LISTING) or []
    try:
        made = site_page.documents(items, project)
        agree = all((root / name).read_bytes() == content for name, content in made.items())
    except (OSError, ValueError, BridgeError):  # names and versions of whatever it was damaged to
        return []
    return items if agree else []


def publish(
    artifacts: Iterable[Path],
    output: Path,
    *,
    project: Project | None = None,
    replace: bool = False,
    dry_run: bool = False,
    report: Callable[[str], None] = lambda _line: None,
) -> list[Path]:
    """Copies packages and wheels into `output` and updates channel and index: all or nothing.

    Args:
        artifacts: conda packages and wheels.
        output: the folder to publish in.
        project: whose they are; None for anybody's.
        replace: accept other bytes under a name that is there already.
        dry_run: check everything, write nothing.
        report: is told what happens, a line at a time.

    Returns:
        Where the artifacts are now.

    Raises:
        ArtifactError: an artifact that cannot be read, or another file in the folder.
        LabelError: an artifact with a name that the project does not produce.
        ConflictError: one of the names is published with other bytes, or there in another form
            with other files. Nothing has been copied.
    """
    sources = list(artifacts)
    project = project or Project()
    _refuse_record(output)
    with contextlib.nullcontext() if dry_run else atomic.lock(output / _LOCK):
        known = published_digests(output, project)
        targets, new = [], []
        read, facts = _read_already(output, project), _facts_known(output, project)
        for path in sources:
            target, digest = _target(path, output, project, read, facts)
            targets.append(target)
            read.add(digest)
            existing = file_sha256(target) if target.is_file() else None
            published = known.get(path.name, set())
            if not replace:
                refuse_other_bytes(path.name, published, digest)
                if not published and existing:
                    refuse_other_bytes(path.name, {existing}, digest)
            if existing == digest:
                report(f"unchanged {target.name}")
            elif existing and published:
                # Its own bytes again: it was damaged after it was published.
                report(f"repair {target.name}: its sha256 was {existing}")
                new.append((path, target))
            else:
                report(f"publish {target.name}")
                new.append((path, target))
        subdirs = intake.subdirs(output / CHANNEL)
        there = [intake.packages_in(output / CHANNEL / subdir) for subdir in subdirs]
        _refuse_two_of_a_name([*sources, *itertools.chain(*there)])
        if dry_run:
            return targets
        for path, target in new:
            atomic.copy(path, target)
        for name in _update(output, project, replace, False, False, read, facts).written:
            report(f"write {name}")
    return targets


def _refuse_two_of_a_name(paths: Iterable[Path]) -> None:
    """A ``.conda`` and a ``.tar.bz2`` of one name: clients take one or the other.

    Raises:
        ConflictError: they hold different files.
    """
    first: dict[str, Path] = {}
    for path in paths:
        stem, ending = split_conda_file(path.name)
        other = first.setdefault(stem, path) if ending else path
        if other.name != path.name:
            check_same_files(conda_package.read(other), conda_package.read(path))


def consistent(output: Path, project: Project | None = None) -> bool:
    """Whether pages and repodata of `output` are all there and agree with each other."""
    channel = output / CHANNEL
    try:
        subdirs = intake.subdirs(channel)
    except ArtifactError:
        return False
    project = project or Project()
    return (
        wheel_index.consistent(output, project)
        and all(channel_index.consistent(channel, subdir) for subdir in subdirs)
        and {item.name: {item.sha256} for item in _listed(output, project)}
        == published_digests(output, project)
    )


def published_digests(output: Path, project: Project) -> dict[str, set[str]]:
    """The sha256 of everything that pages and repodata list, by file name."""
    digests = wheel_index.published_digests(output, project)
    for subdir in intake.subdirs(output / CHANNEL):
        digests.update(channel_index.published_digests(output / CHANNEL, subdir))
    return digests


def _read_already(output: Path, project: Project) -> set[str]:
    """The sha256 of everything that was read whole when it was published."""
    found = wheel_index.read_already(output, project)
    for subdir in intake.subdirs(output / CHANNEL):
        found |= channel_index.read_already(output / CHANNEL, subdir)
    return found


def _target(
    path: Path, output: Path, project: Project, read: Collection[str], facts: dict[str, Facts]
) -> tuple[Path, str]:
    """Where an artifact belongs, and its sha256; by then it has been read whole."""
    check_path(path)
    if not path.is_file():
        endings = f"{', '.join(CONDA_ENDINGS)} or .whl"
        raise ArtifactError("there is no such file", where=str(path), expected=endings)
    if path.suffix == ".whl":
        _, wheel = intake.read_wheel(path, project)
        digest = file_sha256(path)
        if _is_to_be_read(digest, read, facts):
            facts[digest] = intake.check_wheel(wheel)
        return output / WHEELS / path.name, digest
    if not split_conda_file(path.name)[1]:
        raise ArtifactError(
            "neither a conda package nor a wheel",
            where=str(path),
            expected=f"{', '.join(CONDA_ENDINGS)} or .whl",
        )
    package = intake.read_package(path, project)
    digest = file_sha256(path)
    if _is_to_be_read(digest, read, facts):
        facts[digest] = intake.check_package(package)
    return output / CHANNEL / str(package.index["subdir"]) / path.name, digest
