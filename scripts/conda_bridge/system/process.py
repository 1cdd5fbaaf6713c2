"""Runs a subprocess in its own session, and kills the whole session on exit.

Whatever ends the caller, the whole session ends with it: an exception and Ctrl-C because the caller
kills it, ``kill -9`` because a small guard in it waits for the caller's end of a pipe to close. A
session, because ninja puts each compiler into a process group of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

__all__ = ["Finished", "run"]

_TAIL = 40
_GRACE = 5.0


@dataclass(frozen=True)
class Finished:
    """A program that ended.

    Attributes:
        code: its exit status; 128 and more for a signal, as in a shell.
        tail: the last lines it wrote.
    """

    code: int
    tail: tuple[str, ...]


def run(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> Finished:
    """Runs `command` to its end.

    Args:
        command: a program and its arguments.
        environ: its whole environment.
        cwd: where it runs.
        report: is called with every line of its output and errors.

    Returns:
        Its exit status and last lines.
    """
    # Isolated: the guard needs the standard library alone, and starts the quicker for it.
    guarded = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), *command]
    tail: deque[str] = deque(maxlen=_TAIL)
    with subprocess.Popen(
        guarded,
        env=dict(environ),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                text = line.rstrip("\n")
                tail.append(text)
                report(text)
            code = process.wait()
        except BaseException:
            _end_group(process)
            raise
        # What the program left running in the background would keep files open.
        _kill_session(process.pid)
    return Finished(code, tuple(tail))


def _end_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    _kill_session(process.pid)
    process.wait()


def _kill_session(leader: int) -> None:
    """Kills all processes of the session that `leader` started, but for the caller."""
    found = True
    while found:  # again, for what they started meanwhile
        found = False
        for entry in os.scandir("/proc"):
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{entry.name}/stat", "rb") as stream:  # noqa: PTH123
                    state, _parent, _group, session = stream.read().rpartition(b")")[2].split()[:4]
                if int(session) == leader and state not in (b"Z", b"X"):
                    os.kill(int(entry.name), signal.SIGKILL)
                    found = True


def _guard(command: Sequence[str]) -> NoReturn:
    """Runs in the new group: starts `command` there and ends the group when the caller is gone."""
    # The caller's end of standard input is all that says it lives; the program gets none.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        gone = threading.Event()

        def watch() -> None:
            while True:
                ready, _, _ = select.select([0], [], [])
                if ready and not os.read(0, 1):
                    gone.set()
                    _kill_session(os.getpid())
                    os.killpg(0, signal.SIGKILL)

        threading.Thread(target=watch, daemon=True).start()
        # The group's SIGTERM reaches the child itself; the guard waits for its answer.
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        code = child.wait()
    while gone.is_set():  # the child ended because all of the session ends, and so does the guard
        signal.pause()
    # Past the threads' clean-up: the watching one sits in a system call.
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    _guard(sys.argv[1:])
