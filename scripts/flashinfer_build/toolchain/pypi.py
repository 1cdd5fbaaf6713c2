"""Parts from the Python index: NVIDIA's compiler wheels, torch, the build tools."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from conda_bridge.errors import BridgeError

from .. import bootstrap
from . import Report
from .cuda_wheels import cuda_packages
from .download import fetch
from .lock import Lock, LockedWheel, TorchBuild, TorchSet
from .parts import CudaPart, TorchPart
from .unpacked import join, unpack
from .wheels import linked_torch_package, python_wheel_package

__all__ = ["PyPI"]

_TAG = "cp{}{}".format(*sys.version_info[:2])


class PyPI:
    """Has what the lock holds for the running CPython: a source of CUDA and of torch."""

    def __init__(self, cache: Path | None = None, lock: Lock | None = None) -> None:
        self._cache = cache or bootstrap.cache_dir()
        self._lock = lock or Lock.read()

    # ---------------------------------------------------------------- CUDA

    def missing_cuda(self, release: tuple[int, int]) -> str:
        """Why there is no compiler of this CUDA release; empty if there is."""
        try:
            self._lock.cuda(release)
        except BridgeError as error:
            return str(error.what)
        return ""

    def own_gxx(self, release: tuple[int, int]) -> int | None:
        """None: the wheels bring no C++ compiler."""
        return None

    def cuda(self, release: tuple[int, int], report: Report) -> CudaPart:
        """The compiler of a CUDA release, from NVIDIA's wheels."""
        locked = self._lock.cuda(release)
        trees = self._fetched(locked.wheels, report)
        return CudaPart(tuple(cuda_packages(locked, trees)), _lines(locked.wheels))

    # ---------------------------------------------------------------- torch

    def missing_torch(self, minor: tuple[int, int], cuda: tuple[int, int] | None) -> str:
        """Why torch `minor` cannot be had for a build with `cuda`; empty if it can."""
        try:
            torch = self._lock.torch(minor, _TAG)
        except BridgeError as error:
            return str(error.what)
        if cuda and torch.cuda[0] != cuda[0]:
            # Minor CUDA versions are compatible with each other, major ones are not.
            return (
                f"its torch {minor[0]}.{minor[1]} is built with CUDA "
                f"{torch.cuda[0]}.{torch.cuda[1]}"
            )
        return ""

    def torch(
        self,
        minor: tuple[int, int],
        cuda: tuple[int, int] | None,
        *,
        importable: bool,
        report: Report,
    ) -> TorchPart:
        """A torch minor for a build with `cuda`, what it needs, and what installs packages."""
        locked = self._lock.torch(minor, _TAG)
        # All in one call: pip is asked once.
        wanted = [[build.wheel for build in locked.builds], *([w] for w in locked.requires)]
        [file, *files] = fetch(wanted, self._cache, report)
        build = _build_of(locked, file)
        trees = self._unpacked(locked.requires, files, report)
        report(f"unpacking {build.wheel.filename}")
        tree = unpack(file, build.wheel, self._cache, report)
        libraries = build.libraries if importable else ()
        if libraries:
            tree = self._with_libraries(build, tree, report)
        return TorchPart(
            specs=(
                *(python_wheel_package(wheel, trees[wheel]) for wheel in locked.requires),
                linked_torch_package(build.wheel, tree, libraries, cuda),
            ),
            inputs=_lines([build.wheel, *libraries, *locked.requires]),
            version=build.wheel.version,
            importable=bool(libraries) or not build.libraries,
            trees=(tree, *(trees[wheel] for wheel in locked.requires)),
        )

    def tools(self, report: Report) -> TorchPart:
        """Only what builds the kernels: ninja and Python packages, no torch."""
        wheels = self._lock.tools
        trees = self._fetched(wheels, report)
        return TorchPart(
            specs=tuple(python_wheel_package(wheel, trees[wheel]) for wheel in wheels),
            inputs=_lines(wheels),
            version="",
            importable=False,
            trees=(),
        )

    def _fetched(self, wheels: Sequence[LockedWheel], report: Report) -> dict[LockedWheel, Path]:
        files = fetch([[wheel] for wheel in wheels], self._cache, report)
        return self._unpacked(wheels, files, report)

    def _unpacked(
        self, wheels: Sequence[LockedWheel], files: Sequence[Path], report: Report
    ) -> dict[LockedWheel, Path]:
        report("unpacking")
        return {
            wheel: unpack(path, wheel, self._cache, report)
            for wheel, path in zip(wheels, files, strict=True)
        }

    def _with_libraries(self, torch: TorchBuild, tree: Path, report: Report) -> Path:
        """`tree` and the CUDA libraries that this torch loads, in one tree."""
        report("fetching the CUDA libraries that torch loads")
        files = fetch([[wheel] for wheel in torch.libraries], self._cache, report)
        trees = [tree]
        for wheel, path in zip(torch.libraries, files, strict=True):
            report(f"unpacking {wheel.filename}")
            trees.append(unpack(path, wheel, self._cache, report))
        names = [torch.wheel.sha256, *(wheel.sha256 for wheel in torch.libraries)]
        key = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return join(trees, self._cache / "joined" / key[:32])


def _lines(wheels: Iterable[LockedWheel]) -> tuple[str, ...]:
    return tuple(sorted(f"{wheel.filename} {wheel.sha256}" for wheel in wheels))


def _build_of(locked: TorchSet, path: Path) -> TorchBuild:
    for build in locked.builds:
        if build.wheel.filename == path.name and build.wheel.sha256 == path.parent.name:
            return build
    raise AssertionError(f"{path} is not one of the locked files")
