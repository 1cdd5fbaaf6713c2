"""usage: time, processor time and the memory of the whole process tree."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conda_bridge.system.usage import measured

_SIZE = 120 << 20
# Two processes below one, each with memory of its own, at the same time.
_TREE = f"""
import subprocess, sys
child = [sys.executable, "-c", "import time; x = bytearray({_SIZE}); time.sleep(0.8)"]
both = [subprocess.Popen(child), subprocess.Popen(child)]
[one.wait() for one in both]
"""


def test_memory_of_grandchildren_that_run_together_adds_up() -> None:
    with measured() as meter:
        subprocess.run([sys.executable, "-c", _TREE], check=True)
    assert meter.cost.peak_memory > 2 * _SIZE
    assert meter.cost.seconds > 0.8


def test_processor_time_of_what_ended_counts_and_waiting_does_not() -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    with measured() as meter:
        subprocess.run([sys.executable, "-c", busy], check=True)
    assert meter.cost.cpu_seconds > 0.45
    with measured() as idle:
        subprocess.run(["sleep", "0.4"], check=True)
    assert idle.cost.seconds > 0.4
    assert idle.cost.cpu_seconds < 0.3


def test_the_cost_of_what_fails_is_known_too() -> None:
    with pytest.raises(ZeroDivisionError), measured() as meter:
        raise ZeroDivisionError
    assert meter.cost.peak_memory > 0
