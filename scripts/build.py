"""Builds flashinfer for one or more variants: conda packages, wheels, channel, index, all tried.

Needs Python 3.11, a C++ compiler and a package index; everything else it sets up by itself.

Examples:
    python scripts/build.py                                   # the default variant
    python scripts/build.py --variant cpu_torch213 --variant cu130_torch211
    python scripts/build.py --arch 9.0a                       # Hopper only, into dist-9.0a/
    python scripts/build.py --library cu130                   # the kernels alone, without a torch
    python scripts/build.py --variant cpu_torch213 --stage wheel
    python scripts/build.py --list
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

from conda_bridge import atomic, report
from conda_bridge.build_jobs import STAGES
from conda_bridge.build_settings import DEFAULT_PLATFORM
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
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="also write the result as JSON to this file"
    )
    return parser


def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if args.all and args.variant:
        parser.error("--all and --variant exclude each other")
    if args.library and (args.all or args.variant):
        parser.error("--library excludes --all and --variant")
    try:
        settings = Settings(
            root=bootstrap.project_root(),
            cache=bootstrap.cache_dir(),
            output=args.output,
            arch_list=args.arch,
            glibc=args.glibc,
            platform_tag=args.platform_tag,
            replace=args.replace,
            nightly=args.nightly,
            commit=args.commit,
            build_number=args.build_number,
            environ=dict(os.environ),
        )
        pipeline = Pipeline(settings)
        if args.list:
            rows = pipeline.rows()
            print(json.dumps(rows, indent=2) if args.json else report.variants_table(rows), end="")
            return 0
        if args.library:
            specs = []
        else:
            specs = pipeline.available() if args.all else pipeline.select(args.variant)
        progress = Progress(0, quiet=args.json and not sys.stderr.isatty())
        with progress.running():
            result = pipeline.run(
                specs,
                progress,
                libraries=args.library or (),
                stage=args.stage,
                dry_run=args.dry_run,
            )
        if args.record:
            atomic.write_text(args.record, json.dumps(result.as_dict(), indent=1))
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
