"""Builds flashinfer for one or more variants: conda packages, wheels, channel, index, all tried.

Needs Python 3.11, a C++ compiler and a package index; everything else it sets up by itself.

Examples:
    python scripts/build.py                                   # the default variant
    python scripts/build.py --variant cpu_torch213 --variant cu130_torch211
    python scripts/build.py --arch 9.0a                       # Hopper only, into dist-9.0a/
    python scripts/build.py --list
    python scripts/build.py --channel conda-forge --variant cu126_torch26 --no-wheel
    python scripts/build.py --all --dry-run

Exit status: 0 done, 1 something built is not right, 2 unusable input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from conda_bridge import bootstrap

bootstrap.ensure(__file__)

from conda_bridge import report
from conda_bridge.errors import BridgeError
from conda_bridge.pipeline import Pipeline, Settings
from conda_bridge.progress import Progress
from conda_bridge.variants import DEFAULT_VARIANT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--variant",
        action="append",
        metavar="ID",
        help=f"what to build, may be given several times (default {DEFAULT_VARIANT})",
    )
    parser.add_argument("--all", action="store_true", help="every variant with a toolchain here")
    parser.add_argument(
        "--list", action="store_true", help="the variants, their names, their source"
    )
    parser.add_argument("--arch", metavar="LIST", help="GPU architectures, e.g. '8.0+PTX;9.0a'")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="where channel/, wheels/ and index/ go (default dist, with --arch dist-LIST)",
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
    parser.add_argument("--nightly", metavar="YYYYMMDD", help="a nightly of that day")
    parser.add_argument("--commit", help="the commit that joins a nightly's label")
    parser.add_argument("--build-number", type=int, metavar="N", help="of a rebuild; default 0")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="drop packages of the same name in the output that have other bytes",
    )
    parser.add_argument("--dry-run", action="store_true", help="say which steps are due")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if args.all and args.variant:
        parser.error("--all and --variant exclude each other")
    try:
        settings = Settings(
            root=bootstrap.project_root(),
            cache=bootstrap.cache_dir(),
            output=args.output,
            arch_list=args.arch,
            replace=args.replace,
            nightly=args.nightly,
            commit=args.commit,
            build_number=args.build_number,
            channels=tuple(args.channel or ()),
            wheel=not args.no_wheel,
            environ=dict(os.environ),
        )
        pipeline = Pipeline(settings)
        if args.list:
            rows = pipeline.rows()
            print(json.dumps(rows, indent=2) if args.json else report.variants_table(rows), end="")
            return 0
        specs = pipeline.available() if args.all else pipeline.select(args.variant)
        progress = Progress(0, quiet=args.json and not sys.stderr.isatty())
        with progress.running():
            result = pipeline.run(specs, progress, dry_run=args.dry_run)
    except BridgeError as error:
        return report.failure(error, as_json=args.json)
    except KeyboardInterrupt:
        print("interrupted; the next call continues here", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        report.print_build(result)
    return result.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
