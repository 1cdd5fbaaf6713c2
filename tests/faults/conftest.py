"""The place where builds are disturbed, how often, and the table of what was."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from site_of_faults import STAGES, Site

COUNTS: Counter[tuple[str, str]] = Counter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.artifacts)


@pytest.fixture(scope="session")
def count() -> int:
    """How many times each fault is injected over the stages (``FLASHINFER_FAULT_COUNT``)."""
    return int(os.environ.get("FLASHINFER_FAULT_COUNT") or 20)


@pytest.fixture(scope="session")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Built once, undisturbed; ``FLASHINFER_FAULT_SEED`` repeats the moments of another run."""
    seed = int(os.environ.get("FLASHINFER_FAULT_SEED") or random.SystemRandom().randrange(1 << 30))
    return Site.make(root, tmp_path_factory.mktemp("faults"), seed)


@pytest.fixture
def injected() -> Callable[[str, str], None]:
    """Counts one fault that did happen, by its name and the stage."""

    def add(fault: str, stage: str) -> None:
        COUNTS[fault, stage] += 1

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not COUNTS:
        return
    faults = list(dict.fromkeys(fault for fault, _ in COUNTS))
    stages = [*STAGES, *sorted({stage for _, stage in COUNTS} - set(STAGES))]
    terminalreporter.write_line("faults injected, by stage:")
    for fault in faults:
        found = {stage: COUNTS[fault, stage] for stage in stages if COUNTS[fault, stage]}
        shown = ", ".join(f"{stage} {number}" for stage, number in found.items())
        terminalreporter.write_line(f"  {fault}: {sum(found.values())} ({shown})")
    spent = os.times()
    seconds = spent.children_user + spent.children_system
    terminalreporter.write_line(f"  processor time of the builds that ended: {seconds:.0f} s")
