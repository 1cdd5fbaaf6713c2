"""The toolchain from the Python index: NVIDIA's compiler wheels, torch, the build tools."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from .. import bootstrap
from ..errors import BridgeError
from ..label import Variant
from . import Toolchain
from .channel import make_channel
from .cuda import cuda_packages
from .download import fetch
from .lock import Lock, LockedWheel, TorchBuild, TorchSet
from .packages import make
from .system import compiler_packages, find_compiler, glibc_version, python_package
from .unpacked import join, unpack
from .wheels import linked_torch_package, python_wheel_package

__all__ = ["PyPI"]

_TAG = "cp{}{}".format(*sys.version_info[:2])


class PyPI:
    """Supplies what the lock holds for the running CPython.

    Attributes:
        name: ``pypi``.
    """

    name = "pypi"

    def __init__(self, cache: Path | None = None, lock: Lock | None = None) -> None:
        self._cache = cache or bootstrap.cache_dir()
        self._lock = lock or Lock.read()

    def missing(self, variant: Variant) -> str:
        """Why `variant` cannot be had from here; empty if it can."""
        try:
            torch = self._lock.torch(variant.torch, _TAG)
            if variant.cuda:
                self._lock.cuda(variant.cuda)
        except BridgeError as error:
            return error.what
        if variant.cuda and torch.cuda[0] != variant.cuda[0]:
            # Minor CUDA versions are compatible with each other, major ones are not.
            return (
                f"its torch {torch.minor[0]}.{torch.minor[1]} is built with CUDA "
                f"{torch.cuda[0]}.{torch.cuda[1]}"
            )
        return ""

    def provide(
        self, variant: Variant, *, importable: bool, report: Callable[[str], None]
    ) -> Toolchain:
        """Downloads, unpacks and packages what `variant` needs; what is there already stays."""
        locked = self._lock.torch(variant.torch, _TAG)
        cuda = self._lock.cuda(variant.cuda) if variant.cuda else None
        compiler = find_compiler()
        others = [*locked.requires, *(cuda.wheels if cuda else ())]
        torch_file, *files = fetch(
            [[build.wheel for build in locked.builds], *([wheel] for wheel in others)],
            self._cache,
            report,
        )
        torch = _build_of(locked, torch_file)
        report("unpacking")
        trees = {
            wheel: unpack(path, wheel, self._cache)
            for wheel, path in zip(others, files, strict=True)
        }
        torch_tree = unpack(torch_file, torch.wheel, self._cache)
        libraries = torch.libraries if importable else ()
        if libraries:
            torch_tree = self._with_libraries(torch, torch_tree, report)
        report("making conda packages")
        specs = [
            python_package(),
            *compiler_packages(compiler),
            *(python_wheel_package(wheel, trees[wheel]) for wheel in locked.requires),
            linked_torch_package(torch.wheel, torch_tree, libraries),
            *(cuda_packages(cuda, trees) if cuda else ()),
        ]
        channel = make_channel([make(spec, self._cache) for spec in specs], self._cache)
        used = [torch.wheel, *libraries, *others]
        machine = (f"gxx_linux-64 {compiler.version}", f"sysroot_linux-64 {glibc_version()}")
        return Toolchain(
            variant=variant,
            provider=self.name,
            channel=channel,
            variant_keys={
                "c_compiler_version": compiler.major,
                "cxx_compiler_version": compiler.major,
                "c_stdlib_version": glibc_version(),
            },
            torch_version=torch.wheel.version,
            torch_importable=bool(libraries) or not torch.libraries,
            trees=(torch_tree, *(trees[wheel] for wheel in locked.requires)),
            inputs=(*_lines(used), *machine, f"python {sys.version}"),
            compiler_inputs=(*_lines(cuda.wheels if cuda else ()), *machine),
        )

    def _with_libraries(self, torch: TorchBuild, tree: Path, report: Callable[[str], None]) -> Path:
        """`tree` and the CUDA libraries that this torch loads, in one tree."""
        report("fetching the CUDA libraries that torch loads")
        files = fetch([[wheel] for wheel in torch.libraries], self._cache, report)
        trees = [tree]
        for wheel, path in zip(torch.libraries, files, strict=True):
            report(f"unpacking {wheel.filename}")
            trees.append(unpack(path, wheel, self._cache))
        names = [torch.wheel.sha256, *(wheel.sha256 for wheel in torch.libraries)]
        key = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return join(trees, self._cache / "joined" / key[:32])


def _lines(wheels: Iterable[LockedWheel]) -> list[str]:
    return sorted(f"{wheel.filename} {wheel.sha256}" for wheel in wheels)


def _build_of(locked: TorchSet, path: Path) -> TorchBuild:
    for build in locked.builds:
        if build.wheel.filename == path.name and build.wheel.sha256 == path.parent.name:
            return build
    raise AssertionError(f"{path} is not one of the locked files")
