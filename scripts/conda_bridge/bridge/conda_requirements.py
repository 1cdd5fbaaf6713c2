"""What a wheel requires, as dependencies of its conda package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import ArtifactError
from ..formats import foreign
from ..project import Project
from .conda_constraint import constraint
from .conda_target import MACHINES, Target
from .names import find_conda

__all__ = ["Requirements", "read_requirements"]

# What a marker may ask of a system, beside its Python.
_SYSTEMS = {
    "linux": {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"},
    "darwin": {"os_name": "posix", "sys_platform": "darwin", "platform_system": "Darwin"},
    "win32": {"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows"},
}
_MACHINES = {
    "linux": ("x86_64", "aarch64"),
    "darwin": ("x86_64", "arm64"),
    "win32": ("AMD64", "ARM64"),
}


@dataclass
class Requirements:
    """What became of the requirements.

    Attributes:
        depends: for ``index.json``.
        dropped: requirement -> why it is no dependency: an extra's, another platform's.
        names: in conda -> the project's name on PyPI, of every dependency.
        remarks: what a person should know of the choice.
        linux_only: whether a marker asks for the system, and the answer for Linux was taken.
    """

    depends: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    linux_only: bool = False


def read_requirements(
    texts: Iterable[str],
    target: Target,
    project: Project,
    mapping: Mapping[str, str | None] | None,
    where: str,
) -> Requirements:
    """The dependencies that ``Requires-Dist`` means on `target`.

    A marker is evaluated for every Python and machine that the package can be installed on. A
    requirement of some of them becomes a dependency of all: conda has one list, and a project too
    many does less harm than one that is missing.

    Args:
        texts: the values of ``Requires-Dist``.
        target: what the package is for.
        project: whose configuration has names.
        mapping: the user's own names.
        where: the wheel, for messages.

    Raises:
        ArtifactError: no requirement, one by address, one without a name in conda, or requirements
            of different Pythons that exclude each other.
    """
    found = Requirements()
    needed: list[tuple[Requirement, bool]] = []
    for text in texts:
        requirement = _parsed(text, where)
        verdicts = _verdicts(requirement.marker, target, found, where)
        if not any(verdicts):
            asks_extra = requirement.marker is not None and "extra" in str(requirement.marker)
            found.dropped[str(requirement)] = (
                "of an extra, which conda does not have" if asks_extra else "not on this target"
            )
            continue
        if requirement.url:
            raise ArtifactError(
                f"requires {requirement.name} by its address, {requirement.url}",
                where=f"{where}: Requires-Dist",
                expected="a name and a version: conda finds packages in channels",
                fix="make a conda package of that wheel too, and build this one to require it by "
                "its version",
            )
        needed.append((requirement, all(verdicts)))
        if not all(verdicts):
            found.remarks.append(
                f"{str(requirement)!r} is required everywhere: one package serves all of "
                f"{_range(target)}, and conda has no markers"
            )
    _check_agree(needed, where)
    for requirement, _everywhere in needed:
        _add(requirement, found, project, mapping, where)
    found.depends = sorted(set(found.depends))
    return found


def _parsed(text: str, where: str) -> Requirement:
    try:
        return foreign.requirement(text)
    except foreign.Unreadable as error:
        raise ArtifactError(
            f"{text[:200]!r} is no requirement: {error}", where=f"{where}: Requires-Dist"
        ) from error


def _add(
    requirement: Requirement,
    found: Requirements,
    project: Project,
    mapping: Mapping[str, str | None] | None,
    where: str,
) -> None:
    answer = find_conda(requirement.name, project, mapping, where=f"{where}: Requires-Dist")
    assert answer.name is not None
    bounds = constraint(requirement.specifier, f"{where}: Requires-Dist: {requirement}")
    found.depends.append(f"{answer.name} {bounds}".strip())
    found.names[answer.name] = str(canonicalize_name(requirement.name))
    if answer.assumed:
        found.remarks.append(f"{answer.name!r} is taken to have the same name in conda as on PyPI")
    if requirement.extras:
        found.remarks.append(
            f"{str(requirement)!r}: conda has no extras; what "
            f"[{','.join(sorted(requirement.extras))}] requires is not among the dependencies"
        )
    if any("+" in item.version for item in requirement.specifier):
        found.remarks.append(
            f"{str(requirement)!r}: the local version tells pip's builds apart and is left out"
        )


def _evaluated(marker: Marker, environment: dict[str, str], where: str) -> bool:
    try:
        return foreign.evaluate(marker, environment)
    except foreign.Unreadable as error:
        raise ArtifactError(
            f"the marker {str(marker)[:200]!r} says nothing: {error}",
            where=f"{where}: Requires-Dist",
            expected="comparisons of what there is, as in PEP 508",
        ) from error


def _verdicts(marker: Marker | None, target: Target, found: Requirements, where: str) -> list[bool]:
    """What the marker says in each environment that the package can get into."""
    if marker is None:
        return [True]
    systems = {
        system: [
            _evaluated(
                marker, {**environment, **values, "platform_machine": machine, "extra": ""}, where
            )
            for environment in _pythons(target)
            for machine in (
                [MACHINES[target.subdir]] if target.subdir in MACHINES else _MACHINES[system]
            )
        ]
        for system, values in _SYSTEMS.items()
    }
    here = systems["linux"]
    if target.subdir == "noarch" and any(
        answers != here for system, answers in systems.items() if system != "linux"
    ):
        # Machines have other names elsewhere, so only what differs as a whole asks for the system.
        found.linux_only = True
    return here


def _pythons(target: Target) -> list[dict[str, str]]:
    return [
        {
            "python_version": f"3.{minor}",
            "python_full_version": f"3.{minor}.{patch}",
            "implementation_version": f"3.{minor}.{patch}",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_version": "",
        }
        for minor in target.minors
        for patch in (0, 99)
    ]


def _range(target: Target) -> str:
    first, last = target.minors[0], target.minors[-1]
    return f"Python 3.{first}" + ("" if first == last else " and later")


def _check_agree(needed: Sequence[tuple[Requirement, bool]], where: str) -> None:
    """Requirements of different Pythons hold all at once; some version has to be left."""
    by_name: dict[str, list[tuple[Requirement, bool]]] = {}
    for item in needed:
        by_name.setdefault(str(canonicalize_name(item[0].name)), []).append(item)
    for name, items in by_name.items():
        if all(everywhere for _, everywhere in items):
            continue
        together = SpecifierSet(",".join(str(item.specifier) for item, _ in items))
        if not any(together.contains(one, prereleases=True) for one in _candidates(together)):
            texts = " and ".join(repr(str(item)) for item, _ in items)
            raise ArtifactError(
                f"requires {texts}, and no version of {name} is both",
                where=f"{where}: Requires-Dist",
                expected="requirements that one list of dependencies can hold",
                fix="conda has no markers: make the package of a wheel for one Python",
            )


def _candidates(specifiers: SpecifierSet) -> Iterable[Version]:
    """Versions at, just above and just below each bound."""
    yield Version("0")
    for item in specifiers:
        try:
            version = foreign.pip_version(item.version.removesuffix(".*"))
        except foreign.Unreadable:  # `===` compares texts, and no other version is that
            continue
        epoch = f"{version.epoch}!" if version.epoch else ""
        yield version
        yield Version(f"{epoch}{'.'.join(map(str, version.release))}.0.1")
        for place in range(len(version.release)):
            for step in (-1, 1):
                numbers = [*version.release[:place], version.release[place] + step]
                if numbers[-1] >= 0:
                    above = ".".join(map(str, numbers))
                    yield Version(f"{epoch}{above}")
                    yield Version(f"{epoch}{above}.9999")
