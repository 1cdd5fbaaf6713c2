"""The examples run as they are, on the flashinfer that is installed."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import flashinfer


@pytest.mark.parametrize("name", ["paged_decode.py", "consumer/consumer.py"])
def test_an_example_runs(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(root / "examples" / name), run_name="__main__")
    said = capsys.readouterr().out
    assert said.strip()
    if name.startswith("consumer"):
        # 3 and 4, and 1 and 1, each by the root of the mean of their squares.
        on = "cuda" if "on cuda" in said else "cpu"
        assert said.startswith(f"flashinfer {flashinfer.__version__} on {on}: [[0.848")
        assert said.endswith(", [1.0, 1.0]]\n")
