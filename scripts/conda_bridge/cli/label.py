"""Prints every name of a build, or reads a name back, as the project's label templates have it.

Examples:
    conda-bridge label cuda=12.4 torch=2.4 --version 0.1.6
    conda-bridge label --version 0.1.6 --build-number 1 --json
    conda-bridge label --parse toy-0.1.6+cu124torch2.4-cp38-abi3-linux_x86_64.whl

Exit status: 0 done, 2 a name or a value that the project does not spell.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.terminal import print_json, say
from . import options

if TYPE_CHECKING:
    from ..label import Label
    from ..project import Project

__all__ = ["add_arguments", "forms", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "values", nargs="*", metavar="FIELD=VALUE", help="of the project's own fields"
    )
    parser.add_argument("--parse", metavar="FILE", help="a wheel's or a conda package's file name")
    parser.add_argument("--version", metavar="VERSION", help="the public version, e.g. 0.1.6rc1")
    parser.add_argument("--build-number", type=int, metavar="N", help="a rebuild's; default 0")
    options.add_json(parser)
    options.add_project(parser)


def run(args: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    from ..errors import LabelError

    composing = args.values or args.version is not None or args.build_number is not None
    if bool(args.parse) == bool(composing):
        raise LabelError(
            "--parse reads a whole name; it takes no other setting"
            if args.parse
            else "there is nothing to name",
            expected="FIELD=VALUE ... --version VERSION, or --parse FILE",
        )
    project = options.project_of(args, hooks=False)
    if args.parse:
        name, label = _parsed(Path(args.parse).name, project)
    else:
        name, label = project.config.package, _composed(args, project)
    found = forms(name, label, project)
    if args.json:
        print_json(found)
        return 0
    shown = {key: value for key, value in found.items() if key != "fields"}
    shown.update(label.values)
    width = max(len(key) for key in shown)
    for key, value in shown.items():
        say(f"{key.replace('_', ' '):{width}}  {'-' if value is None else value}")
    return 0


def _parsed(file: str, project: Project) -> tuple[str, Label]:
    from ..errors import LabelError
    from ..label import CONDA_ENDINGS, split_conda_file
    from ..publish.intake import WheelName, package_label

    if file.endswith(".whl"):
        named = WheelName.of(file, project)
        return named.project, named.label
    if not split_conda_file(file)[1]:
        raise LabelError(
            "neither a wheel nor a conda package",
            where=file,
            expected=f"a name ending in .whl, {' or '.join(CONDA_ENDINGS)}",
        )
    return package_label(file, project)


def _composed(args: argparse.Namespace, project: Project) -> Label:
    from ..errors import LabelError
    from ..label import public_version

    values: dict[str, str | None] = {}
    for text in args.values:
        name, equals, value = text.partition("=")
        if not equals or name in values:
            raise LabelError(
                f"{text!r} is no value of a field" if not equals else f"{name} is there twice",
                expected="FIELD=VALUE, such as cuda=12.4; an empty value for none",
            )
        values[name] = value or None
    if args.version is None:
        raise LabelError("there is no version", fix="give it with --version")
    if (args.build_number or 0) < 0:
        raise LabelError(f"{args.build_number} is no build number", expected="0, 1, 2, ...")
    version = public_version(args.version, "--version")
    return project.scheme.label(version, values, args.build_number or 0)


def forms(name: str, label: Label, project: Project) -> dict[str, object]:
    """Every form of a label, by name, for JSON.

    Args:
        name: of the package; may be empty.
        label: of the build.
        project: whose templates spell it.
    """
    scheme = project.scheme
    known = set(dict(label.values))
    found: dict[str, object] = {
        "name": name,
        "public_version": label.version,
        "build_number": label.number,
        "fields": dict(label.values),
        "conda_version": label.conda_version,
    }
    if scheme.build is not None and set(scheme.build.names) - {"number"} <= known:
        found["conda_build"] = scheme.conda_build(label)
        found["conda_build_number"] = scheme.index_build_number(label)
    if scheme.local is None or set(scheme.local.names) <= known:
        found["wheel_version"] = scheme.wheel_version(label)
        if project.layout:
            values = {**dict(label.values), "number": str(label.number)}
            found["index_folder"] = project.layout.format(values)
    for fold, template in project.folds.items():
        if template is not None and set(template.names) - {"number"} <= known:
            found[f"{fold}_build"] = scheme.fold_build(template, label)
    return found
