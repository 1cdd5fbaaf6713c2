"""What the tests of upgrades share with those of the programs, the recipe and the doctor."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / name) for name in ("recipe", "scripts", "doctor", "commands")]
