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
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import ToolchainError

__all__ = ["Nvcc", "Torch", "find_nvcc", "find_torch"]

_RELEASE = re.compile(r"release (\d+)\.(\d+), V(\d+\.\d+\.\d+)")
# c10::Error(SourceLocation, std::string), mangled with each of libstdc++'s two string types.
_NEW_ABI = b"_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112basic_string"
_OLD_ABI = b"_ZN3c105ErrorC1ENS_14SourceLocationESs"


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
    """The nvcc of ``NVCC``, ``CUDA_HOME``, ``BUILD_PREFIX`` (a conda build) or ``PATH``.

    Returns:
        What was measured, or None where there is none.

    Raises:
        ToolchainError: an nvcc was named or found but does not run.
    """
    candidates = [environ.get("NVCC")]
    for variable in ("CUDA_HOME", "BUILD_PREFIX", "CONDA_PREFIX"):
        if environ.get(variable):
            candidates.append(f"{environ[variable]}/bin/nvcc")
    candidates.append(shutil.which("nvcc", path=environ.get("PATH")))
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            return _ask_nvcc(Path(candidate))
    if environ.get("NVCC") or environ.get("CUDA_HOME"):
        named = environ.get("NVCC") or f"{environ['CUDA_HOME']}/bin/nvcc"
        raise ToolchainError(
            f"there is no nvcc at {named}",
            where="NVCC" if environ.get("NVCC") else "CUDA_HOME",
            fix="set it to a CUDA toolkit, or unset it for the CPU build",
        )
    return None


def _ask_nvcc(path: Path) -> Nvcc:
    done = subprocess.run([str(path), "--version"], capture_output=True, text=True)
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
        capture_output=True,
        text=True,
    )
    top = re.search(r"^#\$ TOP=(.+)$", done.stderr, re.MULTILINE)
    return Path(top[1]).resolve() if top else None


def find_torch(environ: Mapping[str, str] = os.environ) -> Torch | None:
    """The torch that the running interpreter, or the environment it builds for, has.

    An isolated build (``pip install .``) hides the environment's packages from the interpreter;
    they are what the result will run with, so the environment's own folder is looked at as well.

    Raises:
        ToolchainError: a torch folder that lacks what a build needs.
    """
    roots = []
    if environ.get("FLASHINFER_TORCH_DIR"):
        roots.append(Path(environ["FLASHINFER_TORCH_DIR"]))
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin:
        roots.append(Path(spec.origin).parent)
    roots.append(Path(sysconfig.get_path("platlib")) / "torch")
    for root in roots:
        if (root / "version.py").is_file():
            return _read_torch(root)
    return None


def _read_torch(root: Path) -> Torch:
    text = (root / "version.py").read_text()
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda(?:: [^=]+)? = '([^']+)'", text, re.MULTILINE)
    number = re.match(r"(\d+)\.(\d+)", version[1]) if version else None
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
