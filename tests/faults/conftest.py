"""The place where builds are disturbed, how often, and the table of what was."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from site_of_faults import STAGES, Site

# What a test adds to its report, which reaches the summary from whatever process ran the test.
FAULT, SECONDS = "fault injected", "processor time of builds"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.artifacts)


@pytest.fixture(scope="session")
def count() -> int:
    """How many times each fault is injected over the stages (``FLASHINFER_FAULT_COUNT``)."""
    return int(os.environ.get("FLASHINFER_FAULT_COUNT") or 10)


@pytest.fixture(scope="session")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Built once, undisturbed; ``FLASHINFER_FAULT_SEED`` repeats the moments of another run."""
    seed = int(os.environ.get("FLASHINFER_FAULT_SEED") or random.SystemRandom().randrange(1 << 30))
    return Site.make(root, tmp_path_factory.mktemp("faults"), seed)


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Counts one fault that did happen, by its name and the stage."""

    def add(fault: str, stage: str) -> None:
        request.node.user_properties.append((FAULT, (fault, stage)))

    return add


def _children() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


@pytest.fixture(autouse=True)
def _builds_timed(request: pytest.FixtureRequest) -> Iterator[None]:
    before = _children()
    yield
    request.node.user_properties.append((SECONDS, _children() - before))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # The report of the teardown has what the others of its test have, and the time.
    reports = [
        report
        for kind in terminalreporter.stats.values()
        for report in kind
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
    ]
    properties = [one for report in reports for one in report.user_properties]
    counts = Counter(tuple(value) for name, value in properties if name == FAULT)
    if not counts:
        return
    faults = list(dict.fromkeys(fault for fault, _ in counts))
    stages = [*STAGES, *sorted({stage for _, stage in counts} - set(STAGES))]
    terminalreporter.write_line("faults injected, by stage:")
    for fault in faults:
        found = {stage: counts[fault, stage] for stage in stages if counts[fault, stage]}
        shown = ", ".join(f"{stage} {number}" for stage, number in found.items())
        terminalreporter.write_line(f"  {fault}: {sum(found.values())} ({shown})")
    seconds = sum(value for name, value in properties if name == SECONDS)
    terminalreporter.write_line(f"  processor time of the builds that ended: {seconds:.0f} s")
