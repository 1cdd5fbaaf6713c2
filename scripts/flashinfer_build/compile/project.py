"""One build of this project: what it is asked for, what was measured, the label that follows.

setup.py and ``scripts/native.py`` ask this module and nothing else, so a label can only come from
the compiler and the torch that really take part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import LabelMismatch, ToolchainError

from ..label import Label, Variant
from . import native
from .measure import Nvcc, Torch, find_nvcc, find_torch

__all__ = ["Project"]

_ROOT = Path(__file__).resolve().parents[3]


def _flag(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "0") not in ("", "0")


@dataclass(frozen=True)
class Project:
    """A checkout, and the toolchain that it would be built with now.

    Attributes:
        root: the checkout.
        environ: the environment that was read (docs/architecture.md lists the variables).
        nvcc: the CUDA compiler, or None for the CPU build.
        torch: the torch to bind to, or None where there is none.
        expected: the variant that the caller says it builds, if it says so.
    """

    root: Path
    environ: Mapping[str, str]
    nvcc: Nvcc | None
    torch: Torch | None
    expected: Variant | None

    @classmethod
    def measure(cls, environ: Mapping[str, str] = os.environ, root: Path = _ROOT) -> Project:
        """Looks for nvcc and torch, and compares them with what the caller expects.

        Raises:
            ToolchainError: ``FLASHINFER_REQUIRE_CUDA=1`` and there is no nvcc.
            LabelMismatch: what was found is not ``FLASHINFER_EXPECT_VARIANT``.
        """
        force_cpu = _flag(environ, "FLASHINFER_FORCE_CPU")
        nvcc = None if force_cpu else find_nvcc(environ)
        if nvcc is None and _flag(environ, "FLASHINFER_REQUIRE_CUDA"):
            raise ToolchainError(
                "FLASHINFER_REQUIRE_CUDA=1, and "
                + ("FLASHINFER_FORCE_CPU=1 forbids it" if force_cpu else "there is no nvcc"),
                where="NVCC, CUDA_HOME, PATH",
                fix="set CUDA_HOME to a CUDA toolkit, or unset FLASHINFER_REQUIRE_CUDA",
            )
        text = environ.get("FLASHINFER_EXPECT_VARIANT")
        project = cls(
            root, environ, nvcc, find_torch(environ), Variant.parse(text) if text else None
        )
        project._compare()
        return project

    def _compare(self) -> None:
        if self.expected is None:
            return
        cuda = self.nvcc.release if self.nvcc else None
        if cuda != self.expected.cuda:
            raise LabelMismatch(
                f"nvcc is {self.nvcc.version}" if self.nvcc else "there is no nvcc",
                where=str(self.nvcc.path) if self.nvcc else "NVCC, CUDA_HOME, PATH",
                expected=f"the CUDA of {self.expected.id}",
                fix="install that nvcc, or build the variant that this toolchain is",
            )
        if self.torch and self.torch.minor != self.expected.torch:
            raise LabelMismatch(
                f"torch is {self.torch.version}",
                where=str(self.torch.root),
                expected=f"the torch of {self.expected.id}",
                fix="install that torch, or build the variant that this toolchain is",
            )

    @property
    def arch_list(self) -> str:
        """The GPU architectures to compile for; empty for the CPU build."""
        if not self.nvcc:
            return ""
        return self.environ.get("FLASHINFER_CUDA_ARCH_LIST") or native.DEFAULT_ARCH_LIST

    @property
    def variant(self) -> Variant:
        """The variant that the measured toolchain makes.

        Raises:
            ToolchainError: there is no torch to bind to.
        """
        if self.torch is None:
            raise ToolchainError(
                "there is no torch to build against",
                fix="install the torch that flashinfer is to run with, then build again",
            )
        return Variant(self.nvcc.release if self.nvcc else None, self.torch.minor)

    @property
    def label(self) -> Label:
        """The whole label: measured variant, public version, commit and build number."""
        return Label.compose(self.variant, environ=self.environ)

    @property
    def public_version(self) -> str:
        """The public version, also where there is no torch to make a label of."""
        return Label.public_version_of(self.root / "version.txt", self.environ)

    def facts(self) -> dict[str, str]:
        """What was measured, as text for people and ``--json``."""
        return {
            "version": self.public_version,
            "nvcc": f"{self.nvcc.version} ({self.nvcc.path})" if self.nvcc else "none",
            "archs": self.arch_list,
            "torch": f"{self.torch.version} ({self.torch.root})" if self.torch else "none",
            "cxx11_abi": str(int(self.torch.cxx11_abi)) if self.torch else "",
            "variant": self.variant.id if self.torch else "",
        }

    def build_library(self, prefix: Path, build_dir: Path) -> Path:
        """Compiles ``libflashinfer.so`` into `prefix`; see :func:`native.build_library`."""
        return native.build_library(
            self.root,
            prefix,
            build_dir,
            version=self.public_version,
            nvcc=self.nvcc,
            arch_list=self.arch_list,
            environ=self.environ,
        )

    def build_binding(self, output: Path, build_dir: Path, library_dir: Path) -> None:
        """Compiles ``_C.abi3.so``; see :func:`native.build_binding`."""
        torch, label = self.torch, self.label
        assert torch is not None  # label has just been composed from it
        native.build_binding(
            self.root,
            output,
            build_dir,
            version=label.public_version,
            variant=label.variant.id,
            torch=torch,
            library_dir=library_dir,
            environ=self.environ,
        )

    def build_info(self) -> str:
        """The text of the generated ``flashinfer/_build_info.py``."""
        label, torch = self.label, self.torch
        assert torch is not None
        values: dict[str, object] = {
            "VERSION": label.wheel_version,
            "PUBLIC_VERSION": label.public_version,
            "CONDA_VERSION": label.conda_version,
            "VARIANT": label.variant.id,
            "TORCH": "{}.{}".format(*torch.minor),
            "CUDA": self.nvcc.version if self.nvcc else "",
            "CXX11_ABI": torch.cxx11_abi,
            "ARCH_LIST": self.arch_list,
            "COMMIT": label.commit or "",
            "BUILD_NUMBER": label.build_number,
        }
        lines = [
            '"""What this flashinfer was built from; written by the build, not by hand."""',
            "",
        ]
        lines += [f"{name} = {_literal(value)}" for name, value in values.items()]
        return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
