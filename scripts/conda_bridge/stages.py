"""Runs a list of stages: skips what is done, keeps a log of each, names it in every error."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from . import atomic
from .errors import BridgeError, BuildFailed, StorageError
from .ledger import Entry, Ledger
from .progress import Progress

__all__ = ["Log", "Outcome", "Stage", "StageFailed", "run_stages"]


class Log:
    """The log of one stage; its newest line is also the one on the display."""

    def __init__(self, path: Path, stream: TextIO, progress: Progress) -> None:
        self.path = path
        self._stream = stream
        self._progress = progress

    def line(self, text: str) -> None:
        """Writes a line."""
        self._stream.write(text.rstrip("\n") + "\n")
        self._stream.flush()
        self._progress.line(text)


@dataclass(frozen=True)
class Stage:
    """One step from an input to an output.

    Attributes:
        kind: what a person names it by, e.g. ``wheel``.
        name: of its ledger entry and its log, e.g. ``cu130_torch213/wheel``.
        title: what a person reads.
        lock: what it works on; of the stages with one lock, in all processes, one runs at a time.
        key: a digest of everything that goes in; None when an input is not there yet.
        run: does the work and returns the files it made and facts for the summary.
        sound: whether what the stage shares with others (and so cannot record) is in order.
    """

    kind: str
    name: str
    title: str
    lock: str
    key: Callable[[], str | None]
    run: Callable[[Log], tuple[Sequence[Path], Mapping[str, object]]]
    sound: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: ``done``, ``kept`` (nothing had changed) or ``due`` (a dry run)."""

    stage: str
    title: str
    outcome: str
    seconds: float
    facts: Mapping[str, object] = field(default_factory=dict)
    log: str = ""


class StageFailed(BridgeError):
    """A stage that failed, with its name and log; the cause is what it raised."""

    def __init__(self, stage: Stage, log: Path, cause: BridgeError) -> None:
        self.stage = stage.name
        self.cause = cause
        self.code = cause.exit_code
        super().__init__(f"{stage.title} failed: {cause}", fix=f"the whole log: {log}")


@contextlib.contextmanager
def _open_log(path: Path, progress: Progress) -> Iterator[Log]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="replace") as stream:
        yield Log(path, stream, progress)


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
    # Two builds in one folder: the second waits, and finds the stage done.
    with atomic.lock(ledger.folder.parent / "locks" / f"{stage.lock}.lock"):
        key = stage.key()
        entry = ledger.lookup(stage.name, key) if key is not None else None
        log_path = logs / f"{stage.name}.log"
        shown = os.path.relpath(log_path)
        if entry is not None and stage.sound():
            progress.end("kept", _facts(entry))
            return Outcome(stage.name, stage.title, "kept", 0.0, entry.facts, shown)
        if dry_run:
            progress.finished += 1
            return Outcome(stage.name, stage.title, "due", 0.0, {}, shown)
        started = time.monotonic()
        try:
            with _open_log(log_path, progress) as log:
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
            raise StageFailed(stage, Path(shown), error) from error
        seconds = time.monotonic() - started
        # The key again: a stage may be what makes its own inputs (downloads) complete.
        recorded = ledger.record(stage.name, stage.key() or "", made, seconds, facts)
        progress.end("done", _facts(recorded))
        return Outcome(stage.name, stage.title, "done", seconds, facts, shown)
