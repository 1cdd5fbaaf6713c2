"""The matrix of builds: runs it on Snakemake, here or on a cluster, and says what CI fans out.

Examples:
    python scripts/matrix.py run -j 2 --variant cpu_torch213 --cuda-tag cu130
    python scripts/matrix.py run --all --dry-run
    python scripts/matrix.py run --all -j 40 --executor slurm -- --default-resources slurm_account=x
    python scripts/matrix.py report --all
    python scripts/matrix.py --format table
    python scripts/matrix.py check dist --event release
    python scripts/matrix.py --update-golden
    python scripts/matrix.py conda-args cu124_torch24
    python scripts/matrix.py conda-args cu126 cpu_torch213 --json
    python scripts/matrix.py config --check

A run continues where the last one stopped, and builds the kernels once per CUDA. Exit status: 0 all
built, 1 something is not built that was asked for by name or that can be built here, 2 unusable
input. docs/matrix.md says more.
"""

from __future__ import annotations

from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser, print_json, print_ready, say
from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import argparse
import os
import re
import sys
from pathlib import Path

from conda_bridge.errors import BridgeError
from conda_bridge.system import atomic
from flashinfer_build import report, variants
from flashinfer_build.matrix import conda_commands, fan_out, table
from flashinfer_build.matrix import plan as matrix_plan
from flashinfer_build.matrix import run as matrix_run
from flashinfer_build.matrix.fan_out import EVENTS
from flashinfer_build.pipeline import options
from flashinfer_build.pipeline.pipeline import Pipeline
from flashinfer_build.pipeline.settings import Settings

_NOISE = re.compile(r"Select jobs|Execute \d+ jobs|Finished jobid|\[\w{3} \w{3} .*\d{4}\]$")
GOLDEN = "tests/matrix/golden"
_EVENT_HELP = "what CI builds for: newest torch of each CUDA on a pull request, else everything"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--format", choices=("github", "json", "table"), help="print the jobs that CI fans out"
    )
    parser.add_argument("--event", choices=tuple(EVENTS), default="release", help=_EVENT_HELP)
    parser.add_argument(
        "--update-golden", action="store_true", help="rewrite tests/matrix/golden from the matrix"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    what = ArgumentParser(add_help=False)
    what.add_argument("--all", action="store_true", help="the whole matrix (the default)")
    what.add_argument("--variant", action="append", default=[], metavar="ID")
    what.add_argument(
        "--cuda-tag",
        "--accelerator",  # its earlier name
        action="append",
        default=[],
        metavar="CU",
        help="all variants of this CUDA, e.g. cu130, or of the cpu",
    )
    what.add_argument(
        "--library",
        action="append",
        default=[],
        metavar="CU",
        help="the kernels alone for this CUDA, without any torch",
    )
    what.add_argument("--json", action="store_true", help="print the report as JSON")
    options.add(what)
    run = commands.add_parser("run", parents=[what], help="build what is due")
    run.add_argument(
        "-j",
        "--jobs",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processors to use here, or jobs at once on a cluster (default: the processors here)",
    )
    run.add_argument(
        "--threads", type=int, metavar="N", help="compilers at once in one job (default: what fits)"
    )
    run.add_argument("--executor", metavar="NAME", help="a Snakemake executor plugin, e.g. slurm")
    run.add_argument("--dry-run", action="store_true", help="say what would run")
    run.add_argument("snakemake", nargs="*", help="further options for Snakemake, after --")
    commands.add_parser("report", parents=[what], help="what is built, without building")
    conda = commands.add_parser(
        "conda-args", help="what to type to build some variants with conda's own builders"
    )
    conda.add_argument(
        "names",
        nargs="*",
        metavar="VARIANT",
        help="cu124_torch24; or cu124, cpu; no name is all that conda-forge can build",
    )
    conda.add_argument("--all", action="store_true", help="the whole matrix")
    conda.add_argument(
        "-c", "--channel", action="append", default=[], help="a further channel, before conda-forge"
    )
    conda.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where the variant file goes, if any"
    )
    conda.add_argument("--dry-run", action="store_true", help="write no file")
    conda.add_argument("--json", action="store_true", help="print the commands as JSON")
    config = commands.add_parser("config", help=f"write the variant files from {table.TABLE_FILE}")
    config.add_argument("--check", action="store_true", help="compare them, write nothing")
    config.add_argument("--json", action="store_true", help="print what is written as JSON")
    check = commands.add_parser("check", help="is a folder a complete release?")
    check.add_argument("folder", type=Path, help="with channel/, wheels/ and index/")
    # Without a default of its own: it would replace an --event that stands before the command.
    check.add_argument(
        "--event", choices=tuple(EVENTS), default=argparse.SUPPRESS, help=_EVENT_HELP
    )
    check.add_argument("--json", action="store_true", help="print what is missing as JSON")
    options.add(check)
    return parser


def _fan_out(args: argparse.Namespace) -> int:
    root = bootstrap.project_root()
    pipeline = Pipeline(Settings(root, bootstrap.cache_dir(), environ={}))
    if args.update_golden:
        for event in EVENTS:
            jobs = fan_out.fan_out(pipeline, event)
            for form in ("github", "json", "table"):
                path = root / GOLDEN / f"{event}.{form}"
                atomic.write_text(path, getattr(jobs, f"as_{form}")())
                say(os.path.relpath(path))
        return 0
    jobs = fan_out.fan_out(pipeline, args.event)
    if args.event == "release":
        fan_out.check_tag(os.environ, pipeline.label(pipeline.specs[0].variant))
    text: str = getattr(jobs, f"as_{args.format}")()
    if args.format == "github" and os.environ.get("GITHUB_OUTPUT"):
        # GitHub reads a step's outputs from this file.
        with Path(os.environ["GITHUB_OUTPUT"]).open("a") as stream:
            stream.write(text)
    print(text, end="")
    return 0


def _check(args: argparse.Namespace) -> int:
    pipeline = Pipeline(options.settings(args))
    missing = fan_out.missing_files(pipeline, args.event, args.folder)
    if args.json:
        print_json({"schema": 1, "missing": missing})
    elif missing:
        print("\n".join(f"missing {name}" for name in missing))
    else:
        print("complete")
    return 1 if missing else 0


def _conda_args(args: argparse.Namespace) -> int:
    root = bootstrap.project_root()
    specs = variants.load(root / "conda_build_config.yaml")
    chosen = (
        specs if args.all else conda_commands.choose(specs, args.names, anywhere=bool(args.channel))
    )
    names = args.names or (["all"] if args.all else ["conda-forge"])
    file = conda_commands.default_file(names)
    if args.output:
        given = args.output.resolve()
        file = given.relative_to(root) if given.is_relative_to(root) else given
    made = conda_commands.commands(specs, chosen, file=file, channels=args.channel)
    if not args.dry_run:
        made.write(root)
    if args.json:
        print_json(made.as_dict())
        return 0
    if made.file:
        say(f"{'would write' if args.dry_run else 'wrote'} {made.file}")
    for line in made.lacking:
        say(line)
    if Path.cwd() != root:
        say(f"in {root}:")
    for command in made.commands.values():
        say(command)
    return 0


def _config(args: argparse.Namespace) -> int:
    root = bootstrap.project_root()
    made = table.variant_files(table.read(root / table.TABLE_FILE))
    due = [name for name, text in made.items() if _read(root / name) != text]
    if not args.check:
        for name in due:
            atomic.write_text(root / name, made[name])
        if due:
            variants.load(root / variants.CONFIG_FILE.name)
    if args.json:
        print_json({"schema": 1, "due" if args.check else "written": due})
    else:
        for name in due:
            say(f"{name} is not what {table.TABLE_FILE} says" if args.check else f"wrote {name}")
        if args.check and due:
            say("to do:    python scripts/matrix.py config")
        if not due:
            say("nothing has changed")
    return 1 if args.check and due else 0


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _show(line: str) -> None:
    """What Snakemake says, without what says nothing."""
    if line.strip() and not _NOISE.match(line):
        say(line, error=True)


def _run(args: argparse.Namespace) -> int:
    pipeline = Pipeline(options.settings(args))
    plan = matrix_plan.plan(
        pipeline, variants=args.variant, cuda_tags=args.cuda_tag, libraries=args.library
    )
    if args.command == "report":
        made = matrix_run.state(plan, pipeline.settings, pipeline.ledger)
    else:
        where = matrix_run.Where(args.jobs, args.threads, args.executor, tuple(args.snakemake))
        made = matrix_run.run(
            plan,
            pipeline.settings,
            pipeline.ledger,
            where,
            dry_run=args.dry_run,
            report=_show,
        )
        if args.dry_run:
            return 0
    if args.json:
        print_json(made.as_dict())
    else:
        print_ready(report.matrix_table(made))
    return made.exit_code


@door("matrix.py")
def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    try:
        if args.command is None:
            if not (args.format or args.update_golden):
                parser.error(
                    "one of run, report, check, conda-args, config, --format and"
                    " --update-golden is needed"
                )
            return _fan_out(args)
        if args.command == "check":
            return _check(args)
        if args.command == "config":
            return _config(args)
        if args.command == "conda-args":
            if args.all and args.names:
                parser.error("--all excludes names")
            return _conda_args(args)
        if args.all and (args.variant or args.cuda_tag or args.library):
            parser.error("--all excludes --variant, --cuda-tag and --library")
        return _run(args)
    except BridgeError as error:
        return failure(error, as_json=getattr(args, "json", False))
    except KeyboardInterrupt:
        print("interrupted; the next call continues here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
