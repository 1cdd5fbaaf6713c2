"""Runs a plan on Snakemake: in what order, where, and again after an interruption is its work.

What is done is known by the ledger alone. Before Snakemake starts, its stamps are set to say the
same, so that it runs what is due and nothing else, whatever happened to the run before.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.system import atomic, process

from .. import bootstrap
from ..compile.native import CUDA_JOB_MEMORY, available_memory
from ..pipeline.ledger import Ledger
from ..pipeline.options import words
from ..pipeline.settings import Settings
from . import report as matrix_report
from .plan import Plan

__all__ = ["SNAKEMAKE", "Where", "run", "set_stamps", "state", "work_folder"]

Report = Callable[[str], None]
_MB = 1 << 20
_REPORT = "report.json"
# What every run is given: failures do not stop the rest, what was cut off runs again, and only the
# order of stamps says what is due.
SNAKEMAKE = (
    *("--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "--nolock"),
    *("--scheduler", "greedy", "--latency-wait", "30"),
)


@dataclass(frozen=True)
class Where:
    """Where the stages run.

    Attributes:
        jobs: how many at once; on this machine, how many processors they share.
        threads: how many compilers a stage may run at once; None for as many as fit.
        executor: Snakemake's plugin, or None for this machine.
        snakemake: further options for Snakemake.
    """

    jobs: int
    threads: int | None = None
    executor: str | None = None
    snakemake: tuple[str, ...] = ()

    def compilers(self) -> int:
        """How many compilers a stage runs at once."""
        if self.threads:
            return self.threads
        if self.executor:
            return 4
        return max(1, min(self.jobs, available_memory() // CUDA_JOB_MEMORY))

    def options(self) -> list[str]:
        """Snakemake's options for this place."""
        if self.executor:
            place = ["--executor", self.executor, "--jobs", str(self.jobs)]
        else:
            memory = max(available_memory(), CUDA_JOB_MEMORY) // _MB
            place = ["--cores", str(self.jobs), "--resources", f"mem_mb={memory}"]
        return [*place, *self.snakemake]


def work_folder(settings: Settings) -> Path:
    """Where Snakemake works, and the logs, records and benchmarks of all stages are."""
    return settings.build_dir / f"matrix{settings.suffix}"


def run(
    plan: Plan,
    settings: Settings,
    ledger: Ledger,
    where: Where,
    *,
    dry_run: bool = False,
    report: Report = lambda _line: None,
) -> matrix_report.MatrixReport:
    """Runs what is due; a failure stops what depends on it and nothing else.

    Args:
        plan: what to run.
        settings: of the build.
        ledger: what is done already.
        where: where to run it.
        dry_run: have Snakemake say what it would run, and run nothing.
        report: is called with every line that Snakemake prints.

    Returns:
        What became of it, which is also written as ``report.json``.

    Raises:
        ToolchainError: Snakemake cannot be installed.
    """
    snakemake = bootstrap.environment("matrix") / "bin" / "python"
    folder = work_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    # One run at a time in a folder. Snakemake ends with this process (process.run), so that its
    # own lock, which a killed run would leave behind, has nothing to add.
    with atomic.lock(folder / "lock"), _place(folder, dry_run) as place:
        kept = set_stamps(plan, ledger, place)
        build = [sys.executable, str(settings.root / "scripts" / "build.py")]
        config = plan.as_config(build, words(settings), where.compilers())
        atomic.write_text(place / "plan.json", json.dumps(config, indent=1) + "\n")
        # fmt: off
        command = [
            str(snakemake), "-m", "snakemake",
            "--snakefile", str(settings.root / "scripts" / "matrix.smk"),
            "--directory", str(place), "--configfile", str(place / "plan.json"),
            *SNAKEMAKE, "--quiet", *(["host"] if dry_run else ["host", "reason", "rules"]),
            *(["--dry-run"] if dry_run else []),
            *where.options(),
        ]
        # fmt: on
        # The answer is the ledger's, not the exit status: a kill says nothing of what is done.
        process.run(command, environ=_environ(snakemake), cwd=settings.root, report=report)
        made = matrix_report.make(plan, ledger, place, kept)
        if not dry_run:
            made.write(folder / _REPORT)
    return made


def state(plan: Plan, settings: Settings, ledger: Ledger) -> matrix_report.MatrixReport:
    """What is done now, without running anything."""
    return matrix_report.make(plan, ledger, work_folder(settings), set())


@contextlib.contextmanager
def _place(folder: Path, dry_run: bool) -> Iterator[Path]:
    """The folder itself, or for a dry run one that is gone afterwards."""
    if not dry_run:
        yield folder
        return
    with atomic.scratch(folder) as place:
        yield place


def set_stamps(plan: Plan, ledger: Ledger, folder: Path) -> set[str]:
    """Makes Snakemake's stamps say what the ledger says.

    A stage whose input is due is due as well: Snakemake looks at the last stamp first, and would
    not make one in the middle for its own sake.

    Returns:
        The names of the stages that are done.
    """
    done: set[str] = set()
    for job in plan.jobs:
        # By kind; a variant's needs may be stages of its library, which has come before.
        names = {stage.kind: stage.name for stage in job.stages()}
        for stage in plan.stages_of(job):
            stamp = folder / job.name / f"{stage.kind}.done"
            ready = all(names[kind] in done for kind in stage.needs)
            if ready and stage.done(ledger) is not None:
                done.add(stage.name)
                stamp.parent.mkdir(parents=True, exist_ok=True)
                stamp.touch()
                # All of one time: which is older means nothing among those that are done.
                os.utime(stamp, (0, 0))
            else:
                stamp.unlink(missing_ok=True)
                stamp.with_suffix(".json").unlink(missing_ok=True)
    return done


def _environ(python: Path) -> dict[str, str]:
    """The caller's environment with Snakemake's own Python first, for jobs that start it again."""
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path}
