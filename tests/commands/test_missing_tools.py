"""What an error says to install brings what was missing, in a version that is new enough."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from typed import Elsewhere

from conda_bridge.errors import ToolchainError
from flashinfer_build.compile import prerequisites


def test_what_a_build_runs_is_brought_by_the_command_of_the_error(tmp_path: Path) -> None:
    def installed(name: str) -> str:
        if name == "packaging":
            raise metadata.PackageNotFoundError(name)
        return "65.5.0"

    with pytest.raises(ToolchainError) as caught:
        prerequisites.check({"PATH": ""}, installed, names=("setuptools", "packaging"))
    [line] = re.findall(r"to do: +(pip install .*)", str(caught.value))
    elsewhere = Elsewhere(tmp_path / "elsewhere")
    for name, versions in (("setuptools", ("69.5", "70.1")), ("packaging", ("21.3", "22.0"))):
        for version in versions:
            elsewhere.add(name, version)
    taken = elsewhere.pip_takes(line, tmp_path)
    assert sorted(taken) == ["packaging-22.0-py3-none-any.whl", "setuptools-70.1-py3-none-any.whl"]
    assert not (tmp_path / "=70.1").exists()  # to a shell, an unquoted > is a file
