"""What version constraints accept: of conda packages by rattler's rules, of wheels by pip's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packaging.specifiers import SpecifierSet

from ..formats import foreign
from ..formats.conda_package import CondaPackage
from .findings import ArtifactReport

__all__ = [
    "accepts",
    "before",
    "holds_only",
    "is_exact",
    "pip_holds_only",
    "pythons",
    "shown",
    "specs",
]

Spec = Any  # rattler.MatchSpec, which has no types
# Python 2.7, Python 3 since its stable ABI, and some that are to come.
_PYTHONS = ((2, 7), *((3, minor) for minor in range(2, 30)))


def specs(report: ArtifactReport, package: CondaPackage, key: str) -> dict[str, list[Spec]]:
    """``depends`` or ``constrains`` by package name; what cannot be read is a finding."""
    member = f"info/index.json: {key}"
    listed = package.index.get(key, [])
    found: dict[str, list[Spec]] = {}
    for text in listed if isinstance(listed, list) else [listed]:
        try:
            spec = foreign.match_spec(text)
        except foreign.Unreadable as error:
            report.add("dependencies", f"{text!r:.200} is no requirement: {error}", member=member)
            continue
        found.setdefault(spec.name.normalized, []).append(spec)
    return found


def shown(found: list[Spec]) -> str:
    """As they are written, with commas between them."""
    return ", ".join(str(spec) for spec in found)


def accepts(found: list[Spec], *versions: str) -> bool:
    """Whether every spec accepts every version."""
    for spec in found:
        if spec.version is None:
            continue
        accepted = foreign.version_spec(str(spec.version))
        if not all(accepted.matches(foreign.conda_version(version)) for version in versions):
            return False
    return True


def is_exact(spec: Spec, version: str, build: str) -> bool:
    """Whether a spec names this version and this build, and no other."""
    return str(spec.version or "").lstrip("=") == version and str(spec.build or "") == build


def before(release: tuple[int, ...]) -> str:
    """A version just below a release, also of the first one of its major; empty below the first.

    >>> before((2, 13)), before((3, 0)), before((0, 0))
    ('2.12.9999', '2.9999', '')
    """
    numbers = list(release)
    while numbers and not numbers[-1]:
        numbers.pop()
    if not numbers:
        return ""
    return ".".join(map(str, (*numbers[:-1], numbers[-1] - 1, 9999)))


def _holds_only(release: tuple[int, ...], accepted: Callable[[str], bool]) -> bool:
    """Whether the versions of a release are accepted, and no neighbour's.

    >>> _holds_only((3, 0), lambda version: version.startswith("3.0."))
    True
    >>> _holds_only((3, 0), lambda version: True)
    False
    """
    text = ".".join(map(str, release))
    next_release = ".".join(map(str, (*release[:-1], release[-1] + 1, 0)))
    inside = (f"{text}.0", f"{text}.9")
    outside = (next_release, before(release), f"{release[0] + 1}.0.0")
    return all(map(accepted, inside)) and not any(map(accepted, filter(None, outside)))


def holds_only(found: list[Spec], release: tuple[int, ...]) -> bool:
    """Whether conda accepts the versions of a release, and no neighbour's."""
    constrained = any(spec.version is not None for spec in found)
    return constrained and _holds_only(release, lambda version: accepts(found, version))


def pip_holds_only(specifier: SpecifierSet, release: tuple[int, ...]) -> bool:
    """Whether pip accepts the versions of a release, local ones too, and no neighbour's."""
    local = ".".join(map(str, (*release, 1))) + "+local"
    return _holds_only(release, specifier.__contains__) and local in specifier


def pythons(accepted: Callable[[str], bool]) -> list[tuple[int, int]]:
    """The minors of Python of which a constraint accepts some release.

    >>> pythons(SpecifierSet(">=3.8,!=3.9.*,<3.12").__contains__)
    [(3, 8), (3, 10), (3, 11)]
    """
    return [
        (major, minor)
        for major, minor in _PYTHONS
        if any(accepted(f"{major}.{minor}.{patch}") for patch in (0, 5, 30))
    ]
