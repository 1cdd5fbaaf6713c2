"""What a piece of work costs: time, processor time, and the most memory of its whole process tree.

The kernel counts the peak of each process, not of a tree of them, and keeps it for the life of the
process; so the tree is looked at a few times a second. Memory that processes share counts in each.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

__all__ = ["NO_COST", "Cost", "Meter", "measured"]

_INTERVAL = 0.2  # a look takes milliseconds: it reads what every process of the machine is


@dataclass(frozen=True)
class Cost:
    """What something cost.

    Attributes:
        seconds: of wall time.
        cpu_seconds: of processor time, with all processes that were started and have ended.
        peak_memory: bytes that all its processes had at once, as sampled.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return {
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "peak_memory": self.peak_memory,
        }


NO_COST = Cost()


@dataclass
class Meter:
    """Holds the cost once the measured block has ended."""

    cost: Cost = NO_COST


@contextlib.contextmanager
def measured() -> Iterator[Meter]:
    """Measures what runs in the block, in this process and in those it starts."""
    meter = Meter()
    peak = _tree_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_INTERVAL):
            peak = max(peak, _tree_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started, before = time.monotonic(), _cpu_seconds()
    try:
        yield meter
    finally:
        seconds, spent = time.monotonic() - started, _cpu_seconds() - before
        done.set()
        watcher.join()
        meter.cost = Cost(seconds, spent, max(peak, _tree_memory()))


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _tree_memory() -> int:
    """Resident bytes of this process and all below it."""
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            total += process.memory_info().rss
    return total
