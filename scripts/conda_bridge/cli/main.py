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
import sys
from collections.abc import Sequence
from types import ModuleType

from .. import __version__
from ..system.failure import door, stage
from ..system.terminal import ArgumentParser

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


@door("conda-bridge")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status.

    Args:
        arguments: of the command line; None for the process's own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser(given).parse_args(given)
    with stage(f"conda-bridge {args.command}"):
        return int(args.run(args))


def _parser(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
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
