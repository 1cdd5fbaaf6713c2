"""The parts that a toolchain is assembled from, and who supplies each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import Report
from .packages import PackageSpec
from .system import Compiler

__all__ = ["CudaPart", "CudaSource", "SysrootPart", "SysrootSource", "TorchPart", "TorchSource"]


@dataclass(frozen=True)
class CudaPart:
    """A CUDA compiler.

    Attributes:
        specs: its conda packages, under conda-forge's names.
        inputs: what it is made of, ``name sha256`` each.
        compiler: the C++ compiler that came with it, where the machine's own may be too new for
            it; None to take the machine's.
    """

    specs: tuple[PackageSpec, ...]
    inputs: tuple[str, ...]
    compiler: Compiler | None = None


@dataclass(frozen=True)
class TorchPart:
    """A torch and what it and the build need beside it.

    Attributes:
        specs: their conda packages.
        inputs: what they are made of, ``name sha256`` each.
        version: torch's, in full; empty where only the tools were asked for.
        importable: whether all that torch loads is there.
        trees: the unpacked wheels.
    """

    specs: tuple[PackageSpec, ...]
    inputs: tuple[str, ...]
    version: str
    importable: bool
    trees: tuple[Path, ...]


@dataclass(frozen=True)
class SysrootPart:
    """A C library to link against.

    Attributes:
        spec: its conda package, ``sysroot_linux-64``.
        inputs: what it is made of, ``name sha256`` each.
        glibc: its version, e.g. ``2.31``.
    """

    spec: PackageSpec
    inputs: tuple[str, ...]
    glibc: str


class CudaSource(Protocol):
    """Has CUDA compilers."""

    def missing_cuda(self, release: tuple[int, int]) -> str:
        """Why there is no compiler of this CUDA release; empty if there is."""

    def own_gxx(self, release: tuple[int, int]) -> int | None:
        """The major of the C++ compiler that comes with it, or None where none does."""

    def cuda(self, release: tuple[int, int], report: Report) -> CudaPart:
        """The compiler of a CUDA release.

        Raises:
            ToolchainError: it cannot be had.
        """


class TorchSource(Protocol):
    """Has torch and the Python packages that build and try."""

    def missing_torch(self, minor: tuple[int, int], cuda: tuple[int, int] | None) -> str:
        """Why torch `minor` cannot be had for a build with `cuda`; empty if it can."""

    def torch(
        self,
        minor: tuple[int, int],
        cuda: tuple[int, int] | None,
        *,
        importable: bool,
        report: Report,
    ) -> TorchPart:
        """A torch minor, with what it needs and what builds and installs packages.

        Raises:
            ToolchainError: it cannot be had.
        """

    def tools(self, report: Report) -> TorchPart:
        """Only what builds the kernels: ninja and Python packages, no torch.

        Raises:
            ToolchainError: it cannot be had.
        """


class SysrootSource(Protocol):
    """Has C libraries older than the machine's."""

    def missing_glibc(self, version: str) -> str:
        """Why there is no C library of this version; empty if there is."""

    def sysroot(self, version: str, report: Report) -> SysrootPart:
        """A C library with its headers.

        Raises:
            ToolchainError: it cannot be had.
        """
