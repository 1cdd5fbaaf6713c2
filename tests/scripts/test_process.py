"""Programs in a group of their own: lines, status, and nothing left running whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from conda_bridge.system import process

ENVIRON = {"PATH": os.environ["PATH"]}


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def pid_in(path: Path) -> int:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if path.is_file() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def test_lines_of_both_streams_and_the_status() -> None:
    lines: list[str] = []
    done = process.run(
        ["sh", "-c", "echo one; echo two >&2; exit 3"], environ=ENVIRON, report=lines.append
    )
    assert sorted(lines) == ["one", "two"]
    assert done.code == 3
    assert sorted(done.tail) == ["one", "two"]


def test_the_tail_is_bounded() -> None:
    done = process.run(["seq", "1000"], environ=ENVIRON)
    assert done.tail[-1] == "1000"
    assert len(done.tail) < 100


def test_killed_by_a_signal() -> None:
    done = process.run(["sh", "-c", "kill -9 $$"], environ=ENVIRON)
    assert done.code == 128 + signal.SIGKILL


def test_the_environment_is_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "1")
    done = process.run(["env"], environ={**ENVIRON, "GIVEN": "2"})
    assert "GIVEN=2" in done.tail
    assert not any("SECRET" in line for line in done.tail)


def test_what_runs_on_in_the_background_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = f"sleep 100 >/dev/null 2>&1 & echo $! > {pid_file}"
    process.run(["sh", "-c", command], environ=ENVIRON)
    assert gone(pid_in(pid_file))


def test_an_exception_in_the_caller_ends_the_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run(
            ["sh", "-c", f"sleep 100 & echo $! > {pid_file}; echo started; wait"],
            environ=ENVIRON,
            report=stop,
        )
    assert gone(pid_in(pid_file))


def test_a_program_that_ignores_sigterm_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.2)
    pid_file = tmp_path / "pid"

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run(
            ["sh", "-c", f"trap '' TERM; echo $$ > {pid_file}; echo on; while :; do sleep 1; done"],
            environ=ENVIRON,
            report=stop,
        )
    assert gone(pid_in(pid_file))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_group_ends_with_its_caller(tmp_path: Path, number: signal.Signals) -> None:
    pid_file = tmp_path / "pid"
    program = textwrap.dedent(
        f"""
        import os, signal
        from conda_bridge.system import process
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process.run(["sh", "-c", "echo $$ > {pid_file}; exec sleep 100"], environ=dict(os.environ))
        """
    )
    scripts = str(Path(process.__file__).parents[2])
    caller = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": scripts},
        stderr=subprocess.DEVNULL,
    )
    child = pid_in(pid_file)
    assert alive(child)
    caller.send_signal(number)
    caller.wait(timeout=60)  # less than the child would sleep
    assert gone(child)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_has_a_process_group_of_its_own_ends_too(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As ninja starts compilers."""
    pid_file = tmp_path / "pid"
    inner = textwrap.dedent(
        f"""
        import os, pathlib, time
        os.setpgid(0, 0)
        pathlib.Path({str(pid_file)!r}).write_text(f"{{os.getpid()}}\\n")
        time.sleep(100)
        """
    )
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        from conda_bridge.system import process
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process.run(
            ["sh", "-c", 'exec "$0" -c "$1" & wait', sys.executable, {inner!r}],
            environ=dict(os.environ),
        )
        """
    )
    scripts = str(Path(process.__file__).parents[2])
    caller = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": scripts},
        stderr=subprocess.DEVNULL,
    )
    child = pid_in(pid_file)
    assert os.getpgid(child) == child
    caller.send_signal(number)
    caller.wait(timeout=60)  # less than the child would sleep
    assert gone(child)


def test_several_at_once() -> None:
    codes: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n: codes.append(
                process.run(["sh", "-c", f"exit {n}"], environ=ENVIRON).code
            )
        )
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0, 1, 2, 3]
