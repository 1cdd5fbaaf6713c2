"""Finds the packages whose files go into the wheel of another, beside it in its folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..config import FoldTable
from ..errors import ArtifactError
from ..formats import conda_package
from ..formats.conda_package import CondaPackage
from ..label import CONDA_ENDINGS, Label, split_conda_file
from ..project import Project
from .agreement import check_same_files, depends_of
from .dependencies import MatchSpec

__all__ = ["find", "split_name"]

_STEM = re.compile(r"(?P<name>[^/]+)-(?P<version>[^-/]+)-(?P<build>[^-/]+)", re.ASCII)


def split_name(file: str) -> tuple[str, str, str] | None:
    """Name, version and build in a conda package's file name; None for another file's."""
    found = _STEM.fullmatch(split_conda_file(file)[0])
    return (found["name"], found["version"], found["build"]) if found else None


def find(
    main: CondaPackage, specs: Sequence[MatchSpec], project: Project, label: Label
) -> list[CondaPackage]:
    """The packages to fold into the wheel of `main`, in the configuration's order.

    `main` depends on them, or one that is folded in does: a library's own libraries. Each may be
    there as ``.conda``, as ``.tar.bz2``, or as both with the same files.

    Args:
        main: the package that the wheel is named after.
        specs: its dependencies.
        project: whose configuration names the packages.
        label: of `main`.

    Raises:
        ArtifactError: nothing depends on one, or not as the label says; or one is not there,
            damaged, there in two builds, or not the one that another depends on.
        ConflictError: one is there in both forms, with other files.
    """
    known = [*specs]
    found: dict[str, CondaPackage] = {}
    left = list(project.config.fold)
    while left:
        # One of which nothing is known yet may be a dependency of one that comes later.
        names = {spec.name for spec in known}
        fold = next(
            (one for one in left if one.package in names or project.folds.get(one.package)), left[0]
        )
        left.remove(fold)
        found[fold.package] = package = _found(main, known, project, label, fold)
        known += depends_of(package)
    for spec in known[len(specs) :]:
        package_of = found.get(spec.name)
        if package_of and not spec.matches(package_of.version, package_of.build):
            raise ArtifactError(
                f"is folded in with another package, which depends on {spec}",
                where=package_of.path.name,
                expected="a build that fits all of the dependencies on it",
                fix="put packages that fit each other into the folder",
            )
    return [found[fold.package] for fold in project.config.fold]


def _found(
    main: CondaPackage,
    specs: Sequence[MatchSpec],
    project: Project,
    label: Label,
    fold: FoldTable,
) -> CondaPackage:
    where = f"{main.path.name}: info/index.json: depends"
    wanted = [spec for spec in specs if spec.name == fold.package]
    template = project.folds.get(fold.package)
    if template is not None:
        build = project.scheme.fold_build(template, label, where)
        expected = f"{fold.package} {main.version} {build}"
        if {(spec.exact) for spec in wanted} != {(main.version, build)}:
            raise ArtifactError(
                f"depends on {', '.join(sorted(map(str, wanted))) or f'no {fold.package}'}",
                where=where,
                expected=expected,
                fix=project.config.rebuild,
            )
        stems = [expected.replace(" ", "-")]
    else:
        if not wanted:
            raise ArtifactError(
                f"depends on no {fold.package}",
                where=where,
                expected=f"{fold.package}, which [[tool.conda-bridge.fold]] folds in, as a "
                "dependency of the package or of another that is folded in",
                fix="leave the entry out, if the package has no such part any more",
            )
        stems = _stems_beside(main.path, wanted)
        expected = " and ".join(map(str, wanted))
    found = [main.path.with_name(stem + ending) for stem in stems for ending in CONDA_ENDINGS]
    found = [path for path in found if path.is_file()]
    if not found:
        shown = [stem + ending for stem in stems for ending in CONDA_ENDINGS]
        raise ArtifactError(
            f"its {fold.package} is not there: {main.path.with_name((shown or [fold.package])[0])}",
            where=main.path.name,
            expected=f"{' or '.join(shown) or expected} in the same folder",
            fix="put both packages into one folder",
        )
    if len(stems) > 1:
        raise ArtifactError(
            f"{len(stems)} packages fit {expected}: {', '.join(sorted(stems))}",
            where=main.path.name,
            expected="one, so that the wheel does not depend on what else is in the folder",
            fix="pin the build, or leave the one that is meant in the folder",
        )
    package, *others = map(conda_package.read, found)
    for other in others:
        check_same_files(package, other)
        for _ in other.payload():  # and what it says of its files is true
            pass
    return package


def _stems_beside(main: Path, wanted: Sequence[MatchSpec]) -> list[str]:
    stems = set()
    for path in conda_package.in_folder(main.parent):
        parts = split_name(path.name)
        if not parts or parts[0] != wanted[0].name:
            continue
        if all(spec.matches(parts[1], parts[2]) for spec in wanted):
            stems.add(split_conda_file(path.name)[0])
    return sorted(stems)
