"""Writing the lock, with the pip of this environment and a folder of toy wheels."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from wheel_factory import make_wheel

from conda_bridge.errors import ToolchainError
from conda_bridge.toolchain import locking
from conda_bridge.toolchain.lock import Lock
from conda_bridge.toolchain.pypi import _TAG


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip sees: a compiler of two wheels, torch with a library, and the tools."""
    folder = tmp_path / "wheelhouse"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setattr(locking, "CUDA", {"13.0": "cuda-toolkit==13.0.2"})
    monkeypatch.setattr(locking, "TORCH", {"2.13": ("2.13.0+cpu", "2.13.0")})
    make_wheel(folder, "cuda-toolkit", "13.0.2", requires=["nvidia-cuda-nvcc==13.0.88"])
    make_wheel(folder, "nvidia-cuda-nvcc", "13.0.88")
    make_wheel(folder, "cuda-toolkit", "13.0.3", requires=["nvidia-cublas"])
    make_wheel(folder, "nvidia-cublas", "13.1")
    make_wheel(folder, "torch", "2.13.0", requires=["cuda-toolkit==13.0.3", "sympy"])
    for name in ("sympy", "numpy", "ninja", "packaging", "setuptools", "wheel", "pip"):
        make_wheel(folder, name)
    return folder


def written(path: Path) -> Lock:
    locking.write_lock(path, [sys.executable])
    return Lock.read(path)


def test_lock_of_what_pip_resolves(wheelhouse: Path, tmp_path: Path) -> None:
    make_wheel(wheelhouse, "torch", "2.13.0+cpu", requires=["sympy"])
    lock = written(tmp_path / "lock.json")
    assert [wheel.name for wheel in lock.cuda((13, 0)).wheels] == ["nvidia-cuda-nvcc"]
    torch = lock.torch((2, 13), _TAG)
    assert torch.cuda == (13, 0)
    builds = {
        build.wheel.version: [library.name for library in build.libraries] for build in torch.builds
    }
    assert builds == {"2.13.0+cpu": [], "2.13.0": ["cuda-toolkit", "nvidia-cublas"]}
    assert next(iter(builds)) == "2.13.0+cpu"  # the preferred one
    names = {wheel.name for wheel in torch.requires}
    assert names == {"sympy", "numpy", "ninja", "packaging", "setuptools", "wheel", "pip"}
    for wheel in torch.requires:
        assert len(wheel.sha256) == 64


def test_a_local_version_that_nobody_offers_is_left_out(wheelhouse: Path, tmp_path: Path) -> None:
    torch = written(tmp_path / "lock.json").torch((2, 13), _TAG)
    assert [build.wheel.version for build in torch.builds] == ["2.13.0"]


def test_the_same_input_gives_the_same_lock(wheelhouse: Path, tmp_path: Path) -> None:
    written(tmp_path / "one.json")
    written(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert json.loads((tmp_path / "one.json").read_text())["schema"] == 1


def test_what_cannot_be_resolved_leaves_the_lock_as_it_was(
    wheelhouse: Path, tmp_path: Path
) -> None:
    (wheelhouse / "sympy-1.0-py3-none-any.whl").unlink()
    path = tmp_path / "lock.json"
    path.write_text("old")
    with pytest.raises(ToolchainError, match="sympy"):
        locking.write_lock(path, [sys.executable])
    assert path.read_text() == "old"
