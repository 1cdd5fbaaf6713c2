"""The emulated library, built once, and what the tests of all families share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from emulated import Emulator, build, kernel_sources


@pytest.fixture(scope="session")
def object_cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where objects are kept from one run of the tests to the next."""
    cache = getattr(request.config, "cache", None)
    return Path(cache.mkdir("emulator")) if cache else tmp_path_factory.mktemp("emulator")


@pytest.fixture(scope="session")
def library(object_cache: Path) -> Path:
    return build(object_cache, "flashinfer_emulated", kernel_sources())


@pytest.fixture(scope="session")
def _emulator(library: Path) -> Emulator:
    return Emulator(library)


@pytest.fixture
def gpu(_emulator: Emulator) -> Iterator[Emulator]:
    """The emulated device; its memory is freed after the test."""
    torch.manual_seed(0)
    _emulator.library.fi_emulator_set_multiprocessors(4)
    _emulator.called.clear()
    yield _emulator
    _emulator.free_all()
