"""Writes the conda channel and the wheel index of a folder, from the packages and wheels in it.

A name that was published is never given to other bytes; entries whose file is not in the folder
are kept.

Examples:
    conda-bridge index dist/
    conda-bridge index dist/ --dry-run
    conda-bridge index dist/ --add toy-1.0-py3-none-any.whl --add toy-1.0-py_0.conda

Exit status: 0 done, 1 a name with other bytes, 2 unusable input.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.terminal import print_json, say
from . import options
from .display import working

if TYPE_CHECKING:
    from ..project import Project
    from ..publish.index import Result

__all__ = ["add_arguments", "add_own_arguments", "run", "run_for"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_own_arguments(parser)
    options.add_project(parser)


def add_own_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that do not choose a project."""
    parser.add_argument("folder", type=Path, help="with channel/ and wheels/, such as dist/")
    parser.add_argument(
        "--add",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="copy this package or wheel in first; may be given several times",
    )
    parser.add_argument(
        "--prune", action="store_true", help="drop entries whose file is not in the folder"
    )
    parser.add_argument(
        "--replace", action="store_true", help="accept other bytes under a published name"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be written")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    return run_for(options.project_of(args), args)


def run_for(project: Project, args: argparse.Namespace) -> int:
    """Does it for a project that was chosen already; returns the exit status."""
    from ..publish import index

    added: list[Path] = []
    told: list[str] = []

    def report(line: str) -> None:
        told.append(line)
        if not args.json:
            say(line)

    if args.add:
        added = index.publish(
            args.add,
            args.folder,
            project=project,
            replace=args.replace,
            dry_run=args.dry_run,
            report=report,
        )
    if added and args.dry_run and index.is_empty(args.folder):
        result = index.Result()  # there is nothing yet to look at
    else:
        with working("reading the packages and wheels ...", quiet=args.json):
            result = index.update(
                args.folder,
                project=project,
                replace=args.replace,
                prune=args.prune,
                dry_run=args.dry_run,
            )
    if args.json:
        print_json({**result.as_dict(), "added": [str(path) for path in added]})
    else:
        _show(
            result,
            dry_run=args.dry_run,
            added=any(not line.startswith("unchanged") for line in told),
        )
    return 0


def _show(result: Result, *, dry_run: bool, added: bool) -> None:
    for name in result.written:
        say(f"{'would write' if dry_run else 'wrote'} {name}")
    for name in result.absent:
        say(f"kept the entry of {name}, which is not in the folder (--prune drops it)")
    for name in result.pruned:
        say(f"{'would drop' if dry_run else 'dropped'} the entry of {name}")
    if not result.written and not result.pruned and not added:
        print("nothing has changed")
    print(f"{len(result.packages)} conda packages, {len(result.wheels)} wheels")
