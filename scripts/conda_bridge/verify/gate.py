"""The release gate: is everything that a wheel and a conda package say of themselves true?

Findings are data (:mod:`.findings`); ``scripts/verify.py`` prints them. docs/verify.md
lists the checks.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..bridge import names, runpath
from ..errors import ArtifactError, BridgeError
from ..formats import foreign
from ..formats.conda_package import CondaPackage
from ..formats.member_names import check_path
from ..formats.wheel_reader import Wheel, file_sha256
from ..label import CONDA_ENDINGS, Label, split_conda_file
from ..project import Project
from ..system.failure import stage
from .artifact import Artifact, Payload
from .binary import member_of
from .conda import check_conda
from .findings import ArtifactReport, Finding, Report
from .names import describe
from .places import ARCH_SITE, places_of
from .requirements import accepts
from .wheel import check_wheel

__all__ = ["ArtifactReport", "Finding", "Report", "as_lines", "collect", "verify"]

_ENDINGS = (*CONDA_ENDINGS, ".whl")
_EXPECTED = f"{', '.join(CONDA_ENDINGS)} or .whl"
# Programs with a first line of their own, and libraries of the prefix under their SONAMEs.
_MADE_BY_THE_BRIDGE = re.compile(r"[^/]+\.libs/|\.data/(scripts/|data/lib/[^/]+\.so)", re.ASCII)
_STRANGER = Project()


class _Package(NamedTuple):
    """A conda package that was read, with what was found in it."""

    artifact: Artifact
    report: ArtifactReport


def collect(paths: Iterable[Path]) -> list[Path]:
    """The artifacts among `paths`: files as they are, folders searched through.

    Raises:
        ArtifactError: a path that does not exist, a file of another kind, or a folder with none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        check_path(path)
        if path.is_dir():
            inside = sorted(
                item
                for item in path.rglob("*")
                if item.name.endswith(_ENDINGS) and item.is_file() and item.name[0] != "."
            )
            if not inside:
                raise ArtifactError(
                    f"no {' and no '.join(_ENDINGS)} in this folder",
                    where=str(path),
                    expected=f"a folder that holds {_EXPECTED}",
                )
            found.update(dict.fromkeys(inside))
        elif not path.is_file():
            raise ArtifactError(
                "there is no such file or folder",
                where=str(path),
                expected=f"{_EXPECTED}, or a folder that holds some",
            )
        elif not path.name.endswith(_ENDINGS):
            raise ArtifactError(
                "neither a conda package nor a wheel", where=str(path), expected=_EXPECTED
            )
        else:
            found[path] = None
    return list(found)


def verify(
    paths: Sequence[Path], *, project: Project = _STRANGER, arch_list: str | None = None
) -> Report:
    """Checks every artifact by itself, then each wheel against the packages of its label.

    Args:
        paths: files and folders.
        project: whose artifacts they should be; without one, anybody's.
        arch_list: the GPU architectures that were asked for (``8.0+PTX;9.0a``); None compares the
            code inside with nothing but what the artifacts themselves say.

    Returns:
        What was proved and found. An artifact that cannot be read is in it with its error.

    Raises:
        ArtifactError: there is nothing to look at.
        ConfigError: `arch_list` is not a list of architectures.
    """
    if arch_list is not None:
        from ..formats.fatbin import expected_codes

        expected_codes(arch_list, "the architectures that were asked for")
    reports = []
    wheels: list[Artifact] = []  # one label may have several platform tags
    packages: dict[tuple[str, str], _Package] = {}
    for path in collect(paths):
        report = ArtifactReport(path.name, "wheel" if path.suffix == ".whl" else "conda")
        reports.append(report)
        try:
            check = check_wheel if path.suffix == ".whl" else check_conda
            with stage("checking", path):
                artifact = check(path, report, project, arch_list=arch_list)
                project.hooks.verify(artifact, report)
                artifact = artifact.checked()
            if artifact.kind == "wheel":
                wheels.append(artifact)
                continue
            key = (str(package_of(artifact).index.get("subdir")), split_conda_file(path.name)[0])
            made = _Package(artifact, report)
            first = packages.setdefault(key, made)
            if first is not made:
                _check_same_files(first.artifact, made, project)
        except BridgeError as error:
            report.error = error
    mains = [item for item in packages.values() if item.artifact.name not in project.folds]
    for wheel in wheels:
        main = _main_of(wheel, [item.artifact for item in mains], project)
        folds = _folds_of(wheel.label, main, packages.values(), project)
        given = [*([main] if main else []), *(item.artifact for item in folds)]
        if given:
            with stage("comparing with its conda packages", wheel.path):
                reports.append(_check_pair(wheel, given, project))
    for item in mains:
        folds = _folds_of(item.artifact.label, item.artifact, packages.values(), project)
        if folds:
            with stage("comparing with what is folded in", item.artifact.path):
                project.hooks.verify_together(item.report, [fold.report for fold in folds])
    return Report(tuple(reports))


def package_of(artifact: Artifact) -> CondaPackage:
    """The conda package that was read."""
    assert isinstance(artifact.source, CondaPackage)
    return artifact.source


def _main_of(wheel: Artifact, packages: Sequence[Artifact], project: Project) -> Artifact | None:
    """The package that the wheel should hold the files of; None where it is not given.

    Where labels say little, several packages may have the wheel's name and version, one for each
    Python; then it is the one whose site-packages is that of the wheel's tag.
    """
    found = []
    for package in packages:
        if project.config.package:
            same_name = package.name == project.config.package
        else:
            same_name = _is_same_project(package.name, wheel.name, project)
        if project.scheme.build is not None:
            same_label = package.label == wheel.label
        else:
            same_label = package.label.version == wheel.label.version
        if same_name and same_label:
            found.append(package)
    if len(found) > 1:
        assert isinstance(wheel.source, Wheel)
        pythons = wheel.source.tags[0].split(".")
        found = [
            package
            for package in found
            if (python := _python_of(package)) == "" or f"cp{python}" in pythons
        ]
    return found[0] if len(found) == 1 or (found and project.scheme.build is not None) else None


def _is_same_project(conda: str, pip: str, project: Project) -> bool:
    try:
        return names.conda_name(pip, project) == conda
    except ArtifactError:  # conda has that name for something else
        return False


def _python_of(package: Artifact) -> str:
    """The digits of the Python whose site-packages it has, ``311``; empty for any."""
    for path in package_of(package).paths:
        found = ARCH_SITE.match(path)
        if found:
            return found[1] + found[2]
    return ""


def _folds_of(
    label: Label, main: Artifact | None, packages: Iterable[_Package], project: Project
) -> list[_Package]:
    """The packages that are folded in with a label, of those that are given."""
    found = []
    for item in packages:
        artifact = item.artifact
        if artifact.name not in project.folds:
            continue
        template = project.folds[artifact.name]
        package = package_of(artifact)
        if template is not None:
            build = project.scheme.fold_build(template, label)
            if (package.version, package.build) == (label.conda_version, build):
                found.append(item)
        elif main is not None and _pins(package_of(main), package):
            found.append(item)
    return found


def _pins(main: CondaPackage, other: CondaPackage) -> bool:
    """Whether a package's dependencies accept this build of another."""
    for text in main.index.get("depends", []):
        try:
            spec = foreign.match_spec(text)
            if spec.name.normalized == other.name:
                return accepts([spec], other.version)
        except foreign.Unreadable:  # reported by the package's own checks
            continue
    return False


def _check_pair(wheel: Artifact, packages: Sequence[Artifact], project: Project) -> ArtifactReport:
    """The files of the wheel against those of the conda packages with the same label."""
    report = ArtifactReport(
        wheel.path.name,
        "pair",
        describe(project.config.package or wheel.name, wheel.label, project),
    )
    report.ran("payload")
    report.facts["packages"] = [package.path.name for package in packages]
    payload = {_plain(path): sha for path, sha in wheel.digests.items()}
    expected: Payload = {}
    origin: dict[str, str] = {}
    for package in packages:
        for path, digest in package.digests.items():
            name = _plain(path)
            if name in expected:
                report.add(
                    "payload", f"is in {origin[name]} and in {package.path.name}", member=name
                )
            expected[name] = digest
            origin[name] = package.path.name
    report.facts["files"] = len(set(expected) & set(payload))
    for name in sorted(set(expected) - set(payload)):
        report.add("payload", f"is in {origin[name]}, and not in the wheel", member=name)
    changed = [
        name for name in sorted(set(expected) & set(payload)) if expected[name] != payload[name]
    ]
    moved = _moved(changed, wheel, packages)
    if moved:
        report.facts["runpath_changed"] = sorted(moved)
    for name in changed:
        if name not in moved:
            report.add(
                "payload",
                f"sha256 {payload[name]}",
                member=name,
                expected=f"{expected[name]}, as in {origin[name]}",
            )
    if {package.name for package in packages} >= {*project.folds} and any(
        package.name not in project.folds for package in packages
    ):
        for name in sorted(set(payload) - set(expected)):
            if not _MADE_BY_THE_BRIDGE.match(name):
                report.add(
                    "payload", "is in no conda package", member=name, expected="the same files"
                )
    return report


def _plain(path: str) -> str:
    """A path in the wheel without the name and version that its ``.data`` folder has."""
    return re.sub(r"^[^/]+\.data/", ".data/", path)


def _moved(names: Iterable[str], wheel: Artifact, packages: Sequence[Artifact]) -> set[str]:
    """The libraries of the wheel that are those of a package, told where their libraries are now.

    The package's bytes are given the search path that the wheel's have; then they have to be the
    same. They are unpacked for this once more: nobody holds the libraries of all artifacts.
    """
    wanted: dict[str, dict[str, str]] = {package.path.name: {} for package in packages}
    for name in names:
        there = wheel.libraries.get(name)
        package = next((item for item in packages if name in item.libraries), None)
        if there is None or package is None:
            continue
        here = package.libraries[name]
        paths = there.rpath or there.runpath
        if paths and (there.rpath, there.runpath) != (here.rpath, here.runpath):
            wanted[package.path.name][member_of(here)] = name
    found = set()
    for package in packages:
        members = wanted[package.path.name]
        if members:
            found |= set(_same_when_moved(package, members, wheel))
    return found


def _same_when_moved(
    package: Artifact, members: Mapping[str, str], wheel: Artifact
) -> Iterator[str]:
    """Those of `members` (path in the package -> name in the wheel) that become the wheel's."""
    left = set(members)
    with contextlib.closing(package_of(package).payload()) as payload:
        for member in payload:
            if member.path not in left:
                continue
            left.discard(member.path)
            name = members[member.path]
            here, there = package.libraries[name], wheel.libraries[name]
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "library.so"
                with copy.open("wb") as stream:
                    for data in member.chunks():
                        stream.write(data)
                try:
                    runpath.patch(copy, ":".join(there.rpath or there.runpath), here, name)
                except BridgeError:
                    continue
                if file_sha256(copy) == wheel.digests[name]:
                    yield name
            if not left:
                return


def _check_same_files(first: Artifact, second: _Package, project: Project) -> None:
    """Two packages of one name, such as ``.conda`` and ``.tar.bz2``, hold the same files."""
    one, other = _declared(first, project), _declared(second.artifact, project)
    second.report.ran("same-files")
    for name in sorted({*one, *other}):
        if one.get(name) != other.get(name):
            second.report.add(
                "same-files",
                f"sha256 {other.get(name, '-')}",
                member=name,
                expected=f"{one.get(name, '-')}, as in {first.path}",
            )


def _declared(artifact: Artifact, project: Project) -> Payload:
    """The sha256 of all files, which the checks have compared, by path in the wheel or package."""
    package = package_of(artifact)
    places = places_of(package, project)
    return {
        places[path].path: "a link" if entry.is_link else entry.sha256
        for path, entry in package.paths.items()
    }


def as_lines(report: Report) -> list[str]:
    """The report as plain lines, for a log."""
    lines = []
    for item in report.artifacts:
        if item.error:
            lines.append(f"{item.artifact}: unusable: {item.error}")
            continue
        what = f"{item.artifact} ({item.kind})"
        lines.append(f"{what}: {len(item.checks) - len(item.failed)} of {len(item.checks)} checks")
        lines += [f"  {key}: {value}" for key, value in item.facts.items() if value != ""]
        lines += [f"  {'warning' if f.warning else 'finding'}: {f}" for f in item.findings]
    return lines
