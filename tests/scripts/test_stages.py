"""stages: what is done is skipped, what is interrupted runs again, errors name the log."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from conda_bridge.errors import BuildFailed, ConfigError
from conda_bridge.system import atomic
from conda_bridge.system.progress import Progress
from flashinfer_build.pipeline.ledger import Ledger, file_digest
from flashinfer_build.pipeline.stages import (
    Log,
    Outcome,
    Stage,
    StageFailed,
    first_missing,
    run_stages,
)


def _chain(folder: Path, ran: list[str]) -> list[Stage]:
    """Three stages, each writing the letter of its own after what the one before it made."""

    def stage(name: str, before: Path | None) -> Stage:
        output = folder / name

        def key() -> str | None:
            if before is None:
                return "start"
            return file_digest(before) if before.is_file() else None

        def run(log: Log) -> tuple[Sequence[Path], Mapping[str, object]]:
            ran.append(name)
            log.line(f"making {name}")
            atomic.write_text(output, (before.read_text() if before else "") + name)
            return [output], {"summary": name}

        needs = (before.name,) if before else ()
        return Stage(name, name, name, "x", key, run, needs)

    return [stage("a", None), stage("b", folder / "a"), stage("c", folder / "b")]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[str]]:
    def go(stages: Sequence[Stage], **options: bool) -> list[str]:
        outcomes = run_stages(
            stages,
            Ledger(tmp_path / "ledger"),
            tmp_path / "logs",
            Progress(len(stages), quiet=True),
            **options,
        )
        return [outcome.outcome for outcome in outcomes]

    return go


def test_a_second_run_does_nothing(tmp_path: Path, run: Callable[..., list[str]]) -> None:
    ran: list[str] = []
    assert run(_chain(tmp_path, ran)) == ["done"] * 3
    assert (tmp_path / "c").read_text() == "abc"
    assert run(_chain(tmp_path, ran)) == ["kept"] * 3
    assert ran == ["a", "b", "c"]
    assert (tmp_path / "logs" / "b.log").read_text() == "making b\n"


def test_a_lost_output_is_made_again_and_what_follows_stays_when_its_input_is_the_same(
    tmp_path: Path, run: Callable[..., list[str]]
) -> None:
    ran: list[str] = []
    run(_chain(tmp_path, ran))
    (tmp_path / "b").unlink()
    assert run(_chain(tmp_path, ran)) == ["kept", "done", "kept"]


def test_a_stage_alone_waits_for_all_it_needs_to_be_done_and_up_to_date(
    tmp_path: Path, run: Callable[..., list[str]]
) -> None:
    ledger = Ledger(tmp_path / "ledger")

    def missing(kind: str) -> str:
        stage = first_missing(_chain(tmp_path, []), kind, ledger)
        return stage.kind if stage else ""

    assert (missing("a"), missing("b"), missing("c")) == ("", "a", "a")
    run(_chain(tmp_path, [])[:2])
    assert (missing("b"), missing("c")) == ("", "")
    (tmp_path / "b").write_text("another")
    assert missing("c") == "b"
    (tmp_path / "a").unlink()
    assert missing("c") == "a"
    with pytest.raises(ConfigError, match="no stage 'd'"):
        missing("d")


def test_the_cost_is_recorded_and_told_again_when_the_stage_is_kept(tmp_path: Path) -> None:
    size = 200 << 20

    def work(_log: Log) -> tuple[Sequence[Path], Mapping[str, object]]:
        program = f"import time; x = bytearray({size}); time.sleep(0.6)"
        subprocess.run([sys.executable, "-c", program], check=True)
        return [], {}

    def call() -> Outcome:
        stage = Stage("x", "x", "x", "x", lambda: "k", work)
        quiet = Progress(1, quiet=True)
        return run_stages([stage], Ledger(tmp_path / "ledger"), tmp_path / "logs", quiet)[0]

    done = call()
    assert done.cost.peak_memory > size
    assert 0.6 < done.seconds == done.cost.seconds
    kept = call()
    assert (kept.outcome, kept.seconds) == ("kept", 0.0)
    assert kept.cost.peak_memory == done.cost.peak_memory


def test_readers_of_a_lock_run_together_and_whoever_changes_it_waits(tmp_path: Path) -> None:
    moments: list[str] = []
    together = threading.Barrier(2, timeout=10)

    def reader(_log: Log) -> tuple[Sequence[Path], Mapping[str, object]]:
        together.wait()  # only passed when both are in here at once
        moments.append("read")
        return [], {}

    def writer(_log: Log) -> tuple[Sequence[Path], Mapping[str, object]]:
        moments.append("write")
        time.sleep(0.3)
        moments.append("written")
        return [], {}

    def call(stage: Stage) -> None:
        quiet = Progress(1, quiet=True)
        run_stages([stage], Ledger(tmp_path / "build" / "ledger"), tmp_path / "logs", quiet)

    stages = [
        Stage("w", "w", "w", "data", lambda: "k", writer),
        Stage("r1", "r1", "r", "data/r1", lambda: "k", reader, reads=("data",)),
        Stage("r2", "r2", "r", "data/r2", lambda: "k", reader, reads=("data",)),
    ]
    threads = [threading.Thread(target=call, args=(stage,)) for stage in stages]
    threads[0].start()
    while not moments:
        time.sleep(0.01)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert moments == ["write", "written", "read", "read"]


def test_a_dry_run_makes_nothing(tmp_path: Path, run: Callable[..., list[str]]) -> None:
    ran: list[str] = []
    assert run(_chain(tmp_path, ran), dry_run=True) == ["due"] * 3
    assert ran == []
    assert not (tmp_path / "a").exists()


def test_outcomes_and_lines_say_what_became_of_each_stage(tmp_path: Path) -> None:
    """Done, kept or due: under its own name, with its log and what it said of itself."""

    def silent(_log: Log) -> tuple[Sequence[Path], Mapping[str, object]]:
        return [], {}

    stages = [replace(stage, title=f"to {stage.name}") for stage in _chain(tmp_path, [])]
    stages.append(Stage("d", "d", "to d", "x", lambda: "k", silent))

    def go(dry_run: bool = False) -> tuple[list[Outcome], list[str]]:
        progress = Progress(len(stages))
        progress.console = Console(file=io.StringIO(), width=60)
        logs = tmp_path / "logs"
        found = run_stages(stages, Ledger(tmp_path / "ledger"), logs, progress, dry_run=dry_run)
        assert progress.finished == len(stages)
        return found, progress.console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    for outcome, dry_run in (("due", True), ("done", False), ("kept", False), ("kept", True)):
        found, lines = go(dry_run)
        for name, stage, one in zip("abcd", stages, found, strict=True):
            assert (one.stage, one.title, one.outcome) == (name, stage.title, outcome)
            assert Path(one.log).resolve() == (tmp_path / "logs" / f"{name}.log").resolve()
            said = {"summary": name} if name != "d" and outcome != "due" else {}
            assert one.as_dict()["facts"] == said
            assert (one.as_dict()["stage"], one.as_dict()["outcome"]) == (name, outcome)
        if outcome == "due":
            assert lines == []
            continue
        assert [line.split()[1:3] for line in lines] == [["to", name] for name in "abcd"]
        ending = "unchanged" if outcome == "kept" else " s"
        for line, name in zip(lines[:3], "abc", strict=True):
            assert line.endswith(f"{ending}  {name}")
        assert lines[3].rstrip().endswith(ending), "it has nothing to say of itself"


def test_a_failure_names_stage_cause_and_log_and_keeps_what_was_done(
    tmp_path: Path, run: Callable[..., list[str]]
) -> None:
    def fail(log: Log) -> tuple[Sequence[Path], Mapping[str, object]]:
        log.line("the compiler says no")
        raise BuildFailed("it does not compile", where="x.cu")

    ran: list[str] = []
    first, _second, third = _chain(tmp_path, ran)
    broken = Stage("b", "b", "the kernels", "b", lambda: "k", fail)
    with pytest.raises(StageFailed) as caught:
        run([first, broken, third])
    assert "the kernels failed: x.cu: it does not compile" in str(caught.value)
    assert "logs/b.log" in str(caught.value)
    assert caught.value.code == 1
    assert "the compiler says no" in (tmp_path / "logs" / "b.log").read_text()
    assert ran == ["a"]
    assert run(_chain(tmp_path, ran)) == ["kept", "done", "done"]


def test_an_unexpected_exception_has_its_traceback_in_the_log(
    tmp_path: Path, run: Callable[..., list[str]]
) -> None:
    def crash(log: Log) -> tuple[Sequence[Path], Mapping[str, object]]:
        raise ZeroDivisionError("oh")

    with pytest.raises(StageFailed, match="ZeroDivisionError: oh"):
        run([Stage("x", "x", "x", "x", lambda: "k", crash)])
    assert "Traceback" in (tmp_path / "logs" / "x.log").read_text()


def test_a_full_disk_is_said_with_what_to_do(
    tmp_path: Path, run: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "a"))

    def work(log: Log) -> tuple[Sequence[Path], Mapping[str, object]]:
        full()
        return [], {}

    inside = Stage("x", "x", "the wheel", "x", lambda: "k", work)
    with pytest.raises(StageFailed) as caught:
        run([inside])
    assert caught.value.code == 2
    assert "the wheel failed" in str(caught.value)
    assert f"{tmp_path / 'a'}: OSError: No space left on device" in str(caught.value)
    assert "free space there" in str(caught.value)
    # Also where it is met around the stage: its lock, its log, its entry.
    monkeypatch.setattr(Ledger, "record", full)
    with pytest.raises(StageFailed, match="free space there") as caught:
        run(_chain(tmp_path, []))
    assert caught.value.code == 2


def test_what_is_shared_and_not_in_order_makes_a_stage_run_again(
    tmp_path: Path, run: Callable[..., list[str]]
) -> None:
    ran: list[str] = []
    stages = _chain(tmp_path, ran)
    run(stages)
    last = replace(stages[-1], sound=lambda: False)
    assert run([*stages[:-1], last]) == ["kept", "kept", "done"]
    ledger = Ledger(tmp_path / "ledger")
    assert stages[-1].done(ledger) is not None
    assert last.done(ledger) is None


_KILLED = """
import os, signal, sys
from pathlib import Path
from conda_bridge.system import atomic
from flashinfer_build.pipeline.ledger import Ledger
from conda_bridge.system.progress import Progress
from flashinfer_build.pipeline.stages import Stage, run_stages

folder, moment = Path(sys.argv[1]), int(sys.argv[2])
count = 0

def tick():
    global count
    count += 1
    if count == moment:
        os.kill(os.getpid(), signal.SIGKILL)

def watched(function):
    def call(*args, **kwargs):
        tick()
        result = function(*args, **kwargs)
        tick()
        return result
    return call

os.replace = watched(os.replace)
os.fsync = watched(os.fsync)

def stage(number):
    before, output = folder / str(number - 1), folder / str(number)
    def key():
        if number == 0:
            return "start"
        return before.read_text() if before.is_file() else None
    def run(log):
        text = (before.read_text() if number else "") + str(number)
        tick()
        atomic.write_text(output, text)
        return [output], {}
    return Stage("x", str(number), str(number), "x", key, run)

run_stages([stage(n) for n in range(4)], Ledger(folder / "ledger"), folder / "logs",
           Progress(4, quiet=True))
"""


def test_killed_at_any_moment_the_next_run_completes_with_the_same_bytes(
    root: Path, tmp_path: Path
) -> None:
    environ = {**os.environ, "PYTHONPATH": str(root / "scripts")}

    def call(folder: Path, moment: int) -> int:
        command = [sys.executable, "-c", textwrap.dedent(_KILLED), str(folder), str(moment)]
        return subprocess.run(command, env=environ, cwd=tmp_path).returncode

    killed = 0
    for moment in range(1, 60, 4):
        folder = tmp_path / f"run-{moment}"
        folder.mkdir()
        status = call(folder, moment)
        for number in range(4):
            path = folder / str(number)
            whole = "".join(map(str, range(number + 1)))
            assert not path.exists() or path.read_text() == whole
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        assert call(folder, 0) == 0
        assert (folder / "3").read_text() == "0123"
    assert killed >= 8


def test_lines_not_a_terminal_are_plain_and_whole() -> None:
    progress = Progress(2)
    progress.console = Console(file=io.StringIO(), width=60)
    with progress.running():
        progress.start("the wheel")
        progress.end("done", "x" * 200)
        progress.start("the index")
        progress.end("kept")
    first, second = progress.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first.startswith("✓ the wheel")
    assert first.endswith("x" * 200)
    assert "unchanged" in second
    assert "\x1b" not in first + second
