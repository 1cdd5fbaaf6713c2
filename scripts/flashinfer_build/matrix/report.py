"""What became of the matrix: per variant and stage the outcome, time, memory and log.

Read from the ledger, which only has what is truly done, and from the records of failures. So it
can be made at any time, also after a run that was killed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conda_bridge.system import atomic
from conda_bridge.system.usage import NO_COST, Cost

from ..pipeline.jobs import Job
from ..pipeline.ledger import Ledger
from ..pipeline.stages import Stage
from .plan import Plan

__all__ = ["MatrixReport", "StageReport", "make"]


@dataclass(frozen=True)
class StageReport:
    """What became of one stage.

    Attributes:
        kind: ``wheel``, ...
        outcome: ``done`` in this run, ``kept`` from an earlier one, ``failed``, or ``not run``.
        cost: of the run that made what there is.
        log: its whole log; empty where there is none.
        summary: what it made.
        error: why it failed.
    """

    kind: str
    outcome: str
    cost: Cost
    log: str
    summary: str
    error: str


@dataclass(frozen=True)
class MatrixReport:
    """What became of everything that was asked for.

    Attributes:
        plan: what was asked for.
        stages: of each job, by its name.
        files: what each job has published.
    """

    plan: Plan
    stages: dict[str, list[StageReport]]
    files: dict[str, list[Path]]

    def built(self, name: str) -> bool:
        """Whether all stages of a job are done."""
        return all(stage.outcome in ("done", "kept") for stage in self.stages[name])

    @property
    def exit_code(self) -> int:
        """0, or 1 when something that can be built here, or was named, is not built."""
        named = any(item.asked for item in self.plan.missing)
        return 0 if all(map(self.built, self.stages)) and not named else 1

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "schema": 1,
            "jobs": {
                name: {
                    "built": self.built(name),
                    "files": [os.path.relpath(path) for path in self.files[name]],
                    "stages": [
                        {
                            "stage": stage.kind,
                            "outcome": stage.outcome,
                            **stage.cost.as_dict(),
                            "log": stage.log,
                            "summary": stage.summary,
                            "error": stage.error,
                        }
                        for stage in stages
                    ],
                }
                for name, stages in self.stages.items()
            },
            "not_built": [vars(item) for item in self.plan.missing],
        }

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        atomic.write_text(path, json.dumps(self.as_dict(), indent=1) + "\n")


def make(plan: Plan, ledger: Ledger, folder: Path, kept: set[str]) -> MatrixReport:
    """The report of a plan.

    Args:
        plan: what was asked for.
        ledger: what is done.
        folder: where the records of the stages are.
        kept: names of the stages that were done before the run.
    """
    stages = {
        job.name: [_stage(job, stage, ledger, folder, kept) for stage in plan.stages_of(job)]
        for job in plan.jobs
    }
    files = {job.name: [path for path in job.published if path.is_file()] for job in plan.jobs}
    return MatrixReport(plan, stages, files)


def _stage(job: Job, stage: Stage, ledger: Ledger, folder: Path, kept: set[str]) -> StageReport:
    log = job.settings.build_dir / "logs" / f"{stage.name}.log"
    shown = os.path.relpath(log) if log.is_file() else ""
    record = _record(folder / job.name / f"{stage.kind}.json", job.name)
    entry = stage.done(ledger)
    if entry is not None:
        # What was called may have found that nothing had changed.
        called = [one["outcome"] for one in record.get("stages", ())]
        outcome = "kept" if stage.name in kept or called == ["kept"] else "done"
        summary = str(entry.facts.get("summary", ""))
        return StageReport(stage.kind, outcome, entry.cost, shown, summary, "")
    failure = record.get("error")
    if not failure:
        return StageReport(stage.kind, "not run", NO_COST, "", "", "")
    cost = Cost(**failure.get("cost", {}))
    return StageReport(stage.kind, "failed", cost, shown, "", failure["what"])


def _record(path: Path, name: str) -> dict[str, Any]:
    """What the program said of the stage in this run; empty where it was not called."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())["variants"][name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return record
