"""Compares conda packages of two builders by content: names, metadata, file lists, bytes.

Examples:
    python scripts/compare.py dist/channel/linux-64 croot/linux-64
    python scripts/compare.py a/libflashinfer-0.1.6-cpu_0.conda b/libflashinfer-0.1.6-cpu_0.conda
    python scripts/compare.py dist/channel/linux-64 croot/linux-64 --json

Times, compression, the form (.conda or .tar.bz2) and what a builder keeps of itself do not count.

Exit status: 0 the same, 1 a difference, 2 an input that cannot be read.
"""

from __future__ import annotations

from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import argparse

from conda_bridge.cli.compare import add_arguments, run
from conda_bridge.errors import BridgeError
from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return parser


@door("compare.py")
def main() -> int:
    args = _parser().parse_args()
    try:
        return run(args)
    except BridgeError as error:
        return failure(error, as_json=args.json)


if __name__ == "__main__":
    raise SystemExit(main())
