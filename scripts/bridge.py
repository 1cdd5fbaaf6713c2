"""Writes the wheel of each flashinfer conda package: the same payload bytes, for pip.

The libflashinfer that a package pins is read from the same folder.

Examples:
    python scripts/bridge.py dist/channel/linux-64/flashinfer-*.conda -o dist/wheels/
    python scripts/bridge.py dist/channel/linux-64/flashinfer-*.conda --platform-tag auto
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

from conda_bridge.bridge.convert import bridge
from conda_bridge.cli.conversion import convert_all
from conda_bridge.cli.options import add_threads
from conda_bridge.cli.to_wheel import lines
from conda_bridge.project import Project


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
    add_threads(parser)
    args = parser.parse_args(arguments)
    project = Project.load(bootstrap.project_root() / "pyproject.toml")
    return convert_all(
        args.packages,
        lambda package, report: bridge(
            package,
            args.output,
            project=project,
            platform_tag=args.platform_tag,
            overwrite=args.overwrite,
            dry_run=args.dry_run,
            threads=args.threads,
            report=report,
        ),
        lines,
        args.output,
        key="wheels",
        as_json=args.json,
    )


if __name__ == "__main__":
    raise SystemExit(main())
