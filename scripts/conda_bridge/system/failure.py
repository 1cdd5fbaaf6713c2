"""How a program tells a person, or another program, that it failed."""

from __future__ import annotations

import json
import sys
from types import TracebackType

from ..errors import BridgeError, StorageError

__all__ = ["failure", "without_tracebacks"]


def failure(error: BridgeError, *, as_json: bool) -> int:
    """Prints `error` (JSON on standard output, text on standard error); returns its exit code."""
    if as_json:
        print(json.dumps(error.as_dict(), indent=2))
    else:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def without_tracebacks() -> None:
    """From now on a failure of this program's environment that nobody caught ends in words.

    A file system that is full, read-only or not there can fail any call; a person is told which
    file it was. What points at a mistake in this project keeps its traceback.
    """
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        raise SystemExit(130)
    if isinstance(error, BrokenPipeError):  # the reader of the output has gone
        raise SystemExit(2)
    if isinstance(error, OSError):
        error = StorageError(error)
    if isinstance(error, BridgeError):
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code)
    sys.__excepthook__(kind, error, traceback)
