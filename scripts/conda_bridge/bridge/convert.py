"""Makes the wheel of a conda package: the same payload bytes, pip's names around them.

Reads a package (``.conda`` or ``.tar.bz2``) and those that the project folds into it, from the same
folder, and compiles nothing. Everything that names the build has to agree before a byte is written.

The wheel is made of what is installed and of what the recipe says, in an order of its own. Which
builder wrote the packages, in what order, with which permissions and with what remarks of its own,
is not seen in its bytes.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from ..errors import ArtifactError, LabelError
from ..formats import conda_package, limits
from ..formats.conda_package import CondaPackage
from ..formats.conda_writer import default_timestamp
from ..formats.deflate_zip import PIECE
from ..formats.in_order import in_order
from ..formats.member_names import Names, check_path
from ..formats.tar_stream import TarMember
from ..formats.wheel import Metadata, Tag, WheelWriter
from ..formats.wheel_reader import stream_sha256
from ..label import Label, public_version
from ..project import Project
from ..system import atomic
from . import agreement, folding, layout, manylinux, runpath, tags
from .dependencies import PROVIDED_BY, may_be_library
from .existing import is_unchanged
from .layout import Place, is_library, wheel_layout
from .metadata import DistInfo, Needs, compose, entry_points, needs_of, version_of
from .plan import Part, Target, libraries_of, place_files
from .survey import Survey, survey

if TYPE_CHECKING:  # it takes its time to import
    from ..formats.elf import SharedObject

__all__ = ["Bridged", "bridge", "wheel_path"]

_STRANGER = Project()
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
# Of a .dist-info these are written anew, or are about the folder it was installed into.
_NOT_READ = re.compile(
    r"/(RECORD(\.jws|\.p7s)?|INSTALLER|REQUESTED|direct_url\.json|top_level\.txt|SOURCES\.txt"
    r"|zip-safe)$"
)

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Bridged:
    """What became of one package.

    Attributes:
        package: that was read.
        folded: the packages that were folded in.
        path: the wheel.
        outcome: ``written``, ``unchanged`` or ``checked`` (a dry run).
        sha256, size: of the wheel; empty and 0 for a dry run.
        payload: the payload's paths in the wheel.
        payload_size: its bytes, uncompressed.
        seconds: that it took.
        notes: what is not in the wheel, or is otherwise than in the package, in words.
    """

    package: Path
    folded: tuple[Path, ...]
    path: Path
    outcome: str
    sha256: str
    size: int
    payload: tuple[str, ...]
    payload_size: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def library(self) -> Path | None:
        """The first of the packages that were folded in."""
        return self.folded[0] if self.folded else None

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "package": str(self.package),
            "library": str(self.library) if self.library else None,
            "folded": [str(path) for path in self.folded],
            "file": str(self.path),
            "outcome": self.outcome,
            "sha256": self.sha256,
            "size": self.size,
            "payload_size": self.payload_size,
            "payload_files": list(self.payload),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


def wheel_path(package: CondaPackage, path: str, project: Project = _STRANGER) -> str | None:
    """Where a file of a conda package is in the wheel, as its name alone says.

    Args:
        package: the main package or one to be folded in, read.
        path: in the package.
        project: whose configuration has places of its own.

    Returns:
        The path in the wheel, or None for what stays behind: a ``.dist-info`` file, which is
        written anew, what the configuration drops, and byte code, which installers write. A shared
        library of ``lib`` may be called by its SONAME there.

    Raises:
        ArtifactError: a file that cannot go into a wheel.
    """
    place = wheel_layout(package, project).place(path)
    return None if place.kind in (layout.DROP, "info", "sbom") else place.path


def bridge(
    package: Path,
    output: Path,
    *,
    project: Project = _STRANGER,
    mapping: Mapping[str, str | None] | None = None,
    platform_tag: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    threads: int = 0,
    report: Report | None = None,
) -> Bridged:
    """Writes the wheel of the conda package `package` into the folder `output`.

    Args:
        package: a conda package; those to be folded into it are beside it.
        output: where the wheel goes.
        project: what its authors say of it; nothing has to be said.
        mapping: conda name -> PyPI name, or None for what needs no requirement; before all others.
        platform_tag: ``auto``, the lowest manylinux policy that the libraries reach; one policy,
            e.g. ``manylinux_2_28_x86_64``, which has to be true; or ``linux_x86_64``, which
            promises nothing. None for the configuration's.
        overwrite: replace a wheel that has the name and other bytes.
        dry_run: check everything and write nothing.
        threads: that deflate; 0 chooses by the cores. Not seen in the bytes.
        report: called with the payload bytes that are done and their total.

    Raises:
        LabelError: `package` has a name that this project does not give, or a version that pip has
            no form for.
        ArtifactError: an input that is damaged, hostile, renamed, incomplete or in disagreement
            with itself, or one that no wheel can hold.
        LabelMismatch: a promise of the wheel's name would not be true: its platform tag, its ABI,
            or what the project's hooks look at.
        ConfigError: `platform_tag` is no policy.
        ConflictError: the wheel is there with other bytes, or a package to be folded in is there in
            two forms with other files.
    """
    started = time.monotonic()
    plan = _Plan.make(package, output, project, mapping, platform_tag)
    progress = _Progress(report, sum(part.package.payload_size for part in plan.parts))
    target = output / plan.file_name
    if dry_run:
        plan.check(progress)
        outcome, digest, size = "checked", "", 0
    else:
        outcome, digest, size = _write(plan, target, overwrite, threads, progress)
    return Bridged(
        package=package,
        folded=tuple(part.package.path for part in plan.parts[1:]),
        path=target,
        outcome=outcome,
        sha256=digest,
        size=size,
        payload=tuple(sorted(plan.payload)),
        payload_size=plan.payload_bytes,
        seconds=time.monotonic() - started,
        notes=tuple(plan.notes),
    )


class _Unchanged(Exception):
    """The wheel is there already, byte for byte."""


def _write(
    plan: _Plan, target: Path, overwrite: bool, threads: int, progress: _Progress
) -> tuple[str, str, int]:
    digest, size = "", 0
    try:
        with atomic.writing(target) as stream:
            with WheelWriter(
                stream, plan.stem, timestamp=default_timestamp(), threads=threads
            ) as wheel:
                plan.write(wheel, target.parent, progress)
            stream.flush()
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            digest = stream_sha256(stream)
            if target.exists() and is_unchanged(target, digest, overwrite=overwrite):
                raise _Unchanged
    except _Unchanged:
        return "unchanged", digest, size
    return "written", digest, size


class _Progress:
    """Counts payload bytes for a display."""

    def __init__(self, report: Report | None, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0

    def chunks(self, member: TarMember) -> Iterator[bytes]:
        for data in member.chunks(PIECE):
            yield data
            self._done += len(data)
            if self._report:
                self._report(self._done, self._total)


# ---------------------------------------------------------------- what is to be made


@dataclass
class _Plan:
    """What is known of a wheel before its payload is written."""

    project: Project
    parts: list[Part]
    metadata: Metadata
    tag: Tag
    number: int
    licenses: dict[str, bytes]
    more: dict[str, bytes]
    notes: list[str]
    names: Names
    payload: list[str] = field(default_factory=list)
    payload_bytes: int = 0

    @property
    def stem(self) -> str:
        return _stem(self.metadata.name, self.metadata.version)

    @property
    def file_name(self) -> str:
        build = f"-{self.number}" if self.number else ""
        return f"{self.stem}{build}-{self.tag}.whl"

    @classmethod
    def make(
        cls,
        path: Path,
        output: Path,
        project: Project,
        mapping: Mapping[str, str | None] | None,
        platform_tag: str | None,
    ) -> _Plan:
        label, main = _read(path, project)
        where = main.path.name
        wanted = platform_tag or project.config.platform_tag
        arch = tags.architecture_of(main.index.get("subdir"), f"{where}: info/index.json")
        if wanted != "auto" and not manylinux.is_plain(wanted):
            manylinux.policy_of(wanted, arch or "x86_64")  # before anything is decompressed
        specs = agreement.depends_of(main)
        agreement.check_label_dependencies(main, specs, label, project)
        folded = folding.find(main, specs, project, label)
        for package in folded:
            agreement.check_no_entry_points(package)
            project.hooks.check_folded(package, label)
        packages = [main, *folded]
        parts = [Part(item, wheel_layout(item, project), Survey()) for item in packages]
        notes: list[str] = []
        _look(parts, project, mapping, wanted, output)
        own = _dist_info(parts[0], project, label)
        name = project.config.wheel_name or (own.metadata.name if own.metadata else main.name)
        if not _NAME.fullmatch(name):
            raise ArtifactError(
                f"{name!r} is no name of a project on PyPI",
                where=where,
                expected="letters and digits at its ends, and - _ . between them",
                fix='give the wheel another: [tool.conda-bridge] wheel-name = "<name>"',
            )
        version = _version(main, own, project, label)
        needs = needs_of(packages, project, mapping, own.metadata)
        notes += needs.notes
        scripts = {**own.scripts(), **_linked(main)}
        _place(parts, project, _stem(name, version), scripts, notes)
        _check_python(parts[0], project)
        tag = _tag(parts, needs, own, project, wanted, arch, notes)
        agreement.check_license(main, project, list({**own.licenses, **main.licenses}))
        licenses = _licenses(packages, own)
        metadata = compose(
            name,
            version,
            _requires_python(parts[0], needs, own),
            needs.dist,
            main,
            own.metadata,
            licenses,
            folded,
        )
        metadata.render()  # what is wrong with it is said before anything is written
        points = entry_points(own, main.entry_points, f"{where}: info/link.json")
        more = {**own.others, **({"entry_points.txt": points.encode()} if points else {})}
        contents = _contents(parts[0], project, own, _stem(name, version))
        project.hooks.check_package(main, label, contents)
        number = label.number
        names = Names(where, limits.MEMBERS)
        return cls(project, parts, metadata, tag, number, licenses, more, notes, names)

    def check(self, progress: _Progress) -> None:
        """Reads and checks all payloads, and writes nothing."""
        for part in self.parts:
            self._run(part, part.package.payload(), None, progress, None)

    def write(self, wheel: WheelWriter, folder: Path, progress: _Progress) -> None:
        """Reads and checks all payloads, and writes them to `wheel`.

        Args:
            wheel: takes the members in one order, by the bytes of their paths, the main package's
                first.
            folder: where members wait that a package has before their turn.
            progress: is told of every piece.
        """
        for part in self.parts:
            order = sorted(part.package.paths, key=str.encode)
            with contextlib.closing(in_order(part.package.payload(), order, folder)) as members:
                self._run(part, members, wheel, progress, folder)
        wheel.finish(
            self.metadata,
            self.tag,
            self.licenses,
            build_number=self.number,
            generator=self.project.config.generator,
            more=self.more,
        )

    def _run(
        self,
        part: Part,
        members: Iterable[TarMember],
        wheel: WheelWriter | None,
        progress: _Progress,
        folder: Path | None,
    ) -> None:
        for member in members:
            target = part.targets.get(member.path)
            if member.link_target is not None or target is None:
                continue
            if part.places[member.path].kind == "sbom":
                self._take_sbom(part, member, target.path, progress)
                continue
            for path in (target.path, *target.copies):
                if path:
                    self.names.add(path)
                    self.payload.append(path)
                    self.payload_bytes += member.size
            if wheel is None:
                for _ in progress.chunks(member):
                    pass
            elif folder is not None and (target.changed or target.copies):
                self._add_changed(part, member, target, wheel, progress, folder)
            else:
                wheel.add_member(
                    target.path, member, progress.chunks(member), executable=target.executable
                )

    def _take_sbom(self, part: Part, member: TarMember, path: str, progress: _Progress) -> None:
        """An SBOM from outside of a ``.dist-info``, which is written with the wheel's own.

        Raises:
            ArtifactError: it is too large, or the wheel has another of that name.
        """
        where = f"{part.package.path.name}: {member.path}"
        if member.size > limits.TEXT_SIZE:
            raise ArtifactError(
                f"has {member.size} bytes",
                where=where,
                expected=f"an SBOM of at most {limits.TEXT_SIZE}",
            )
        name = path.partition("/")[2]
        text = b"".join(progress.chunks(member))
        if self.more.setdefault(name, text) != text:
            raise ArtifactError(
                f"is not the {name} that the wheel has already",
                where=where,
                expected="a name of its own, or the same bytes",
            )

    @staticmethod
    def _add_changed(
        part: Part,
        member: TarMember,
        target: Target,
        wheel: WheelWriter,
        progress: _Progress,
        folder: Path,
    ) -> None:
        """A file whose bytes are not the package's, or that is there more than once."""
        with atomic.scratch(folder) as work:
            file = work / "file"
            with file.open("wb") as room:
                for data in progress.chunks(member):
                    room.write(data)
            if target.text is not None:
                file.write_bytes(target.text)
            if target.runpath is not None:
                where = f"{part.package.path.name}: {member.path}"
                shared = part.survey.objects[member.path]
                runpath.patch(file, target.runpath, shared, where)
            with file.open("rb") as content:
                for path in (target.path, *target.copies):
                    if path:
                        wheel.add_file(path, content, executable=target.executable)


def _stem(name: str, version: str) -> str:
    return f"{canonicalize_name(name).replace('-', '_')}-{version.replace('-', '_')}"


def _licenses(packages: Sequence[CondaPackage], own: DistInfo) -> dict[str, bytes]:
    """The licence files, with those of folded packages that say something new."""
    main, *folded = packages
    found = {**own.licenses, **main.licenses}
    for package in folded:
        for name, text in package.licenses.items():
            if text not in found.values():
                found[f"{package.name}/{name}"] = text
    return found


def _read(path: Path, project: Project) -> tuple[Label, CondaPackage]:
    """The main package, and what its name says."""
    kind = f"a {project.config.package} package" if project.config.package else "a conda package"
    folds = list(project.folds)
    check_path(path)
    if not path.is_file():
        beside = f", its {' and '.join(folds)} beside it" if folds else ""
        raise ArtifactError(
            "is a folder" if path.is_dir() else "there is no such file",
            where=str(path),
            expected=f"{kind} (.conda, .tar.bz2){beside}",
        )
    parts = folding.split_name(path.name)
    if parts is None:
        raise LabelError(
            "the file name is not that of a conda package",
            where=path.name,
            expected="<name>-<version>-<build>.conda or .tar.bz2",
        )
    name, version, build = parts
    if name in folds:
        main = f"the {project.config.package or 'main'} package"
        raise LabelError(
            f"this package is a part of the wheel of {main}",
            where=path.name,
            fix=f"give {main}; its {name} is found beside it",
        )
    project.check_name(name, path.name)
    label = project.label_of(name, version, build, path.name)
    if label is not None:
        return label, conda_package.read(path)
    package = conda_package.read(path)
    number = package.index.get("build_number", 0)
    number = number if isinstance(number, int) and number >= 0 else 0
    try:
        public = public_version(version, path.name)
    except LabelError:
        public = version  # its METADATA may know better
    return Label(public, (), number), package


# ---------------------------------------------------------------- looking into the packages


def _look(
    parts: Sequence[Part],
    project: Project,
    mapping: Mapping[str, str | None] | None,
    wanted: str,
    output: Path,
) -> None:
    """Fills the surveys, with no more than is needed to say what the wheel is."""
    places = [{path: part.layout.place(path) for path in part.package.paths} for part in parts]
    every = not manylinux.is_plain(wanted) or any(
        place.kind == "library" and not place.chosen for found in places for place in found.values()
    )
    every = every or any(
        may_be_library(spec, project, mapping)
        for part in parts
        for spec in agreement.depends_of(part.package)
    )
    patterns = project.hooks.looks_into()
    for number, (part, found) in enumerate(zip(parts, places, strict=True)):
        part.survey = survey(
            part.package,
            lambda path, found=found, part=part: _is_text(path, found[path], part, patterns),  # type: ignore[misc]
            lambda path, found=found: _is_binary(path, found[path], every),  # type: ignore[misc]
            whole=part.package.index.get("noarch") is None
            and (
                number == 0
                or any(place.kind == "site" and not place.chosen for place in found.values())
            ),
            folder=output,
        )


def _is_text(path: str, place: Place, part: Part, patterns: Sequence[str]) -> bool:
    if place.kind == "info":
        return not _NOT_READ.search(path)
    if place.kind == layout.DROP:
        return False
    entry = part.package.paths[path]
    return (
        place.kind == "script"
        or bool(entry.prefix_placeholder and not entry.binary)
        or any(fnmatch.fnmatchcase(place.path, pattern) for pattern in patterns)
    )


def _is_binary(path: str, place: Place, every: bool) -> bool:
    if place.kind in (layout.DROP, "info", "script", "sbom") or not is_library(path):
        return False
    return every or (place.kind == "site" and tags.needs_a_look(path))


def _dist_info(part: Part, project: Project, label: Label) -> DistInfo:
    """The package's own metadata, where it has some."""
    found: dict[str, dict[str, bytes]] = {}
    where = part.package.path.name
    sites: dict[str, str] = {}
    for path, content in part.survey.texts.items():
        place = part.layout.place(path)
        if place.kind == "info":
            folder, _, name = place.path.partition("/")
            found.setdefault(folder, {})[name] = content
            sites[folder] = path.removesuffix(f"/{name}")
    if project.scheme.local is not None:
        name = project.config.wheel_name or part.package.name
        stem = _stem(name, project.scheme.wheel_version(label))
        for folder in found:
            if folder != f"{stem}.dist-info":
                raise ArtifactError(
                    "metadata of another version",
                    where=f"{where}: {sites[folder]}",
                    expected=f"{stem}.dist-info",
                    fix=project.config.rebuild,
                )
    if len(found) > 1:
        own = [folder for folder in found if folder.endswith(".dist-info")]
        if len(own) != 1:
            raise ArtifactError(
                f"has metadata of {len(found)} projects: {', '.join(sorted(found))}",
                where=where,
                expected="one, which a wheel is about",
                fix='leave out the others in [tool.conda-bridge.files]: "<folder>/" = "drop"',
            )
        found = {own[0]: found[own[0]]}
    for folder, files in found.items():
        return DistInfo.read(folder, files, f"{where}: {sites[folder]}")
    return DistInfo()


def _linked(package: CondaPackage) -> dict[str, str]:
    """The entry points of ``info/link.json``, by their names."""
    return {item.partition("=")[0].strip(): item for item in package.entry_points}


def _version(package: CondaPackage, own: DistInfo, project: Project, label: Label) -> str:
    if project.scheme.local is None:
        return version_of(package, own.metadata)
    version = project.scheme.wheel_version(label)
    if own.metadata is not None:
        agreement.check_source_version(own.metadata, version, own.where, project)
    return version


def _place(
    parts: Sequence[Part],
    project: Project,
    stem: str,
    scripts: Mapping[str, str],
    notes: list[str],
) -> None:
    in_lib = {
        name
        for part in parts
        for path, shared in part.survey.objects.items()
        if (place := part.layout.place(path)).kind == "library" and not place.chosen
        for name in (shared.soname, path.rpartition("/")[2])
    }
    keeps_lib = any(
        part.layout.place(path).kind == "script" and in_lib.intersection(shared.needed)
        for part in parts
        for path, shared in part.survey.objects.items()
    )
    for part in parts:
        part.layout = wheel_layout(part.package, project, stem, keeps_lib=keeps_lib)
    place_files(parts, scripts, notes)


def _check_python(part: Part, project: Project) -> None:
    """The package is a Python project, or the configuration says that it is to be one."""
    if part.of_kind("site") or part.of_kind("info") or project.config.wheel_name:
        return
    if any(place.chosen for place in part.places.values()):
        return
    raise ArtifactError(
        "has nothing in site-packages: it is no Python package",
        where=part.package.path.name,
        expected="a package with Python files or extension modules",
        fix="fold it into the package that needs it ([[tool.conda-bridge.fold]]); or, if its "
        "programs are to be a wheel, give that a name: [tool.conda-bridge] wheel-name",
    )


def _contents(part: Part, project: Project, own: DistInfo, stem: str) -> dict[str, bytes]:
    """The files that the project's hooks look into, by their path in the wheel."""
    found = {part.places[path].path: content for path, content in part.survey.texts.items()}
    if own.text:
        found[f"{stem}.dist-info/METADATA"] = own.text
    patterns = project.hooks.looks_into()
    return {
        path: content
        for path, content in found.items()
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
    }


# ---------------------------------------------------------------- tags


def _requires_python(main: Part, needs: Needs, own: DistInfo) -> str:
    """What conda asks for; of a package for one Python, what the source asks for."""
    source = own.metadata.requires_python if own.metadata else ""
    if main.package.index.get("noarch") == "python":
        return needs.python or source
    return source or needs.python


def _tag(
    parts: Sequence[Part],
    needs: Needs,
    own: DistInfo,
    project: Project,
    wanted: str,
    arch: str,
    notes: list[str],
) -> Tag:
    where = parts[0].package.path.name
    objects: dict[str, SharedObject] = {}
    binaries = False
    for part in parts:
        objects.update(
            {path: item for path, item in part.survey.objects.items() if path in part.targets}
        )
        binaries = binaries or any(map(is_library, part.targets))
    arch = arch or manylinux.architecture(list(objects.values()))
    platform = tags.ANY
    if objects or binaries:
        provided = [*libraries_of(parts), *_provided(needs, project)]
        tags.check_needed(wanted, objects, provided, needs.left_out, arch, where)
        platform = manylinux.choose_tag(wanted, list(objects.values()), provided, arch)
        _compare_glibc(parts, platform, notes)
    python = next(filter(None, (layout.python_of(part.package) for part in parts)), "")
    tags.check_python(python, needs.python, f"{where}: info/index.json: depends")
    modules = [
        module
        for part in parts
        for path in part.targets
        if part.places[path].kind == "site" or part.places[path].chosen
        if is_library(path)
        if (module := tags.module_of(path, objects.get(path), where))
    ]
    return tags.tag_of(
        modules,
        platform=platform,
        python=python,
        requires_python=needs.python,
        built_as=own.built_as,
        objects=objects,
        where=where,
    )


def _provided(needs: Needs, project: Project) -> Iterator[str]:
    for text in needs.dist:
        name = canonicalize_name(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0])
        for table in (project.config.provided_by, PROVIDED_BY):
            for said, patterns in table.items():
                if canonicalize_name(said) == name:
                    yield from patterns


def _compare_glibc(parts: Sequence[Part], platform: str, notes: list[str]) -> None:
    """Says so where the package asks for a newer C library than its binaries do."""
    found = re.match(r"manylinux_(\d+)_(\d+)_", platform)
    for spec in agreement.depends_of(parts[0].package):
        lower = re.search(r">=(\d+)\.(\d+)", spec.version) if spec.name == "__glibc" else None
        if found and lower and tuple(map(int, lower.groups())) > tuple(map(int, found.groups())):
            notes.append(
                f"the package asks for {spec}, and its binaries for no more than {platform} has"
            )
