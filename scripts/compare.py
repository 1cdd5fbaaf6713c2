"""Compares conda packages of two builders by content: names, metadata, file lists, bytes.

Examples:
    python scripts/compare.py dist/channel/linux-64 croot/linux-64
    python scripts/compare.py a/libflashinfer-0.1.6-cpu_0.conda b/libflashinfer-0.1.6-cpu_0.conda
    python scripts/compare.py dist/channel/linux-64 croot/linux-64 --json

Times, compression, the form (.conda or .tar.bz2) and what a builder keeps of itself do not count.

Exit status: 0 the same, 1 a difference, 2 an input that cannot be read.
"""

from __future__ import annotations

from conda_bridge.system.failure import failure
from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import argparse
import json
from pathlib import Path

from conda_bridge.errors import BridgeError
from conda_bridge.verify.compare import Comparison, compare_all

SCHEMA = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("left", type=Path, help="a .conda or .tar.bz2, or a folder of them")
    parser.add_argument("right", type=Path, help="of the same kind")
    parser.add_argument("--builders", action="store_true", help="also list what does not count")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _show(comparison: Comparison, *, builders: bool) -> None:
    count = len(comparison.differences)
    result = "the same" if comparison.same else f"{count} difference{'s' if count > 1 else ''}"
    print(f"{comparison.name}: {result}, {comparison.files} files equal")
    for difference in comparison.differences:
        print(f"  {difference}")
    if builders:
        for item in comparison.of_the_builder:
            print(f"  of the builder: {item}")


def main() -> int:
    args = _parser().parse_args()
    try:
        comparisons = compare_all(args.left, args.right)
    except BridgeError as error:
        return failure(error, as_json=args.json)
    if args.json:
        found = [comparison.as_dict() for comparison in comparisons]
        print(json.dumps({"schema": SCHEMA, "comparisons": found}, indent=2))
    else:
        for comparison in comparisons:
            _show(comparison, builders=args.builders)
    return 0 if all(comparison.same for comparison in comparisons) else 1


if __name__ == "__main__":
    raise SystemExit(main())
