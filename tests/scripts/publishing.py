"""Publishers in processes of their own, to be killed: forked from one that has imported everything.

As a program it reads jobs, a line each, and answers with the process and then with how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conda_bridge.project import Project

ROOT = Path(__file__).resolve().parents[2]
TIME = "2026-11-30T03:00:00Z"

# What gives names to files and folders, or takes them away.
_CALLS = ("link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink")


def project() -> Project:
    """This project, with no other folders of its index: a publisher is killed at each page."""
    import factories
    import msgspec

    config = factories.FLASHINFER.config
    return Project.of(
        msgspec.structs.replace(config, index_folders=(), index_nightly_folders=()),
        factories.FLASHINFER.source,
    )


class Nursery:
    """Where publishers are forked."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = os.pathsep.join([str(ROOT / "scripts"), str(Path(__file__).parent)])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ, "PYTHONPATH": path},
        )

    def stop(self) -> None:
        """Ends it."""
        self._process.communicate()

    def run(
        self,
        jobs: Sequence[tuple[Sequence[Path], str]],
        *,
        kill_at: int = 0,
        started: Callable[[int], None] = lambda _process: None,
    ) -> list[int]:
        """Publishes, all jobs at once.

        Args:
            jobs: of each its artifacts and its target.
            kill_at: before which call that changes names each is killed; 0 for never.
            started: is told of the processes, before any begins.

        Returns:
            How each ended: its exit status, or the negative number of a signal.
        """
        plain = [([str(path) for path in paths], target) for paths, target in jobs]
        self._say({"jobs": plain, "kill_at": kill_at})
        for process in self._hear():
            started(process)
        self._say("go")
        return [int(status) for status in self._hear()]

    def _say(self, what: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())


def _killed_at(number: int) -> None:
    """From now on the call with this number is the last that is tried.

    The links to documents that stay, in a folder that nothing leads to yet, count as one.
    """
    seen, kept = 0, False

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*words: Any, **more: Any) -> Any:
            nonlocal seen, kept
            again = kept
            kept = call.__name__ == "link" and "/.site/.partial-" in str(words[1])
            seen += not (kept and again)
            if seen == number and not (kept and again):
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words, **more)

        return wrapper

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))


def _main() -> None:
    import fsspec
    import s3fs  # noqa: F401

    from conda_bridge.publish import release
    from conda_bridge.publish.store import open_store

    assert fsspec
    release.now = lambda: TIME
    ours = project()
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        reader, writer = os.pipe()
        for paths, target in job["jobs"]:
            child = os.fork()
            if child:
                children.append(child)
                continue
            code = 3
            try:
                os.close(writer)
                os.read(reader, 1)  # until all are there
                if job["kill_at"]:
                    _killed_at(job["kill_at"])
                files = [Path(path) for path in paths]
                quiet = lambda _line: None  # noqa: E731
                sources = release.read_sources(files, ours, quiet)
                release.publish(sources, open_store(target), ours)
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        print(json.dumps(children), flush=True)
        sys.stdin.readline()
        os.close(reader)
        os.close(writer)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]))
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
