"""Downloads that break off, lie about their length, change while they are resumed, or are wrong.

A package index on this machine serves the project's own small wheels; each request for a file may
be answered badly. What can be had in the end is had in the same build; what cannot is refused.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from site_of_faults import Site

from flashinfer_build.toolchain.lock import LockedWheel

# A fault -> whether the build still completes: the next request gets what the first did not.
FAULTS = {
    "cut short": True,
    "reset": True,
    "500": True,
    "503 twice": True,
    "cut short, then no ranges": True,
    "cut short, then another file, then right": True,
    "one bit flipped": False,
    "length too small": False,
    "another file": False,
    "a page instead": False,
}


class Index(http.server.ThreadingHTTPServer):
    """Serves ``/simple/<project>/`` and ``/files/<wheel>``, the files of `bad` badly."""

    daemon_threads = True

    def __init__(self, folder: Path, wheels: list[LockedWheel], site: Site) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.wheels = wheels
        self.site = site
        self.bad: dict[str, str] = {}
        self.asked: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Index
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, name = self.path.strip("/").split("/")[:2]
        if kind == "simple":
            links = [
                f'<a href="/files/{wheel.filename}#sha256={wheel.sha256}">{wheel.filename}</a>'
                for wheel in self.server.wheels
                if wheel.name == name
            ]
            self._answer(200, "\n".join(links).encode(), "text/html")
            return
        data = (self.server.folder / name.replace("%2B", "+")).read_bytes()
        number = self.server.asked[name] = self.server.asked.get(name, 0) + 1
        self._file(data, self.server.bad.get(name, ""), number)

    def _file(self, data: bytes, fault: str, number: int) -> None:
        random = self.server.site.moments
        middle = random.randrange(1, len(data))
        if fault == "reset" and number == 1:
            self._answer(200, data, send=middle)
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif (fault == "500" and number == 1) or (fault == "503 twice" and number <= 2):
            self._answer(int(fault[:3]), b"")
        elif fault.startswith("cut short") and number == 1:
            self._answer(200, data, send=middle)
        elif fault.endswith("no ranges"):
            self._answer(200, data)
        elif fault.endswith("then right") and number == 2:
            self._range(bytes(reversed(data)))
        elif fault == "one bit flipped":
            self._range(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        elif fault == "length too small":
            self._answer(200, data[:middle])
        elif fault == "another file":
            self._range(bytes(reversed(data)))
        elif fault == "a page instead":
            self._answer(200, b"<html>please log in</html>", "text/html")
        else:
            self._range(data)

    def _range(self, data: bytes) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not found:
            self._answer(200, data)
            return
        start = int(found[1])
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def _answer(
        self,
        code: int,
        data: bytes,
        kind: str = "application/octet-stream",
        send: int | None = None,
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if send is None else data[:send])
        if send is not None:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(site: Site) -> Iterator[Index]:
    with Index(site.wheelhouse, site.wheels(), site) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_bad_downloads(
    site: Site, index: Index, count: int, injected: Callable[[str, str], None]
) -> None:
    environ = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": index.address}
    run = functools.partial(site.run, extra=environ)
    passing = [fault for fault, passes in FAULTS.items() if passes]
    failing = [fault for fault, passes in FAULTS.items() if not passes]
    number = 0
    while number < count:
        site.undo("toolchain")
        wheels = site.small_wheels()
        site.moments.shuffle(wheels)
        index.asked.clear()
        # Those that pass first, or the build would end before it asks for them.
        index.bad = {w.filename: f for w, f in zip(wheels, passing, strict=False)}
        done = run()
        context = f"{index.bad}\n{done}"
        site.check_complete(done, context, deep=True)
        for name, fault in index.bad.items():
            assert index.asked[name] > 1, site.words((name, context))
            injected("bad download", fault)
            number += 1
        # Those that fail, one a build, in the order in which they are fetched: the next build gets
        # what this one could not, on its way to the next bad file.
        chosen = sorted(site.moments.sample(wheels, len(failing)), key=site.wheels().index)
        refused: list[LockedWheel] = []
        for wheel, fault in zip(chosen, failing, strict=True):
            shutil.rmtree(site.wheel(wheel).parent)
            shutil.rmtree(site.tree(wheel))
            (site.build / "inputs" / "cpu_torch213.json").unlink(missing_ok=True)
            index.bad = {wheel.filename: fault}
            done = run()
            context = f"{index.bad}\n{done}"
            assert done.code == 2, site.words(context)
            assert wheel.filename in done.said, site.words(context)
            assert "sha256" in done.said, site.words(context)
            assert not site.wheel(wheel).exists(), site.words(context)
            site.check_names(context, deep=True)
            assert all(site.wheel(earlier).exists() for earlier in refused), site.words(context)
            refused.append(wheel)
            injected("bad download", fault)
            number += 1
        index.bad = {}
        site.check_complete(run(), context, deep=True)
