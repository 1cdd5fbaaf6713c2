"""Everything that is published, as people and programs look through it: ``index.json`` of a place.

The page beside it (:mod:`.site_page`) is made of the same. In a folder without a record it is also
what remembers the facts of artifacts, which are read whole only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import msgspec
from packaging.version import Version

from ..errors import ArtifactError, LabelError
from ..formats import limits
from ..formats.json_reader import parse_object
from ..label import Label, split_conda_file
from ..project import Project
from .facts import Facts
from .intake import WheelName, package_label

__all__ = [
    "LISTING",
    "Build",
    "Item",
    "Named",
    "builds_of",
    "listing",
    "numeric",
    "read_listing",
    "values_of",
    "version_of",
]

LISTING = "index.json"
_SCHEMA = 1
_HIDDEN = ("commit", "number")  # of every project; nobody chooses by them


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A published artifact.

    Attributes:
        name: of the file.
        folder: where it is, such as ``wheels`` or ``channel/linux-64``.
        sha256: of the file.
        size: in bytes.
        facts: what was measured of its libraries.
        uploaded: when it was published, in UTC; empty where nobody knows.
        commit: what it was made of; empty where nobody said.
        yanked: why it is not to be chosen; None where it is.
    """

    name: str
    folder: str
    sha256: str
    size: int
    facts: Facts = Facts()
    uploaded: str = ""
    commit: str = ""
    yanked: str | None = None

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel, and no conda package."""
        return self.name.endswith(".whl")

    @property
    def path(self) -> str:
        """Relative to the place, as an address; ``+`` is escaped, as some servers need it."""
        return f"{self.folder}/{quote(self.name, safe='')}"


@dataclass(frozen=True)
class Named:
    """An artifact, and what its name says.

    Attributes:
        item: the artifact.
        package: the distribution's, or the conda package's, name.
        label: of its name.
        version: a wheel's whole version.
        folder: of a wheel in the index.
    """

    item: Item
    package: str
    label: Label
    version: str
    folder: str = ""

    @classmethod
    def of(cls, item: Item, project: Project) -> Named:
        """Reads the name.

        Raises:
            LabelError: it is none that the project gives.
        """
        if item.is_wheel:
            wheel = WheelName.of(item.name, project)
            name = project.config.wheel_name or wheel.project
            return cls(item, name, wheel.label, wheel.version, wheel.folder)
        try:
            name, label = package_label(item.name, project)
        except LabelError:
            if project.scheme.build is not None:
                raise
            # A version that only conda reads, of a package that has no label.
            name, version, _ = split_conda_file(item.name)[0].rsplit("-", 2)
            label = Label(version)
        return cls(item, name, label, label.version)

    @property
    def spec(self) -> str:
        """This conda package and no other, as conda is asked for it."""
        return "=".join(split_conda_file(self.item.name)[0].rsplit("-", 2))


@dataclass
class Build:
    """One build as a user asks for it, in all of its forms; of rebuilds, the newest.

    Attributes:
        package: its name.
        label: what it was built for.
        wheels: one for each platform.
        packages: the same for conda.
        folded: the conda packages that come with those.
    """

    package: str
    label: Label
    wheels: list[Named] = field(default_factory=list)
    packages: list[Named] = field(default_factory=list)
    folded: list[Named] = field(default_factory=list)

    @property
    def facts(self) -> Facts:
        """Of all its files together."""
        every = [
            item.item.facts for part in (self.wheels, self.packages, self.folded) for item in part
        ]
        codes = {code for facts in every for code in facts.gpu_code}
        glibc = max((facts.glibc for facts in every), key=numeric, default="")
        return Facts(tuple(sorted(codes)), glibc)


def numeric(text: str) -> tuple[int, ...]:
    """Numbers with dots between them, in their order; what is none comes first."""
    parts = text.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def values_of(label: Label) -> tuple[tuple[str, str | None], ...]:
    """What a user chooses by: the fields of a label, without its commit."""
    return tuple((name, value) for name, value in label.values if name not in _HIDDEN)


def builds_of(named: Iterable[Named], project: Project) -> list[Build]:
    """The builds that may be chosen, by their fields; what was yanked is in none.

    Args:
        named: of one version, or of all versions of a project without labels.
        project: whose they are.
    """
    offered = [one for one in named if one.item.yanked is None]
    main = [one for one in offered if one.item.is_wheel or one.package not in project.folds]
    newest: dict[tuple[str, object, bool, str], Named] = {}
    for one in sorted(main, key=_age):
        # Of each platform one: the newest.
        platform = one.item.name.rpartition("-")[2] if one.item.is_wheel else one.item.folder
        newest[_key(one, project), values_of(one.label), one.item.is_wheel, platform] = one
    found: dict[tuple[str, object], Build] = {}
    for (name, values, _, _), one in newest.items():
        build = found.setdefault((name, values), Build(name, one.label))
        (build.wheels if one.item.is_wheel else build.packages).append(one)
    stems = {split_conda_file(one.item.name)[0]: one for one in offered if not one.item.is_wheel}
    for build in found.values():
        for package in build.packages:
            build.folded += _folded(package.label, stems, project)
    return sorted(found.values(), key=lambda build: (build.package, _ordered(build.label)))


def _key(one: Named, project: Project) -> str:
    """A wheel and a conda package of one project are one build, whatever either is called."""
    return project.config.package or one.package


def _age(one: Named) -> tuple[Version, int, str]:
    return version_of(one.label.version), one.label.number, one.item.name


def version_of(text: str) -> Version:
    """A version in its order; what PEP 440 does not know comes before all others."""
    try:
        return Version(text)
    except ValueError:  # it is none, or has more digits than Python makes a number of
        return Version("0.dev0")


def _ordered(label: Label) -> tuple[tuple[tuple[int, ...], str], ...]:
    return tuple((numeric(value or ""), value or "") for _, value in values_of(label))


def _folded(label: Label, stems: Mapping[str, Named], project: Project) -> list[Named]:
    found = []
    for name, template in project.folds.items():
        if template is None:
            continue
        try:
            build = project.scheme.fold_build(template, label)
        except LabelError:
            continue
        one = stems.get(f"{name}-{label.conda_version}-{build}")
        found += [one] if one else []
    return found


def listing(items: Iterable[Item], title: str) -> bytes:
    """The document, the same for any order of `items`."""
    document = {
        "schema": _SCHEMA,
        "name": title,
        "files": sorted(items, key=lambda item: (item.folder, item.name)),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def read_listing(path: Path) -> list[Item] | None:
    """The artifacts of a document that was written here; None where it is not whole.

    Who believes it has to compare it with the page that was made of it.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(limits.REPODATA_SIZE + 1)
        document = parse_object(text, path.name, max_bytes=limits.REPODATA_SIZE)
        return msgspec.convert(document["files"], list[Item])
    except (OSError, ArtifactError, msgspec.MsgspecError, KeyError, TypeError):
        return None
