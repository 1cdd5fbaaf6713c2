"""measure: the facts of an nvcc and of a torch, from what they say and hold themselves."""

from __future__ import annotations

import sys
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
