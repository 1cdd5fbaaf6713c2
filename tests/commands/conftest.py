"""What the tests of printed commands share with those of the recipe and the programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from site_of_page import Served

_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / "recipe"), str(_TESTS / "scripts")]  # solver.py, factories.py, ...


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a module's site is, and what it is served from."""
    folder: Path = tmp_path_factory.mktemp("page")
    return folder


@pytest.fixture(scope="module")
def site(top: Path) -> Path:
    """Builds of seven variants, published with the page for people."""
    import site_of_page

    return site_of_page.publish(top)


@pytest.fixture(scope="module")
def served(top: Path) -> Iterator[Served]:
    """The same over http."""
    import site_of_page

    served = site_of_page.Served(top)
    yield served
    served.stop()
