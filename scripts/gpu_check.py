"""Checks a wheel on a machine with a GPU: the GPU tests, then the benchmarks.

Runs with the Python that has the torch to check with, and needs nothing else there but pip and
pytest (for the benchmarks alone, pip). Nothing is downloaded or left installed.

Examples:
    python scripts/gpu_check.py
    python scripts/gpu_check.py --wheel flashinfer-0.1.6+cu130torch2.11-cp38-abi3-linux_x86_64.whl
    python scripts/gpu_check.py --only benchmarks --peer-site peer
    python scripts/gpu_check.py --dry-run

Exit status: 0 done, 1 a finding (a test failed, or a benchmark gave a wrong result), 2 nothing
could be checked: no GPU, no wheel, or a torch that the wheel is not for. A target that is missed is
no finding. docs/gpu.md has the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MINIMUM = (3, 11)
if sys.version_info < _MINIMUM:
    print(f"error: Python 3.11 or newer is needed, this is {sys.version}", file=sys.stderr)
    raise SystemExit(2)

# No bootstrap: that environment would not have this machine's torch, and would need a download.
from conda_bridge.errors import BridgeError
from conda_bridge.printable import printable
from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser, print_json
from flashinfer_build.tryout import gpu_check, gpu_machine
from flashinfer_build.tryout.gpu_machine import Build, Machine

ROOT = Path(__file__).resolve().parents[1]


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--wheel", type=Path, help="default: the one in dist/wheels that fits the torch here"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR",
        help="where <date>-<device>.json goes (default: benchmarks/results)",
    )  # fmt: skip
    parser.add_argument("--only", choices=("tests", "benchmarks"), help="one part alone")
    parser.add_argument(
        "--peer-site", type=Path, metavar="DIR",
        help="a published flashinfer to compare with: `pip install --target DIR flashinfer-python`",
    )  # fmt: skip
    parser.add_argument(
        "--cases", default="", metavar="WORD", help="only benchmarks with this in their name"
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="SIDE",
        help="leave a side out, such as flex, whose compiling takes minutes; may be repeated",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=15, help="samples a benchmark (default 15)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--json", action="store_true", help="one JSON object; progress on stderr")
    return parser


def _plan(args: argparse.Namespace) -> tuple[Machine, Build]:
    """What will be checked, after everything that can be known to be missing was looked for."""
    machine = gpu_machine.find_machine()
    build = gpu_machine.choose(args.wheel, ROOT / "dist", machine)
    gpu_machine.need("pip", "install the wheel", "python -m ensurepip")
    if args.only != "benchmarks":
        gpu_machine.need(
            "pytest",
            "run the tests",
            "`pip install pytest`; without a network, `pip install --target DIR pytest` elsewhere,"
            " bring DIR and set PYTHONPATH=DIR; or --only benchmarks",
        )
    return machine, build


def _benchmark_arguments(args: argparse.Namespace) -> list[str]:
    words = ["--rounds", str(args.rounds)]
    if args.cases:
        words += ["--only", args.cases]
    for side in args.without:
        words += ["--without", side]
    if args.peer_site:
        words += ["--peer-site", str(args.peer_site.resolve())]
    return words


def _findings(found: dict[str, Any], ran: Sequence[str], benchmarks_good: bool) -> list[str]:
    """What makes the exit status 1."""
    findings = []
    if "tests" in ran:
        tests = found["tests"]
        if tests["failed"] or tests["errors"]:
            findings.append(f"{tests['failed'] + tests['errors']} GPU tests failed")
        elif not tests["passed"]:
            findings.append("no GPU test ran")
    if not benchmarks_good:
        findings.append("benchmarks: the wheel cannot run a case, or gives a wrong result")
    return findings


def _check(args: argparse.Namespace, machine: Machine, build: Build) -> tuple[dict[str, Any], int]:
    def say(line: str) -> None:  # a headline has two
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    ran = [args.only] if args.only else ["tests", "benchmarks"]
    path = gpu_check.output_file(args.output, machine)
    tests, benchmarks, good = None, None, True
    say(_headline(machine, build))
    with gpu_check.installed(build, say) as site:
        if "tests" in ran:
            tests = gpu_check.run_tests(site, say)
            # Written at once: the benchmarks take minutes more and may be stopped.
            found = gpu_check.record(path, machine, build, tests, None)
        if "benchmarks" in ran:
            partial = path.with_suffix(".partial.json")
            words = _benchmark_arguments(args)
            benchmarks, good = gpu_check.run_benchmarks(site, partial, say, words)
            found = gpu_check.record(path, machine, build, tests, benchmarks)
            partial.unlink()
    findings = _findings(found, ran, good)
    if tests:
        say(f"tests: {tests.passed} passed, {tests.failed} failed, {tests.errors} errors,"
            f" {tests.skipped} skipped, {tests.seconds:.0f} s")  # fmt: skip
        for failure in tests.failures:
            say(f"  failed: {failure}")
    for finding in findings:
        say(f"finding: {finding}")
    say(f"written: {path}")
    return {**found, "findings": findings, "file": str(path)}, 1 if findings else 0


def _headline(machine: Machine, build: Build) -> str:
    return (
        f"{machine.name} (compute capability {machine.device['capability']}), torch"
        f" {machine.torch}, Python {machine.python}\n{build.path.name}: {build.variant},"
        f" {build.facts['ARCH_LIST']}"
    )


def _show_plan(args: argparse.Namespace, machine: Machine, build: Build) -> None:
    path = gpu_check.output_file(args.output, machine)
    steps = ["install the wheel into a scratch folder"]
    if args.only != "benchmarks":
        steps.append(f"pytest {' '.join(gpu_check.GPU_TESTS)} -m gpu")
    if args.only != "tests":
        steps.append(f"benchmarks/gpu/run.py {' '.join(_benchmark_arguments(args))}")
    steps.append(f"write {path}")
    if args.json:
        print_json({"device": machine.name, "wheel": build.path.name, "steps": steps})
    else:
        print(_headline(machine, build))
        for step in steps:
            print(f"would: {printable(step)}")


@door("gpu_check.py")
def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}, expected 1 or more")
    if args.peer_site and not args.peer_site.is_dir():
        parser.error(f"--peer-site: {args.peer_site} is not a folder")
    try:
        machine, build = _plan(args)
        if args.dry_run:
            _show_plan(args, machine, build)
            return 0
        found, code = _check(args, machine, build)
    except BridgeError as error:
        return failure(error, as_json=args.json)
    if args.json:
        print_json({**found, "exit_code": code}, indent=1)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
