"""Command-line options shared by build.py and matrix.py."""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from conda_bridge.errors import ConfigError

from .. import bootstrap
from .settings import DEFAULT_PLATFORM, Settings

__all__ = ["add", "settings", "words"]


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the options to `parser`."""
    parser.add_argument("--arch", metavar="LIST", help="GPU architectures, e.g. '8.0+PTX;9.0a'")
    parser.add_argument("--glibc", metavar="X.Y", help="link against this older C library")
    parser.add_argument(
        "--platform-tag",
        default=DEFAULT_PLATFORM,
        metavar="TAG",
        help="of the wheel: a manylinux tag, which is proved, or auto (default %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="where channel/, wheels/ and index/ go (default dist; with --arch or --glibc dist-X)",
    )
    parser.add_argument(
        "--channel",
        action="append",
        metavar="NAME",
        help="a conda channel with compilers and torch (name, URL or folder), asked before all "
        "other sources; may be given several times, the first wins",
    )
    parser.add_argument(
        "--no-wheel", action="store_true", help="the conda packages alone, without a wheel"
    )
    parser.add_argument(
        "--nightly",
        metavar="YYYYMMDD",
        help="a nightly of that day; 'commit' takes day and commit from the checkout's newest one",
    )
    parser.add_argument("--commit", help="the commit that joins a nightly's label")
    parser.add_argument("--build-number", type=int, metavar="N", help="of a rebuild; default 0")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="drop packages of the same name in the output that have other bytes",
    )


def settings(args: argparse.Namespace) -> Settings:
    """What the parsed options ask for.

    Raises:
        ConfigError: the commit is asked for, and the checkout has none.
    """
    root = bootstrap.project_root()
    nightly, commit = args.nightly, args.commit
    if nightly == "commit":
        nightly, commit = _newest_commit(root)
    return Settings(
        root=root,
        cache=bootstrap.cache_dir(),
        output=args.output,
        arch_list=args.arch,
        glibc=args.glibc,
        platform_tag=args.platform_tag,
        replace=args.replace,
        nightly=nightly,
        commit=commit,
        build_number=args.build_number,
        channels=tuple(args.channel or ()),
        wheel=not args.no_wheel,
        environ=dict(os.environ),
    )


def _newest_commit(root: Path) -> tuple[str, str]:
    """The day of the newest commit, in UTC, and its hash: the same on every machine."""
    command = ["git", "-C", str(root), "show", "--no-patch", "--format=%cd %h", "--abbrev=7"]
    command += ["--date=format-local:%Y%m%d", "HEAD"]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "TZ": "UTC"},
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            "git names no commit:",
            log=str(getattr(error, "stderr", "") or error).strip(),
            where=str(root),
            expected="a checkout with its history",
            fix="give --nightly the day, as YYYYMMDD, and --commit",
        ) from None
    day, _, commit = done.stdout.strip().partition(" ")
    return day, commit[:7]


def words(chosen: Settings) -> list[str]:
    """The options that ask another program for the same."""
    pairs = {
        "--arch": chosen.arch_list,
        "--glibc": chosen.glibc,
        "--output": chosen.output and str(chosen.output_dir),
        "--nightly": chosen.nightly,
        "--commit": chosen.commit,
        "--build-number": None if chosen.build_number is None else str(chosen.build_number),
    }
    if chosen.platform_tag != DEFAULT_PLATFORM:
        pairs["--platform-tag"] = chosen.platform_tag
    given = [word for name, value in pairs.items() if value for word in (name, value)]
    given += [word for channel in chosen.channels for word in ("--channel", channel)]
    flags = {"--replace": chosen.replace, "--no-wheel": not chosen.wheel}
    return [*given, *(name for name, set_ in flags.items() if set_)]
