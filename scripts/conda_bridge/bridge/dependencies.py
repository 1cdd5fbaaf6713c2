"""Which pip requirement says what a conda dependency says.

Both sides have versions, comparisons and wildcards, and mean other things by some of them:

======================  ======================  ====================================================
conda                   pip                     why
======================  ======================  ====================================================
``1.2``                 ``==1.2``
``=1.2``, ``1.2.*``     ``==1.2.*``
``>=1.2,<2.0a0``        ``>=1.2,<2``            pip's ``<2`` leaves out the pre-releases of 2 itself
``>1.0``                ``>=1.0,!=1.0``         pip's ``>1.0`` leaves out ``1.0.post1``
``1.2.*|1.3.*``         ``>=1.2,<1.4``          ranges that meet are one
``<2|>=3``              ``!=2.*`` and so on     a gap that is one series
``1.2|2.0``             none                    pip cannot say "or"
``>=2024a``             none                    PEP 440 takes it for a pre-release of 2024
======================  ======================  ====================================================
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from ..errors import ArtifactError, LabelError
from ..formats import foreign
from ..label import public_version
from ..project import Project
from .names import find_pip

__all__ = [
    "PROVIDED_BY",
    "MatchSpec",
    "Translated",
    "may_be_library",
    "pip_requirement",
    "pip_specifier",
    "translate",
]

_STRANGER = Project()
# Builds of a conda package that pip tells apart by the index, or by what the user has.
_OF_EITHER_KIND = {"torch": ("*cuda*", "cuda*", "*cpu*", "cpu*")}
# Shared libraries that projects on PyPI bring, and that others are built to be loaded with.
PROVIDED_BY = {
    "torch": (
        *("libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libtorch_python.so"),
        *("libc10.so", "libc10_cuda.so", "libshm.so"),
    ),
    "pyarrow": ("libarrow.so.*", "libarrow_*.so.*", "libparquet.so.*"),
}
# How conda says "before any pre-release of 2.0".
_CEILING = re.compile(r"(?P<release>(?:\d+!)?\d+(?:\.\d+)*)\.?(?:a|alpha|dev)0?", re.ASCII)
_PART = re.compile(r"(?P<operator>>=|<=|==|!=|~=|>|<)?(?P<version>[0-9][^\s,|()=<>!~]*)")
_FIX = (
    'say the whole requirement in [tool.conda-bridge.dependencies]: {name} = "<name on PyPI>'
    '<comparison>", such as tzdata = "tzdata>=2024.1"'
)


@dataclass(frozen=True)
class MatchSpec:
    """A conda dependency, as ``index.json`` has it.

    Attributes:
        name: of the package.
        version: the version constraint; empty for any.
        build: the build string; empty for any.
    """

    name: str
    version: str
    build: str

    @classmethod
    def parse(cls, text: str, where: str) -> MatchSpec:
        """Reads ``name [version [build]]``, or the same with brackets.

        Raises:
            ArtifactError: no dependency, or one on a channel, a file or a condition.
        """
        expected = "name, version and build, separated by spaces"
        try:
            found = foreign.match_spec(text)
        except foreign.Unreadable as error:
            raise ArtifactError(
                f"{text!r:.200} is no dependency: {error}", where=where, expected=expected
            ) from error
        name = found.name.normalized
        version = "" if found.version is None else str(found.version)
        more = {
            "a channel": found.channel,
            "a namespace": found.namespace,
            "a subdir": found.subdir,
            "a build number": found.build_number,
            "a file": found.file_name,
            "a digest": found.md5 or found.sha256,
            "a condition": found.condition,
            "extras": found.extras,
        }
        for what, value in more.items():
            if value:
                raise ArtifactError(
                    f"{text!r:.200} asks for {what}, which pip has no word for",
                    where=where,
                    expected=expected,
                )
        build = str(found.build or "")
        if not name or " " in build:
            raise ArtifactError(f"{text!r:.200} is no dependency", where=where, expected=expected)
        return cls(name, "" if version == "*" else version, "" if build == "*" else build)

    def __str__(self) -> str:
        return " ".join(part for part in (self.name, self.version, self.build) if part)

    @property
    def exact(self) -> tuple[str, str] | None:
        """Version and build of ``name 1.0 h_0``; None for a spec that more packages fit."""
        version = self.version.removeprefix("==")
        plain = re.fullmatch(r"[0-9][^\s,|()=<>!~*]*", version)
        return (version, self.build) if plain and self.build and "*" not in self.build else None

    def matches(self, version: str, build: str) -> bool:
        """Whether a package with this version and build string is one of those asked for."""
        if self.version:
            asked = foreign.version_spec(self.version)
            try:
                if not asked.matches(foreign.conda_version(version)):
                    return False
            except foreign.Unreadable:  # a package of no version is none that was asked for
                return False
        return not self.build or fnmatch.fnmatchcase(build, self.build)


@dataclass(frozen=True)
class Translated:
    """What became of a dependency.

    Attributes:
        requirement: for pip; None where it needs none.
        why: who says so, or why none is needed.
        library: it was left out because it is no Python project, which the binaries have to prove.
    """

    requirement: str | None
    why: str
    library: bool = False


# ---------------------------------------------------------------- versions


def pip_specifier(version: str, where: str, name: str = "") -> str:
    """The PEP 440 specifier of a conda version constraint: ``2.13.*`` is ``==2.13.*``.

    Args:
        version: the constraint.
        where: the package, for messages.
        name: the dependency, for the way out.

    Raises:
        ArtifactError: what pip cannot say: alternatives that are no one range, or versions that
            PEP 440 does not have.
    """
    if not version or version == "*":
        return ""
    fix = _FIX.format(name=name or "<name>")
    try:
        plain = str(foreign.version_spec(version))
    except foreign.Unreadable as error:
        raise ArtifactError(
            f"pip has no form for the version {version!r}: {error}",
            where=where,
            expected="comparisons joined by commas",
            fix=fix,
        ) from error
    try:
        ranges = [_specifiers(part, where) for part in plain.split("|")]
        if len(ranges) > 1:
            ranges = [_one_range(ranges)]
        for specifier in ranges[0]:
            foreign.specifiers(specifier)
    except ValueError as error:
        raise ArtifactError(
            f"pip has no form for the version {version!r}: {error}",
            where=where,
            expected="comparisons joined by commas",
            fix=fix,
        ) from error
    # In the order written: a set has none of its own.
    return ",".join(ranges[0])


def _specifiers(text: str, where: str) -> list[str]:
    """The comparisons of one alternative, as pip has them."""
    if "(" in text or ")" in text:
        raise ValueError("it has groups")
    found: list[str] = []
    for part in filter(None, text.split(",")):
        if part == "*":
            continue
        match = _PART.fullmatch(part)
        if not match:
            raise ValueError(f"{part!r} is no comparison")
        found += _comparison(match["operator"] or "==", match["version"], where)
    return found


def _comparison(operator: str, version: str, where: str) -> list[str]:
    series = version.endswith(".*")
    ceiling = _CEILING.fullmatch(version)
    if operator == "<" and ceiling:
        release = ceiling["release"]
        while release.endswith(".0"):
            release = release.removesuffix(".0")
        return [f"<{release}"]
    try:
        spelled = public_version(version.removesuffix(".*"), where)
    except LabelError as error:
        raise ValueError(f"{version!r} is no version that pip reads as conda does") from error
    if series and operator in ("==", "!="):
        return [f"{operator}{spelled}.*"]
    if operator == ">":
        return [f">={spelled}", f"!={spelled}"]
    return [f"{operator}{spelled}"]


# ---------------------------------------------------------------- alternatives


def _one_range(alternatives: Sequence[Sequence[str]]) -> list[str]:
    """Alternatives as one list of comparisons.

    Raises:
        ValueError: they are no one range, or one with a gap that is no series.
    """
    ranges = [_bounds(item) for item in alternatives]
    if any(high is not None and low >= high for low, high in ranges):
        raise ValueError("one of the alternatives allows nothing")
    ranges.sort(key=lambda item: (item[0], item[1] is None, item[1] or ()))
    merged = [ranges[0]]
    for low, high in ranges[1:]:
        before = merged[-1]
        if before[1] is None or low <= before[1]:
            highest = None if before[1] is None or high is None else max(before[1], high)
            merged[-1] = (before[0], highest)
        else:
            merged.append((low, high))
    gaps = []
    for (_, end), (start, _) in itertools.pairwise(merged):
        assert end is not None
        if _next(end) != start:
            raise ValueError("pip has no word for 'or'")
        gaps.append(f"!={_text(end)}.*")
    low, high = merged[0][0], merged[-1][1]
    return [
        *([f">={_text(low)}"] if low else []),
        *([f"<{_text(high)}"] if high else []),
        *gaps,
    ]


_Release = tuple[int, ...]


def _bounds(specifiers: Sequence[str]) -> tuple[_Release, _Release | None]:
    """From where to before where; () for the beginning, None for no end."""
    low: _Release = ()
    high: _Release | None = None
    for text in specifiers:
        operator, version = re.fullmatch(r"(\D+)(.*)", text).groups()  # type: ignore[union-attr]
        parsed = foreign.pip_version(version.removesuffix(".*"))
        release = parsed.release
        if str(parsed) != ".".join(map(str, release)):
            raise ValueError("pip has no word for 'or'")
        if operator == ">=":
            low = max(low, release)
        elif operator == "<":
            high = release if high is None else min(high, release)
        elif operator == "==" and version.endswith(".*"):
            low = max(low, release)
            end = _next(release)
            high = end if high is None else min(high, end)
        else:
            raise ValueError("pip has no word for 'or'")
    return low, high


def _next(release: _Release) -> _Release:
    return (*release[:-1], release[-1] + 1)


def _text(release: _Release) -> str:
    return ".".join(map(str, release))


# ---------------------------------------------------------------- requirements


def translate(
    spec: MatchSpec,
    where: str,
    *,
    project: Project = _STRANGER,
    mapping: Mapping[str, str | None] | None = None,
    required: Collection[str] = (),
) -> Translated:
    """The ``Requires-Dist`` of a conda dependency.

    Args:
        spec: the dependency.
        where: the package, for messages.
        project: whose configuration and hooks have a word in it.
        mapping: the user's names, before all others.
        required: the names in the package's own ``Requires-Dist``.

    Raises:
        ArtifactError: a dependency that nobody has said a name for, or a version or build that pip
            has no form for.
    """
    hooked = project.hooks.requirement(spec)
    if hooked is not None:
        return Translated(_valid(hooked, where), "the project's hooks say so")
    said = project.config.dependencies.get(spec.name)
    whole = said if isinstance(said, str) and (mapping is None or spec.name not in mapping) else ""
    if whole and re.search(r"[^A-Za-z0-9._-]", whole):
        return Translated(_valid(whole, where), "the configuration says so")
    answer = find_pip(spec.name, project, mapping, required=required, where=where)
    if answer.name is None:
        told = said is not None or (mapping is not None and spec.name in mapping)
        return Translated(None, answer.why, library=not told and _is_library(spec.name))
    builds = _OF_EITHER_KIND.get(canonicalize_name(answer.name), ())
    if spec.build and spec.build not in builds:
        raise ArtifactError(
            f"depends on the build {spec.build!r} of {spec.name}; pip knows no builds",
            where=where,
            expected=" ".join((spec.name, spec.version)).strip(),
            fix=_FIX.format(name=spec.name),
        )
    text = f"{answer.name}{pip_specifier(spec.version, where, spec.name)}"
    return Translated(_valid(text, where), answer.why)


def pip_requirement(
    spec: MatchSpec,
    where: str,
    *,
    project: Project = _STRANGER,
    mapping: Mapping[str, str | None] | None = None,
    required: Iterable[str] = (),
) -> str | None:
    """As :func:`translate`, the requirement alone."""
    return translate(
        spec, where, project=project, mapping=mapping, required=tuple(required)
    ).requirement


# Runtimes that every manylinux policy has or that its symbol versions speak of; their absence from
# a wheel's requirements has to be proved by nothing else.
_PROMISED = re.compile(
    r"_.*|python_abi|python-abi3|cpython|pypy|python-gil|libgcc(-ng)?|libstdcxx(-ng)?|cuda-version"
)


def may_be_library(
    spec: MatchSpec, project: Project, mapping: Mapping[str, str | None] | None
) -> bool:
    """Whether a dependency becomes no requirement and may bring a library that a binary needs."""
    if spec.name == "python" or spec.name in project.folds:
        return False
    try:
        return translate(spec, "", project=project, mapping=mapping).library
    except ArtifactError:
        return False  # said later, when all that can be known of it is


def _is_library(name: str) -> bool:
    return not _PROMISED.fullmatch(name)


def _valid(text: str, where: str) -> str:
    try:
        foreign.requirement(text)
    except foreign.Unreadable as error:
        raise ArtifactError(f"{text!r} is no requirement: {error}", where=where) from error
    return text
