"""Writes the conda channel and the wheel index of a folder, from the packages and wheels in it.

Examples:
    python scripts/index.py dist/
    python scripts/index.py dist/ --dry-run
    python scripts/index.py dist/ --add flashinfer-0.1.6+cu130torch2.13-cp38-abi3-linux_x86_64.whl

A name that was published is never given to other bytes; entries whose file is not in the folder
are kept. Exit status: 0 done, 1 a name with other bytes, 2 unusable input.
"""

from __future__ import annotations

from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import argparse

from conda_bridge.cli.index import add_own_arguments, run_for
from conda_bridge.errors import BridgeError
from conda_bridge.project import Project
from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_own_arguments(parser)
    return parser


@door("index.py")
def main() -> int:
    args = _parser().parse_args()
    try:
        return run_for(Project.load(bootstrap.project_root() / "pyproject.toml"), args)
    except BridgeError as error:
        return failure(error, as_json=args.json)


if __name__ == "__main__":
    raise SystemExit(main())
