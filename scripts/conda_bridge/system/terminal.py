"""Standard output and standard error of a program, between its texts and the terminal.

What a program prints goes through :class:`Guard`, which lets no control character pass. Colours and
bars of rich are control characters, too: its consoles write beside the guard, and what they are
given is made printable before it is given colours.

Runs on Python 3.8; rich is needed for :func:`console` alone.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any, Iterator, NoReturn, TextIO, cast

from ..printable import as_json, printable, printable_lines

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ArgumentParser", "Guard", "console", "guarded", "print_json", "print_ready", "say"]

_WIDE = 1000  # in a file or a pipe no path is folded at a terminal's width


class Guard:
    """A text stream that writes printable text, line feeds and tabs.

    Attributes:
        unguarded: the stream behind it.
    """

    def __init__(self, unguarded: TextIO) -> None:
        self.unguarded = unguarded

    def write(self, text: str) -> int:
        """Writes `text`, and what is not printable in it as Python writes it."""
        self.unguarded.write(printable_lines(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes every one of `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Puts a guard before standard output and standard error for as long as the block runs."""
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        if stream is not None and not isinstance(stream, Guard):
            if hasattr(stream, "reconfigure"):
                # A terminal that cannot show a character still shows the rest.
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Guard(stream))
    try:
        yield
    finally:
        for name, stream in streams.items():
            setattr(sys, name, stream)


def say(line: str, *, error: bool = False) -> None:
    """Prints one line, whatever the texts in it hold."""
    print(printable(line), file=sys.stderr if error else sys.stdout, flush=error)


def print_json(value: object, *, indent: int = 2) -> None:
    """Prints a value as JSON."""
    print(as_json(value, indent=indent))


def print_ready(text: str) -> None:
    """Prints what :func:`console` made, with its colours."""
    _unguarded(sys.stdout).write(text)


def console(*, error: bool = False, **options: Any) -> Console:
    """A console of rich that shows nothing of its texts as a command to the terminal.

    Args:
        error: on standard error, instead of standard output.
        options: of ``rich.console.Console``.
    """
    from rich.console import Console  # only here: it takes a tenth of a second

    stream = _unguarded(sys.stderr if error else sys.stdout)
    made = Console(file=stream, highlight=False, **options)
    if not made.is_terminal and "width" not in options:
        made = Console(file=stream, highlight=False, width=_WIDE, **options)
    made.push_render_hook(_hook())
    return made


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose complaints about an argument stay one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit status 2."""
        super().error(printable(message))


def _unguarded(stream: TextIO) -> TextIO:
    return cast("TextIO", getattr(stream, "unguarded", stream))


def _hook() -> Any:
    from rich.console import ConsoleRenderable, RenderHook
    from rich.control import Control
    from rich.segment import Segment

    class Printable:
        """What is to be rendered, with texts that are printable."""

        def __init__(self, inner: ConsoleRenderable) -> None:
            self.inner = inner

        def __rich_console__(self, console: Any, options: Any) -> Any:
            for segment in console.render(self.inner, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(printable_lines(segment.text), segment.style)

        def __rich_measure__(self, console: Any, options: Any) -> Any:
            from rich.measure import Measurement

            return Measurement.get(console, options, self.inner)

    class Hook(RenderHook):
        def process_renderables(self, renderables: list[Any]) -> list[Any]:
            return [item if isinstance(item, Control) else Printable(item) for item in renderables]

    return Hook()
