"""What a person sees while a file is read or written."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..printable import printable
from ..system import terminal

__all__ = ["Report", "bar", "working"]

# Is told of the bytes that are done, and of all.
Report = Callable[[int, int], None]


@contextlib.contextmanager
def bar(path: Path, *, quiet: bool) -> Iterator[Report | None]:
    """A bar on a terminal, nothing elsewhere."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    # Only here: it takes a tenth of a second.
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    console = terminal.console(error=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(printable(path.name)), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextlib.contextmanager
def working(what: str, *, quiet: bool) -> Iterator[None]:
    """A line that moves, on a terminal, while something takes its time."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    from rich.markup import escape

    with terminal.console(error=True).status(escape(what)):
        yield
