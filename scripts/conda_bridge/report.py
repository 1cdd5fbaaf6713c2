"""What the programs print for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .errors import BridgeError

if TYPE_CHECKING:
    from .pipeline import BuildResult

__all__ = ["failure", "print_build", "variants_table"]

_WIDE = 160  # a table that goes to a file or a pipe is not cut to a terminal's width


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def failure(error: BridgeError, *, as_json: bool) -> int:
    """Prints `error` (JSON on standard output, text on standard error); returns its exit code."""
    if as_json:
        print(json.dumps(error.as_dict(), indent=2))
    else:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def variants_table(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of ``build.py --list``."""
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("variant", "conda package", "wheel", "archs", "toolchain here"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        supply = row["provider"] or f"[dim]missing: {row['missing']}[/dim]"
        table.add_row(
            row["variant"], row["conda_file"], row["wheel_file"], row["arch_list"] or "-", supply
        )
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def print_build(result: BuildResult) -> None:
    """The end of a build: what was made and where, or what is due, or what failed."""
    console = _console()
    for name, outcomes in result.variants.items():
        if result.dry_run:
            for outcome in outcomes:
                console.print(f"{name}: {outcome.title}: {outcome.outcome}")
        elif name not in result.failures and not result.partial:
            for path in result.files[name]:
                console.print(f"{os.path.relpath(path)}")
    if result.dry_run:
        return
    if result.unchanged:
        console.print("Nothing has changed; nothing was done.")
    elif not result.failures and not result.partial:
        output = os.path.relpath(result.output)
        console.print("\nTo install what was made:")
        with_torch = any(len(paths) > 1 for paths in result.files.values())
        name = "flashinfer" if with_torch else "libflashinfer"
        console.print(f"  conda install -c file://$PWD/{output}/channel {name}")
        for paths in result.files.values():
            if len(paths) > 3:  # a variant; a library has no page for pip
                folder = os.path.relpath(paths[3].parent.parent)
                console.print(f"  pip install flashinfer --extra-index-url file://$PWD/{folder}/")
    for name, error in result.failures.items():
        print(f"error: {name}: {error}", file=sys.stderr)
