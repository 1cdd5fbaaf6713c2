"""Writes the conda package of each wheel: the same payload bytes, conda's names around them.

Examples:
    conda-bridge to-conda toy-1.0-cp312-cp312-manylinux_2_28_x86_64.whl
    conda-bridge to-conda wheels/*.whl -o packages/ --json
    conda-bridge to-conda toy-1.0-py3-none-any.whl --mapping names.toml --dry-run

Exit status: 0 done, 1 a finding, 2 unusable input; of several wheels, the worst.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .conversion import convert_all, written_line

if TYPE_CHECKING:
    from ..bridge.to_conda import Converted

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL", help="a .whl")
    options.add_conversion(parser, "package", Path(), "here")
    options.add_mapping(parser)
    options.add_project(parser)


def run(args: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    from ..bridge.to_conda import to_conda

    project, mapping = options.project_of(args), options.mapping_of(args)
    return convert_all(
        args.wheels,
        lambda wheel, report: to_conda(
            wheel,
            args.output,
            project=project,
            mapping=mapping,
            overwrite=args.overwrite,
            dry_run=args.dry_run,
            threads=args.threads,
            report=report,
        ),
        _lines,
        args.output,
        key="packages",
        as_json=args.json,
    )


def _lines(result: Converted) -> Iterable[str]:
    for package in result.packages:
        yield written_line(
            package.path,
            package.outcome,
            size=package.size,
            sha256=package.sha256,
            files=len(package.payload),
        )
    for requirement, why in result.dropped.items():
        yield f"  left out: {requirement} ({why})"
    for remark in result.remarks:
        yield f"  note: {remark}"
