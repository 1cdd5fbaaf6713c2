"""What anybody's release has to be, beside true: agreed, in order, small enough, licensed, new.

What the artifacts say of themselves is for ``verify`` to check; here is what holds between them,
and between them and what is published already.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from ..errors import BridgeError, ConfigError
from ..formats import conda_package, wheel_reader
from ..formats.wheel_reader import file_sha256
from ..label import Label, conda_spelling
from ..project import Project
from . import intake
from .intake import WheelName

__all__ = [
    "DEFAULT_LIMIT",
    "Line",
    "Named",
    "byte_count",
    "check_agreement",
    "check_licences",
    "check_order",
    "check_sizes",
    "check_unchanged",
    "named",
    "shown_size",
]

DEFAULT_LIMIT = 2 << 30  # what GitHub takes as one asset of a release
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_REBUILD = "build it again"


@dataclass(frozen=True)
class Line:
    """One line of the gate's report.

    Attributes:
        check: which one.
        about: a file, a variant, or all of them.
        what: what was found.
        passed: whether it is right.
        fix: what to do where it is not.
    """

    check: str
    about: str
    what: str
    passed: bool
    fix: str = ""

    def as_dict(self) -> dict[str, str | bool]:
        """For ``--json``."""
        return dict(vars(self))


@dataclass(frozen=True)
class Named:
    """What the name of an artifact says.

    Attributes:
        file: the name.
        name: of the package or distribution.
        label: what follows.
        conda: the version as it is spelled in a conda package's name; empty for a wheel.
        pip: the whole version of a wheel; empty for a conda package.
    """

    file: str
    name: str
    label: Label
    conda: str = ""
    pip: str = ""

    @property
    def variant(self) -> tuple[object, ...]:
        """What it is a version of: the kind, the name, and the label's fields but the commit."""
        fields = tuple(item for item in self.label.values if item[0] != "commit")
        return bool(self.pip), self.name, fields

    @property
    def commit(self) -> str:
        """That its label has; empty without one."""
        return self.label.get("commit") or ""

    @property
    def is_nightly(self) -> bool:
        """Whether its version says that it is a development version."""
        return Version(self.label.version).is_devrelease


def named(file: str, project: Project) -> Named:
    """What the name of an artifact says.

    Raises:
        LabelError: the project gives no such name.
    """
    if file.endswith(".whl"):
        wheel = WheelName.of(file, project)
        return Named(file, wheel.project, wheel.label, pip=wheel.version)
    name, label = intake.package_label(file, project)
    return Named(file, name, label, conda=file[len(name) + 1 :].partition("-")[0])


def byte_count(text: str) -> int:
    """The bytes of ``2GiB``, ``300 MiB`` or ``5000``.

    >>> byte_count("2GiB"), byte_count("1.5 MiB"), byte_count("5000")
    (2147483648, 1572864, 5000)

    Raises:
        ConfigError: it is no size.
    """
    plain = text.strip().upper().removesuffix("B").removesuffix("I").strip()
    unit = plain[-1:] if plain[-1:] in _UNITS else ""
    try:
        count = int(float(plain.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        raise ConfigError(f"{text!r} is no size", expected="a size such as 2GiB, 300MiB or 5000")
    return count


def shown_size(size: int) -> str:
    """A size for people.

    >>> shown_size(3 << 30), shown_size(1536), shown_size(12)
    ('3.0 GiB', '1.5 KiB', '12 B')
    """
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def check_agreement(items: Sequence[Named], *, nightly: bool | None = None) -> list[Line]:
    """One release has one version, one build number and one commit, or none.

    Args:
        items: all of it.
        nightly: whether it should be one; None where that is not known.
    """
    if not items:
        return []
    spelled = {item.file: _agreed(item) for item in items}
    [(usual, _)] = Counter(spelled.values()).most_common(1)
    lines = [
        Line(
            "labels",
            file,
            text,
            False,
            f"the others are {usual}: keep the files of one release in one folder",
        )
        for file, text in spelled.items()
        if text != usual
    ]
    for item in items:
        if nightly is None or spelled[item.file] != usual:
            continue
        if nightly and not (item.is_nightly and item.commit):
            what = "is no nightly: its label has no day and commit"
            lines.append(Line("labels", item.file, what, False, "build it with --nightly"))
        if not nightly and (item.is_nightly or item.commit):
            what = "is a nightly"
            fix = f"{_REBUILD} without --nightly, from the tagged commit"
            lines.append(Line("labels", item.file, what, False, fix))
    return lines or [Line("labels", f"{len(items)} files", usual, True)]


def _agreed(item: Named) -> str:
    """What all artifacts of a release share."""
    label = item.label
    return f"{label.version} build {label.number}" + (f" g{item.commit}" if item.commit else "")


def check_sizes(paths: Iterable[Path], limit: int = DEFAULT_LIMIT) -> list[Line]:
    """No file is larger than what it is to be served from takes."""
    sizes = {path: path.stat().st_size for path in paths}
    lines = [
        Line(
            "size",
            path.name,
            f"{shown_size(size)}, over {shown_size(limit)}",
            False,
            "build for fewer GPU architectures; or raise --max-size where the target takes more",
        )
        for path, size in sizes.items()
        if size > limit
    ]
    largest = max(sizes.values(), default=0)
    what = f"at most {shown_size(largest)}, of {shown_size(limit)}"
    return lines or [Line("size", f"{len(sizes)} files", what, True)]


def check_unchanged(paths: Iterable[Path], published: Mapping[str, Iterable[str]]) -> list[Line]:
    """No name is published with other bytes.

    Args:
        paths: of the release.
        published: under which sha256 each name is published.
    """
    lines, same = [], 0
    for path in paths:
        known = set(published.get(path.name, ()))
        digest = file_sha256(path) if known else ""
        if known and digest not in known:
            what = f"is published with sha256 {min(known)[:12]}..., and has {digest[:12]}..."
            fix = "raise the build number: what is published is never replaced"
            lines.append(Line("published", path.name, what, False, fix))
        same += digest in known
    what = f"{same} of them published, with the same bytes"
    return lines or [Line("published", f"{len(list(paths))} files", what, True)]


def check_licences(paths: Iterable[Path]) -> list[Line]:
    """Every artifact says its licence and has the text of it."""
    lines, count = [], 0
    for path in paths:
        count += 1
        try:
            stated, texts = _licence(path)
        except BridgeError as error:
            lines.append(Line("licences", path.name, f"cannot be read: {error}", False, _REBUILD))
            continue
        lacking = [
            word for word, there in (("licence", stated), ("licence file", texts)) if not there
        ]
        if lacking:
            what = f"has no {' and no '.join(lacking)}"
            fix = "name both in the recipe and in pyproject.toml (license, license-files)"
            lines.append(Line("licences", path.name, what, False, fix))
    return lines or [Line("licences", f"{count} files", "a licence and its text in each", True)]


def _licence(path: Path) -> tuple[bool, bool]:
    """Whether an artifact says its licence, and whether it has the text."""
    if path.suffix != ".whl":
        package = conda_package.read(path)
        return bool(package.index.get("license")), any(package.licenses.values())
    wheel = wheel_reader.read(path)
    said = wheel.metadata.get("License-Expression") or wheel.metadata.get("License")
    members = {item.path for item in wheel.members}
    texts = [
        name
        for name in wheel.metadata.get_all("License-File", [])
        if {f"{wheel.dist_info}/licenses/{name}", f"{wheel.dist_info}/{name}"} & members
    ]
    return bool(said), bool(texts)


# ---------------------------------------------------------------- order


def check_order(items: Sequence[Named], published: Sequence[Named]) -> list[Line]:
    """A nightly is what an upgrade takes; and pip and conda agree on what is newer.

    A nightly has to be above every release and every other nightly of its variant that is
    published, for pip and for conda. A release may be below one: it may be of an older line.

    Args:
        items: the release.
        published: everything that is.
    """
    lines = []
    known: dict[tuple[object, ...], list[Named]] = {}
    for item in published:
        known.setdefault(item.variant, []).append(item)
    for item in items:
        others = [other for other in known.get(item.variant, ()) if other.file != item.file]
        lines += _order_of(item, others)
    what = f"above all of {len(published)} published, for pip and for conda"
    if not any(item.is_nightly for item in items):
        what = f"pip and conda agree on it, beside {len(published)} published"
    return lines or [Line("order", f"{len(items)} files", what, True)]


def _order_of(item: Named, others: Sequence[Named]) -> list[Line]:
    """The first of the published files that stands in the wrong place to one."""
    label = item.label
    for other in others:
        pip, conda = _compared(item, other)
        if pip != conda:
            word = {-1: "below", 0: "the same as", 1: "above"}
            what = f"is {word[pip]} {other.file} to pip, and {word[conda]} it to conda"
            fix = f"spell conda's version {conda_spelling(label.version)}"
            return [Line("order", item.file, what, False, fix)]
        if not item.is_nightly:
            continue
        if pip < 0:
            what = f"is below {other.file}, which is published: no upgrade takes it"
            fix = (
                "set the version to the release that comes next"
                if not other.is_nightly
                or other.label.version.partition(".dev")[0] != (label.version.partition(".dev")[0])
                else "build the nightly of a newer day"
            )
            return [Line("order", item.file, what, False, fix)]
        if pip == 0 and item.commit != other.commit:
            what = f"has the version of {other.file}, and another commit: no installer knows which"
            return [Line("order", item.file, what, False, "build the nightly of another day")]
    return []


def _compared(item: Named, other: Named) -> tuple[int, int]:
    """How two versions compare, -1, 0 or 1, for pip and for conda."""
    pip = _sign(Version(item.label.version), Version(other.label.version))
    spelled = [one.conda or conda_spelling(one.label.version) for one in (item, other)]
    return pip, _sign(_conda(spelled[0]), _conda(spelled[1]))


def _sign(one: Any, other: Any) -> int:
    return int(other < one) - int(one < other)


@functools.cache
def _conda(version: str) -> object:
    import rattler

    return rattler.Version(version)
