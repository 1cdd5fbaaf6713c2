"""The installed wheel under a torch it was not built for: a really different one, and none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flashinfer_build.label import Variant
from flashinfer_build.tryout import environment as test_environment

WHEEL = Variant.parse("cu130_torch213")
OTHER = Variant.parse("cu130_torch211")


def _import(python: Path) -> str:
    done = subprocess.run(
        [str(python), "-c", "import flashinfer"], capture_output=True, text=True, cwd=python.parent
    )
    assert done.returncode == 1, done.stdout
    return done.stderr


@pytest.fixture(scope="module")
def under_211(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return test_environment.make(WHEEL, dist, tmp_path_factory.mktemp("other"), torch_of=OTHER)


def test_another_torch_minor_is_named_with_the_commands_that_help(under_211: Path) -> None:
    said = _import(under_211)
    assert "ImportError: flashinfer" in said
    assert "variant cu130_torch213" in said
    assert "torch 2.11.0" in said
    assert "/cu130/torch2.11/" in said
    assert "+cu130torch2.11" in said
    assert "conda install" in said
    assert "cu130_torch211_*" in said
    assert "undefined symbol" not in said


def test_the_doctor_says_what_the_import_does(under_211: Path) -> None:
    done = subprocess.run(
        [str(under_211), "-m", "flashinfer.env", "--json"],
        capture_output=True,
        text=True,
        cwd=under_211.parent,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["torch"]["version"].startswith("2.11.")
    finding = report["findings"][0]
    assert finding["code"] == "torch-minor"
    assert finding["problem"] in _import(under_211)
    assert '"flashinfer==' in finding["commands"]["pip"]
    assert report["installer"] == "pip"


def test_no_torch_is_said(under_211: Path, tmp_path: Path) -> None:
    site = next((under_211.parent.parent / "lib").glob("python*/site-packages"))
    (tmp_path / "flashinfer").symlink_to(site / "flashinfer")
    # Isolated and without site-packages: the standard library and flashinfer, nothing else.
    program = f"import sys; sys.path.append({str(tmp_path)!r}); import flashinfer"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "there is no torch in this environment" in done.stderr
    assert "torch2.13/" in done.stderr
