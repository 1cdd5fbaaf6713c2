"""Writing the lock, with the pip of this environment and a folder of toy wheels."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from wheel_factory import make_wheel

from conda_bridge.errors import ToolchainError
from flashinfer_build.toolchain import locking
from flashinfer_build.toolchain.debian import locking as debian_locking
from flashinfer_build.toolchain.lock import SCHEMA, Lock
from flashinfer_build.toolchain.pypi import _TAG


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
    monkeypatch.setattr(debian_locking, "CUDA", {})
    monkeypatch.setattr(debian_locking, "SYSROOTS", {})
    make_wheel(folder, "cuda-toolkit", "13.0.2", requires=["nvidia-cuda-nvcc==13.0.88"])
    make_wheel(folder, "nvidia-cuda-nvcc", "13.0.88")
    make_wheel(folder, "cuda-toolkit", "13.0.3", requires=["nvidia-cublas"])
    make_wheel(folder, "nvidia-cublas", "13.1")
    make_wheel(folder, "torch", "2.13.0", requires=["cuda-toolkit==13.0.3", "sympy"])
    for name in ("sympy", "numpy", "ninja", "packaging", "setuptools", "wheel", "pip"):
        make_wheel(folder, name)
    return folder


def written(path: Path, keep: Lock | None = None) -> Lock:
    locking.write_lock(path, [sys.executable], keep=keep.data if keep else None)
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


def test_a_torch_that_nobody_offers_is_an_error(wheelhouse: Path, tmp_path: Path) -> None:
    (wheelhouse / "torch-2.13.0-py3-none-any.whl").unlink()
    with pytest.raises(ToolchainError, match=r"no index has torch 2\.13\.0\+cpu or 2\.13\.0"):
        written(tmp_path / "lock.json")
    assert not (tmp_path / "lock.json").exists()


@pytest.mark.parametrize(
    ("requirement", "cuda"),
    [("cuda-toolkit==13.2.1", (13, 2)), ("nvidia-cuda-runtime-cu12==12.4.127", (12, 4))],
)
def test_the_cuda_of_a_torch_is_that_of_its_runtime(
    wheelhouse: Path, tmp_path: Path, requirement: str, cuda: tuple[int, int]
) -> None:
    name, _, version = requirement.partition("==")
    make_wheel(wheelhouse, name, version)
    make_wheel(wheelhouse, "torch", "2.13.0", requires=["nvidia-cublas", requirement, "sympy"])
    assert written(tmp_path / "lock.json").torch((2, 13), _TAG).cuda == cuda


def test_a_torch_that_does_not_say_its_cuda_is_an_error(wheelhouse: Path, tmp_path: Path) -> None:
    make_wheel(wheelhouse, "torch", "2.13.0", requires=["nvidia-cublas", "sympy"])
    with pytest.raises(ToolchainError, match="names no CUDA toolkit"):
        written(tmp_path / "lock.json")


def test_what_is_locked_stays_until_an_upgrade(wheelhouse: Path, tmp_path: Path) -> None:
    first = written(tmp_path / "lock.json")
    make_wheel(wheelhouse, "sympy", "2.0")
    make_wheel(wheelhouse, "ninja", "2.0")
    assert written(tmp_path / "kept.json", first).data == first.data
    upgraded = written(tmp_path / "upgraded.json")
    [sympy] = [w for w in upgraded.torch((2, 13), _TAG).requires if w.name == "sympy"]
    assert sympy.version == "2.0"
    assert "2.0" in {wheel.version for wheel in upgraded.tools}


def test_what_is_new_is_added_to_what_is_locked(
    wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(tmp_path / "lock.json")
    make_wheel(wheelhouse, "sympy", "2.0")
    make_wheel(wheelhouse, "torch", "2.14.0", requires=["cuda-toolkit==13.0.3", "sympy"])
    monkeypatch.setitem(locking.TORCH, "2.14", ("2.14.0",))
    both = written(tmp_path / "lock.json", first)
    assert both.torch((2, 13), _TAG) == first.torch((2, 13), _TAG)
    assert {w.name: w.version for w in both.torch((2, 14), _TAG).requires}["sympy"] == "2.0"


def test_another_version_wanted_replaces_what_is_locked(
    wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(tmp_path / "lock.json")
    make_wheel(wheelhouse, "torch", "2.13.1", requires=["cuda-toolkit==13.0.3", "sympy"])
    monkeypatch.setitem(locking.TORCH, "2.13", ("2.13.1",))
    again = written(tmp_path / "lock.json", first)
    assert [build.wheel.version for build in again.torch((2, 13), _TAG).builds] == ["2.13.1"]
    assert "torch-2.13.0-py3-none-any.whl" not in again.data["wheels"]


def test_the_same_input_gives_the_same_lock(wheelhouse: Path, tmp_path: Path) -> None:
    written(tmp_path / "one.json")
    written(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert json.loads((tmp_path / "one.json").read_text())["schema"] == SCHEMA


def test_what_cannot_be_resolved_leaves_the_lock_as_it_was(
    wheelhouse: Path, tmp_path: Path
) -> None:
    (wheelhouse / "sympy-1.0-py3-none-any.whl").unlink()
    path = tmp_path / "lock.json"
    path.write_text("old")
    with pytest.raises(ToolchainError, match="sympy"):
        locking.write_lock(path, [sys.executable])
    assert path.read_text() == "old"
