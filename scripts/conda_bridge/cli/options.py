"""The options that subcommands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..project import Project

__all__ = [
    "add_conversion",
    "add_json",
    "add_mapping",
    "add_project",
    "add_threads",
    "mapping_of",
    "project_of",
]


def add_project(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--no-config``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a pyproject.toml with [tool.conda-bridge], or a TOML file of that table alone;"
        " default: the nearest pyproject.toml that has it, here or above",
    )
    group.add_argument(
        "--no-config", action="store_true", help="the defaults, whatever lies here or above"
    )


def add_mapping(parser: argparse.ArgumentParser) -> None:
    """``--mapping``."""
    parser.add_argument(
        "--mapping",
        type=Path,
        metavar="FILE",
        help="names of packages in conda and on PyPI (TOML or JSON), before all other tables",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="one JSON object")


def add_conversion(parser: argparse.ArgumentParser, made: str, output: Path, shown: str) -> None:
    """What both directions take, but for the files and the tables of names.

    Args:
        parser: takes the options.
        made: what is written, ``wheel`` or ``package``.
        output: where to, if nothing is said.
        shown: the same, for ``--help``.
    """
    parser.add_argument(
        "-o", "--output", type=Path, default=output, metavar="FOLDER", help=f"default: {shown}"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help=f"replace a {made} that has other bytes"
    )
    add_threads(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    add_json(parser)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``."""
    parser.add_argument(
        "--threads",
        type=_threads,
        default=0,
        help="that compress; the bytes are the same for any; default: one a core, of as many as "
        "take 350 MB",
    )


def _threads(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads, such as 4")
    return int(text)


def project_of(args: argparse.Namespace, *, hooks: bool = True) -> Project:
    """The project that the options choose.

    Args:
        args: parsed.
        hooks: whether its own checks will be called; a command that calls none runs none of its
            code.

    Raises:
        ConfigError: its table cannot be used.
    """
    from .. import config
    from ..errors import ConfigError
    from ..project import Project

    if args.no_config:
        return Project()
    if args.config:
        return Project.load(args.config, hooks=hooks)
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the folder was removed under us
        return Project()
    try:
        return Project.load(config.find(here), hooks=hooks)
    except ConfigError as error:
        # It was found, not asked for: it may have nothing to do with the package.
        fix = "; ".join(filter(None, [error.fix, "or leave the file out with --no-config"]))
        raise ConfigError(error.what, where=error.where, expected=error.expected, fix=fix) from None


def mapping_of(args: argparse.Namespace) -> Mapping[str, str | None] | None:
    """The names of ``--mapping``; None without it.

    Raises:
        ConfigError: the file cannot be used.
    """
    if args.mapping is None:
        return None
    from ..bridge.names import read_mapping

    return read_mapping(args.mapping)
