"""Parts from Debian's archive: CUDA compilers that the Python index does not have, C libraries.

Packages are only unpacked, into the cache: nothing is installed, and neither root nor Debian is
needed on the machine.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from conda_bridge.errors import ToolchainError

from ... import bootstrap
from .. import Report
from ..lock import Lock, LockedDeb
from ..parts import CudaPart, SysrootPart
from ..system import glibc_version
from . import cuda as debian_cuda
from . import gxx as debian_gxx
from . import sysroot as debian_sysroot
from .fetch import fetch_trees

__all__ = ["Debian"]


class Debian:
    """Has what the lock holds of Debian: a source of CUDA and of C libraries."""

    def __init__(self, cache: Path | None = None, lock: Lock | None = None) -> None:
        self._cache = cache or bootstrap.cache_dir()
        self._lock = lock or Lock.read()

    # ---------------------------------------------------------------- CUDA

    def missing_cuda(self, release: tuple[int, int]) -> str:
        """Why there is no compiler of this CUDA release; empty if there is."""
        locked = self._lock.debian_cuda.get(release)
        if locked is None:
            known = _listed("{}.{}".format(*key) for key in sorted(self._lock.debian_cuda))
            return f"CUDA {release[0]}.{release[1]} is not in Debian, which has {known}"
        return _wrong_machine(debian_gxx.GLIBC if locked.gxx else None)

    def own_gxx(self, release: tuple[int, int]) -> int | None:
        """The major of the C++ compiler that comes with it, or None where none does."""
        locked = self._lock.debian_cuda.get(release)
        gxx = [deb for deb in locked.gxx if deb.package.startswith("g++-")] if locked else []
        majors = [deb.upstream.split(".")[0] for deb in gxx]
        return int(majors[0]) if majors else None

    def cuda(self, release: tuple[int, int], report: Report) -> CudaPart:
        """The compiler of a CUDA release, with an older g++ where it needs one."""
        locked = self._lock.debian_cuda[release]
        trees = fetch_trees(
            {deb: debian_cuda.wanted(deb) for deb in locked.toolkit}, self._cache, report
        )
        compiler = None
        if locked.gxx:
            gxx_trees = fetch_trees(
                dict.fromkeys(locked.gxx, debian_gxx.WANTED), self._cache, report
            )
            compiler = debian_gxx.compiler_of(gxx_trees, self._cache)
        return CudaPart(
            tuple(debian_cuda.cuda_packages(locked, trees)),
            _lines([*locked.toolkit, *locked.gxx]),
            compiler,
        )

    # ---------------------------------------------------------------- C libraries

    def missing_glibc(self, version: str) -> str:
        """Why there is no C library of this version; empty if there is."""
        if version not in self._lock.sysroots:
            known = _listed(sorted(self._lock.sysroots))
            return f"glibc {version} is not locked of Debian, which has {known}"
        return _wrong_machine(None)

    def sysroot(self, version: str, report: Report) -> SysrootPart:
        """A C library with its headers."""
        debs = self._lock.sysroots[version]
        trees = fetch_trees(dict.fromkeys(debs, debian_sysroot.WANTED), self._cache, report)
        return SysrootPart(debian_sysroot.package(version, trees), _lines(debs), version)


def _wrong_machine(glibc: tuple[int, int] | None) -> str:
    """Why the programs cannot run here; empty if they can.

    Args:
        glibc: the C library that they need at least, or None for any.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return (
            f"Debian's packages are for x86-64 Linux, this is {platform.machine()} {sys.platform}"
        )
    try:
        version = glibc_version()
    except ToolchainError as error:
        return str(error.what)
    if glibc and tuple(map(int, version.split(".")[:2])) < glibc:
        return f"Debian's g++ for it needs glibc {glibc[0]}.{glibc[1]}, this machine has {version}"
    return ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _lines(debs: Sequence[LockedDeb]) -> tuple[str, ...]:
    return tuple(sorted(f"{deb.filename} {deb.sha256}" for deb in debs))
