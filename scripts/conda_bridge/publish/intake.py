"""What may lie in a channel and among wheels: one rule, for what is there and for what is added.

An artifact is let in when it can be read whole, is what its name says, and is of the project that
the folder is for. Anything else in the folders is refused by its name: what is silently left out of
an index is found out by whoever cannot install it.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import ArtifactError, LabelError
from ..formats import conda_package, foreign, wheel_reader
from ..formats.conda_package import CondaPackage
from ..formats.index_json import check_record
from ..formats.member_names import check_path
from ..formats.wheel_reader import MemberStream, Wheel
from ..label import CONDA_ENDINGS, Label, public_version, same_version, split_conda_file
from ..project import Project
from ..system.failure import stage
from ..template import Template
from .facts import Facts, Look

__all__ = [
    "SUBDIR",
    "SUBDIRS",
    "WheelName",
    "check_package",
    "check_wheel",
    "folders_of",
    "is_artifact",
    "package_label",
    "packages_in",
    "read_package",
    "read_wheel",
    "subdirs",
    "wheels_in",
]

# Clients ask every channel for noarch; linux-64 is there from the start, so that one can be named
# before anything is in it.
SUBDIRS = ("linux-64", "noarch")
SUBDIR = re.compile(r"noarch|[a-z][a-z0-9]*-[a-z0-9_]+", re.ASCII)

_ENDINGS = (*CONDA_ENDINGS, ".whl")
# What index writers, this one and others, leave there; and what goes with an artifact, under its
# name and one more ending: its metadata, a signature.
_OF_INDEXES = re.compile(r".+\.(?:json|html|xml|jlap)(?:\.(?:bz2|gz|zst))?|.+\.msgpack\.zst")
_OF_ARTIFACTS = re.compile(r".+\.(?:whl|conda|tar\.bz2)\.[^.]+")
_TAG = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_CHUNK = 1 << 20


# ---------------------------------------------------------------- files in the folders


def is_artifact(name: str) -> bool:
    """Whether a file of this name is a conda package or a wheel."""
    return name.endswith(_ENDINGS)


def subdirs(channel: Path) -> list[str]:
    """The subdirs of a channel, those that are always there among them.

    Raises:
        ArtifactError: a package beside the subdirs or in a folder that is none, or another file.
    """
    found = set(SUBDIRS)
    for path in _listed(channel):
        if path.is_dir() and SUBDIR.fullmatch(path.name):
            found.add(path.name)
        elif path.is_dir():
            _refuse_artifacts_below(path, "a subdir, such as linux-64 or noarch")
        elif is_artifact(path.name) or not _is_known(path.name):
            raise ArtifactError(
                "does not belong here",
                where=str(path),
                expected="folders such as linux-64 and noarch, with the packages in them",
                fix="remove it; or give a package to --add, which finds its folder",
            )
    return sorted(found)


def packages_in(folder: Path) -> list[Path]:
    """The packages in a subdir, by name.

    Raises:
        ArtifactError: a file that is neither a package nor an index writer's.
    """
    return _artifacts_in(folder, CONDA_ENDINGS, "conda package")


def wheels_in(folder: Path) -> list[Path]:
    """The wheels in a folder, by name.

    Raises:
        ArtifactError: a file that is no wheel, and no wheel's.
    """
    return _artifacts_in(folder, (".whl",), "wheel")


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, by name; not what is still being written, and nothing hidden."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_known(name: str) -> bool:
    return bool(_OF_INDEXES.fullmatch(name) or _OF_ARTIFACTS.fullmatch(name))


def _artifacts_in(folder: Path, endings: tuple[str, ...], kind: str) -> list[Path]:
    found = []
    for path in _listed(folder):
        if path.name.endswith(endings):
            found.append(path)
        elif path.is_dir():
            _refuse_artifacts_below(path, f"the {kind}s of one folder")
        elif is_artifact(path.name) or not _is_known(path.name):
            raise ArtifactError(
                f"is no {kind}",
                where=str(path),
                expected=f"files that end in {' or '.join(endings)}",
                fix="remove it; what is in this folder is served to everybody",
            )
    return found


def _refuse_artifacts_below(folder: Path, expected: str) -> None:
    for path in sorted(folder.rglob("*")):
        if is_artifact(path.name) and not path.name.startswith("."):
            raise ArtifactError(
                "lies in a folder that no client looks into", where=str(path), expected=expected
            )


# ---------------------------------------------------------------- conda packages


def read_package(path: Path, project: Project) -> CondaPackage:
    """What a package says of itself, with a name that the project gives.

    Raises:
        ArtifactError: it cannot be read, has no subdir, or a value that clients cannot read.
        LabelError: it is another project's, or has a build string that this one does not spell.
    """
    with stage("reading", path):
        return _read_package(path, project)


def _read_package(path: Path, project: Project) -> CondaPackage:
    _check_package_name(path.name, project)
    package = conda_package.read(path)
    check_record(package.index, f"{path.name}: info/index.json")
    subdir = package.index.get("subdir")
    if not isinstance(subdir, str) or not SUBDIR.fullmatch(subdir):
        raise ArtifactError(
            f"subdir is {subdir!r}",
            where=f"{path.name}: info/index.json",
            expected="noarch or a platform, such as linux-64",
        )
    return package


def check_package(package: CondaPackage) -> Facts:
    """Reads all files of a package against what it says of them; returns what was seen in them.

    Raises:
        ArtifactError: one is damaged, missing, unsafe or not declared.
    """
    look = Look()
    for member in package.payload():
        if member.link_target is None:
            look.take(member.path, member.chunks())
    return look.facts


def _check_package_name(file: str, project: Project) -> None:
    name, version, _build = _package_parts(file)
    if not name:
        return  # conda_package says what is wrong with it
    project.check_name(name, file)
    if project.scheme.build is None or (name in project.folds and not project.folds[name]):
        return
    _, label = package_label(file, project)
    if label.conda_version != version:
        raise LabelError(f"{version!r} is not spelled so", where=file, expected=label.conda_version)


def package_label(file: str, project: Project) -> tuple[str, Label]:
    """The name and the label in a conda package's file name.

    Raises:
        LabelError: it is not a package's, or none that the project gives.
    """
    name, version, build = _package_parts(file)
    if not name:
        raise LabelError(
            "not a conda package's name", where=file, expected="<name>-<version>-<build>.conda"
        )
    project.check_name(name, file)
    label = project.label_of(name, version, build, file)
    if label is not None:
        return name, label
    number = build.rpartition("_")[2]
    return name, Label(
        public_version(version, file), (), int(number) if _NUMBER.fullmatch(number) else 0
    )


def _package_parts(file: str) -> tuple[str, str, str]:
    """Name, version and build; empty where the file name has not all of them."""
    parts = split_conda_file(file)[0].rsplit("-", 2)
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ("", "", "")


# ---------------------------------------------------------------- wheels


@dataclass(frozen=True)
class WheelName:
    """What a wheel's file name says.

    Attributes:
        file: the name.
        project: of the distribution, as PEP 503 normalises it.
        version: the whole of it, as PEP 440 spells it.
        build: the number and the rest of the build tag.
        label: with the values of the project's fields, where it has labels.
        folders: of the index, relative to its root, in which it is listed; the first is its own.
    """

    file: str
    project: str
    version: str
    build: tuple[int, str]
    label: Label
    folders: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The folder of the index that is its own; empty in a flat one."""
        return self.folders[0]

    @functools.cached_property
    def order(self) -> tuple[Version, tuple[int, str], str]:
        """Among the wheels of a project: version, build tag, name."""
        return Version(self.version), self.build, self.file

    @classmethod
    def of(cls, file: str, project: Project) -> WheelName:
        """Reads a file name.

        Raises:
            LabelError: it is not a wheel's, or none that this project gives.
        """
        found = project.names.get(file)
        if found is None:
            found = project.names[file] = cls._read(file, project)
        assert isinstance(found, cls)
        return found

    @classmethod
    def _read(cls, file: str, project: Project) -> WheelName:
        expected = "<name>-<version>[-<build>]-<python>-<abi>-<platform>.whl"
        check_path(Path(file))
        parts = file[: -len(".whl")].split("-")
        own = project.config.wheel_name
        if own and canonicalize_name(parts[0]) != canonicalize_name(own):
            raise LabelError(f"not a {own} wheel's name", where=file, expected=f"{own}-...")
        try:
            name, version, build, _tags = foreign.wheel_name(file)
        except foreign.Unreadable as error:
            raise LabelError(
                f"not a wheel's name: {error}", where=file, expected=expected
            ) from None
        number = build or (0, "")
        if project.scheme.local is None:
            label = Label(str(version), (), number[0])
        else:
            label = project.scheme.parse_wheel_version(parts[1], number[0], file)
            _check_canonical(file, parts, label, project)
        build = (number[0], number[1])
        return cls(file, name, str(version), build, label, folders_of(label, file, project))


def folders_of(label: Label, file: str, project: Project) -> tuple[str, ...]:
    """The folders of the index in which a label's wheel is listed; the first is its own.

    Raises:
        LabelError: it has none.
    """
    layouts = [project.layout, *project.folders]
    if Version(label.version).is_devrelease:
        layouts += project.nightly_folders
    values = {**dict(label.values), "number": str(label.number)}
    return tuple(dict.fromkeys(_folder(layout, values, file) for layout in layouts))


def _folder(layout: Template | None, values: Mapping[str, str | None], file: str) -> str:
    """A folder of the index; empty for the index itself.

    Raises:
        LabelError: a wheel of these values has none.
    """
    if layout is None or not layout.text:
        return ""
    try:
        folder = layout.format(values)
    except ValueError as error:
        raise LabelError(f"has no folder of the index: {error}", where=file) from None
    if not _is_path_of(folder, layout):
        raise LabelError(f"has no folder of the index, but {folder!r}", where=file)
    return folder


def _is_path_of(folder: str, layout: Template) -> bool:
    """Whether it is as deep as the layout, and leads nowhere else."""
    parts = folder.split("/")
    return len(parts) == layout.text.count("/") + 1 and not {"", ".", ".."} & set(parts)


def _check_canonical(file: str, parts: list[str], label: Label, project: Project) -> None:
    """One build, one name: a second spelling would be published beside the first."""
    for tag in parts[-3:]:
        if not _TAG.fullmatch(tag):
            raise LabelError(f"{tag!r} is not a tag", where=file)
    version = str(Version(project.scheme.wheel_version(label)))
    number = [str(label.number)] if label.number else []
    canonical = f"{'-'.join([parts[0], version, *number, *parts[-3:]])}.whl"
    if file != canonical:
        raise LabelError("not the canonical file name", where=file, expected=canonical)


def read_wheel(path: Path, project: Project) -> tuple[WheelName, Wheel]:
    """What a wheel says of itself, with a name that the project gives.

    Raises:
        ArtifactError: it cannot be read, or METADATA or its folder is not that of the file name.
        LabelError: it is another project's, or has a version that this one does not spell.
    """
    with stage("reading", path):
        return _read_wheel(path, project)


def _read_wheel(path: Path, project: Project) -> tuple[WheelName, Wheel]:
    if not path.is_file():
        raise ArtifactError("there is no such file", where=str(path))
    named = WheelName.of(path.name, project)
    wheel = wheel_reader.read(path)
    own = project.config.wheel_name
    for field, expected, same in (
        ("Name", own or wheel.name, _same_exactly if own else _same_name),
        ("Version", named.version, same_version),
    ):
        every = [str(value) for value in wheel.metadata.get_all(field, [])]
        found = ", ".join(every)
        if len(every) != 1 or not same(found, expected):
            raise ArtifactError(
                f"{field} is {found!r}",
                where=f"{path.name}: {wheel.dist_info}/METADATA",
                expected=f"{expected!r}, as the file name has it",
                fix="a wheel must not be renamed; build it again",
            )
    folder, _, version = wheel.dist_info.removesuffix(".dist-info").partition("-")
    if not _same_name(folder, wheel.name) or not same_version(version, named.version):
        raise ArtifactError(
            "its metadata is in a folder of another name, and no installer takes it",
            where=f"{path.name}: {wheel.dist_info}",
            expected=f"{wheel.name}-{wheel.version}.dist-info",
            fix="a wheel must not be renamed; build it again",
        )
    return named, wheel


def _same_exactly(one: str, other: str) -> bool:
    return one == other


def _same_name(one: str, other: str) -> bool:
    return bool(canonicalize_name(one) == canonicalize_name(other))


def check_wheel(wheel: Wheel) -> Facts:
    """Reads all files of a wheel against its RECORD; returns what was seen in them.

    What RECORD leaves out is for ``verify`` to judge: installers take such a wheel.

    Raises:
        ArtifactError: one is damaged, or is not what RECORD says.
    """
    look = Look()
    for member, stream in wheel.stream():
        read = _Digested(stream)
        look.take(member.path, read)
        digest, size = read.digest, read.size
        record = wheel.record.get(member.path)
        if record is None or not record.sha256:
            continue
        if digest.hexdigest() != record.sha256 or record.size not in (None, size):
            raise ArtifactError(
                f"{size} bytes with sha256 {digest.hexdigest()}",
                where=f"{wheel.path.name}: {member.path}",
                expected=f"{record.size} bytes with sha256 {record.sha256}, as RECORD has it",
                fix="fetch or build the wheel again",
            )
    return look.facts


class _Digested:
    """The bytes of a stream, once, with what they come to."""

    def __init__(self, stream: MemberStream) -> None:
        self.digest, self.size = hashlib.sha256(), 0
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        while data := self._stream.read(_CHUNK):
            self.digest.update(data)
            self.size += len(data)
            yield data
