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
import json
import sys
from pathlib import Path

from conda_bridge.errors import BridgeError
from conda_bridge.project import Project
from conda_bridge.publish import index


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with channel/ and wheels/, such as dist/")
    parser.add_argument(
        "--add",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="copy this package or wheel in first; may be given several times",
    )
    parser.add_argument(
        "--prune", action="store_true", help="drop entries whose file is not in the folder"
    )
    parser.add_argument(
        "--replace", action="store_true", help="accept other bytes under a published name"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be written")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _show(result: index.Result, *, dry_run: bool) -> None:
    for name in result.written:
        print(f"{'would write' if dry_run else 'wrote'} {name}")
    for name in result.absent:
        print(f"kept the entry of {name}, which is not in the folder (--prune drops it)")
    for name in result.pruned:
        print(f"{'would drop' if dry_run else 'dropped'} the entry of {name}")
    if not result.written and not result.pruned:
        print("nothing has changed")
    print(f"{len(result.packages)} conda packages, {len(result.wheels)} wheels")


def main() -> int:
    args = _parser().parse_args()
    try:
        project = Project.load(bootstrap.project_root() / "pyproject.toml")
        added = []
        if args.add:
            note = (lambda _line: None) if args.json else print
            added = index.publish(
                args.add, args.folder, project=project, replace=args.replace, dry_run=args.dry_run, report=note
            )
        if added and args.dry_run and index.is_empty(args.folder):
            result = index.Result()  # there is nothing yet to look at
        else:
            result = index.update(
                args.folder, project=project, replace=args.replace, prune=args.prune, dry_run=args.dry_run
            )
    except BridgeError as error:
        if args.json:
            print(json.dumps(error.as_dict(), indent=2))
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({**result.as_dict(), "added": [str(path) for path in added]}, indent=2))
    else:
        _show(result, dry_run=args.dry_run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
