"""Runs the programs in this process, as their doors would be entered from a shell."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock

__all__ = ["PROGRAMS", "Ended", "main_of", "raw_characters", "run", "terminal_stream"]

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROGRAMS = (*sorted(path.stem for path in SCRIPTS.glob("*.py")), "conda-bridge")
# What rich writes to a terminal by itself: colours, and how it draws a line anew.
_OF_RICH = re.compile(r"\x1b\[[0-9;?]*[mKAGhl]|\r")


@dataclass(frozen=True)
class Ended:
    """What a run gave.

    Attributes:
        code: exit status.
        out, err: bytes on standard output and standard error.
    """

    code: int
    out: bytes
    err: bytes

    @property
    def both(self) -> bytes:
        """Everything that a terminal would have got."""
        return self.out + self.err


class _Terminal(io.TextIOWrapper):
    """A stream that may say that it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        self.bytes = io.BytesIO()
        self.terminal = terminal
        super().__init__(self.bytes, encoding="utf-8", errors="strict", write_through=True)

    def isatty(self) -> bool:
        return self.terminal


def terminal_stream() -> _Terminal:
    """A stream that says that it is a terminal; its `bytes` have what was written."""
    return _Terminal(True)


def raw_characters(ended: Ended, *, terminal: bool = False) -> set[str]:
    """What a terminal would have obeyed of what a program wrote, or shown as another text.

    Args:
        ended: the run.
        terminal: whether it wrote to one, in colours of its own.
    """
    text = ended.both.decode("utf-8", "surrogateescape")
    if terminal:
        text = _OF_RICH.sub("", text)
    return {one for one in text if not one.isprintable() and one not in "\n\t"}


def main_of(program: str) -> ModuleType:
    """The module of ``scripts/<program>.py``, or of ``conda-bridge``; imported once."""
    if program == "conda-bridge":
        return importlib.import_module("conda_bridge.cli.main")
    # By its file: tests have modules of the same names.
    name = f"scripts_{program}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{program}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    hook = sys.excepthook
    with mock.patch.dict(os.environ, {"FLASHINFER_NO_BOOTSTRAP": "1"}):
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        finally:
            sys.excepthook = hook
    return module


def run(
    program: str,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    terminal: bool = False,
) -> Ended:
    """Runs a program.

    Args:
        program: the name of a file in scripts/ without its ending, or ``conda-bridge``.
        arguments: of its command line.
        environ: variables to set.
        terminal: whether its streams are a terminal's.
    """
    module = main_of(program)
    out, err = _Terminal(terminal), _Terminal(terminal)
    with (
        mock.patch.object(sys, "argv", [program, *arguments]),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
        mock.patch.dict(
            os.environ, {"TERM": "xterm-256color", "COLUMNS": "300", **(environ or {})}
        ),
    ):
        try:
            code = module.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            out.flush()
            err.flush()
    return Ended(code, out.bytes.getvalue(), err.bytes.getvalue())
