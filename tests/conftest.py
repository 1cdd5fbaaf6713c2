"""What all tests share: the GPU marker and where the built artifacts are."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A machine that has other work to do is no failure.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
ROOT = Path(__file__).resolve().parents[1]
# What tests compile is compiled; the tests of the compiler caches ask for one.
os.environ["FLASHINFER_COMPILER_CACHE"] = "none"


@functools.cache
def cuda_devices() -> int:
    """How many CUDA devices torch sees; 0 without torch."""
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.device_count())


# What takes longest begins first, so that no core waits for it at the end; and what shares
# something that takes minutes to make stays in one process. Every other file is on its own.
_TOGETHER = (
    *("faults", "emulator/test_emulated_mutations.py", "emulator", "cpu_kernels", "artifacts"),
)


def _group(nodeid: str) -> tuple[int, str]:
    name = nodeid.partition("::")[0].removeprefix("tests/")
    for place, start in enumerate(_TOGETHER):
        if name == start or name.startswith(f"{start}/"):
            return place, start
    return len(_TOGETHER), name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out whole groups, in their order, to the processes of pytest-xdist."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)[1]

    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not cuda_devices():
            item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device here"))
    items.sort(key=lambda item: _group(item.nodeid)[0])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "gpu: no CUDA device here" in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_line(f"GPU tests skipped, no CUDA device here: {len(skipped)}")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def dist() -> Path:
    """The folder of artifacts that ``scripts/test.py`` built with ``scripts/build.py``."""
    folder = os.environ.get("FLASHINFER_TEST_DIST")
    if not folder:
        pytest.fail("FLASHINFER_TEST_DIST is not set: `python scripts/test.py` builds it")
    return Path(folder)
