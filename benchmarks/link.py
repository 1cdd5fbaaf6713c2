"""A link to a server that is some way away: what goes through it arrives late, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PIECE = 1 << 16


@dataclass
class Traffic:
    """What was asked for over a link.

    Attributes:
        url: where the client asks.
        requests: lines of requests, as the server got them.
        received: bytes that came from the server, headers included.
        connections: that were opened.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    received: int = 0
    connections: int = 0


class _Files(http.server.SimpleHTTPRequestHandler):
    """Files as they are, on connections that stay open, as every server of packages has them."""

    protocol_version = "HTTP/1.1"
    traffic: Traffic

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.traffic.requests.append(self.requestline)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


async def _late(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    delay: float,
    rate: float,
    traffic: Traffic | None,
) -> None:
    """Hands on what comes, `delay` seconds later and no faster than `rate` bytes a second."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def take() -> None:
        free = loop.time()
        while True:
            data = await reader.read(_PIECE)
            free = max(free, loop.time()) + len(data) / rate
            await pieces.put((free + delay, data))
            if not data:
                return
            if traffic:
                traffic.received += len(data)

    taking = asyncio.create_task(take())
    with contextlib.suppress(ConnectionError):
        while True:
            when, data = await pieces.get()
            await asyncio.sleep(max(0.0, when - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
    taking.cancel()
    writer.close()


async def _connected(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    port: int,
    seconds: float,
    rate: float,
    traffic: Traffic,
) -> None:
    traffic.connections += 1
    await asyncio.sleep(seconds)  # the handshake, which this machine's own took no time for
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.gather(
            _late(reader, far_writer, seconds / 2, rate, None),
            _late(far_reader, writer, seconds / 2, rate, traffic),
            return_exceptions=True,
        )
    finally:  # also where the link has ended before them
        for one in (writer, far_writer):
            one.transport.abort()


@contextlib.contextmanager
def serving(folder: Path, *, seconds: float = 0.05, rate: float = 12.5e6) -> Iterator[Traffic]:
    """Serves a folder over HTTP at the end of a link.

    A connection costs one time there and back before its first request, and each request another.
    That TCP begins slowly is not simulated, nor is TLS.

    Args:
        folder: what is served.
        seconds: there and back.
        rate: bytes a second of each connection, in each direction.
    """
    traffic = Traffic()
    handler = type("Files", (_Files,), {"traffic": traffic})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    )
    server.daemon_threads = True
    started = threading.Event()
    ends: list[Callable[[], object]] = []

    async def link() -> None:
        connected = functools.partial(
            _connected, port=server.server_port, seconds=seconds, rate=rate, traffic=traffic
        )
        near = await asyncio.start_server(connected, "127.0.0.1", 0)
        traffic.url = f"http://127.0.0.1:{near.sockets[0].getsockname()[1]}"
        end = asyncio.Event()
        ends.append(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, end.set))
        started.set()
        await end.wait()
        near.close()

    threads = [
        threading.Thread(target=server.serve_forever, daemon=True),
        threading.Thread(target=lambda: asyncio.run(link()), daemon=True),
    ]
    for thread in threads:
        thread.start()
    started.wait()
    try:
        yield traffic
    finally:
        ends[0]()
        server.shutdown()
        for thread in threads:
            thread.join()
        server.server_close()
