"""The labels and files of what ``scripts/test.py`` had ``scripts/build.py`` make."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flashinfer_build.label import Label, Variant

_TESTS = Path(__file__).resolve().parents[1]
# typed.py, and what that imports.
sys.path += [str(_TESTS / name) for name in ("commands", "recipe", "scripts")]
VARIANTS = ("cu130_torch213", "cpu_torch213")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.artifacts)


@pytest.fixture(params=VARIANTS)
def label(request: pytest.FixtureRequest) -> Label:
    """The label of each built variant."""
    return Label.compose(Variant.parse(request.param))
