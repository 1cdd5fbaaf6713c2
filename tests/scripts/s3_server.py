"""An S3 server on this machine, that can be told to fail or to kill at a request.

moto's own, behind a door that lets one request in at a time (a real store decides a conditional
write in one step) and counts those that change something.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

__all__ = ["ENVIRON", "Server"]

# Made up; moto takes any. One attempt: the tests fail requests, and look at what that does.
ENVIRON = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_CHANGING = ("PUT", "POST", "DELETE")


class Server:
    """The server, from its construction to :meth:`stop`.

    Attributes:
        log: method and path of every request, in order.
        changes: how many requests that change something were let in since :meth:`reset`.
        victim: the process to kill.
        kill_after: which of them is the last thing that the victim asked for; 0 for none.
        fail_from: from which of them on requests are refused; 0 for none.
        fail_once: whether that one alone is.
        after: whether a refused request is carried out all the same.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.reset()
        # fsspec keeps what it has made, with the address of an earlier server.
        s3fs.S3FileSystem.clear_instance_cache()
        self._door = threading.Lock()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request costs as much
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._called, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Counts from here, and lets everything in."""
        self.changes = 0
        self.victim = 0
        self.kill_after = self.fail_from = 0
        self.fail_once = self.after = False

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._thread.join()

    @contextmanager
    def failing(self, number: int, *, once: bool = False, after: bool = False) -> Iterator[None]:
        """Refuses requests from this change on, or that one alone."""
        self.reset()
        self.fail_from, self.fail_once, self.after = number, once, after
        try:
            yield
        finally:
            self.reset()

    def _called(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._door:
            method = environ["REQUEST_METHOD"]
            self.log.append((method, environ["PATH_INFO"]))
            self.changes += method in _CHANGING
            wanted = self.fail_from
            refused = bool(wanted) and (
                self.changes == wanted and method in _CHANGING
                if self.fail_once
                else self.changes >= wanted
            )
            if refused and not self.after:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return _refusal(start)
            answer = list(self._app(environ, start if not refused else lambda *_: None))
            if self.kill_after and self.changes == self.kill_after and method in _CHANGING:
                os.kill(self.victim, signal.SIGKILL)
            return _refusal(start) if refused else answer


def _refusal(start: Callable[..., Any]) -> Iterable[bytes]:
    start("500 Internal Server Error", [("Content-Type", "application/xml")])
    return [b"<Error><Code>InternalError</Code><Message>made to fail</Message></Error>"]
