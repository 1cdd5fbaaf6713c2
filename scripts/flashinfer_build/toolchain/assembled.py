"""A toolchain put together from parts: CUDA from here, torch from there, the machine's compiler."""

from __future__ import annotations

import sys
from pathlib import Path

from conda_bridge.errors import ToolchainError

from .. import bootstrap
from . import Report, Request, Toolchain
from .channel import make_channel
from .packages import make
from .parts import CudaPart, CudaSource, SysrootPart, SysrootSource, TorchSource
from .system import compiler_packages, find_compiler, glibc_version, python_package, sysroot_package

__all__ = ["Assembled"]


class Assembled:
    """A provider whose channel is made on this machine.

    Attributes:
        name: as it is shown to people.
    """

    def __init__(
        self,
        name: str,
        cuda: CudaSource,
        torch: TorchSource,
        sysroots: SysrootSource | None = None,
        cache: Path | None = None,
    ) -> None:
        self.name = name
        self._cuda = cuda
        self._torch = torch
        self._sysroots = sysroots
        self._cache = cache or bootstrap.cache_dir()

    def missing(self, request: Request) -> str:
        """What `request` asks for that the parts do not have; empty if nothing."""
        variant = request.variant
        reasons = []
        if variant.cuda:
            reasons.append(self._cuda.missing_cuda(variant.cuda))
        if request.torch:
            reasons.append(self._torch.missing_torch(variant.torch, variant.cuda))
        if request.glibc:
            reasons.append(
                self._sysroots.missing_glibc(request.glibc)
                if self._sysroots
                else f"no C library {request.glibc} here"
            )
        reasons.append(self._missing_compiler(request))
        return next(filter(None, reasons), "")

    def _missing_compiler(self, request: Request) -> str:
        cuda = request.variant.cuda
        if cuda and self._cuda.own_gxx(cuda):
            return ""
        try:
            compiler = find_compiler()
        except ToolchainError as error:
            return str(error.what)
        if request.gxx_below and int(compiler.major) >= request.gxx_below:
            return (
                f"the g++ here is {compiler.version}, which this nvcc refuses; "
                f"set CXX to one below {request.gxx_below}"
            )
        return ""

    def provide(self, request: Request, *, report: Report) -> Toolchain:
        """Downloads, unpacks and packages what is asked for; what is there already stays."""
        variant = request.variant
        cuda = self._cuda.cuda(variant.cuda, report) if variant.cuda else CudaPart((), ())
        torch = (
            self._torch.torch(
                variant.torch, variant.cuda, importable=request.importable, report=report
            )
            if request.torch
            else self._torch.tools(report)
        )
        compiler = cuda.compiler or find_compiler()
        own_sysroot = (
            self._sysroots.sysroot(request.glibc, report)
            if (request.glibc and self._sysroots)
            else None
        )
        sysroot = own_sysroot or SysrootPart(sysroot_package(), (), glibc_version())
        report("making conda packages")
        specs = [
            python_package(),
            sysroot.spec,
            *compiler_packages(compiler, sysroot.spec, own_sysroot=own_sysroot is not None),
            *torch.specs,
            *cuda.specs,
        ]
        channel = make_channel([make(spec, self._cache) for spec in specs], self._cache)
        machine = (f"gxx_linux-64 {compiler.version}", f"sysroot_linux-64 {sysroot.glibc}")
        compiler_inputs = (*cuda.inputs, *sysroot.inputs, *machine)
        return Toolchain(
            variant=variant,
            provider=self.name,
            channels=(channel.resolve().as_uri(),),
            variant_keys={
                "c_compiler_version": compiler.major,
                "cxx_compiler_version": compiler.major,
                "c_stdlib_version": sysroot.glibc,
            },
            torch_version=torch.version,
            torch_importable=torch.importable,
            trees=torch.trees,
            inputs=(*torch.inputs, *compiler_inputs, f"python {sys.version}"),
            compiler_inputs=compiler_inputs,
        )
