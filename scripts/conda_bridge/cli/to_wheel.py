"""Writes the wheel of each conda package: the same payload bytes, pip's names around them.

A package that the configuration folds in (its libraries, say) is read from the same folder.

Examples:
    conda-bridge to-wheel toy-1.0-py312h1_0.conda
    conda-bridge to-wheel channel/linux-64/*.conda -o wheels/ --json
    conda-bridge to-wheel toy-1.0-py312h1_0.conda --mapping names.toml --dry-run

Exit status: 0 done, 1 a finding, 2 unusable input; of several packages, the worst.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .conversion import convert_all, written_line

if TYPE_CHECKING:
    from ..bridge.convert import Bridged
    from ..project import Project

__all__ = ["add_arguments", "lines", "run", "run_for"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "packages", nargs="+", type=Path, metavar="PACKAGE", help="a .conda, or a .tar.bz2"
    )
    parser.add_argument(
        "--platform-tag",
        metavar="TAG",
        help="auto for the lowest manylinux policy that is true, or one such as"
        " manylinux_2_28_x86_64, which then has to be; default: the configuration's, else auto",
    )
    options.add_conversion(parser, "wheel", Path(), "here")
    options.add_mapping(parser)
    options.add_project(parser)


def run(args: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    return run_for(options.project_of(args), args, _lines, options.mapping_of(args))


def run_for(
    project: Project,
    args: argparse.Namespace,
    lines: Callable[[Bridged], Iterable[str]],
    mapping: Mapping[str, str | None] | None = None,
) -> int:
    """Does it for a project that was chosen already; returns the exit status."""
    from ..bridge.convert import bridge

    return convert_all(
        args.packages,
        lambda package, report: bridge(
            package,
            args.output,
            project=project,
            mapping=mapping,
            platform_tag=args.platform_tag,
            overwrite=args.overwrite,
            dry_run=args.dry_run,
            threads=args.threads,
            report=report,
        ),
        lines,
        args.output,
        key="wheels",
        as_json=args.json,
    )


def _lines(result: Bridged) -> Iterable[str]:
    yield from lines(result)
    for note in result.notes:
        yield f"  note: {note}"


def lines(result: Bridged) -> Iterable[str]:
    """What a person is told of one wheel."""
    dry_run = result.outcome == "checked"
    unpacked = f"{result.payload_size / 1e6:.1f} MB unpacked"
    yield written_line(
        result.path,
        result.outcome,
        size=result.size,
        sha256=result.sha256,
        files=len(result.payload),
        more=unpacked if dry_run else f"{result.seconds:.1f} s",
    )
