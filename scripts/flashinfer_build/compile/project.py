"""One build of this project: what it is asked for, what was measured, the label that follows.

setup.py and ``scripts/native.py`` ask this module and nothing else, so a label can only come from
the compiler and the torch that really take part.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conda_bridge.errors import ConfigError, LabelMismatch, ToolchainError

from ..artifact import BINDING_NAME, LIBRARY_NAME
from ..label import Label, Variant, compiled_version
from . import native, sbom, variables
from .measure import Nvcc, Torch, find_nvcc, find_torch
from .origins import Origins

__all__ = ["NO_TORCH_FIX", "Project"]

NO_TORCH_FIX = """one of
    - install that torch into the environment, and build there without isolation:
      pip install --no-build-isolation .
      (`uv pip install` has the same option; that of `python -m build` is --no-isolation)
    - name a torch that is installed elsewhere:
      FLASHINFER_TORCH_DIR="$(python -c 'import torch; print(torch.__path__[0])')"
    - name the variant, and an isolated build brings its torch:
      FLASHINFER_EXPECT_VARIANT=cpu_torch213"""

_ROOT = Path(__file__).resolve().parents[3]
_NO, _YES = ("", "0", "no", "off", "false"), ("1", "yes", "on", "true")
_SEARCHED = "NVCC, CUDA_HOME, CUDA_PATH, PATH"
# What csrc/include/flashinfer/api.h says of a library, as it lies in the file.
_LIBRARY_INFO = re.compile(rb"component=libflashinfer\n((?:[a-z0-9_]+=[^\n\0]*\n?)+)")


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "").strip().lower()
    if text in _NO or text in _YES:
        return text in _YES
    raise ConfigError(
        f"{environ[name]!r} is neither yes nor no", where=name, expected="1, or 0, or nothing"
    )


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
                where=_SEARCHED,
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
        if self._cuda != self.expected.cuda:
            raise LabelMismatch(
                f"nvcc is {self.nvcc.version}" if self.nvcc else "there is no nvcc",
                where=str(self.nvcc.path) if self.nvcc else _SEARCHED,
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

    def check(self, *, binding: bool) -> None:
        """Stops before anything is compiled where the result would be refused afterwards.

        What is looked at: what flashinfer says of itself when it is imported, and every variable
        that decides what is compiled.

        Args:
            binding: also what concerns the binding and its torch.

        Raises:
            ConfigError, LabelError: a variable that cannot be used.
            LabelMismatch: torch, nvcc and the given library do not fit each other.
            ToolchainError: there is no torch, or no library where one is named.
        """
        # Composed for its checks: the version, the commit and the number of the build.
        Label.compose(
            self.variant if binding else Variant(self._cuda, (2, 4)), environ=self.environ
        )
        variables.max_jobs(self.environ)
        variables.compile_flags(self.environ)
        variables.link_flags(self.environ)
        given = self.environ.get("FLASHINFER_LIBRARY_DIR") if binding else None
        if self.nvcc:
            variables.check_archs(self.environ, self.nvcc)
            variables.check_nvcc_paths(self.environ, self.root)
        elif self.environ.get(variables.ARCH_VARIABLES[0]) and not self._cpu_is_meant:
            raise ConfigError(
                "names GPU architectures, and there is no nvcc to compile for them",
                where=f"{variables.ARCH_VARIABLES[0]}={self.environ[variables.ARCH_VARIABLES[0]]}",
                fix="set CUDA_HOME to a CUDA toolkit, or FLASHINFER_FORCE_CPU=1",
            )
        cxx = variables.find_cxx(self.environ)
        if self.nvcc and not given:
            variables.check_nvcc_flags(self.environ, cxx)
        if self.torch:
            variables.check_abi(self.environ, cxx, self.torch.cxx11_abi)
        if binding:
            self._check_guard()
            if given:
                self._check_library(Path(given))

    @property
    def _cuda(self) -> tuple[int, int] | None:
        return self.nvcc.release if self.nvcc else None

    @property
    def _cpu_is_meant(self) -> bool:
        return _flag(self.environ, "FLASHINFER_FORCE_CPU")

    def _check_guard(self) -> None:
        """Asks the rule of the package itself, so that there is one."""
        compat = _compat(self.root)
        torch, label = self.torch, self.label
        assert torch is not None  # label has just been composed from it
        build = compat.Build(
            variant=label.variant.id,
            version=label.wheel_version,
            torch="{}.{}".format(*torch.minor),
            cuda=self.nvcc.version if self.nvcc else "",
            cxx11_abi=torch.cxx11_abi,
            archs=self.arch_list,
            **{name.lower(): request for name, request in label.requests.items()},
        )
        found = compat.Found(torch.version, torch.cuda or "", torch.cxx11_abi)
        finding = compat.explain(build, found)
        if finding:
            nvcc = f"nvcc {self.nvcc.version} ({self.nvcc.path})" if self.nvcc else "no nvcc"
            raise LabelMismatch(
                f"flashinfer would not import: {finding.problem}",
                where=f"{nvcc}, torch {torch.version} ({torch.root})",
                expected=f"an nvcc of CUDA {torch.cuda}'s major version, or another torch",
                fix="set CUDA_HOME to the toolkit of that CUDA, install the torch for this one, or"
                " set FLASHINFER_FORCE_CPU=1 for the CPU build",
            )

    def _check_library(self, folder: Path) -> None:
        """The library to link against, against what the binding will say of itself."""
        path = folder / LIBRARY_NAME
        if not path.is_file():
            raise ToolchainError(
                f"there is no {LIBRARY_NAME}",
                where=f"FLASHINFER_LIBRARY_DIR={folder}",
                fix="set it to a folder that `python scripts/native.py lib --prefix ...` made, or"
                " unset it: then the library is compiled as well",
            )
        found = _LIBRARY_INFO.search(path.read_bytes())
        if not found:
            raise ToolchainError("is not a libflashinfer of this project", where=str(path))
        lines = found[1].decode(errors="replace").splitlines()
        said = dict(line.split("=", 1) for line in lines if "=" in line)
        cuda = said.get("cuda", "none")
        have = (said.get("version", ""), "" if cuda == "none" else ".".join(cuda.split(".")[:2]))
        want = (self.compiled_version, "{}.{}".format(*self._cuda) if self._cuda else "")
        if have != want:
            shown = [f"{v}, {'CUDA ' + c if c else 'for the CPU'}" for v, c in (have, want)]
            raise LabelMismatch(
                f"the library is of version {shown[0]}",
                where=str(path),
                expected=f"version {shown[1]}, as nvcc, version.txt and the variables say",
                fix="build that library with `python scripts/native.py lib`, or unset"
                " FLASHINFER_LIBRARY_DIR: then the library is compiled as well",
            )

    @property
    def arch_list(self) -> str:
        """The GPU architectures to compile for; empty for the CPU build."""
        if not self.nvcc:
            return ""
        return variables.arch_list(self.environ)

    @property
    def variant(self) -> Variant:
        """The variant that the measured toolchain makes.

        Raises:
            ToolchainError: there is no torch to bind to.
        """
        if self.torch is None:
            raise ToolchainError(
                "there is no torch to build against",
                where=sys.executable,
                expected="the torch that flashinfer is to run with; isolated builds, such as those"
                " of uv and `python -m build`, do not see it",
                fix=NO_TORCH_FIX,
            )
        return Variant(self._cuda, self.torch.minor)

    @property
    def label(self) -> Label:
        """The whole label: measured variant, public version, commit and build number."""
        return Label.compose(self.variant, environ=self.environ)

    @property
    def public_version(self) -> str:
        """The public version, also where there is no torch to make a label of."""
        return Label.public_version_of(self.root / "version.txt", self.environ)

    @property
    def compiled_version(self) -> str:
        """What the libraries are told of their version."""
        commit = self.environ.get("FLASHINFER_BUILD_COMMIT")
        return compiled_version(self.public_version, commit)

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
            version=self.compiled_version,
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
            version=label.compiled_version,
            variant=label.variant.id,
            torch=torch,
            library_dir=library_dir,
            environ=self.environ,
        )

    def library_bill(self, build_dir: Path) -> sbom.Bill:
        """What is in the ``libflashinfer.so`` that :meth:`build_library` compiled in `build_dir`.

        Raises:
            BuildFailed: there is no record of it.
        """
        return self._bill("libflashinfer", build_dir / LIBRARY_NAME, self.nvcc)

    def binding_bill(self, build_dir: Path) -> sbom.Bill:
        """What is in the ``_C.abi3.so`` that :meth:`build_binding` compiled in `build_dir`.

        The sources are those of the Python package, too.

        Raises:
            BuildFailed: there is no record of it.
        """
        python = sorted((self.root / "flashinfer").glob("*.py"))
        written = [path for path in python if path.name != "_build_info.py"]
        return self._bill("flashinfer", build_dir / BINDING_NAME, None, written)

    def _bill(
        self, name: str, library: Path, nvcc: Nvcc | None, more: Sequence[Path] = ()
    ) -> sbom.Bill:
        commit = self.environ.get("FLASHINFER_BUILD_COMMIT") or ""
        used = native.used(self.root, library, nvcc, self.environ)
        files = {*used.headers, *used.linked, *used.shared, *used.programs}
        return sbom.bill(
            name,
            self.compiled_version,
            library,
            used,
            Origins(self.environ).of(sorted(files)),
            root=self.root,
            more_sources=more,
            commit=commit,
        )

    def build_info(self) -> str:
        """The text of the generated ``flashinfer/_build_info.py``."""
        label, torch = self.label, self.torch
        assert torch is not None
        values: dict[str, object] = {
            "VERSION": label.wheel_version,
            "PUBLIC_VERSION": label.public_version,
            "VARIANT": label.variant.id,
            "TORCH": "{}.{}".format(*torch.minor),
            "CUDA": self.nvcc.version if self.nvcc else "",
            "CXX11_ABI": torch.cxx11_abi,
            "ARCH_LIST": self.arch_list,
            "COMMIT": label.commit or "",
            "BUILD_NUMBER": label.build_number,
            **label.requests,
        }
        lines = [
            '"""What this flashinfer was built from; written by the build, not by hand."""',
            "",
        ]
        lines += [f"{name} = {_literal(value)}" for name, value in values.items()]
        return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _compat(root: Path) -> Any:
    """``flashinfer/_compat.py``, without the package around it, which is not built yet."""
    spec = importlib.util.spec_from_file_location("_compat", root / "flashinfer" / "_compat.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
