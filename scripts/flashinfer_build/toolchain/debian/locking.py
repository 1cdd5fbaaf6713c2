"""What the lock has of Debian: asks apt which files the wanted packages of each suite are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conda_bridge.errors import ToolchainError

from .apt import Suite, mirrors

__all__ = ["CUDA", "SYSROOTS", "WantedCuda", "lock_debs"]

# Suite -> packages of it.
Wanted = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class WantedCuda:
    """The packages of one CUDA release.

    Attributes:
        toolkit: nvcc, headers, runtime.
        gxx: an older g++ with all that it runs and links with, where this nvcc needs one.
    """

    toolkit: Wanted
    gxx: Wanted = field(default_factory=dict)


# What cuda.h and nvcc come with; cuda_fp16.h includes <nv/target>, which is libcu++'s.
_TOOLKIT = ("nvidia-cuda-toolkit", "nvidia-cuda-dev")
_CCCL = ("libcub-dev", "libcu++-dev", "libthrust-dev")
# The first two are the compiler, the next three its own files, then the one with the copyright of
# these, and the rest is what cc1plus loads and what it links with.
_GXX_11 = (
    *("g++-11", "gcc-11", "cpp-11", "libgcc-11-dev", "libstdc++-11-dev"),
    "gcc-11-base",
    *("libgmp10", "libisl23", "libmpc3", "libmpfr6", "libzstd1", "zlib1g"),
    *("libgcc-s1", "libstdc++6"),
)
CUDA: Mapping[str, WantedCuda] = {
    "11.8": WantedCuda({"bookworm": (*_TOOLKIT, "libcudart11.0", *_CCCL)}, {"bookworm": _GXX_11}),
    "12.4": WantedCuda({"trixie": (*_TOOLKIT, "libcudart12", *_CCCL)}),
    # experimental has no CCCL of its own.
    "12.5": WantedCuda({"experimental": (*_TOOLKIT, "libcudart12"), "trixie": _CCCL}),
}
# glibc version -> its packages. crypt.h is included by Python.h up to 3.10.
SYSROOTS: Mapping[str, Wanted] = {
    "2.31": {"bullseye": ("libc6", "libc6-dev", "linux-libc-dev", "libcrypt1", "libcrypt-dev")}
}
# The package whose version has to begin with the release or the C library's version.
_NAMESAKES = ("nvidia-cuda-toolkit", "libc6")


class _Suites:
    """The suites that were asked, each read once."""

    def __init__(self, folder: Path, trust: str, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._trust = trust
        self._report = report
        self._read: dict[str, Suite] = {}

    def get(self, name: str) -> Suite:
        if name not in self._read:
            self._report(f"Debian {name}")
            self._read[name] = Suite(name, mirrors()[0], self._folder / name, self._trust)
        return self._read[name]


class _Debs:
    """The files that were met, and which sets of them are as they were."""

    def __init__(self, known: Mapping[str, Any], suites: _Suites) -> None:
        self._known = known
        self._suites = suites
        self.used: dict[str, Any] = {}

    def take(self, wanted: Wanted, kept: list[str], version: str) -> list[str]:
        """The file names for `wanted`: those of `kept` where they are the same packages."""
        packages = {package for names in wanted.values() for package in names}
        if packages and {name.split("_")[0] for name in kept} == packages:
            self.used.update({name: self._known[name] for name in kept})
            return kept
        names = []
        for suite, of_suite in wanted.items():
            for package in of_suite:
                record = self._suites.get(suite).record(package)
                if package in _NAMESAKES and not record.version.startswith(version):
                    raise ToolchainError(
                        f"{package} of {suite} is now {record.version}",
                        where=f"Debian {suite}",
                        expected=f"{version}, as toolchain/debian/locking.py says",
                        fix="name the suite that still has it there, or give this one up",
                    )
                name = Path(record.path).name
                entry = {"path": record.path, "size": record.size, "sha256": record.sha256}
                self.used[name] = entry
                names.append(name)
        return sorted(names)


def lock_debs(
    keep: Mapping[str, Any],
    *,
    trust: str = "",
    report: Callable[[str], None] = lambda _line: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables ``debs`` and ``debian`` of the lock.

    Args:
        keep: an earlier lock, of which the sets of the same packages stay as they are.
        trust: an option for apt's source lines in place of Debian's keyring, for tests.
        report: is told what is being read.

    Raises:
        ToolchainError: no apt, a suite without one of the packages, or with another version.
    """
    kept = keep.get("debian", {})
    with tempfile.TemporaryDirectory() as scratch:
        suites = _Suites(Path(scratch), trust, report)
        debs = _Debs(keep.get("debs", {}), suites)
        cuda = {}
        for release, wanted in CUDA.items():
            old = kept.get("cuda", {}).get(release, {})
            cuda[release] = {
                "toolkit": debs.take(wanted.toolkit, old.get("toolkit", []), f"{release}."),
                "gxx": debs.take(wanted.gxx, old.get("gxx", []), ""),
            }
        sysroots = {
            glibc: debs.take(of_glibc, kept.get("sysroot", {}).get(glibc, []), f"{glibc}-")
            for glibc, of_glibc in SYSROOTS.items()
        }
    table = {name: debs.used[name] for name in sorted(debs.used)}
    return table, {"cuda": cuda, "sysroot": sysroots}
