"""What the parts of a package say of the build has to be one and the same thing.

File name, ``index.json``, dependencies and the build's own metadata each name the build. Each check
here raises for the first difference, and the message has both values.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ArtifactError, ConflictError
from ..formats import foreign
from ..formats.conda_package import CondaPackage
from ..formats.wheel import Metadata
from ..label import Label
from ..project import Project
from .dependencies import MatchSpec, pip_specifier, translate

__all__ = [
    "check_label_dependencies",
    "check_license",
    "check_no_entry_points",
    "check_same_files",
    "check_source_version",
    "depends_of",
    "is_spdx",
]


def depends_of(package: CondaPackage) -> list[MatchSpec]:
    """The dependencies of a package.

    Raises:
        ArtifactError: ``index.json`` has no list of them, or one that is none.
    """
    where = f"{package.path.name}: info/index.json: depends"
    listed = package.index.get("depends", [])
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ArtifactError("is not a list of dependencies", where=where)
    return [MatchSpec.parse(item, where) for item in listed]


def check_label_dependencies(
    package: CondaPackage, specs: Sequence[MatchSpec], label: Label, project: Project
) -> None:
    """The dependencies that the label's fields name are pinned to the label's versions.

    Raises:
        ArtifactError: one is not, or to another series.
    """
    where = f"{package.path.name}: info/index.json: depends"
    for field, name in project.scheme.depends.items():
        value = label.get(field)
        if value is None:
            continue
        found = [spec for spec in specs if spec.name == name]
        *before, last = value.split(".")
        series = ".".join([*before, str(int(last) + 1)])
        right = {f"=={value}.*", f">={value},<{series}"}
        if found and all(pip_specifier(spec.version, where, name) in right for spec in found):
            continue
        series_spec = MatchSpec(name, f"{value}.*", "")
        expected = translate(series_spec, where, project=project).requirement or str(series_spec)
        raise ArtifactError(
            f"requires {', '.join(map(str, found)) or f'no {name}'}",
            where=where,
            expected=f"{expected}, as the file name has it",
            fix=project.config.rebuild,
        )


def check_source_version(source: Metadata, version: str, where: str, project: Project) -> None:
    """The ``METADATA`` that the build wrote has the version of the label.

    Raises:
        ArtifactError: it has another.
    """
    if source.version != version:
        raise ArtifactError(
            f"Version is {source.version!r}",
            where=where,
            expected=f"{version!r}, as the conda package has it",
            fix=project.config.rebuild,
        )


def check_license(package: CondaPackage, project: Project, files: Sequence[str]) -> None:
    """A project that names its licence has it in every package, with the text.

    Raises:
        ArtifactError: another licence, or no file with it.
    """
    wanted = project.config.license
    if not wanted:
        return
    said = str(package.about.get("license") or package.index.get("license") or "")
    if said and not is_spdx(said):
        raise ArtifactError(
            f"{said!r} is not an SPDX licence expression",
            where=f"{package.path.name}: info/index.json",
            expected=f"{wanted!r}, as the configuration has it",
            fix=project.config.rebuild,
        )
    if _spdx(said) != _spdx(wanted):
        raise ArtifactError(
            f"license is {said!r}",
            where=f"{package.path.name}: info/index.json",
            expected=f"{wanted!r}, as the configuration has it",
            fix=project.config.rebuild,
        )
    if not files:
        raise ArtifactError(
            "the package has no licence file",
            where=f"{package.path.name}: info/licenses",
            fix="name it in the recipe (license_file)",
        )


def is_spdx(text: str) -> bool:
    """Whether a text is an SPDX licence expression."""
    try:
        return bool(text) and bool(foreign.license_expression(text))
    except foreign.Unreadable:
        return False


def _spdx(text: str) -> str:
    return foreign.license_expression(text) if is_spdx(text) else text


def check_no_entry_points(package: CondaPackage) -> None:
    """A package to be folded in has no programs of its own: a wheel has those of one project.

    Raises:
        ArtifactError: it has some.
    """
    lists = [path for path in package.paths if path.endswith("-info/entry_points.txt")]
    if package.entry_points or lists:
        raise ArtifactError(
            "has entry points, and the wheel has those of the main package alone",
            where=f"{package.path.name}: {lists[0] if lists else 'info/link.json'}",
            expected="a package without, such as one of libraries or data",
            fix="bridge it to a wheel of its own, and let the main one require that",
        )


def check_same_files(one: CondaPackage, other: CondaPackage) -> None:
    """Two packages of one name, ``.conda`` and ``.tar.bz2``, say that they install the same files.

    Raises:
        ConflictError: they do not.
    """
    ours, theirs = (
        {entry.path: (entry.is_link or entry.sha256) for entry in package.paths.values()}
        for package in (one, other)
    )
    differing = [path for path in {*ours, *theirs} if ours.get(path) != theirs.get(path)]
    if differing:
        raise ConflictError(
            f"does not hold the files of {one.path.name} beside it: {min(differing)} differs",
            where=str(other.path),
            expected="the same files in both forms of a package",
            fix="remove the one that is not meant",
        )
