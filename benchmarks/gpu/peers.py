"""The other end of ``worker.py``: contestants in processes of their own, asked one at a time.

A distribution and import name can be there once a process, and a faulty kernel takes a CUDA context
with it: so the wheel under test, torch and a published wheel each have a process. One that dies or
does not answer is started again for the next case, and its reason stays in the table.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Died", "Worker"]

_WORKER = Path(__file__).with_name("worker.py")


class Died(Exception):
    """A worker that cannot answer any more; the text is why."""


@dataclass
class Worker:
    """A process of ``worker.py``, started when it is first asked.

    Attributes:
        name: for people.
        device: ``cuda`` or ``cpu``.
        library: the import name of a flashinfer, or empty.
        site: the folder to import it from, or empty for where Python finds it.
        sides: which of its sides take part in a case, by operation.
        rotated: see ``worker.py``.
        timeout: seconds to wait for an answer.
    """

    name: str
    device: str
    sides: Callable[[str], Sequence[str]]
    library: str = ""
    site: str = ""
    rotated: int | None = None
    timeout: float = 600
    program: Path = _WORKER
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _pending: bytes = field(default=b"", repr=False)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            Died: there is none, or it is the last one. The next request starts a new process.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words may still be there to read
        line = self._line(process)
        if line is None:
            code = self.close()
            raise Died(f"the process ended with exit status {code} while asked to {do}")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("fatal"):
            self.close()
            raise Died(str(answer["reason"]))
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: nothing is imported from the folder of worker.py or from where we stand.
        command = [sys.executable, "-P", str(self.program), "--device", self.device]
        if self.library:
            command += ["--library", self.library]
        if self.site:
            command += ["--site", self.site]
        if self.rotated is not None:
            command += ["--rotated", str(self.rotated)]
        self._pending = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environ()
        )
        return self._process

    def _environ(self) -> Mapping[str, str]:
        if not self.site:
            return os.environ
        # What a wheel builds or finds at run time must come from its own folder, as well.
        paths = [self.site, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def _line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """The next line of its output; None at the end.

        Raises:
            Died: it did not come in time.
        """
        assert process.stdout is not None
        deadline = time.monotonic() + self.timeout
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.close(grace=0)
                    raise Died(f"no answer within {self.timeout:g} s")
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    return None
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def close(self, grace: float = 5) -> int | None:
        """Ends the process, by force where it takes longer than `grace` seconds.

        Returns:
            Its exit status; None where there was no process.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()
            code = process.wait(grace)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()
            code = process.wait()
        process.stdout.close()
        return code
