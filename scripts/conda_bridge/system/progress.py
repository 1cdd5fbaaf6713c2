"""The display of a long job: a live line a person likes to watch, plain lines in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ..printable import printable
from .terminal import console

__all__ = ["Progress"]

_MARKS = {"done": ("✓", "green"), "kept": ("=", "cyan"), "failed": ("✗", "red")}


class Progress:
    """Reports steps to standard error, so that standard output stays for results.

    On a terminal the running step has a spinner, its seconds, the last line of its log, and a bar
    of the steps done; elsewhere there is one line when a step ends.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.console = console(error=True, quiet=quiet)
        self.total = total
        self.finished = 0
        self._step = ""
        self._line = ""
        self._started = 0.0
        self._live: Live | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Progress]:
        """Shows the display for as long as the block runs."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(
            get_renderable=self._render, console=self.console, refresh_per_second=8, transient=True
        ) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=2)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.add_column(width=8, justify="right")
        if self._step:
            elapsed = f"{time.monotonic() - self._started:.0f} s"
            text = Text.assemble((self._step, "bold"), "  ", (self._line, "dim"))
            grid.add_row(Spinner("dots", style="cyan"), text, elapsed)
        bar = ProgressBar(total=max(self.total, 1), completed=self.finished, width=40)
        grid.add_row("", bar, f"{self.finished}/{self.total}")
        return grid

    def start(self, step: str) -> None:
        """Names the step that runs now."""
        self._step, self._line, self._started = printable(step), "", time.monotonic()

    def line(self, text: str) -> None:
        """The newest line of the running step's log."""
        self._line = printable(text.strip()[:200])

    def end(self, outcome: str, detail: str = "") -> float:
        """Closes the running step: `outcome` is ``done``, ``kept`` or ``failed``.

        Returns:
            The seconds it took.
        """
        seconds = time.monotonic() - self._started
        mark, style = _MARKS[outcome]
        took = f"{seconds:6.1f} s" if outcome != "kept" else "unchanged"
        self.console.print(
            Text.assemble(
                (mark, style),
                f" {self._step:<26} ",
                (f"{took:>9}", "dim"),
                f"  {printable(detail)}",
            ),
            soft_wrap=True,
        )
        self._step = ""
        self.finished += 1
        return seconds

    def note(self, text: str) -> None:
        """A line that stays."""
        self.console.print(printable(text), soft_wrap=True)
