"""What the programs print for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from conda_bridge.printable import printable
from conda_bridge.system import terminal

from .label import LIBRARY_NAME, Label, LibraryLabel, split_conda_file

if TYPE_CHECKING:
    from .matrix.report import MatrixReport
    from .pipeline.pipeline import BuildResult

__all__ = ["matrix_table", "print_build", "variants_table"]

_STYLES = {"done": "green", "kept": "cyan", "failed": "bold red", "not run": "yellow"}
_BESIDE_NAMES = 70  # columns for what stands beside the names of both sides


def variants_table(rows: Sequence[Mapping[str, str]], *, width: int | None = None) -> str:
    """The table of ``build.py --list``.

    Args:
        rows: the variants.
        width: columns; those of the terminal by default.
    """
    console = terminal.console(width=width) if width else terminal.console()
    # The names of both sides fit beside the rest, or go below it; they are never broken.
    names = max((len(row[key]) for row in rows for key in ("conda_file", "wheel_file")), default=0)
    beside = console.width >= names + _BESIDE_NAMES
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variant", no_wrap=True)
    table.add_column("conda package and wheel", no_wrap=True)
    table.add_column("archs", no_wrap=True)
    table.add_column("toolchain here")
    with console.capture() as capture:
        for row in rows:
            variant, conda, wheel = row["variant"], row["conda_file"], row["wheel_file"]
            supply = row["provider"] or f"[dim]missing: {escape(row['missing'])}[/dim]"
            archs = row["arch_list"] if row["arch_list"] != "None" else "-"
            if beside:
                table.add_row(variant, f"{conda}\n{wheel}", archs, supply)
            else:
                console.print(f"[bold]{variant}[/bold]  {archs}  {supply}")
                console.print(f"  {conda}\n  {wheel}", soft_wrap=True)
        if beside:
            console.print(table)
    return capture.get()


def matrix_table(made: MatrixReport) -> str:
    """The end of a matrix: outcome, cost and log of each stage; what failed; what is missing."""
    console = terminal.console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variant", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("CPU s", justify="right", no_wrap=True)
    table.add_column("peak MB", justify="right", no_wrap=True)
    table.add_column("log", overflow="fold")
    failed: list[str] = []
    for name, stages in made.stages.items():
        shown = name
        for stage in stages:
            cost = stage.cost
            numbers = (
                (f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", f"{cost.peak_memory / 1e6:.0f}")
                if cost.peak_memory
                else ("-", "-", "-")
            )
            style = _STYLES[stage.outcome]
            outcome = f"[{style}]{stage.outcome}[/{style}]"
            table.add_row(shown, stage.kind, outcome, *numbers, escape(stage.log))
            shown = ""
            if stage.error:
                failed.append(f"{name}: {stage.kind}: {stage.error}")
    with console.capture() as capture:
        console.print(table)
        console.print()
        files = [path for name in made.stages if made.built(name) for path in made.files[name]]
        for path in dict.fromkeys(files):
            console.print(escape(printable(os.path.relpath(path))), soft_wrap=True)
        for line in failed:
            console.print(f"[red]failed[/red] {escape(line)}", soft_wrap=True)
        for item in made.plan.missing:
            line = f"{item.name}: {item.reason}"
            console.print(f"[yellow]not built[/yellow] {escape(line)}", soft_wrap=True)
        built = sum(map(made.built, made.stages))
        console.print(
            f"{built} of {len(made.stages)} built, {len(made.plan.missing)} without a toolchain"
        )
    return capture.get()


def print_build(result: BuildResult) -> None:
    """The end of a build: what was made and where, or what is due, or what failed."""
    console = terminal.console()
    for name, outcomes in result.variants.items():
        if result.dry_run:
            for outcome in outcomes:
                console.print(f"{name}: {outcome.title}: {outcome.outcome}")
        elif name not in result.failures and not result.partial:
            for path in result.files[name]:
                console.print(escape(printable(os.path.relpath(path))))
    if result.dry_run:
        return
    if result.unchanged:
        console.print("Nothing has changed; nothing was done.")
    elif not result.failures and not result.partial:
        console.print("\nTo install what was made:")
        for line in _install_lines(result):
            # One line on any terminal: a part of it must not be taken for all of it.
            console.print(f"  {escape(line)}", soft_wrap=True)
    for name, error in result.failures.items():
        print(f"error: {name}: {error}", file=sys.stderr)


def _install_lines(result: BuildResult) -> Iterable[str]:
    """The commands that install what was made, each the build that it names and no other."""
    channel, index = _address(result.output / "channel"), _address(result.output / "index")
    for paths in result.files.values():
        names = [path.name for path in paths]
        # The library of a variant comes with the binding.
        packages = [name for name in names if split_conda_file(name)[1]]
        of_variant = [name for name in packages if not name.startswith(f"{LIBRARY_NAME}-")]
        for name in of_variant:
            yield Label.parse_conda_file(name).conda_install(channel)
        for name in () if of_variant else packages:
            yield LibraryLabel.parse_conda_file(name).conda_install(channel)
        for name in names:
            if name.endswith(".whl"):
                yield Label.parse_wheel_file(name).pip_install(index)


def _address(folder: Path) -> str:
    """A folder as a URL, as it is typed into a shell in the working folder."""
    here, path = Path.cwd(), folder.resolve()
    address = path.as_uri()  # nothing in it means anything to a shell
    whole = here.as_uri()
    # $PWD is left to the shell, and would come apart at a space.
    if path.is_relative_to(here) and whole == f"file://{here}":
        return f"file://$PWD{address.removeprefix(whole)}"
    return address
