"""Timing: CUDA graphs replayed over rotating buffers, and the ceilings of the machine.

A graph holds one call for each set of buffers. All sets together are larger than twice the L2
cache, so that a call finds nothing of its own there, and one replay costs one launch by the host.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch

__all__ = [
    "EventTimer", "GraphTimer", "HostTimer", "Timed", "Timer", "copy_bandwidth", "matmul_rate",
    "number_of_sets",
]  # fmt: skip

ROTATED = 120 << 20  # at least; twice the L2 where that is more
MAX_SETS = 2048
SAMPLE_S = 8e-3
HOST_SAMPLE_S = 1e-4

Call = Callable[[], object]
How = Literal["graph", "events", "host"]


def number_of_sets(set_bytes: int, l2_bytes: int = 0, rotated: int = ROTATED) -> int:
    """How many sets of buffers to rotate through, two or more."""
    return max(2, min(MAX_SETS, math.ceil(max(rotated, 2 * l2_bytes) / max(set_bytes, 1))))


class Timed(Protocol):
    """Calls that are ready to be timed.

    Attributes:
        how: replayed as a graph, launched one by one between two events, or on the host.
        note: why not as a graph.
    """

    how: How
    note: str

    def sample(self) -> float:
        """Seconds of one call, averaged over one sample."""
        ...


class Timer(Protocol):
    """Makes calls ready to be timed."""

    def prepare(self, calls: Sequence[Call]) -> Timed:
        """Warms `calls` up, in order, and makes them ready."""
        ...


def _event() -> Any:
    make: Any = torch.cuda.Event  # torch has no types for it
    return make(enable_timing=True)


def _repeats(seconds: float, wanted: float) -> int:
    return max(1, math.ceil(wanted / max(seconds, 1e-9)))


class _DeviceTimed:
    """`repeat` launches `calls` calls; its time is read from two events on the stream."""

    def __init__(self, repeat: Call, calls: int, how: How, note: str) -> None:
        self.how = how
        self.note = note
        self._repeat = repeat
        self._calls = calls
        self._times = 1
        self._times = _repeats(self.sample() * calls, SAMPLE_S)

    def sample(self) -> float:
        start, end = _event(), _event()
        # The first brings the clocks up and another process's context down.
        self._repeat()
        start.record()
        for _ in range(self._times):
            self._repeat()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / (self._times * self._calls)


class GraphTimer:
    """A CUDA graph of the calls, or, where they cannot be captured, :class:`EventTimer`."""

    def prepare(self, calls: Sequence[Call]) -> Timed:
        """Warms up on a side stream, as a capture asks for, and captures."""
        make: Any = torch.cuda.Stream
        stream = make()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for call in (calls[0], calls[0], *calls):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Outputs are kept until the end of the capture: one that is freed lends its memory to the
        # next, whose writes would then hit the cache.
        outputs: list[object] = []
        try:
            with torch.cuda.graph(graph):
                outputs.extend(call() for call in calls)
        except RuntimeError as error:
            torch.cuda.synchronize()
            return EventTimer(f"no graph: {_first_line(error)}").prepare(calls)
        outputs.clear()
        return _DeviceTimed(graph.replay, len(calls), "graph", "")


class EventTimer:
    """Calls launched one by one between two events: what the host cannot hide is counted too."""

    def __init__(self, note: str = "") -> None:
        self._note = note

    def prepare(self, calls: Sequence[Call]) -> Timed:
        """Calls each once."""

        def repeat() -> None:
            for call in calls:
                call()

        repeat()
        torch.cuda.synchronize()
        return _DeviceTimed(repeat, len(calls), "events", self._note)


class _HostTimed:
    how: How = "host"
    note = ""

    def __init__(self, calls: Sequence[Call], clock: Callable[[], float], wanted: float) -> None:
        self._calls = calls
        self._clock = clock
        self._times = 1
        self._times = _repeats(self.sample() * len(calls), wanted)

    def sample(self) -> float:
        start = self._clock()
        for _ in range(self._times):
            for call in self._calls:
                call()
        return (self._clock() - start) / (self._times * len(self._calls))


class HostTimer:
    """A clock around calls on the CPU: for trying the benchmarks out, not for numbers."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, wanted: float = HOST_SAMPLE_S
    ) -> None:
        self._clock = clock
        self._wanted = wanted

    def prepare(self, calls: Sequence[Call]) -> Timed:
        """Calls each once."""
        for call in calls:
            call()
        return _HostTimed(calls, self._clock, self._wanted)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _median(timed: Timed, samples: int = 7) -> float:
    return sorted(timed.sample() for _ in range(samples))[samples // 2]


def copy_bandwidth(timer: Timer, device: torch.device, size: int) -> float:
    """Bytes a second, read and written together, of torch's copy of buffers of `size` bytes."""
    pairs = [
        (
            torch.ones(size // 2, dtype=torch.bfloat16, device=device),
            torch.empty(size // 2, dtype=torch.bfloat16, device=device),
        )
        for _ in range(2)
    ]

    def copy(source: torch.Tensor, target: torch.Tensor) -> Call:
        return lambda: target.copy_(source)

    return 2 * size / _median(timer.prepare([copy(*pair) for pair in pairs]))


def matmul_rate(timer: Timer, device: torch.device, n: int) -> float:
    """FLOPs a second of torch's product of two bf16 matrices of n x n normal values."""
    # A generator of its own: a capture that failed may leave torch's in a state of no use.
    generator = torch.Generator(device).manual_seed(1)
    a, b = (
        torch.empty(n, n, dtype=torch.bfloat16, device=device).normal_(generator=generator)
        for _ in range(2)
    )
    outs = [torch.empty_like(a) for _ in range(2)]

    def multiply(out: torch.Tensor) -> Call:
        return lambda: torch.mm(a, b, out=out)

    return 2 * n**3 / _median(timer.prepare([multiply(out) for out in outs]))
