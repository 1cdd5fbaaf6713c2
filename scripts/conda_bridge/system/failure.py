"""How a program tells a person, or another program, that it failed."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from types import TracebackType
from typing import Callable, Iterator, TypeVar

from ..errors import BridgeError, Fault, StorageError
from ..printable import shortened
from . import terminal

__all__ = ["CAUGHT", "door", "failure", "fault", "stage", "without_tracebacks"]

# What was caught that nobody had foreseen; tests see that it stays empty.
CAUGHT: list[Fault] = []

_FRAMES = 24  # of a traceback: the innermost
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # what a shell says of a program that the signal ended
_Main = TypeVar("_Main", bound=Callable[..., int])


def failure(error: BridgeError, *, as_json: bool) -> int:
    """Prints `error` (JSON on standard output, text on standard error); returns its exit code."""
    if as_json:
        terminal.print_json(error.as_dict())
    else:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def fault(error: BaseException, stage: str, file: object = "") -> Fault:
    """What to say of an exception that no one foresaw: a mistake in the program.

    Args:
        error: the exception.
        stage: what the program was doing.
        file: what it was doing it with.
    """
    lines = traceback.TracebackException(
        type(error), error, error.__traceback__, limit=-_FRAMES
    ).format(chain=False)
    made = Fault(
        f"{type(error).__name__}: {_said(error)}",
        stage,
        str(getattr(file, "name", file)),
        "".join(lines),
    )
    CAUGHT.append(made)
    return made


@contextlib.contextmanager
def stage(what: str, file: object = "") -> Iterator[None]:
    """Says of what nobody foresaw within the block what was done, and with which file.

    Args:
        what: is done, such as ``checking``.
        file: a path or a name.

    Raises:
        Fault: in place of an exception that is neither the project's own nor the system's.
    """
    try:
        yield
    except (BridgeError, OSError):
        raise
    except Exception as error:
        raise fault(error, what, file) from error


def door(program: str) -> Callable[[_Main], _Main]:
    """Makes a function the door of a program: nothing leaves it but an exit status and texts.

    Standard output and standard error are guarded while it runs, and what was not foreseen is told
    as such, with its traceback.

    Args:
        program: its name.
    """

    def decorate(main: _Main) -> _Main:
        @functools.wraps(main)
        def enter(*arguments: object, **named: object) -> int:
            line = arguments[0] if arguments and arguments[0] is not None else sys.argv[1:]
            as_json = isinstance(line, (list, tuple)) and "--json" in line
            with terminal.guarded():
                return _entered(program, functools.partial(main, *arguments, **named), as_json)

        return enter  # type: ignore[return-value]

    return decorate


def _entered(program: str, main: Callable[[], int], as_json: bool) -> int:
    try:
        code = _told(program, main, as_json)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()  # whoever reads has enough
        return _PIPE_CLOSED
    except OSError as error:  # what was printed, and not what was done
        _drop_output()
        error.filename = error.filename or "standard output"
        return failure(StorageError(error), as_json=False)


def _told(program: str, main: Callable[[], int], as_json: bool) -> int:
    try:
        return main()
    except BrokenPipeError:
        raise
    except BridgeError as error:
        return failure(error, as_json=as_json)
    except OSError as error:
        return failure(StorageError(error), as_json=as_json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of an extension module is no Exception
        return failure(fault(error, program), as_json=as_json)


def _drop_output() -> None:
    """What is left in the buffer has nowhere to go; Python would try once more when it ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _said(error: BaseException) -> str:
    try:
        return shortened(str(error), 500)
    except Exception:  # one that cannot even say what it is
        return ""


def without_tracebacks() -> None:
    """From now on a failure of this program's environment that nobody caught ends in words.

    A file system that is full, read-only or not there can fail any call; a person is told which
    file it was. What points at a mistake in this project keeps its traceback.
    """
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        raise SystemExit(_INTERRUPTED)
    if isinstance(error, BrokenPipeError):  # the reader of the output has gone
        raise SystemExit(2)
    if isinstance(error, OSError):
        error = StorageError(error)
    if isinstance(error, BridgeError):
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code)
    sys.__excepthook__(kind, error, traceback)
