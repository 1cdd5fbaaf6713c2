"""Runs a list of stages: skips what is done, keeps a log of each, names it in every error."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from conda_bridge.errors import BridgeError, BuildFailed, ConfigError, StorageError
from conda_bridge.printable import printable_lines
from conda_bridge.system import atomic
from conda_bridge.system.progress import Progress
from conda_bridge.system.usage import NO_COST, Cost, measured

from .ledger import Entry, Ledger

__all__ = ["Log", "Made", "Outcome", "Stage", "StageFailed", "first_missing", "run_stages"]

# The files that a stage made, and facts for the summary.
Made = tuple[Sequence[Path], Mapping[str, object]]


class Log:
    """The log of one stage; its newest line is also the one on the display."""

    def __init__(self, stream: TextIO, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress

    def line(self, text: str) -> None:
        """Writes a line."""
        self._stream.write(printable_lines(text.rstrip("\n")) + "\n")
        self._stream.flush()
        self._progress.line(text)


@dataclass(frozen=True)
class Stage:
    """One step from an input to an output.

    Attributes:
        kind: what a person names it by, e.g. ``wheel``.
        name: of its ledger entry and its log, e.g. ``cu130_torch213/wheel``.
        title: what a person reads.
        lock: name of an exclusive lock between processes, for what the stage changes.
        key: a digest of everything that goes in; None when an input is not there yet.
        run: does the work and returns the files it made and facts for the summary.
        needs: the kinds of the stages that have to be done before it.
        reads: locks of what it only reads: held together with others that read.
        sound: whether what the stage shares with others (and so cannot record) is in order.
    """

    kind: str
    name: str
    title: str
    lock: str
    key: Callable[[], str | None]
    run: Callable[[Log], Made]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    sound: Callable[[], bool] = lambda: True

    def done(self, ledger: Ledger) -> Entry | None:
        """What is recorded of it, if nothing that it reads, made or shares has changed since."""
        key = self.key()
        entry = ledger.lookup(self.name, key) if key is not None else None
        return entry if entry is not None and self.sound() else None


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes:
        stage: its name.
        title: what a person reads.
        outcome: ``done``, ``kept`` (nothing had changed) or ``due`` (a dry run).
        seconds: that it took now.
        facts: for the summary.
        log: where its log is.
        cost: of the run that made what there is, now or earlier.
    """

    stage: str
    title: str
    outcome: str
    seconds: float
    facts: Mapping[str, object] = field(default_factory=dict)
    log: str = ""
    cost: Cost = NO_COST

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "stage": self.stage,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 2),
            "cost": self.cost.as_dict(),
            "log": self.log,
            "facts": dict(self.facts),
        }


class StageFailed(BridgeError):
    """A stage that failed, with its name and log; the cause is what it raised."""

    def __init__(self, stage: Stage, log: Path, cause: BridgeError, cost: Cost = NO_COST) -> None:
        self.stage = stage.name
        self.log = str(log)
        self.cause = cause
        self.cost = cost
        self.code = cause.exit_code
        super().__init__(f"{stage.title} failed: {cause}", fix=f"the whole log: {log}")

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``, with what it cost."""
        return {**super().as_dict(), "log": self.log, "cost": self.cost.as_dict()}


@contextlib.contextmanager
def _open_log(path: Path, progress: Progress) -> Iterator[Log]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="replace") as stream:
        yield Log(stream, progress)


def _facts(entry: Entry) -> str:
    return str(entry.facts.get("summary", ""))


def run_stages(
    stages: Sequence[Stage],
    ledger: Ledger,
    logs: Path,
    progress: Progress,
    *,
    dry_run: bool = False,
) -> list[Outcome]:
    """Runs `stages` in order, those whose inputs or outputs changed since they were recorded.

    Args:
        logs: the folder of the log files.
        dry_run: only say which stages are due.

    Raises:
        StageFailed: the first stage that failed; what came before it stays done.
    """
    return [_run_stage(stage, ledger, logs, progress, dry_run) for stage in stages]


def first_missing(stages: Sequence[Stage], kind: str, ledger: Ledger) -> Stage | None:
    """The first of `stages` that has to run before the one of this `kind` can run alone.

    Args:
        stages: in order, that one and all that it needs among them.

    Raises:
        ConfigError: none is of this kind.
    """
    by_kind = {stage.kind: stage for stage in stages}
    if kind not in by_kind:
        raise ConfigError(f"there is no stage {kind!r}", expected=", ".join(by_kind))
    wanted: set[str] = set()
    waiting = list(by_kind[kind].needs)
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting += by_kind[name].needs
    for stage in stages:
        if stage.kind in wanted and stage.done(ledger) is None:
            return stage
    return None


@contextlib.contextmanager
def _locked(stage: Stage, folder: Path) -> Iterator[None]:
    """Two builds in one folder: the second waits, and finds the stage done.

    Nobody waits for ever: what a stage reads was made by stages that come before it, so that no
    two can each hold what the other wants.
    """
    with contextlib.ExitStack() as held:
        for name in stage.reads:
            held.enter_context(atomic.lock(folder / f"{name}.lock", shared=True))
        held.enter_context(atomic.lock(folder / f"{stage.lock}.lock"))
        yield


def _run_stage(
    stage: Stage, ledger: Ledger, logs: Path, progress: Progress, dry_run: bool
) -> Outcome:
    """One stage; the disk may be full at any of its lines."""
    progress.start(stage.title)
    try:
        return _run_locked(stage, ledger, logs, progress, dry_run)
    except OSError as error:
        progress.end("failed")
        shown = os.path.relpath(logs / f"{stage.name}.log")
        raise StageFailed(stage, Path(shown), StorageError(error)) from error


def _run_locked(
    stage: Stage, ledger: Ledger, logs: Path, progress: Progress, dry_run: bool
) -> Outcome:
    with _locked(stage, ledger.folder.parent / "locks"):
        entry = stage.done(ledger)
        log_path = logs / f"{stage.name}.log"
        shown = os.path.relpath(log_path)
        if entry is not None:
            progress.end("kept", _facts(entry))
            return Outcome(stage.name, stage.title, "kept", 0.0, entry.facts, shown, entry.cost)
        if dry_run:
            progress.finished += 1
            return Outcome(stage.name, stage.title, "due", 0.0, {}, shown)
        try:
            with _open_log(log_path, progress) as log, measured() as meter:
                try:
                    made, facts = stage.run(log)
                except BridgeError as error:
                    with contextlib.suppress(OSError):  # a full disk: the error counts, not its log
                        log.line(str(error))
                    raise
                except OSError as error:
                    with contextlib.suppress(OSError):
                        log.line(traceback.format_exc())
                    raise StorageError(error) from error
                except Exception as error:
                    log.line(traceback.format_exc())
                    raise BuildFailed(f"{type(error).__name__}: {error}") from error
        except BridgeError as error:
            progress.end("failed")
            raise StageFailed(stage, Path(shown), error, meter.cost) from error
        cost = meter.cost
        # The key again: a stage may be what makes its own inputs (downloads) complete.
        recorded = ledger.record(stage.name, stage.key() or "", made, cost, facts)
        progress.end("done", _facts(recorded))
        return Outcome(stage.name, stage.title, "done", cost.seconds, facts, shown, cost)
