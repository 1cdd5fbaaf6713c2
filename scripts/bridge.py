"""Writes the wheel of each flashinfer conda package: the same payload bytes, for pip.

The libflashinfer that a package pins is read from the same folder.

Examples:
    python scripts/bridge.py dist/channel/linux-64/flashinfer-*.conda -o dist/wheels/
    python scripts/bridge.py dist/channel/linux-64/flashinfer-*.conda --platform-tag auto
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

from conda_bridge.bridge.convert import Bridged, bridge
from conda_bridge.errors import BridgeError, StorageError
from conda_bridge.project import Project

SCHEMA = 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bridge.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "packages",
        nargs="+",
        type=Path,
        metavar="flashinfer-*.conda",
        help="or .tar.bz2, conda-build's older form",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("dist/wheels"), help="default: %(default)s"
    )
    parser.add_argument(
        "--platform-tag",
        metavar="TAG",
        help="auto for the lowest manylinux policy that is true, or one such as"
        " manylinux_2_28_x86_64, which then has to be; default: linux_x86_64, by pyproject.toml",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a wheel that has other bytes"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--threads", type=int, default=0, help="that compress; the bytes are the same for any"
    )
    args = parser.parse_args(arguments)
    made: list[Bridged] = []
    errors: list[BridgeError] = []
    project = Project.load(bootstrap.project_root() / "pyproject.toml")
    for package in args.packages:
        try:
            with _display(package, quiet=args.json) as report:
                result = bridge(
                    package,
                    args.output,
                    project=project,
                    platform_tag=args.platform_tag,
                    overwrite=args.overwrite,
                    dry_run=args.dry_run,
                    threads=args.threads,
                    report=report,
                )
        except OSError as error:
            error.filename = error.filename or str(args.output)  # a full disk has no name
            errors.append(StorageError(error))
        except BridgeError as error:
            errors.append(error)
        else:
            made.append(result)
            if not args.json:
                print(_line(result))
            continue
        if not args.json:
            print(f"error: {errors[-1]}", file=sys.stderr)
    if args.json:
        wheels = [result.as_dict() for result in made]
        failures = [error.as_dict() for error in errors]
        print(json.dumps({"schema": SCHEMA, "wheels": wheels, "errors": failures}, indent=2))
    return max((error.exit_code for error in errors), default=0)


def _line(result: Bridged) -> str:
    if result.outcome == "checked":
        return (
            f"would write  {result.path}  ({len(result.payload)} files,"
            f" {result.payload_size / 1e6:.1f} MB unpacked)"
        )
    return (
        f"{result.outcome:<11}  {result.path}  {result.size / 1e6:.1f} MB"
        f"  {result.seconds:.1f} s  sha256 {result.sha256[:16]}"
    )


@contextlib.contextmanager
def _display(package: Path, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    # Only here: it takes a tenth of a second.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(package.name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


if __name__ == "__main__":
    raise SystemExit(main())
