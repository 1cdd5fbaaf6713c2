"""Checks a wheel on a machine with a GPU: installs it, runs the GPU tests and the benchmarks there.

Standard library alone, beside the torch of the Python that runs it: nothing is downloaded, and
nothing is installed outside of a folder that is removed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from conda_bridge.errors import TestsFailed, ToolchainError
from conda_bridge.system import atomic, process

from .gpu_machine import Build, Machine

__all__ = [
    "GPU_TESTS", "SCHEMA_VERSION", "TestReport", "installed", "output_file", "read_junit", "record",
    "run_benchmarks", "run_tests",
]  # fmt: skip

SCHEMA_VERSION = 1
# With the marker; others need what is not there.
GPU_TESTS = ("tests/ops", "tests/callers", "tests/benchmarks")
_ROOT = Path(__file__).resolve().parents[3]
_SHOWN = 15

Report = Callable[[str], None]


@dataclass(frozen=True)
class TestReport:
    """What pytest counted, and each failure with its first line."""

    __test__ = False  # pytest: data, not a test class

    passed: int
    failed: int
    errors: int
    skipped: int
    seconds: float
    failures: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Some ran and none failed."""
        return self.passed > 0 and not self.failed and not self.errors


def _environ(site: Path) -> dict[str, str]:
    """The installed wheel before all else that this Python finds."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def installed(build: Build, report: Report) -> Iterator[Path]:
    """A folder with the wheel as pip installs it, for as long as the block runs.

    Raises:
        TestsFailed: pip refuses it, or it cannot be imported from there.
    """
    with tempfile.TemporaryDirectory(prefix="flashinfer-gpu-check-") as scratch:
        site = Path(scratch) / "site"
        # fmt: off
        command = [sys.executable, "-m", "pip", "--isolated", "install", "--no-deps", "--no-index",
                   "--no-cache-dir", "--no-compile", "--disable-pip-version-check",
                   "--target", str(site), str(build.path.resolve())]
        # fmt: on
        report(f"pip install --no-deps --no-index --target <scratch> {build.path.name}")
        _must(command, dict(os.environ), "pip install")
        program = "import flashinfer as f; print(f.__version__); print(f.__file__)"
        lines = _must([sys.executable, "-P", "-c", program], _environ(site), "import flashinfer")
        version, file = lines[-2:]
        if version != build.version or not Path(file).is_relative_to(site):
            raise TestsFailed(
                f"`import flashinfer` finds {version} in {file}",
                expected=f"{build.version} in {site}",
            )
        yield site


def _must(command: Sequence[str], environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The last lines of a program that has to succeed."""
    done = process.run(command, environ=environ, cwd=Path(tempfile.gettempdir()))
    if done.code != 0:
        tail = "\n".join(done.tail[-_SHOWN:])
        raise TestsFailed(f"`{name}` stopped with exit status {done.code}:", log=tail)
    return done.tail


def run_tests(site: Path, report: Report, arguments: Sequence[str] = ()) -> TestReport:
    """The tests with the marker ``gpu``, against the wheel in `site`.

    Raises:
        TestsFailed: pytest did not get to the end.
    """
    with tempfile.TemporaryDirectory() as scratch:
        junit = Path(scratch) / "junit.xml"
        # fmt: off
        command = [sys.executable, "-P", "-m", "pytest", *GPU_TESTS, "-m", "gpu",
                   "-p", "no:cacheprovider", "-q", "-o", "junit_family=xunit2",
                   "-o", "faulthandler_timeout=120",  # shows where a test hangs
                   f"--junitxml={junit}", *arguments]
        # fmt: on
        report(f"pytest {' '.join(GPU_TESTS)} -m gpu")
        done = process.run(command, environ=_environ(site), cwd=_ROOT, report=report)
        if not junit.is_file():
            tail = "\n".join(done.tail[-_SHOWN:])
            raise TestsFailed(f"pytest stopped with exit status {done.code}:", log=tail)
        return read_junit(junit.read_bytes())


def read_junit(data: bytes) -> TestReport:
    """The counts and the failures in pytest's own XML."""
    passed = failed = errors = skipped = 0
    seconds = 0.0
    failures = []
    for test in ElementTree.fromstring(data).iter("testcase"):
        seconds += float(test.get("time", 0))
        kinds = {child.tag: child.get("message", "") for child in test}
        bad = [kind for kind in ("failure", "error") if kind in kinds]
        for kind in bad:
            first = kinds[kind].strip().partition("\n")[0]
            failures.append(f"{test.get('classname')}::{test.get('name')}: {first[:200]}")
        failed += "failure" in bad
        errors += "error" in bad
        skipped += "skipped" in kinds
        passed += not bad and "skipped" not in kinds
    return TestReport(passed, failed, errors, skipped, round(seconds, 1), tuple(failures))


def run_benchmarks(
    site: Path, output: Path, report: Report, arguments: Sequence[str] = ()
) -> tuple[dict[str, Any], bool]:
    """The benchmarks of the wheel in `site`.

    Args:
        site: see :func:`installed`.
        output: is written after every case, so that a run that is stopped leaves what it has.
        report: is called with every line.
        arguments: for ``benchmarks/gpu/run.py``.

    Returns:
        What ``benchmarks/gpu/run.py`` writes, and whether the wheel ran every case right.

    Raises:
        ToolchainError: nothing could be measured.
    """
    output.unlink(missing_ok=True)
    program = str(_ROOT / "benchmarks" / "gpu" / "run.py")
    command = [sys.executable, "-P", program, "--output", str(output.absolute()), *arguments]
    report("benchmarks/gpu/run.py")
    done = process.run(command, environ=_environ(site), cwd=_ROOT, report=report)
    if done.code not in (0, 1) or not output.is_file():
        tail = "\n".join(done.tail[-_SHOWN:])
        raise ToolchainError(f"the benchmarks stopped with exit status {done.code}:", log=tail)
    return json.loads(output.read_text()), done.code == 0


def output_file(folder: Path, machine: Machine, day: str = "") -> Path:
    """``<folder>/<date>-<device>.json``."""
    return folder / f"{day or datetime.now(UTC).date().isoformat()}-{machine.slug}.json"


def record(
    path: Path,
    machine: Machine,
    build: Build,
    tests: TestReport | None,
    benchmarks: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Writes what was found, whole or not at all.

    A part that did not run now is kept from an earlier run of the same day with the same wheel.

    Returns:
        What was written.
    """
    wheel = {
        "file": build.path.name,
        "sha256": hashlib.sha256(build.path.read_bytes()).hexdigest(),
        "version": build.version,
        "variant": build.variant,
        "archs": build.facts["ARCH_LIST"],
        "cuda": build.facts["CUDA"],
    }
    earlier: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        earlier = json.loads(path.read_text())
    if not isinstance(earlier, dict) or earlier.get("wheel") != wheel:
        earlier = {}
    found = {
        "schema_version": SCHEMA_VERSION,
        "machine": asdict(machine),
        "wheel": wheel,
        "tests": asdict(tests) if tests else earlier.get("tests"),
        "benchmarks": benchmarks if benchmarks is not None else earlier.get("benchmarks"),
    }
    atomic.write_text(path, json.dumps(found, indent=1) + "\n")
    return found
