"""The pip command of an import error takes, from the index that was written, the wheel it names."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_artifacts
from wheel_factory import make_wheel

from conda_bridge.project import Project
from conda_bridge.publish import index
from flashinfer import _compat
from flashinfer_build.checks import build_info
from flashinfer_build.label import Label, Variant

LABELS = [
    Label(Variant.parse("cu130_torch213"), "0.1.7rc1"),
    Label(Variant.parse("cpu_torch29"), "0.1.7.dev20261122", 0, "1a2b3c4"),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Path]:
    folder: Path = tmp_path_factory.mktemp("published")
    for label in LABELS:
        toy_artifacts.write_wheel(folder / "wheels", label)
        torch = "{}.{}.1".format(*label.variant.torch)
        make_wheel(folder / "others", "torch", torch)
    # Anybody may put this on PyPI, where nobody can put a local version.
    make_wheel(folder / "others", "flashinfer", "99.0")
    index.update(folder, project=Project.load(root / "pyproject.toml"))
    return folder


@pytest.mark.parametrize("label", LABELS, ids=str)
def test_pip_takes_what_the_command_names(
    label: Label, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHINFER_INDEX_URL", (published / "index").as_uri())
    other = Label(
        Variant.parse("cu124_torch24"), label.public_version, label.build_number, label.commit
    )
    facts = {"CUDA": "12.4.131", "CXX11_ABI": True, "ARCH_LIST": "9.0a"}
    build = _compat.read_build(SimpleNamespace(**build_info.expected(other), **facts))
    torch = "{}.{}".format(*label.variant.torch)
    line = _compat.commands(build, label.variant.cuda_tag, torch).pip
    (tmp_path / "none").mkdir()
    done = subprocess.run(
        # What PyPI would have is a folder; the rest is as it is printed.
        [sys.executable, "-m", *shlex.split(line), "--index-url", (tmp_path / "none").as_uri()]
        + ["--find-links", str(published / "others"), "--dry-run", "--ignore-installed"]
        + ["--quiet", "--report", "-", "--disable-pip-version-check", "--no-cache-dir"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    names = {Path(item["download_info"]["url"]).name for item in report["install"]}
    assert label.wheel_file.replace("+", "%2B") in names
    assert any(name.startswith(f"torch-{torch}.") for name in names)
