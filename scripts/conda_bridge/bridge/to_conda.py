"""Makes the conda package of a wheel: the same payload bytes, conda's names around them.

Of a wheel everything is checked before a package has its name: the archive, RECORD, what its
file name says against METADATA, and what its shared objects need. The ``.dist-info`` comes along
whole, so that pip and :mod:`importlib.metadata` see the project as if pip had installed it, and the
way back finds the version with its local part again.

Where the project folds packages into its wheel (``[[tool.conda-bridge.fold]]``), they are taken out
again: the way back is the way there, backwards.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import ArtifactError, ConfigError, LabelError
from ..formats import conda_writer, foreign, limits, wheel_reader
from ..formats.conda_writer import PackageFile
from ..formats.content import Allowance, Stored
from ..formats.wheel_reader import MemberStream, Wheel, WheelMember, file_sha256
from ..label import Label, conda_spelling
from ..project import Project
from ..system import atomic
from .conda_binaries import Needs, Object, measure, read_object
from .conda_layout import PLACEHOLDER, Layout, entry_points, record, with_placeholder
from .conda_requirements import Requirements, read_requirements
from .conda_target import MACHINES, target
from .dependencies import PROVIDED_BY
from .existing import is_unchanged
from .layout import DROP, SBOMS
from .names import conda_name

__all__ = ["Converted", "Written", "to_conda"]

_CHUNK = 1 << 20
_SMALL = 16 << 20  # of a script or another file that is read whole
_MAX_BUILD = 64  # conda's tools take no longer build string
_LICENSE = re.compile(r"(licen[cs]e|copying|notice|copyright)", re.IGNORECASE)
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_ABOUT_URLS = {
    "home": ("homepage", "home"),
    "dev_url": ("repository", "source", "source code", "sources", "code", "github"),
    "doc_url": ("documentation", "docs"),
}

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    """One package.

    Attributes:
        path: the file.
        outcome: ``written``, ``unchanged`` or ``checked`` (a dry run).
        sha256, size: of the file; empty and 0 for a dry run.
        depends: what it requires.
        payload: the paths of its files.
    """

    path: Path
    outcome: str
    sha256: str
    size: int
    depends: tuple[str, ...]
    payload: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "file": str(self.path),
            "outcome": self.outcome,
            "sha256": self.sha256,
            "size": self.size,
            "depends": list(self.depends),
            "payload_files": list(self.payload),
        }


@dataclass(frozen=True)
class Converted:
    """What became of one wheel.

    Attributes:
        wheel: that was read.
        packages: the wheel's own package first, then those that were folded into the wheel.
        dropped: requirement -> why it is no dependency.
        remarks: what a person should know of what was decided.
        seconds: that it took.
    """

    wheel: Path
    packages: tuple[Written, ...]
    dropped: Mapping[str, str]
    remarks: tuple[str, ...]
    seconds: float

    @property
    def path(self) -> Path:
        """The wheel's own package."""
        return self.packages[0].path

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "wheel": str(self.wheel),
            "packages": [package.as_dict() for package in self.packages],
            "dropped": dict(self.dropped),
            "remarks": list(self.remarks),
            "seconds": round(self.seconds, 3),
        }


def to_conda(
    wheel: Path,
    output: Path,
    *,
    project: Project | None = None,
    mapping: Mapping[str, str | None] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    threads: int = 0,
    level: int = 19,
    report: Report | None = None,
) -> Converted:
    """Writes the conda package of the wheel `wheel` into the folder `output`.

    Args:
        wheel: for any platform or for Linux with glibc.
        output: where the package goes, and those that the project folds into its wheel.
        project: whose wheel it is; a stranger's where it is left out.
        mapping: names that the user gives, conda name -> PyPI name.
        overwrite: replace a package that has the name and other bytes.
        dry_run: check everything and write nothing.
        threads: that compress; 0 for one a core, of as many as take 350 MB together. Not seen in
            the bytes.
        level: of zstd, 1 to 22.
        report: called with the payload bytes that are done and their total.

    Raises:
        LabelError: a name or version that the project, or conda, does not have.
        ArtifactError: a wheel that is damaged, hostile, renamed or in disagreement with itself, or
            that conda has no form for.
        LabelMismatch: a shared object with the C++ strings that conda-forge does not have.
        ConflictError: the package is there with other bytes.
    """
    started = time.monotonic()
    plan = _Plan(wheel_reader.read(wheel), project or Project(), mapping)
    if dry_run:
        plan.take(None, report)
        written = [
            Written(output / part.file_name, "checked", "", 0, part.depends, part.payload)
            for part in plan.parts()
        ]
    else:
        with atomic.scratch(output) as folder:
            plan.take(folder, report)
            written = _write(plan.parts(), folder, output, overwrite, threads, level)
    return Converted(
        wheel=wheel,
        packages=tuple(written),
        dropped=plan.requirements.dropped,
        remarks=tuple(plan.remarks),
        seconds=time.monotonic() - started,
    )


# ---------------------------------------------------------------- writing


@dataclass
class _Part:
    """One package to be written."""

    index: dict[str, object]
    about: dict[str, object] = field(default_factory=dict)
    files: list[PackageFile] = field(default_factory=list)
    info: dict[str, bytes] = field(default_factory=dict)
    objects: list[Object] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        return "{name}-{version}-{build}.conda".format(**self.index)

    @property
    def depends(self) -> tuple[str, ...]:
        listed = self.index["depends"]
        assert isinstance(listed, list)
        return tuple(listed)

    @property
    def payload(self) -> tuple[str, ...]:
        return tuple(sorted(file.path for file in self.files))


def _write(
    parts: list[_Part], folder: Path, output: Path, overwrite: bool, threads: int, level: int
) -> list[Written]:
    """Writes all packages or, where one is there with other bytes, none."""
    written = []
    for part in parts:
        fresh = folder / part.file_name
        conda_writer.write(
            fresh,
            index=part.index,
            files=part.files,
            about=part.about,
            info_files=part.info,
            threads=threads,
            level=level,
        )
        digest, size = file_sha256(fresh), fresh.stat().st_size
        final = output / part.file_name
        same = final.is_file() and is_unchanged(final, digest, overwrite=overwrite)
        outcome = "unchanged" if same else "written"
        written.append(Written(final, outcome, digest, size, part.depends, part.payload))
    # The packages folded in first: the other one requires them.
    for item in reversed(written):
        if item.outcome == "written":
            os.replace(folder / item.path.name, item.path)
    return written


# ---------------------------------------------------------------- reading


class _Plan:
    """A wheel on its way to packages."""

    def __init__(
        self, wheel: Wheel, project: Project, mapping: Mapping[str, str | None] | None
    ) -> None:
        self.wheel = wheel
        self.project = project
        self.where = wheel.path.name
        self.remarks: list[str] = []
        metadata = wheel.metadata
        self.version = self._check_names(metadata)
        self.target = target(wheel.tags, str(metadata.get("Requires-Python") or ""), self.where)
        self.layout = Layout(wheel.name, wheel.dist_info, self.target, self.where)
        self.requirements: Requirements = read_requirements(
            [str(value) for value in metadata.get_all("Requires-Dist", [])],
            self.target,
            project,
            mapping,
            self.where,
        )
        self.remarks += self.requirements.remarks
        self.name = self._conda_name(mapping)
        self.label, self.build = self._label()
        wanted = project.hooks.looks_into()
        self._wanted = {
            member.path
            for member in wheel.members
            if any(fnmatchcase(member.path, pattern) for pattern in wanted)
        }
        self._contents: dict[str, bytes] = {}
        self._texts = Allowance(limits.TEXTS, "licences and what else is looked into")
        self._facts = Allowance(limits.LIBRARY_FACTS, "the facts of all libraries")
        self._main = _Part({})
        self._places = self._folded_places()
        self._folded: dict[str, _Part] = {fold.package: _Part({}) for fold in project.config.fold}
        self._entry_points: bytes | None = None
        self._rows: list[tuple[str, str, int | None]] = []
        self._sources: list[tuple[str, str]] = []  # path in a package, path in the wheel

    # ------------------------------------------------------------ what it is called

    def _check_names(self, metadata: Message) -> Version:
        """The version; file name, folder and METADATA have to agree."""
        wheel, where = self.wheel, self.where
        format_version = str(wheel.wheel.get("Wheel-Version") or "")
        if format_version.split(".", maxsplit=1)[0] != "1":
            raise ArtifactError(
                f"Wheel-Version is {format_version!r}", where=f"{where}: WHEEL", expected="1.x"
            )
        name, version = str(metadata.get("Name") or ""), str(metadata.get("Version") or "")
        if canonicalize_name(name) != canonicalize_name(wheel.name):
            raise ArtifactError(
                f"Name is {name!r}",
                where=f"{where}: METADATA",
                expected=f"{wheel.name}, as in the file name",
            )
        try:
            of_file = foreign.pip_version(wheel.version.replace("_", "-"))
            inside = foreign.pip_version(version)
        except foreign.Unreadable as error:
            raise ArtifactError(
                f"{error}", where=where, expected="a version as in PEP 440"
            ) from error
        if of_file != inside:
            if Version(of_file.public) != inside:
                raise ArtifactError(
                    f"Version is {version!r}",
                    where=f"{where}: METADATA",
                    expected=f"{wheel.version}, as in the file name",
                    fix="a wheel must not be renamed; fetch or build it again",
                )
            self.remarks.append(
                f"the local version {of_file.local} is in the file name alone; METADATA has "
                f"{version}"
            )
        folder, _, stem = wheel.dist_info.removesuffix(".dist-info").partition("-")
        if canonicalize_name(folder) != canonicalize_name(name) or not _is_version(stem, inside):
            raise ArtifactError(
                f"the metadata is of {wheel.dist_info.removesuffix('.dist-info')}",
                where=f"{where}: {wheel.dist_info}",
                expected=f"{wheel.name}-{version}",
            )
        return of_file

    def _conda_name(self, mapping: Mapping[str, str | None] | None) -> str:
        config = self.project.config
        own = config.wheel_name or config.package
        if own and canonicalize_name(own) == canonicalize_name(self.wheel.name):
            return config.package or str(canonicalize_name(own))
        try:
            name = conda_name(self.wheel.name, self.project, mapping, own=True, where=self.where)
        except ArtifactError as error:
            raise LabelError(
                f"conda has something else under the name {self.wheel.name!r}",
                where=self.where,
                expected="the name of the conda package in a table",
                fix=error.fix,
            ) from error
        self.project.check_name(name, self.where)
        return name

    def _label(self) -> tuple[Label, str]:
        """What names this build, and its build string."""
        number = int(re.match(r"\d*", self.wheel.build)[0] or 0)  # type: ignore[index]
        scheme = self.project.scheme
        if scheme.build is not None:
            label = scheme.parse_wheel_version(str(self.version), number, self.where)
            return label, scheme.conda_build(label, self.where)
        # As the file name has it: TRUE in cxx11abiTRUE is for people.
        local = self.wheel.version.partition("+")[2].replace("_", ".").replace("-", ".")
        build = "_".join(filter(None, (self.target.word, local, str(number))))
        if len(build) > _MAX_BUILD:
            raise LabelError(
                f"the build string {build!r} is longer than {_MAX_BUILD} characters",
                where=self.where,
                fix="say how builds are named in [tool.conda-bridge.label]",
            )
        return Label(self.version.public, (), number), build

    # ------------------------------------------------------------ its files

    def take(self, folder: Path | None, report: Report | None) -> None:
        """Reads all files and checks them; where there is a folder, keeps them there.

        Raises:
            ArtifactError: a file that is damaged, not in RECORD, or not what RECORD says.
        """
        total = sum(member.size for member in self.wheel.members)
        done = 0
        missing = set(self.wheel.record) - {member.path for member in self.wheel.members}
        if missing:
            raise ArtifactError(
                f"RECORD names {len(missing)} files that are not there, {min(missing)!r} first",
                where=self.where,
                fix="fetch or build the wheel again",
            )
        for number, (member, stream) in enumerate(self.wheel.stream()):
            blob = folder / str(number) if folder else None
            self._take(member, stream, blob)
            done += member.size
            if report:
                report(done, total)
        self._finish()

    def _take(self, member: WheelMember, stream: MemberStream, blob: Path | None) -> None:
        where = f"{self.where}: {member.path}"
        inner = member.path.removeprefix(f"{self.wheel.dist_info}/")
        of_info = inner != member.path
        place = self.layout.place(member.path)
        content = _Content(member, stream, where)
        special = (
            member.path in self._wanted
            or (of_info and inner == "entry_points.txt")
            or self._is_license(member.path)
        )
        small = special or (content.starts_as(b"#!python") and place.script)
        data = content.whole(_SMALL) if small else None
        if special:
            self._texts.spend(member.size, where)
        if data is None and content.starts_as(b"\x7fELF"):
            found = self._object(content, member.path, blob)
            if found:
                self._facts.spend(found.weight, where)
                self._part_of(member.path)[0].objects.append(found)
        elif data is None:
            content.copy(blob)
        self._check_record(member, content)
        if data is not None and special:
            self._note(member.path, inner if of_info else "", data)
        if place.path is None or (of_info and inner in ("RECORD", "INSTALLER")):
            return
        if of_info and self._licence_of(inner)[1]:
            return  # below info/ of the package that it came with
        self._add(member, place.path, place.script, data, content, blob)

    def _object(self, content: _Content, path: str, blob: Path | None) -> Object | None:
        """What is in a shared object, which is not held in memory: some have gigabytes."""
        with blob.open("w+b") if blob else tempfile.TemporaryFile() as room:
            content.write_to(room)
            room.flush()
            stored = Stored(room, 0, content.size)
            return read_object(stored, path, f"{self.where}: {path}")

    def _add(
        self,
        member: WheelMember,
        path: str,
        script: bool,
        data: bytes | None,
        content: _Content,
        blob: Path | None,
    ) -> None:
        placeholder = ""
        if script and data is not None:
            data, placeholder = with_placeholder(data)
        source: Path | bytes = b""
        if blob is not None:
            if data is not None:
                blob.write_bytes(data)
            source = blob
        part, folded = self._part_of(member.path)
        mode = 0o755 if script or member.executable else 0o644
        part.files.append(PackageFile(folded or path, source, mode, prefix_placeholder=placeholder))
        self._sources.append((folded or path, member.path))
        if not folded:
            digest = "" if placeholder else content.encoded
            self._rows.append((path, digest, None if placeholder else member.size))

    def _part_of(self, path: str) -> tuple[_Part, str]:
        """The package that a file of the wheel goes into, and its path where it was folded in."""
        for ours, (package, theirs) in self._places.items():
            if path == ours or (ours.endswith("/") and path.startswith(ours)):
                return self._folded[package], theirs + path.removeprefix(ours)
        return self._main, ""

    def _folded_places(self) -> dict[str, tuple[str, str]]:
        """Prefix in the wheel -> package that was folded in and prefix there, the longest first."""
        found: dict[str, tuple[str, str]] = {}
        info = self.wheel.dist_info
        own = {".data/": f"{info.removesuffix('.dist-info')}.data/", ".dist-info/": f"{info}/"}
        for fold in self.project.config.fold:
            for theirs, place in fold.files.items():
                if place in (DROP, SBOMS):
                    continue  # in the folder of all SBOMs, nothing tells whose one is
                ours = place
                for name, folder in own.items():
                    if place.startswith(name):
                        ours = folder + place.removeprefix(name)
                if not ours or ours in found:
                    other = found[ours][0] if ours in found else self.name
                    raise ConfigError(
                        f"{fold.package} and {other} both have files in "
                        f"{place or 'its root'!r}, and nothing tells them apart",
                        where=f"{self.where}: [[tool.conda-bridge.fold]] files",
                        expected="a folder of the wheel for each package that is to come out of it",
                        fix="give each one of its own",
                    )
                found[ours] = (fold.package, theirs)
        return dict(sorted(found.items(), key=lambda item: -len(item[0])))

    def _is_license(self, path: str) -> bool:
        folder, _, inner = path.partition("/")
        if folder != self.wheel.dist_info:
            return False
        named = [str(value) for value in self.wheel.metadata.get_all("License-File", [])]
        return (
            inner.startswith(("licenses/", "license_files/"))
            or inner in named
            or ("/" not in inner and bool(_LICENSE.match(inner)))
        )

    def _note(self, path: str, inner: str, data: bytes) -> None:
        if path in self._wanted:
            self._contents[path] = data
        if inner == "entry_points.txt":
            self._entry_points = data
        if self._is_license(path):
            name = inner.removeprefix("licenses/").removeprefix("license_files/")
            part, own = self._licence_of(inner)
            part.info[f"info/licenses/{own or name}"] = data

    def _licence_of(self, inner: str) -> tuple[_Part, str]:
        """Whose licence lies there, and its name where that is a package which was folded in."""
        folder, _, name = inner.removeprefix("licenses/").partition("/")
        if inner.startswith("licenses/") and name and folder in self._folded:
            return self._folded[folder], name
        return self._main, ""

    def _check_record(self, member: WheelMember, content: _Content) -> None:
        where = f"{self.where}: {member.path}"
        if member.path in [f"{self.wheel.dist_info}/{name}" for name in _UNRECORDED]:
            return
        line = self.wheel.record.get(member.path)
        if line is None:
            raise ArtifactError(
                "is not in RECORD", where=where, fix="fetch or build the wheel again"
            )
        if not line.sha256:
            raise ArtifactError(
                "has no sha256 in RECORD",
                where=where,
                expected="a digest of every file but RECORD and its signatures",
                fix="fetch or build the wheel again",
            )
        if line.sha256 != content.digest.hex() or line.size not in (None, content.size):
            raise ArtifactError(
                f"sha256 is {content.digest.hex()}",
                where=where,
                expected=f"{line.sha256}, as RECORD has it",
                fix="fetch or build the wheel again",
            )

    # ------------------------------------------------------------ its packages

    def _finish(self) -> None:
        """What an installer would make, and what the packages say of themselves."""
        self.project.hooks.check_wheel(self.wheel, self.label, self._contents)
        main = self._main
        commands = (
            entry_points(
                self._entry_points, f"{self.where}: {self.wheel.dist_info}/entry_points.txt"
            )
            if self._entry_points is not None
            else []
        )
        if self.target.noarch:
            link = {"noarch": {"type": "python"}, "package_metadata_version": 1}
            if commands:
                link["noarch"] = {"type": "python", "entry_points": [str(one) for one in commands]}
            main.info["info/link.json"] = conda_writer.json_bytes(link)
        self._leave_out({self.target.scripts + command.name for command in commands})
        self._check_places([self.target.scripts + command.name for command in commands])
        for command in commands:
            path = self.target.scripts + command.name
            self._rows.append((path, "", None))
            if not self.target.noarch:
                main.files.append(
                    PackageFile(path, command.script(), 0o755, prefix_placeholder=PLACEHOLDER)
                )
        self._write_dist_info()
        self._describe()

    def _leave_out(self, commands: Collection[str]) -> None:
        """Without the scripts of the wheel that installers write anew, as pip leaves them out."""
        scripts = f"{self.wheel.dist_info.removesuffix('.dist-info')}.data/scripts/"
        left = {path for path, source in self._sources if source.startswith(scripts)} & {*commands}
        if not left:
            return
        self._sources = [item for item in self._sources if item[0] not in left]
        self._rows = [row for row in self._rows if row[0] not in left]
        self._main.files = [file for file in self._main.files if file.path not in left]
        self.remarks += [
            f"{scripts}{path.removeprefix(self.target.scripts)} is not in the package: an entry "
            "point has its name, and the installer writes that"
            for path in sorted(left)
        ]

    def _check_places(self, commands: Sequence[str]) -> None:
        """Each place of the prefix has one file, whatever folder of the wheel it came from."""
        found: dict[str, str] = {}
        of_commands = [(path, "the command of an entry point") for path in commands]
        for path, source in (*of_commands, *self._sources):
            inner = path.removeprefix(self.target.scripts)
            place = path if inner == path else f"bin/{inner}"
            if place in found:
                raise ArtifactError(
                    f"would be installed as {place}, where {found[place]} is",
                    where=f"{self.where}: {source}",
                    expected="one file in each place",
                    fix="build the wheel again with one of the two",
                )
            found[place] = source

    def _write_dist_info(self) -> None:
        folder = f"{self.target.site}{self.wheel.dist_info}"
        installer = b"conda"
        self._rows.append((f"{folder}/INSTALLER", _encoded(installer), len(installer)))
        own = f"{folder}/RECORD"
        self._main.files += [
            PackageFile(f"{folder}/INSTALLER", installer),
            PackageFile(own, record(self._rows, own, self.target)),
        ]

    def _describe(self) -> None:
        folded = {name: part for name, part in self._folded.items() if part.files}
        objects = [*self._main.objects, *(o for part in folded.values() for o in part.objects)]
        needs = self._measure(objects)
        pins = []
        about = self._about()
        for name, part in folded.items():
            template = self.project.folds[name]
            build = (
                self.project.scheme.fold_build(template, self.label, self.where)
                if template
                else self.build
            )
            own = self._measure(part.objects)
            part.index = self._index(name, build, own.depends, own.constrains)
            part.about = about
            shared = {k: v for k, v in self._main.info.items() if "/licenses/" in k}
            part.info = {**shared, **part.info}
            pins.append(f"{name} {part.index['version']} {build}")
        depends = [*self.target.depends, *self.requirements.depends, *needs.depends, *pins]
        depends += self._of_label()
        if self.requirements.linux_only:
            depends.append("__linux")
            self.remarks.append("a marker asks for the system, so the package is for Linux alone")
        for spec in self.project.hooks.conda_depends(self.label):
            name = spec.split()[0]
            depends = [other for other in depends if other.split()[0] != name] + [spec]
        self._main.index = self._index(self.name, self.build, depends, needs.constrains)
        if self.target.noarch:
            self._main.index["noarch"] = "python"
        self._main.about = about
        self.remarks += needs.remarks
        self.remarks += self._unpinned(needs, depends)
        if needs.unknown:
            self.remarks.append(
                f"needs {', '.join(needs.unknown)}, which the wheel does not have: a package that "
                "it requires has to bring "
                + ("it" if len(needs.unknown) == 1 else "them")
                + " (provided-by in [tool.conda-bridge] says which does)"
            )

    def _unpinned(self, needs: Needs, depends: list[str]) -> Iterator[str]:
        """Packages whose libraries are linked, of which any newer version is taken."""
        for conda, pip in self.requirements.names.items():
            specs = [spec for spec in depends if spec.split()[0] == conda]
            linked = any(canonicalize_name(name) == pip for name in needs.linked)
            if linked and not any(re.search(r"<|==|\.\*", spec) for spec in specs):
                yield (
                    f"is linked to libraries of {conda}, and requires any {conda}: the wheel does "
                    "not say which one it was built with"
                )

    def _measure(self, objects: list[Object]) -> Needs:
        wanted = {str(name) for name in self.requirements.names.values()}
        brought = {
            name: patterns
            for name, patterns in {**PROVIDED_BY, **self.project.config.provided_by}.items()
            if str(canonicalize_name(name)) in wanted
        }
        local = self.version.local or ""
        return measure(objects, self.target.subdir, local, brought, self.where)

    def _of_label(self) -> Iterator[str]:
        """Dependencies whose version is a field of the label, or stands in the local version."""
        for name, conda in self.project.scheme.depends.items():
            if value := self.label.get(name):
                yield f"{conda} {value}.*"
        if self.project.scheme.build is not None:
            return
        # +cu12torch2.8cxx11abiTRUE: a project that is required, and its version.
        for conda, pip in self.requirements.names.items():
            found = re.search(
                rf"(?<![a-z]){re.escape(pip)}(\d+\.\d+)(?!\d)", (self.version.local or "").lower()
            )
            if found:
                yield f"{conda} {found[1]}.*"
                self.remarks.append(f"requires {conda} {found[1]}.*, which the local version names")

    def _index(
        self, name: str, build: str, depends: list[str], constrains: list[str]
    ) -> dict[str, object]:
        scheme = self.project.scheme
        index: dict[str, object] = {
            "name": name,
            "version": conda_spelling(self.label.version),
            "build": build,
            "build_number": scheme.index_build_number(self.label),
            "depends": sorted(set(depends)),
            "subdir": self.target.subdir,
            "license": self._license(),
        }
        if constrains:
            index["constrains"] = sorted(set(constrains))
        machine = MACHINES.get(self.target.subdir)
        if machine:
            index |= {"arch": machine, "platform": "linux"}
        else:
            index["noarch"] = "generic"
        return {key: value for key, value in index.items() if value != ""}

    def _license(self) -> str:
        metadata = self.wheel.metadata
        expression = str(metadata.get("License-Expression") or "").strip()
        plain = str(metadata.get("License") or "").strip()
        if expression or (plain and "\n" not in plain and len(plain) <= 100):
            return expression or plain
        classifiers = [str(value) for value in metadata.get_all("Classifier", [])]
        last = [one.split(" :: ")[-1] for one in classifiers if one.startswith("License :: ")]
        return " AND ".join(last) if last else ""

    def _about(self) -> dict[str, object]:
        metadata = self.wheel.metadata
        urls = {"homepage": str(metadata.get("Home-page") or "").strip()}
        for value in metadata.get_all("Project-URL", []):
            name, _, url = str(value).partition(",")
            urls[name.strip().lower()] = url.strip()
        about: dict[str, object] = {
            key: next((urls[name] for name in names if urls.get(name)), "")
            for key, names in _ABOUT_URLS.items()
        }
        about["summary"] = str(metadata.get("Summary") or "").strip()
        about["license"] = self._license()
        about = {key: value for key, value in about.items() if value}
        # What a package says of itself has no other place for this.
        about["extra"] = {
            "wheel": self.wheel.path.name,
            "not_required": dict(sorted(self.requirements.dropped.items())),
        }
        return about

    def parts(self) -> list[_Part]:
        """The packages: the wheel's own, then those that were folded in."""
        return [self._main, *(part for part in self._folded.values() if part.files)]


class _Content:
    """The content of one member, read once."""

    def __init__(self, member: WheelMember, stream: MemberStream, where: str) -> None:
        self._member = member
        self._stream = stream
        self._where = where
        self._hash = hashlib.sha256()
        self._first = b""
        self.size = 0

    @property
    def digest(self) -> bytes:
        """The sha256 of what was read."""
        return self._hash.digest()

    @property
    def encoded(self) -> str:
        """The digest as RECORD has it."""
        return "sha256=" + base64.urlsafe_b64encode(self.digest).rstrip(b"=").decode()

    def _read(self) -> bytes:
        data = self._stream.read(_CHUNK)
        self._hash.update(data)
        self.size += len(data)
        if self.size > self._member.size:
            raise ArtifactError(
                f"unpacks to more than {self._member.size} bytes", where=self._where
            )
        return data

    def starts_as(self, start: bytes) -> bool:
        """Whether it begins so."""
        if not self._first:
            self._first = self._read()
        return self._first.startswith(start)

    def whole(self, limit: int) -> bytes:
        """All of it.

        Raises:
            ArtifactError: it is larger than `limit` bytes.
        """
        if self._member.size > limit:
            raise ArtifactError(f"is larger than {limit} bytes", where=self._where)
        pieces = [self._first]
        while data := self._read():
            pieces.append(data)
        return b"".join(pieces)

    def copy(self, blob: Path | None) -> None:
        """Writes it to `blob`; without one it is read all the same, for its digest."""
        with blob.open("wb") if blob else contextlib.nullcontext() as out:
            self.write_to(out)

    def write_to(self, out: IO[bytes] | None) -> None:
        """Writes it to an open file, where there is one."""
        data = self._first or self._read()
        while data:
            if out:
                out.write(data)
            data = self._read()


def _encoded(data: bytes) -> str:
    digest = hashlib.sha256(data).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _is_version(text: str, version: Version) -> bool:
    try:
        return foreign.pip_version(text.replace("_", "-")) == version
    except foreign.Unreadable:
        return False
