"""Writes the wheel of each flashinfer conda package: the same payload bytes, for pip.

The libflashinfer that a package pins is read from the same folder.

Examples:
    python scripts/bridge.py dist/channel/linux-64/flashinfer-*.conda -o dist/wheels/
    python scripts/bridge.py dist/channel/linux-64/flashinfer-*.conda --platform-tag auto
"""

from __future__ import annotations

import argparse
from pathlib import Path

from conda_bridge.system.failure import door
from conda_bridge.system.terminal import ArgumentParser
from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

from conda_bridge.cli.options import add_conversion
from conda_bridge.cli.to_wheel import lines, run_for
from conda_bridge.project import Project


@door("bridge.py")
def main(arguments: list[str] | None = None) -> int:
    parser = ArgumentParser(
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
        "--platform-tag",
        metavar="TAG",
        help="auto for the lowest manylinux policy that is true, or one such as"
        " manylinux_2_28_x86_64, which then has to be; default: linux_x86_64, by pyproject.toml",
    )
    add_conversion(parser, "wheel", Path("dist/wheels"), "dist/wheels")
    args = parser.parse_args(arguments)
    project = Project.load(bootstrap.project_root() / "pyproject.toml")
    return run_for(project, args, lines)


if __name__ == "__main__":
    raise SystemExit(main())
