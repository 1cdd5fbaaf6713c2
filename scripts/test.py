"""Runs every check and test: format and lint, the main job, types, the tests of what it built.

What needs a GPU is skipped where there is none, and counted. .ci/run runs this.

Examples:
    python scripts/test.py                        # everything
    python scripts/test.py --only lint
    python scripts/test.py --only tests -- tests/scripts -k label

Exit status: 0 all passed, 1 a check or a test failed, 2 the tests could not be set up.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from conda_bridge.system.failure import door
from conda_bridge.system.terminal import ArgumentParser
from flashinfer_build import bootstrap

bootstrap.ensure(__file__, "test", builds=True)

from conda_bridge.errors import BridgeError, TestsFailed
from flashinfer_build.label import Variant
from flashinfer_build.tryout import environment as test_environment

ROOT = bootstrap.project_root()
DIST = ROOT / "build" / "test" / "dist"
# The default variant and the CPU's: together they take every path of the recipe and the kernels.
VARIANTS = ("cu130_torch213", "cpu_torch213")
# A process with torch takes a gigabyte, and there are not many more long groups of tests.
_MOST_PROCESSES = 8
_PYTHON = ("scripts", "flashinfer", "recipe", "tests", "benchmarks", "examples", "setup.py")
_TYPED = ("scripts", "flashinfer", "benchmarks", "examples")


def _run(command: Sequence[str], **environ: str) -> None:
    print(
        "+", " ".join(os.path.relpath(part) if part.startswith("/") else part for part in command)
    )
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environ})
    if done.returncode != 0:
        raise TestsFailed(f"`{Path(command[0]).name}` ended with exit status {done.returncode}")


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def lint() -> None:
    """Format and lint of the Python, which way its imports point; C++ and CUDA; the workflows."""
    sources = [
        str(path.relative_to(ROOT))
        for folder in ("csrc", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".h", ".cuh", ".cu", ".cpp", ".inc")
    ]
    workflows = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(".github/workflows/*"))]
    failed = []
    for command in (
        ["ruff", "format", "--check", *_PYTHON],
        ["ruff", "check", *_PYTHON],
        ["lint-imports", "--no-cache"],
        ["clang-format", "--dry-run", "-Werror", *sources],
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows],
    ):
        try:
            _run([_tool(command[0]), *command[1:]], PYTHONPATH=str(ROOT / "scripts"))
        except TestsFailed as error:
            failed.append(error)
    if failed:
        raise failed[0]


def build() -> None:
    """The artifacts that the tests look at, by the main job itself."""
    chosen = [word for variant in VARIANTS for word in ("--variant", variant)]
    command = [sys.executable, "scripts/build.py", *chosen, "--replace", "--output", str(DIST)]
    # build.py runs in its own environment, as a user's call does.
    _run(command)


def _environment() -> Path:
    """The Python of an environment with the built wheel and the torch it is for."""
    return test_environment.make(Variant.parse(VARIANTS[0]), DIST, ROOT / "build" / "test")


def types() -> None:
    """Types of the Python, with torch's own."""
    _run([_tool("mypy"), "--python-executable", str(_environment()), *_TYPED])


def tests(arguments: Sequence[str]) -> None:
    """The tests, by pytest."""
    # -P: the installed package is what is tested, not the source tree in this folder.
    command = [str(_environment()), "-P", "-m", "pytest", *_spread(), *arguments]
    # Threads that wait must not spin: the other processes want the core.
    _run(command, FLASHINFER_TEST_DIST=str(DIST), OMP_WAIT_POLICY="PASSIVE")


def _spread() -> list[str]:
    """Options that use every core; tests/conftest.py says which tests stay together."""
    processes = min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)
    return [f"--numprocesses={processes}", "--no-loadscope-reorder"]


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=("lint", "build", "types", "tests"), help="one part alone"
    )
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    return parser


@door("test.py")
def main() -> int:
    args = _parser().parse_args()
    parts: dict[str, Callable[[], None]] = {
        "lint": lint,
        "build": build,
        "types": types,
        "tests": lambda: tests(args.pytest),
    }
    chosen = [args.only] if args.only else list(parts)
    started = time.monotonic()
    failures: dict[str, BridgeError] = {}
    for name in chosen:
        begin = time.monotonic()
        try:
            parts[name]()
        except BridgeError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            failures[name] = error
            if name == "build":
                break  # the tests would only say again that there is nothing to test
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    print(f"all: {time.monotonic() - started:.0f} s", flush=True)
    # Again, at the end: pages of passed tests may lie between a failed check and here.
    for name, failure in failures.items():
        print(f"failed: {name}: {failure}", flush=True)
    return max((failure.exit_code for failure in failures.values()), default=0)


if __name__ == "__main__":
    raise SystemExit(main())
