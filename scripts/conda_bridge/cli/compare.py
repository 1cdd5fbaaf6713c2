"""Compares conda packages of two builders by content: names, metadata, file lists, bytes.

Times, compression, the form (.conda or .tar.bz2) and what a builder keeps of itself do not count.

Examples:
    conda-bridge compare one/toy-1.0-py_0.conda other/toy-1.0-py_0.conda
    conda-bridge compare channel/linux-64 croot/linux-64 --json

Exit status: 0 the same, 1 a difference, 2 an input that cannot be read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.terminal import print_json, say
from .display import working

if TYPE_CHECKING:
    from ..verify.compare import Comparison

__all__ = ["add_arguments", "run"]

SCHEMA = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("left", type=Path, help="a .conda or .tar.bz2, or a folder of them")
    parser.add_argument("right", type=Path, help="of the same kind")
    parser.add_argument("--builders", action="store_true", help="also list what does not count")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    from ..verify.compare import compare_all

    with working("reading the packages ...", quiet=args.json):
        comparisons = compare_all(args.left, args.right)
    if args.json:
        found = [comparison.as_dict() for comparison in comparisons]
        print_json({"schema": SCHEMA, "comparisons": found})
    else:
        for comparison in comparisons:
            _show(comparison, builders=args.builders)
    return 0 if all(comparison.same for comparison in comparisons) else 1


def _show(comparison: Comparison, *, builders: bool) -> None:
    count = len(comparison.differences)
    result = "the same" if comparison.same else f"{count} difference{'s' if count > 1 else ''}"
    say(f"{comparison.name}: {result}, {comparison.files} files equal")
    for difference in comparison.differences:
        say(f"  {difference}")
    if builders:
        for item in comparison.of_the_builder:
            say(f"  of the builder: {item}")
