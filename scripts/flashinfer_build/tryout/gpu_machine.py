"""The machine with a GPU, and the wheel that fits its torch. Standard library alone."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conda_bridge.errors import ArtifactError, ConfigError, ToolchainError
from conda_bridge.formats import wheel_reader

from ..checks import build_info

__all__ = ["Build", "Machine", "choose", "find_machine", "machine_of", "need", "read_build"]

_ROOT = Path(__file__).resolve().parents[3]
_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Machine:
    """The Python, the torch and the device that are there.

    Attributes:
        python, torch, cuda, cxx11_abi: of the running Python and its torch.
        device: name, capability and sizes; see ``benchmarks/gpu/device.py``.
    """

    python: str
    torch: str
    cuda: str
    cxx11_abi: bool
    device: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The device's name."""
        return str(self.device["name"])

    @property
    def slug(self) -> str:
        """The name as a part of a file's: ``nvidia-h200``."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def variant(self) -> str:
        """The variant that is for this torch, as ``build.py`` takes it."""
        runtime = "cu" + "".join(self.cuda.split(".")[:2]) if self.cuda else "cpu"
        return f"{runtime}_torch" + "".join(self.torch.partition("+")[0].split(".")[:2])


@dataclass(frozen=True)
class Build:
    """What a wheel holds, as its build wrote it down.

    Attributes:
        path: the wheel.
        facts: ``flashinfer/_build_info.py`` in it.
    """

    path: Path
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def version(self) -> str:
        """With the local part."""
        return str(self.facts["VERSION"])

    @property
    def variant(self) -> str:
        """The variant's id."""
        return str(self.facts["VARIANT"])

    def unfit(self, machine: Machine) -> str:
        """Why it cannot be checked on this machine; empty where it can."""
        if not self.facts["CUDA"]:
            return f"{self.path.name} is a CPU build: it has no GPU code"
        # The rule of the package itself, so that there is one.
        compat = _compat()
        build = compat.read_build(SimpleNamespace(**self.facts))
        found = compat.Found(machine.torch, machine.cuda, machine.cxx11_abi)
        finding = compat.explain(build, found)
        return str(finding.problem) if finding else ""


def _compat() -> Any:
    """``flashinfer/_compat.py``, without the package around it, which is not built here."""
    path = _ROOT / "flashinfer" / "_compat.py"
    spec = importlib.util.spec_from_file_location("_flashinfer_compat", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_machine() -> Machine:
    """The machine, as the running Python's torch sees it.

    Raises:
        ToolchainError: no torch, no GPU that it sees, or one that is too old.
    """
    program = _ROOT / "benchmarks" / "gpu" / "device.py"
    done = subprocess.run(
        [sys.executable, "-P", str(program)], capture_output=True, text=True, errors="replace"
    )
    if done.returncode != 0:
        raise ToolchainError(
            f"importing torch crashed (exit status {done.returncode}):",
            log=done.stderr[-1000:].strip(),
            expected="a torch that can be imported",
        )
    return machine_of(json.loads(done.stdout.splitlines()[-1]))


def machine_of(facts: Mapping[str, Any]) -> Machine:
    """The machine of the facts that ``device.py`` prints.

    Raises:
        ToolchainError: see :func:`find_machine`.
    """
    if not facts["torch"]:
        raise ToolchainError(
            facts["reason"],
            where=sys.executable,
            expected="a Python with the torch that the wheel is for",
            fix="run gpu_check.py with that Python",
        )
    if facts["device"] is None:
        raise ToolchainError(
            facts["reason"],
            expected="a CUDA build of torch, a driver and a GPU",
            fix="run this on a machine with a GPU; CUDA_VISIBLE_DEVICES must not be empty",
        )
    device = facts["device"]
    if tuple(map(int, device["capability"].split("."))) < _CAPABILITY:
        raise ToolchainError(
            f"{device['name']} has compute capability {device['capability']}",
            expected="{}.{} or more, for which the kernels are compiled".format(*_CAPABILITY),
        )
    return Machine(facts["python"], facts["torch"], facts["cuda"], facts["cxx11_abi"], device)


def read_build(path: Path) -> Build:
    """What the wheel says that it was built from.

    Raises:
        ArtifactError: it cannot be read, or does not say.
    """
    text = None
    for member, stream in wheel_reader.read(path).stream():
        if member.path == build_info.PATH:
            text = stream.read(1 << 16)
            break
    where = f"{path.name}: {build_info.PATH}"
    if text is None:
        raise ArtifactError(
            "the member is missing", where=where, expected="a wheel of scripts/build.py"
        )
    facts = build_info.read(text, where)
    kinds = {
        "VERSION": str, "PUBLIC_VERSION": str, "VARIANT": str, "TORCH": str, "CUDA": str,
        "CXX11_ABI": bool, "ARCH_LIST": str, "WHEEL": str, "CONDA": str,
        "CONDA_LIBRARY": str, "INDEX_DIR": str,
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(facts.get(name), kind):
            raise ArtifactError(
                f"{name} is {facts.get(name)!r}", where=where, expected=f"a {kind.__name__}"
            )
    return Build(path, facts)


def choose(given: Path | None, dist: Path, machine: Machine) -> Build:
    """The wheel to check: the given one, or the one in ``<dist>/wheels`` that fits.

    Raises:
        ArtifactError: a wheel that cannot be read.
        ConfigError: several fit.
        ToolchainError: it does not fit this torch, or none does.
    """
    fix = (
        f"python scripts/build.py --variant {machine.variant}, where that can be built,"
        " and bring the wheel here"
    )
    expected = f"a wheel of variant {machine.variant}, for torch {machine.torch}"
    if given is not None:
        build = read_build(given)
        reason = build.unfit(machine)
        if reason:
            raise ToolchainError(reason, where=given.name, expected=expected, fix=fix)
        return build
    builds = [read_build(path) for path in sorted((dist / "wheels").glob("flashinfer-*.whl"))]
    fitting = [build for build in builds if not build.unfit(machine)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(build.path.name for build in fitting)
        raise ConfigError(
            f"{len(fitting)} wheels fit: {names}",
            where=str(dist / "wheels"),
            fix="name one with --wheel",
        )
    names = ", ".join(build.path.name for build in builds) or "no wheel"
    raise ToolchainError(
        f"none fits; found: {names}", where=str(dist / "wheels"), expected=expected, fix=fix
    )


def need(module: str, what_for: str, fix: str) -> None:
    """ToolchainError unless `module` can be imported by the running Python."""
    if importlib.util.find_spec(module) is None:
        raise ToolchainError(
            f"{module} cannot be imported; it is needed to {what_for}",
            where=sys.executable,
            expected=f"a Python with torch and {module}",
            fix=fix,
        )
