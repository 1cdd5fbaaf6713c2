"""The installed flashinfer, called as the benchmarks call it, on the CPU."""

from __future__ import annotations

import pytest
from test_gpu_workloads import OPS, prepare

from benchmarks.gpu.worker import Contestant
from benchmarks.gpu.workload import ERROR_LIMIT

# Where the tests run without an installed one, the source tree's says that it is not built.
pytest.importorskip("flashinfer", exc_type=ImportError)


@pytest.mark.parametrize("op", OPS)
def test_every_operation(op: str) -> None:
    found = prepare(Contestant("cpu", "flashinfer", rotated=0), op, "flashinfer")
    assert found.get("reason") is None
    assert found["error"] < ERROR_LIMIT / 2
