"""measure: the facts of an nvcc and of a torch, from what they say and hold themselves."""

from __future__ import annotations

import importlib.util
import sys
import venv
from pathlib import Path

import pytest

from conda_bridge.errors import ToolchainError
from flashinfer_build.compile import measure

NEW = b"\0_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112basic_stringIcEE\0"
OLD = b"\0_ZN3c105ErrorC1ENS_14SourceLocationESs\0"


def _nvcc(folder: Path, text: str, status: int = 0) -> Path:
    path = folder / "bin" / "nvcc"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\ncat <<'E'\n{text}\nE\nexit {status}\n")
    path.chmod(0o755)
    return path


def _torch(folder: Path, version: str, cuda: str, symbols: bytes) -> Path:
    root = folder / "torch"
    (root / "lib").mkdir(parents=True)
    (root / "include" / "ATen").mkdir(parents=True)
    (root / "version.py").write_text(
        f"from typing import Optional\n__version__ = '{version}'\ncuda: Optional[str] = {cuda}\n"
    )
    (root / "lib" / "libc10.so").write_bytes(b"\x7fELF" + symbols)
    return root


def test_nvcc_is_asked(tmp_path: Path) -> None:
    path = _nvcc(tmp_path, "Cuda compilation tools, release 12.4, V12.4.131")
    found = measure.find_nvcc({"CUDA_HOME": str(tmp_path)})
    assert found is not None
    assert (found.path, found.version, found.release) == (path, "12.4.131", (12, 4))


def test_no_nvcc_is_no_error() -> None:
    assert measure.find_nvcc({"PATH": ""}) is None


def test_a_named_nvcc_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="CUDA_HOME: there is no nvcc"):
        measure.find_nvcc({"CUDA_HOME": str(tmp_path), "PATH": ""})


SAID = "Cuda compilation tools, release {0}, V{0}.131"


@pytest.mark.parametrize("variable", ["NVCC", "CUDACXX", "PYTORCH_NVCC", "CUDA_HOME", "CUDA_PATH"])
def test_the_variable_that_is_set_decides(tmp_path: Path, variable: str) -> None:
    """Not what PATH or a conda environment has: a mistyped name is not another CUDA."""
    named = _nvcc(tmp_path / "it's a {cuda}", SAID.format("12.4"))
    other = _nvcc(tmp_path / "other", SAID.format("13.0"))
    environ = {"PATH": f"{other.parent}:/usr/bin:/bin", "CONDA_PREFIX": str(other.parent.parent)}
    right = named.parent.parent if variable.startswith("CUDA_") else named
    found = measure.find_nvcc({**environ, variable: str(right)})
    assert found is not None
    assert (found.path, found.release) == (named, (12, 4))
    for wrong in (tmp_path / "nowhere", "x" * 5000, f"ccache {named}"):
        with pytest.raises(ToolchainError, match=f"^{variable}: there is no nvcc"):
            measure.find_nvcc({**environ, variable: str(wrong)})
    unset = measure.find_nvcc({**environ, variable: ""})
    assert unset is not None
    assert unset.release == (13, 0)


def test_an_nvcc_may_be_named_as_on_the_command_line(tmp_path: Path) -> None:
    path = _nvcc(tmp_path, SAID.format("12.4"))
    found = measure.find_nvcc({"PATH": f"{path.parent}:/usr/bin:/bin", "NVCC": "nvcc"})
    assert found is not None
    assert found.path == path


def test_a_program_of_another_machine_is_an_error(tmp_path: Path) -> None:
    path = _nvcc(tmp_path, "")
    path.write_bytes(b"\x7fELF\x02\x01\x01")
    with pytest.raises(ToolchainError, match="does not run"):
        measure.find_nvcc({"NVCC": str(path)})


@pytest.mark.parametrize("given", ["nowhere", "torch/lib"])
def test_a_named_torch_that_is_none_is_an_error(tmp_path: Path, given: str) -> None:
    """Not passed over for the one that is installed."""
    _torch(tmp_path, "2.13.0", "None", NEW)
    with pytest.raises(ToolchainError, match="no torch in this folder"):
        measure.find_torch({"FLASHINFER_TORCH_DIR": str(tmp_path / given)})


def test_the_torch_that_an_isolated_build_hides_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip's runs the environment's interpreter, with its packages out of sight.

    They may also lie in the user's own folder, in another environment's, behind a .pth file: so
    the interpreter is asked, here one whose environment is made of such a file.
    """
    root = _torch(tmp_path / "elsewhere", "2.11.0", "'13.0'", NEW)
    (root / "__init__.py").write_text("")
    prefix = tmp_path / "env"
    venv.create(prefix, with_pip=False, symlinks=True)
    [site] = prefix.glob("lib/python*/site-packages")
    (site / "there.pth").write_text(f"{root.parent}\n")
    monkeypatch.setattr(sys, "executable", str(prefix / "bin" / "python"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    (tmp_path / "overlay").mkdir()
    hidden = {"PYTHONPATH": str(tmp_path / "overlay"), "PYTHONNOUSERSITE": "1"}
    found = measure.find_torch(hidden)
    assert found is not None
    assert (found.root, found.minor) == (root, (2, 11))


@pytest.mark.parametrize(("text", "status"), [("nonsense", 0), ("release 12.4, V12.4.131", 1)])
def test_an_nvcc_that_does_not_answer_is_an_error(tmp_path: Path, text: str, status: int) -> None:
    path = _nvcc(tmp_path, text, status)
    with pytest.raises(ToolchainError, match="nvcc --version"):
        measure.find_nvcc({"NVCC": str(path)})


@pytest.mark.parametrize(
    ("version", "cuda", "symbols", "expected"),
    [
        ("2.4.0+cu121", "'12.1'", OLD, ((2, 4), "12.1", False)),
        ("2.13.0+cpu", "None", NEW, ((2, 13), None, True)),
    ],
)
def test_torch_is_read_not_imported(
    tmp_path: Path,
    version: str,
    cuda: str,
    symbols: bytes,
    expected: tuple[tuple[int, int], str | None, bool],
) -> None:
    root = _torch(tmp_path, version, cuda, symbols)
    before = set(sys.modules)
    found = measure.find_torch({"FLASHINFER_TORCH_DIR": str(root)})
    assert found is not None
    assert (found.minor, found.cuda, found.cxx11_abi) == expected
    assert found.version == version
    assert "torch" not in set(sys.modules) - before


@pytest.mark.parametrize("symbols", [b"", NEW + OLD])
def test_an_abi_that_cannot_be_told_is_an_error(tmp_path: Path, symbols: bytes) -> None:
    root = _torch(tmp_path, "2.13.0", "None", symbols)
    with pytest.raises(ToolchainError, match="ABI cannot be told"):
        measure.find_torch({"FLASHINFER_TORCH_DIR": str(root)})


def test_the_real_torch_here_says_the_same_when_imported() -> None:
    import torch

    found = measure.find_torch({})
    assert found is not None
    assert found.version == torch.__version__
    assert found.cuda == torch.version.cuda
    assert found.cxx11_abi == torch.compiled_with_cxx11_abi()
