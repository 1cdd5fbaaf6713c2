"""Packages between conda and pip: bridged in both directions, checked, compared and published.

Examples:
    conda-bridge to-wheel toy-1.0-py312h1_0.conda -o wheels/
    conda-bridge to-conda toy-1.0-cp312-cp312-manylinux_2_28_x86_64.whl -o channel/linux-64/
    conda-bridge show toy-1.0-py312h1_0.conda
    conda-bridge verify wheels/ channel/
    conda-bridge index dist/

`conda-bridge COMMAND --help` has the options of each. What a project says of itself is in the table
[tool.conda-bridge] of its pyproject.toml; without one, defaults for anybody's package hold.

Exit status: 0 done, 1 a finding (the input was understood and is wrong), 2 unusable input.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from .. import __version__
from ..errors import BridgeError, StorageError

__all__ = ["main"]

_COMMANDS = {
    "to-wheel": "a conda package becomes a wheel",
    "to-conda": "a wheel becomes a conda package",
    "verify": "is everything that artifacts say of themselves true?",
    "compare": "are two conda packages the same?",
    "index": "write a conda channel and a wheel index",
    "label": "the names of a build",
    "show": "what is inside a wheel or a conda package",
}
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # what a shell says of a program that the signal ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status.

    Args:
        arguments: of the command line; None for the process's own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a character still shows the rest.
            if stream is not None and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        code = _run(given)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()  # whoever reads has enough
        return _PIPE_CLOSED
    except OSError as error:  # what was printed, and not what was done
        _drop_output()
        error.filename = error.filename or "standard output"
        return _failed(StorageError(error), as_json=False)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED


def _drop_output() -> None:
    """What is left in the buffer has nowhere to go; Python would try once more when it ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str]) -> int:
    parser = _parser(arguments)
    args = parser.parse_args(arguments)
    as_json = bool(getattr(args, "json", False))
    try:
        return int(args.run(args))
    except BridgeError as error:
        return _failed(error, as_json=as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _failed(StorageError(error), as_json=as_json)
    except Exception as error:
        if os.environ.get("CONDA_BRIDGE_TRACEBACK"):
            raise
        fault = BridgeError(
            f"{type(error).__name__}: {error}",
            where=f"conda-bridge {args.command}",
            fix="this is a fault of the program: CONDA_BRIDGE_TRACEBACK=1 shows where it is",
        )
        return _failed(fault, as_json=as_json)


def _failed(error: BridgeError, *, as_json: bool) -> int:
    from ..system.failure import failure

    return failure(error, as_json=as_json)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="conda-bridge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"conda-bridge {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, about in _COMMANDS.items():
        # Only the one that is asked for: the others' modules are not needed to list them.
        module = _module(name) if name in arguments else None
        command = commands.add_parser(
            name,
            help=about,
            description=module.__doc__ if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if module:
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def _module(command: str) -> ModuleType:
    return importlib.import_module(f".{command.replace('-', '_')}", __package__)
