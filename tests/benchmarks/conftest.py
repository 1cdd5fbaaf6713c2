"""The benchmarks as an importable package, behind whatever flashinfer is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# At the end, and without a package of that name: the source tree's flashinfer must not be found.
sys.path.append(str(ROOT))


@pytest.fixture
def toy_site(tmp_path: Path) -> Path:
    """A folder with a package `flashinfer`: toy_flashinfer.py."""
    package = tmp_path / "site" / "flashinfer"
    package.mkdir(parents=True)
    source = Path(__file__).with_name("toy_flashinfer.py").read_text()
    (package / "__init__.py").write_text(source)
    return package.parent
