"""What the file name of an artifact says, as its project spells names."""

from __future__ import annotations

import contextlib
import re

from packaging.utils import canonicalize_name

from ..errors import LabelError
from ..formats import foreign
from ..label import CONDA_ENDINGS, Label, public_version, split_conda_file
from ..project import Project

__all__ = ["conda_label", "describe", "wheel_label"]

_NUMBER = re.compile(r"(?:^|_)(\d{1,18})$", re.ASCII)


def conda_label(file: str, project: Project) -> tuple[str, Label]:
    """The package's name, and the label that its version and build string are.

    Without a scheme the label is the version and the number at the build string's end.

    Raises:
        LabelError: it is no conda package's name, or none that this project produces.
    """
    own = [project.config.package, *project.folds] if project.config.package else []
    parts = split_conda_file(file)[0].rsplit("-", 2)
    if len(parts) != 3 or (own and parts[0] not in own):
        raise LabelError(
            f"not a {' or '.join(own) if own else 'conda'} package's name",
            where=file,
            expected=f"{own[0] if own else '<name>'}-<version>-<build string>, and "
            f"{' or '.join(CONDA_ENDINGS)}",
        )
    name, version, build = parts
    label = project.label_of(name, version, build, file)
    if label is not None:
        return name, _spelled(label, version, file)
    number = _NUMBER.search(build)
    with contextlib.suppress(LabelError):  # no fault of a conda package, if pip has no form for it
        version = public_version(version)
    return name, Label(version, (), int(number[1]) if number else 0)


def _spelled(label: Label, version: str, file: str) -> Label:
    if label.conda_version != version:
        raise LabelError(
            f"{version!r} is not the version's canonical form",
            where=file,
            expected=label.conda_version,
        )
    return label


def wheel_label(file: str, project: Project) -> tuple[str, Label]:
    """The distribution's name as written, and the label that its version and build tag are.

    Raises:
        LabelError: it is no wheel's name, or none that this project produces.
    """
    own = project.config.wheel_name
    expected = f"{own or '<name>'}-<version>[-<build>]-<python>-<abi>-<platform>.whl"
    name, _, rest = file.partition("-")
    if own and name != canonicalize_name(own).replace("-", "_"):
        raise LabelError(f"not a {own} wheel's name", where=file, expected=expected)
    try:
        _, version, build, _ = foreign.wheel_name(file)
    except foreign.Unreadable as error:
        raise LabelError(f"not a wheel's name: {error}", where=file, expected=expected) from None
    number, suffix = build or (0, "")
    if project.scheme.local is None:
        return name, Label(str(version), (), number)
    label = project.scheme.parse_wheel_version(rest.partition("-")[0], number, file)
    spelled = [name, project.scheme.wheel_version(label), *([str(number)] if number else [])]
    tags = file.split("-")[-3:]
    if suffix or file != "-".join([*spelled, *tags]) or "-".join(tags).lower() != "-".join(tags):
        raise LabelError(
            "not the canonical file name", where=file, expected="-".join([*spelled, *tags])
        )
    return name, label


def describe(name: str, label: Label, project: Project) -> str:
    """Which build it is, in a few words: its build string without commit and number."""
    plain = Label(
        label.version,
        tuple((field, None if field == "commit" else value) for field, value in label.values),
    )
    template = project.folds.get(name)
    if template is not None:
        build = project.scheme.fold_build(template, plain)
    else:
        build = project.scheme.conda_build(plain) if name not in project.folds else ""
    return f"{build.removesuffix('_0') or name} {label.version}"
