"""What a build needs before its first import: an interpreter that fits, setuptools, ninja.

Imports the standard library alone: it runs where the rest is missing, and says how to get it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path

from conda_bridge.errors import ToolchainError

__all__ = ["REQUIREMENTS", "check", "check_interpreter", "find_ninja"]

# As in [build-system] of pyproject.toml, which a build without isolation does not read.
REQUIREMENTS: Mapping[str, tuple[int, ...]] = {
    "setuptools": (70, 1),
    "packaging": (22,),
    "ninja": (),
    "tomli": (2, 0),
}
_MINIMUM = (3, 8)


def check_interpreter(
    config: Callable[[str], object] = sysconfig.get_config_var,
    implementation: str = sys.implementation.name,
    machine: str = "",
) -> None:
    """Stops an interpreter or a machine that the binding cannot be compiled for.

    Args:
        config: the interpreter's settings, ``Py_GIL_DISABLED`` for one.
        implementation: its name, ``cpython`` for one.
        machine: such as ``linux-x86_64``; this one if empty.

    Raises:
        ToolchainError: it does not fit.
    """
    version = "{}.{}".format(*sys.version_info[:2])
    expected = "CPython 3.8 or newer with the GIL, on Linux on x86-64"
    machine = machine or f"{sys.platform}-{platform.machine()}"
    if sys.version_info < _MINIMUM or implementation != "cpython":
        raise ToolchainError(
            f"{implementation} {version} cannot load the binding",
            where=sys.executable,
            expected=expected,
        )
    if config("Py_GIL_DISABLED"):
        raise ToolchainError(
            f"this is the free-threaded Python {version}t, which does not load extensions for the"
            " stable ABI; flashinfer's is one",
            where=sys.executable,
            expected=expected,
            fix=f"build in an environment of Python {version} with the GIL: `uv venv --python"
            f" {version}+gil`, or `conda install python-gil`",
        )
    if machine not in ("linux-x86_64", "linux-AMD64"):
        raise ToolchainError(f"this is {machine}", where=sys.executable, expected=expected)


def find_ninja(environ: Mapping[str, str] = os.environ) -> str:
    """The program; empty where there is none."""
    found = shutil.which("ninja", path=environ.get("PATH"))
    beside = Path(sys.executable).parent / "ninja"
    return found or (str(beside) if beside.is_file() else "")


def _check_mounts(environ: Mapping[str, str]) -> None:
    """Stops where a ninja is found that cannot be started, which looks as if there were none."""
    for folder in (environ.get("PATH") or "").split(os.pathsep):
        path = os.path.join(folder, "ninja")  # noqa: PTH118  (a Path looks at the file system)
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode) and _is_noexec(folder):  # noqa: PTH116
                raise ToolchainError(
                    "ninja is on a file system that is mounted noexec: no program can be started"
                    " there, and no library loaded",
                    where=path,
                    fix="set TMPDIR, where isolated builds are set up, to a folder elsewhere, or"
                    " build in an environment elsewhere",
                )


def _is_noexec(folder: str) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)


def _reads_toml() -> bool:
    """Whether there is another reader of TOML: Python has one since 3.11, and pip a copy."""
    return sys.version_info >= (3, 11) or importlib.util.find_spec("pip") is not None


def check(
    environ: Mapping[str, str] = os.environ,
    installed: Callable[[str], str] = metadata.version,
    *,
    compiles: bool = True,
    names: Iterable[str] = REQUIREMENTS,
) -> None:
    """Stops where this interpreter lacks what a build needs, and says what brings it.

    Args:
        environ: where ninja is looked for.
        installed: the version of an installed distribution.
        compiles: False for a source distribution, which any interpreter makes.
        names: those of :data:`REQUIREMENTS` to look at.

    Raises:
        ToolchainError: the interpreter does not fit, or something is missing or too old.
    """
    if compiles:
        check_interpreter()
    wanted, found = [], []
    for name in names:
        minimum = REQUIREMENTS[name]
        if (name == "ninja" and not compiles) or (name == "tomli" and _reads_toml()):
            continue
        if name == "ninja":
            version = "" if find_ninja(environ) else "none"
            if version:
                _check_mounts(environ)
        else:
            try:
                version = installed(name)
            except metadata.PackageNotFoundError:
                version = "none"
        numbers = tuple(int(number) for number in re.findall(r"\d{1,9}", version)[:2])
        if version == "none" or numbers < minimum:
            floor = ".".join(map(str, minimum))
            wanted.append(f'"{name}>={floor}"' if floor else name)
            found.append(f"{name}: {version}")
    if wanted:
        raise ToolchainError(
            f"what the build runs is missing or too old: {', '.join(found)}",
            where=sys.executable,
            expected="these in the environment: no isolated build brings them",
            fix=f"pip install {' '.join(wanted)}",
        )
