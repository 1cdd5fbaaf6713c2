"""How the GPU benchmarks time: rotation, repetition, the graph and what is done without one."""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Iterator

import pytest
import torch

from benchmarks.gpu import measure

MB = 1 << 20


@pytest.mark.parametrize(
    ("set_bytes", "l2", "expected"),
    [
        (MB, 50 * MB, 120),  # 120 MB are more than twice 50
        (MB, 126 * MB, 252),
        (7 * MB, 0, 18),
        (500 * MB, 50 * MB, 2),
        (1, 0, measure.MAX_SETS),
    ],
)
def test_sets_cover_twice_the_cache(set_bytes: int, l2: int, expected: int) -> None:
    assert measure.number_of_sets(set_bytes, l2) == expected


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_sample_is_the_time_of_one_call() -> None:
    clock, order = Clock(), []

    def call(name: str, seconds: float) -> measure.Call:
        def run() -> None:
            order.append(name)
            clock.now += seconds

        return run

    timed = measure.HostTimer(clock, wanted=1.0).prepare([call("a", 0.1), call("b", 0.3)])
    assert timed.how == "host"
    order.clear()
    assert timed.sample() == pytest.approx(0.2)
    # 0.4 s a pass: three make more than a second, each through all the buffers.
    assert order == ["a", "b"] * 3


def test_ceilings_count_reads_and_writes() -> None:
    clock = Clock()

    class Timer:
        calls = 0

        def prepare(self, calls: list[measure.Call]) -> measure.Timed:
            def timed(call: measure.Call) -> measure.Call:
                def run() -> None:
                    call()
                    clock.now += 0.5

                return run

            self.calls = len(calls)
            return measure.HostTimer(clock, wanted=0).prepare([timed(call) for call in calls])

    timer, cpu = Timer(), torch.device("cpu")
    assert measure.copy_bandwidth(timer, cpu, 1000) == pytest.approx(2 * 1000 / 0.5)
    assert measure.matmul_rate(timer, cpu, 8) == pytest.approx(2 * 8**3 / 0.5)
    assert timer.calls == 2


class FakeCuda:
    """The part of torch.cuda that the timers use, on a clock that only work moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refuse: bool = False) -> None:
        self.now = 0.0
        self.graph: list[float] | None = None
        self.replays = 0
        self.alive_at_end: list[bool] = []
        self.outputs: list[weakref.ref[torch.Tensor]] = []
        fake = self

        class Event:
            time = 0.0

            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.time = fake.now

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, end: Event) -> float:
                return (end.time - self.time) * 1e3

        class Graph:
            nodes: list[float]

            def replay(self) -> None:
                fake.replays += 1
                fake.now += sum(self.nodes)

        @contextlib.contextmanager
        def capture(graph: Graph) -> Iterator[None]:
            graph.nodes = fake.graph = []
            try:
                if refuse:
                    raise RuntimeError("operation not permitted\nwhen stream is capturing")
                yield
            finally:
                fake.graph = None
                fake.alive_at_end = [ref() is not None for ref in fake.outputs]

        stream = types.SimpleNamespace(wait_stream=lambda _other: None)
        for name, value in {
            "Event": Event, "CUDAGraph": Graph, "graph": capture, "synchronize": lambda: None,
            "Stream": lambda: stream, "current_stream": lambda: stream,
            "stream": lambda _stream: contextlib.nullcontext(),
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)

    def call(self, seconds: float) -> measure.Call:
        def run() -> torch.Tensor:
            out = torch.empty(1)
            if self.graph is None:
                self.now += seconds
            else:
                self.graph.append(seconds)
                self.outputs.append(weakref.ref(out))
            return out

        return run


def test_a_graph_has_every_call_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    timed = measure.GraphTimer().prepare([cuda.call(1e-3), cuda.call(3e-3)])
    assert (timed.how, timed.note) == ("graph", "")
    assert cuda.alive_at_end == [True, True], "an output that is freed lends its memory"
    assert all(ref() is None for ref in cuda.outputs)
    cuda.replays = 0
    assert timed.sample() == pytest.approx(2e-3)
    # 8 ms a sample are two replays of 4 ms, after one that is not counted.
    assert cuda.replays == 3


def test_events_where_there_can_be_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch, refuse=True)
    timed = measure.GraphTimer().prepare([cuda.call(1e-3), cuda.call(3e-3)])
    assert timed.how == "events"
    assert timed.note == "no graph: RuntimeError: operation not permitted"
    before = cuda.now
    assert timed.sample() == pytest.approx(2e-3)
    assert cuda.now - before == pytest.approx(3 * 4e-3)


@pytest.mark.gpu
def test_a_graph_of_the_calls() -> None:
    xs = [torch.zeros(1 << 20, device="cuda") for _ in range(3)]
    timed = measure.GraphTimer().prepare([lambda x=x: x.add_(1) for x in xs])
    assert (timed.how, timed.note) == ("graph", "")
    before = [float(x[0]) for x in xs]
    seconds = timed.sample()
    after = [float(x[0]) for x in xs]
    gained = {b - a for a, b in zip(before, after, strict=True)}
    assert len(gained) == 1 and gained.pop() > 1, "every buffer as often as the others"
    assert 1e-7 < seconds < 1e-2


@pytest.mark.gpu
def test_what_cannot_be_captured_is_timed_by_events() -> None:
    x = torch.ones(1 << 20, device="cuda")
    timed = measure.GraphTimer().prepare([lambda: x.sum().item()] * 2)
    assert timed.how == "events"
    assert timed.note.startswith("no graph: ")
    assert 1e-7 < timed.sample() < 1e-1
