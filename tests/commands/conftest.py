"""What the tests of printed commands share with those of the recipe and the programs."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / "recipe"), str(_TESTS / "scripts")]  # solver.py, factories.py, ...
