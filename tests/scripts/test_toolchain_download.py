"""Downloads: resumed after a dropped connection, verified, made once, left to pip when refused."""

from __future__ import annotations

import functools
import hashlib
import http.server
import multiprocessing
import os
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conda_bridge.errors import ToolchainError
from flashinfer_build.toolchain import download as module
from flashinfer_build.toolchain.download import cached, download, fetch
from flashinfer_build.toolchain.lock import LockedWheel

BODY = os.urandom(3_000_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; `drop_after` bytes of each answer it closes the connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.drop_after: int | None = None
        self.ranges = True
        self.refuse: int | None = None
        self.requests: list[str] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/some-1.0-py3-none-any.whl"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append(asked or "all")
        if server.refuse:
            self.send_error(server.refuse)
            return
        start = 0
        found = re.fullmatch(r"bytes=(\d+)-", asked or "")
        if found and server.ranges:
            start = int(found[1])
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            end = len(server.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(server.body)}")
        else:
            self.send_response(200)
        rest = server.body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        part = rest if server.drop_after is None else rest[: server.drop_after]
        self.wfile.write(part)
        server.sent += len(part)
        if len(part) < len(rest):
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def locked(body: bytes = BODY) -> LockedWheel:
    return LockedWheel("some-1.0-py3-none-any.whl", hashlib.sha256(body).hexdigest())


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_whole(server: Server, tmp_path: Path) -> None:
    path = download(server.url, locked(), tmp_path)
    assert path.read_bytes() == BODY
    assert cached([locked()], tmp_path) == path
    assert leftovers(tmp_path) == [path.name]


def test_dropped_connections_continue_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.drop_after = 1_000_000
    path = download(server.url, locked(), tmp_path, pause=0)
    assert path.read_bytes() == BODY
    assert server.requests == ["all", "bytes=1000000-", "bytes=2000000-"]
    assert server.sent == len(BODY)  # no byte twice


def test_a_later_call_continues(server: Server, tmp_path: Path) -> None:
    server.drop_after = 400_000
    with pytest.raises(OSError, match="1 attempts brought nothing"):
        download(server.url, locked(), tmp_path, attempts=1, pause=0)
    assert leftovers(tmp_path) == ["some-1.0-py3-none-any.whl.part"]
    assert cached([locked()], tmp_path) is None
    server.drop_after = None
    assert download(server.url, locked(), tmp_path).read_bytes() == BODY
    assert server.requests == ["all", "bytes=400000-"]


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.drop_after, server.ranges = 400_000, False
    with pytest.raises(OSError):
        download(server.url, locked(), tmp_path, attempts=1, pause=0)
    server.drop_after = None
    assert download(server.url, locked(), tmp_path).read_bytes() == BODY


def test_complete_part_of_a_killed_run(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "wheels" / locked().sha256 / "some-1.0-py3-none-any.whl.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY)
    assert download(server.url, locked(), tmp_path).read_bytes() == BODY
    assert server.sent == 0


@pytest.mark.parametrize("junk", [b"x" * 1000, b"x" * (len(BODY) + 1)])
def test_part_of_another_file_is_dropped(server: Server, tmp_path: Path, junk: bytes) -> None:
    part = tmp_path / "wheels" / locked().sha256 / "some-1.0-py3-none-any.whl.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(junk)
    assert download(server.url, locked(), tmp_path, pause=0).read_bytes() == BODY


def test_wrong_bytes_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.body = b"tampered" + BODY
    with pytest.raises(ToolchainError, match="sha256 mismatch") as caught:
        download(server.url, locked(), tmp_path)
    assert caught.value.expected == locked().sha256
    assert leftovers(tmp_path) == []


def test_a_file_that_changes_while_it_is_resumed_is_begun_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.drop_after, server.body = 400_000, bytes(len(BODY))

    def the_right_one(_seconds: float) -> None:
        server.drop_after, server.body = None, BODY

    monkeypatch.setattr(module.time, "sleep", the_right_one)
    assert download(server.url, locked(), tmp_path).read_bytes() == BODY
    assert server.requests == ["all", "bytes=400000-", "all"]


def test_server_errors_are_tried_again_a_bounded_number_of_times(
    server: Server, tmp_path: Path
) -> None:
    server.refuse = 503
    with pytest.raises(OSError, match="3 attempts"):
        download(server.url, locked(), tmp_path, attempts=3, pause=0)
    assert len(server.requests) == 3


def test_refusal_is_final(server: Server, tmp_path: Path) -> None:
    server.refuse = 403
    with pytest.raises(OSError, match="403"):
        download(server.url, locked(), tmp_path)
    assert len(server.requests) == 1


def _in_process(url: str, cache: str) -> None:
    download(url, locked(), Path(cache))


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_in_process, args=(server.url, str(tmp_path))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert server.requests == ["all"]


def wheel_file(folder: Path, name: str, version: str, content: str = "") -> LockedWheel:
    """A real, installable wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    filename = f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / filename, "w") as archive:
        for member, text in {
            f"{name}.py": f"x = {content!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(member), text)  # without the time of day
    digest = hashlib.sha256((folder / filename).read_bytes()).hexdigest()
    return LockedWheel(filename, digest)


@pytest.fixture
def only_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """pip with one folder of wheels and no index."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


def test_fetch_takes_what_pip_is_configured_with(only_local: Path, tmp_path: Path) -> None:
    first, second = wheel_file(only_local, "one", "1.0"), wheel_file(only_local, "two", "2.0")
    cache = tmp_path / "cache"
    paths = fetch([[first], [second]], cache)
    assert [path.name for path in paths] == [first.filename, second.filename]
    (only_local / first.filename).unlink()
    (only_local / second.filename).unlink()
    assert fetch([[first], [second]], cache) == paths  # from the cache: pip could not have


def test_fetch_of_one_version_is_not_outranked_by_a_local_version(
    only_local: Path, tmp_path: Path
) -> None:
    plain = wheel_file(only_local, "one", "1.0")
    wheel_file(only_local, "one", "1.0+cpu", "other")
    (path,) = fetch([[plain]], tmp_path / "cache")
    assert path.name == plain.filename


def test_fetch_takes_any_of_the_acceptable_files(only_local: Path, tmp_path: Path) -> None:
    local = wheel_file(only_local, "one", "1.0+cpu")
    plain = wheel_file(tmp_path / "elsewhere", "one", "1.0")
    (path,) = fetch([[local, plain]], tmp_path / "cache")
    assert path.name == local.filename
    (only_local / local.filename).unlink()
    wheel_file(only_local, "one", "1.0")
    (path,) = fetch([[local, plain]], tmp_path / "other-cache")
    assert path.name == plain.filename


def test_fetch_passes_over_a_higher_version_that_is_not_locked(
    only_local: Path, tmp_path: Path
) -> None:
    local = LockedWheel("one-1.0+cpu-py3-none-any.whl", "0" * 64)
    plain = wheel_file(only_local, "one", "1.0")
    wheel_file(only_local, "one", "1.0+rocm", "outranks")
    (path,) = fetch([[local, plain]], tmp_path / "cache")
    assert path.name == plain.filename


def test_fetch_refuses_what_is_not_locked(only_local: Path, tmp_path: Path) -> None:
    genuine = wheel_file(tmp_path / "elsewhere", "one", "1.0")
    wheel_file(only_local, "one", "1.0", "tampered")
    with pytest.raises(ToolchainError, match="no acceptable file is offered") as caught:
        fetch([[genuine]], tmp_path / "cache")
    assert genuine.sha256 in caught.value.expected
    assert leftovers(tmp_path / "cache") == []


def test_fetch_names_what_no_index_has(only_local: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no acceptable file is offered") as caught:
        fetch([[LockedWheel("none-9-py3-none-any.whl", "0" * 64)]], tmp_path / "cache")
    assert "none-9-py3-none-any.whl" in caught.value.expected
    assert "No matching distribution" in caught.value.what  # pip's own words


def test_pip_says_how_it_reaches_the_network(
    only_local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_PROXY", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    _, plain = module._ask_pip(["one"], print)
    assert (plain.proxy, plain.certificates) == (None, None)
    monkeypatch.setenv("PIP_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("PIP_CERT", "/etc/company.pem")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "180")
    _, own = module._ask_pip(["one"], print)
    assert own == module.Settings("http://proxy.example.org:3128", "/etc/company.pem", 180.0)


class Simple(http.server.SimpleHTTPRequestHandler):
    """A package index; keeps the paths that were asked for, and may refuse the files."""

    asked: list[str]
    refuse_plain = False

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if (
            self.refuse_plain
            and self.path.endswith(".whl")
            and "pip" not in self.headers.get("User-Agent", "")
        ):
            self.send_error(403)
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, type[Simple]]]:
    """pip with an index over http: (its folder, its handler)."""
    root = tmp_path / "web"
    handler = type("Handler", (Simple,), {"asked": []})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(root))
    ) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{running.server_address[1]}/simple")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        yield root, handler
        running.shutdown()
        thread.join()


def publish(root: Path, wheel: LockedWheel) -> None:
    page = root / "simple" / wheel.name / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    link = f"../../files/{wheel.filename}#sha256={wheel.sha256}"
    page.write_text(f'<a href="{link}">{wheel.filename}</a>')


def test_each_wheel_crosses_the_network_once(
    web_index: tuple[Path, type[Simple]], tmp_path: Path
) -> None:
    root, handler = web_index
    wheels = [wheel_file(root / "files", name, "1.0") for name in ("one", "two")]
    for wheel in wheels:
        publish(root, wheel)
    paths = fetch([[wheel] for wheel in wheels], tmp_path / "cache")
    assert [path.name for path in paths] == [wheel.filename for wheel in wheels]
    files = [path for path in handler.asked if path.endswith(".whl")]
    assert sorted(files) == sorted(f"/files/{wheel.filename}" for wheel in wheels)
    handler.asked.clear()
    assert fetch([[wheel] for wheel in wheels], tmp_path / "cache") == paths
    assert handler.asked == []


def test_refused_plain_download_is_left_to_pip(
    web_index: tuple[Path, type[Simple]], tmp_path: Path
) -> None:
    root, handler = web_index
    handler.refuse_plain = True
    wheel = wheel_file(root / "files", "one", "1.0")
    publish(root, wheel)
    said: list[str] = []
    (path,) = fetch([[wheel]], tmp_path / "cache", said.append)
    assert path.name == wheel.filename
    assert any("403" in line and "leaving it to pip" in line for line in said)


def test_a_pip_that_cannot_be_asked_downloads_by_itself(
    web_index: tuple[Path, type[Simple]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = web_index
    wheel = wheel_file(root / "files", "one", "1.0")
    publish(root, wheel)
    broken = tmp_path / "broken.py"
    broken.write_text("raise ImportError('moved')\n")
    monkeypatch.setattr(module, "PIP_LINKS", broken)
    said: list[str] = []
    (path,) = fetch([[wheel]], tmp_path / "cache", said.append)
    assert path.name == wheel.filename
    assert any("ImportError: moved" in line for line in said)
