"""Builds flashinfer for one or more variants: conda packages, wheels, channel, index, all tried.

Needs Python 3.11, a C++ compiler and a package index; everything else it sets up by itself.

Examples:
    python scripts/build.py                                   # the default variant
    python scripts/build.py --variant cpu_torch213 --variant cu130_torch211
    python scripts/build.py --arch 9.0a                       # Hopper only, into dist-9.0a/
    python scripts/build.py --library cu130                   # the kernels alone, without a torch
    python scripts/build.py --variant cpu_torch213 --stage wheel
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

from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser, print_json, print_ready, say
from flashinfer_build import bootstrap

bootstrap.ensure(__file__, builds=True)

from conda_bridge.errors import BridgeError
from conda_bridge.system import atomic
from conda_bridge.system.progress import Progress
from flashinfer_build import report
from flashinfer_build.compile import variables
from flashinfer_build.pipeline import options
from flashinfer_build.pipeline.jobs import STAGES
from flashinfer_build.pipeline.pipeline import Pipeline
from flashinfer_build.variants import DEFAULT_VARIANT


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
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
        "--library",
        action="append",
        metavar="ACCELERATOR",
        help="only libflashinfer, for this CUDA (cu130) or the cpu, without a torch; several times",
    )
    parser.add_argument(
        "--stage",
        choices=STAGES,
        metavar="STAGE",
        help=f"this stage alone, of what the others left; one of {', '.join(STAGES)}",
    )
    parser.add_argument(
        "--list", action="store_true", help="the variants, their names, their source"
    )
    parser.add_argument(
        "--no-kernels",
        action="store_true",
        help="fail rather than compile kernels: another machine has built them",
    )
    options.add(parser)
    parser.add_argument("--dry-run", action="store_true", help="say which steps are due")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="also write the result as JSON to this file"
    )
    return parser


@door("build.py")
def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if args.all and args.variant:
        parser.error("--all and --variant exclude each other")
    if args.library and (args.all or args.variant):
        parser.error("--library excludes --all and --variant")
    try:
        pipeline = Pipeline(options.settings(args))
        if args.list:
            rows = pipeline.rows()
            print_json(rows) if args.json else print_ready(report.variants_table(rows))
            return 0
        if args.library:
            specs = []
        else:
            specs = pipeline.available() if args.all else pipeline.select(args.variant)
        for line in variables.without_part_in_packages(os.environ):
            say(f"note: {line}", error=True)
        progress = Progress(0, quiet=args.json and not sys.stderr.isatty())
        with progress.running():
            result = pipeline.run(
                specs,
                progress,
                libraries=args.library or (),
                stage=args.stage,
                kernels=not args.no_kernels,
                dry_run=args.dry_run,
            )
        if args.record:
            atomic.write_text(args.record, json.dumps(result.as_dict(), indent=1))
    except BridgeError as error:
        return failure(error, as_json=args.json)
    except KeyboardInterrupt:
        print("interrupted; the next call continues here", file=sys.stderr)
        return 130
    if args.json:
        print_json(result.as_dict())
    else:
        report.print_build(result)
    return result.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
