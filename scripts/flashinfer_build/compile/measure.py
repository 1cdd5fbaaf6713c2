"""What the toolchain at hand really is: the nvcc and the torch that a build would use.

Nothing is imported or guessed: nvcc is asked, torch's own files are read. So it works for a torch
that cannot be imported here (a CUDA build on a machine without the CUDA libraries).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conda_bridge.errors import ToolchainError

__all__ = ["CAPTURED", "PROGRAMS", "TOOLKITS", "Nvcc", "Torch", "find_nvcc", "find_torch"]

# For subprocess.run: what is said may name a path that is not UTF-8.
CAPTURED: Any = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace"}
_RELEASE = re.compile(r"release (\d{1,9})\.(\d{1,9}), V(\d+\.\d+\.\d+)")
# c10::Error(SourceLocation, std::string), mangled with each of libstdc++'s two string types.
_NEW_ABI = b"_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112basic_string"
_OLD_ABI = b"_ZN3c105ErrorC1ENS_14SourceLocationESs"
# Ours, CMake's and torch's names for the program; torch's names for the toolkit. The first wins.
PROGRAMS = ("NVCC", "CUDACXX", "PYTORCH_NVCC")
TOOLKITS = ("CUDA_HOME", "CUDA_PATH")


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler.

    Attributes:
        path: the program.
        home: the toolkit it belongs to.
        version: in full, e.g. ``13.0.88``.
        release: (major, minor), the part that the label names.
    """

    path: Path
    home: Path
    version: str
    release: tuple[int, int]


@dataclass(frozen=True)
class Torch:
    """A torch installation to link against.

    Attributes:
        root: its package folder.
        version: in full, e.g. ``2.13.0+cpu``.
        minor: (major, minor), the part that the label names.
        cuda: the CUDA it was built with, or None.
        cxx11_abi: whether its ``std::string`` is ``std::__cxx11::basic_string``.
    """

    root: Path
    version: str
    minor: tuple[int, int]
    cuda: str | None
    cxx11_abi: bool


def find_nvcc(environ: Mapping[str, str] = os.environ) -> Nvcc | None:
    """The nvcc that a variable names, or that of the conda environment or of ``PATH``.

    The first variable that is set decides: ``NVCC``, ``CUDACXX`` and ``PYTORCH_NVCC`` name the
    program, ``CUDA_HOME`` and ``CUDA_PATH`` its toolkit. Nothing else is looked at then, so that a
    mistyped name does not build for another CUDA.

    Returns:
        What was measured, or None where there is none.

    Raises:
        ToolchainError: an nvcc was named or found but is not there or does not run.
    """
    for variable in PROGRAMS:
        if environ.get(variable):
            return _ask_nvcc(_named(variable, environ))
    for variable in TOOLKITS:
        if environ.get(variable):
            bin_folder = Path(environ[variable]).absolute() / "bin"
            found = shutil.which("nvcc", path=str(bin_folder))
            if not found:
                raise ToolchainError(
                    f"there is no nvcc at {bin_folder / 'nvcc'}",
                    where=variable,
                    expected="the folder of a CUDA toolkit",
                    fix=f"set {variable} to one, unset it to use the nvcc on PATH, or set"
                    " FLASHINFER_FORCE_CPU=1 for the CPU build",
                )
            return _ask_nvcc(Path(found))
    for variable in ("BUILD_PREFIX", "CONDA_PREFIX"):  # set by conda, with an nvcc or without
        prefix = environ.get(variable)
        found = shutil.which("nvcc", path=str(Path(prefix, "bin"))) if prefix else None
        if found:
            return _ask_nvcc(Path(found))
    found = shutil.which("nvcc", path=environ.get("PATH"))
    return _ask_nvcc(Path(found)) if found else None


def _named(variable: str, environ: Mapping[str, str]) -> Path:
    """The program that `variable` names, by a path or as on the command line."""
    value = environ[variable]
    found = shutil.which(value, path=environ.get("PATH"))
    if not found:
        raise ToolchainError(
            f"there is no nvcc at {value}",
            where=variable,
            expected="one program, without arguments or a compiler cache in front of it"
            " (FLASHINFER_COMPILER_CACHE names a cache, NVCC_APPEND_FLAGS has arguments)",
            fix=f"set {variable} to an nvcc, or unset it",
        )
    return Path(found).absolute()


def _ask_nvcc(path: Path) -> Nvcc:
    try:
        done = subprocess.run([str(path), "--version"], **CAPTURED)
    except OSError as error:  # not executable, of another machine, on a noexec mount
        raise ToolchainError(f"nvcc does not run: {error.strerror}", where=str(path)) from None
    found = _RELEASE.search(done.stdout)
    if done.returncode != 0 or not found:
        raise ToolchainError(
            f"`nvcc --version` failed: {(done.stderr or done.stdout).strip()[-500:]}",
            where=str(path),
            expected="a line with 'release X.Y, VX.Y.Z'",
        )
    home = _toolkit_of(path) or path.resolve().parent.parent
    return Nvcc(path, home, found[3], (int(found[1]), int(found[2])))


def _toolkit_of(path: Path) -> Path | None:
    """The toolkit that nvcc itself reports in a dry run: `path` may be a script that calls it."""
    done = subprocess.run(
        [str(path), "--dryrun", "-c", "-x", "cu", "/dev/null", "-o", "/dev/null"],
        **CAPTURED,
    )
    top = re.search(r"^#\$ TOP=(.+)$", done.stderr, re.MULTILINE)
    return Path(top[1]).resolve() if top else None


def find_torch(environ: Mapping[str, str] = os.environ) -> Torch | None:
    """The torch that the running interpreter, or the environment it builds for, has.

    pip's isolated build runs the environment's own interpreter, and only hides its packages from
    it; they are what the result will run with, so the interpreter is asked once more without what
    hides them. The isolated builds of uv and ``python -m build`` have an interpreter of their own,
    which leads to no environment.

    Raises:
        ToolchainError: a torch folder that lacks what a build needs.
    """
    given = environ.get("FLASHINFER_TORCH_DIR")
    if given:
        if not (Path(given) / "version.py").is_file():
            raise ToolchainError(
                "there is no torch in this folder",
                where=f"FLASHINFER_TORCH_DIR={given}",
                expected="torch's own folder, with version.py, lib/ and include/",
                fix="set it to what this prints: "
                'python -c "import torch; print(torch.__path__[0])"',
            )
        return _read_torch(Path(given).absolute())
    spec = importlib.util.find_spec("torch")
    origin = spec.origin if spec else _origin_unhidden(environ)
    root = Path(origin).parent if origin else Path(sysconfig.get_path("platlib")) / "torch"
    return _read_torch(root) if (root / "version.py").is_file() else None


def _origin_unhidden(environ: Mapping[str, str]) -> str:
    """Where torch is for the running interpreter outside of a build; empty for nowhere."""
    hiding = ("PYTHONPATH", "PYTHONNOUSERSITE")
    code = "import importlib.util as u; s = u.find_spec('torch'); print(s and s.origin or '')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in environ.items() if name not in hiding},
        cwd=os.sep,  # not a checkout of torch
        **CAPTURED,
    )
    lines = done.stdout.splitlines()
    return lines[-1] if lines else ""


def _read_torch(root: Path) -> Torch:
    text = (root / "version.py").read_text(encoding="utf-8", errors="replace")
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda(?:: [^=]+)? = '([^']+)'", text, re.MULTILINE)
    number = re.match(r"(\d{1,9})\.(\d{1,9})", version[1]) if version else None
    if not version or not number:
        raise ToolchainError("no version in it", where=str(root / "version.py"))
    library = root / "lib" / "libc10.so"
    if not library.is_file() or not (root / "include" / "ATen").is_dir():
        raise ToolchainError(
            f"torch {version[1]} has no headers or no lib/libc10.so",
            where=str(root),
            fix="install torch from a wheel or a conda package that has them",
        )
    symbols = library.read_bytes()
    new, old = _NEW_ABI in symbols, _OLD_ABI in symbols
    if new == old:
        raise ToolchainError(
            "the C++ string ABI cannot be told from its symbols",
            where=str(library),
            expected="c10::Error's constructor with exactly one kind of std::string",
        )
    minor = (int(number[1]), int(number[2]))
    return Torch(root, version[1], minor, cuda[1] if cuda else None, new)
