"""Writes the lock: asks pip of each supported Python what the wanted versions resolve to.

Nothing is installed. pip's own report gives file names and digests, so the user's pip
configuration (indexes, find-links, proxies, certificates) is the one that counts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .. import atomic
from ..errors import ToolchainError
from .lock import SCHEMA

__all__ = ["CUDA", "TORCH", "write_lock"]

# CUDA release -> the requirement whose closure is its compiler.
CUDA = {"13.0": "cuda-toolkit[nvcc,cudart,crt,cccl,nvvm]==13.0.2"}
# torch minor -> the versions that are acceptable, the preferred one first. A version with a local
# part is locked where an index or a find-links folder has it, and left out where none has.
TORCH = {
    "2.11": ("2.11.0",),
    "2.12": ("2.12.1",),
    "2.13": ("2.13.0+cpu", "2.13.0"),
    "2.14": ("2.14.1",),
}
# numpy: torch warns without it. The rest builds and installs packages.
_BESIDE = ("numpy", "ninja", "packaging", "setuptools", "wheel", "pip")
# What a CUDA build of torch needs to be imported, and nothing else does.
_LIBRARY = re.compile(r"^(nvidia-.*|cuda-.*|triton)$")

Report = Sequence[Mapping[str, Any]]


def _pip_report(python: str, requirements: Iterable[str], *, dependencies: bool = True) -> Report:
    """What `pip install` of `python` would install now.

    Raises:
        ToolchainError: pip cannot resolve it; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        # fmt: off
        command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet",
                   "--only-binary", ":all:", "--target", scratch, "--report", str(report),
                   *([] if dependencies else ["--no-deps"]), *requirements]
        # fmt: on
        environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
        if done.returncode != 0:
            raise ToolchainError(
                "pip cannot resolve " + ", ".join(requirements) + ":\n" + done.stderr[-1500:],
                where=python,
            )
        data: Report = json.loads(report.read_text())["install"]
        return data


def _wheel(item: Mapping[str, Any]) -> tuple[str, str]:
    """(file name, sha256) of one entry of a report."""
    download = item["download_info"]
    filename = unquote(Path(urlsplit(download["url"]).path).name)
    info = download.get("archive_info", {})
    digest = info.get("hashes", {}).get("sha256")
    if digest is None and str(info.get("hash", "")).startswith("sha256="):
        digest = info["hash"].removeprefix("sha256=")
    if digest is None or not filename.endswith(".whl"):
        raise ToolchainError("pip reports no wheel with a sha256", where=filename)
    return filename, digest


def _cuda_of(item: Mapping[str, Any]) -> str | None:
    """The CUDA release a torch wheel was built with, by the toolkit it requires."""
    for text in item["metadata"].get("requires_dist", []):
        requirement = Requirement(text)
        for pin in requirement.specifier:
            if canonicalize_name(requirement.name) == "cuda-toolkit" and pin.operator == "==":
                return ".".join(pin.version.split(".")[:2])
    return None


def _normal(item: Mapping[str, Any]) -> str:
    return canonicalize_name(item["metadata"]["name"])


def write_lock(
    path: Path,
    pythons: Sequence[str],
    *,
    report: Callable[[str], None] = lambda _line: None,
) -> None:
    """Resolves everything for every interpreter in `pythons` and writes the lock to `path`.

    Args:
        path: of the lock file.
        pythons: interpreters with pip, one for each CPython to support, e.g. ``python3.11``.
        report: is told what is being resolved.

    Raises:
        ToolchainError: something cannot be had as a wheel with a digest.
    """
    wheels: dict[str, str] = {}

    def add(item: Mapping[str, Any]) -> str:
        filename, digest = _wheel(item)
        if wheels.setdefault(filename, digest) != digest:
            raise ToolchainError(
                "two digests for one file name",
                where=filename,
                expected=wheels[filename],
                fix="resolve against one index, or remove the differing copy",
            )
        return filename

    cuda: dict[str, object] = {}
    for release, requirement in CUDA.items():
        report(f"CUDA {release}: {requirement}")
        items = _pip_report(pythons[0], [requirement])
        # The metapackage itself is empty; what it pins is what counts.
        names = sorted(add(item) for item in items if _normal(item) != "cuda-toolkit")
        cuda[release] = {"requirement": requirement, "wheels": names}

    torch: dict[str, dict[str, Any]] = {}
    for python in pythons:
        tag = subprocess.run(
            [python, "-c", "import sys; print('cp%d%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for minor, versions in TORCH.items():
            entry = torch.setdefault(minor, {"cuda": None, "python": {}})
            builds: list[dict[str, object]] = []
            requires: set[str] = set()
            for version in versions:
                report(f"torch {version} for {tag}")
                try:
                    items = _pip_report(python, [f"torch==={version}", *_BESIDE])
                except ToolchainError:
                    if "+" not in version:
                        raise
                    report(f"  torch {version} for {tag}: not offered, left out")
                    continue
                found = next(item for item in items if _normal(item) == "torch")
                others = [item for item in items if _normal(item) != "torch"]
                libraries = [add(item) for item in others if _LIBRARY.match(_normal(item))]
                entry["cuda"] = _cuda_of(found) or entry["cuda"]
                builds.append({"wheel": add(found), "libraries": sorted(libraries)})
                # The builds of one version have the same requirements beside the libraries; the
                # last, the index's own, is the one whose choice counts.
                requires = {add(i) for i in others if not _LIBRARY.match(_normal(i))}
            entry["python"][tag] = {"builds": builds, "requires": sorted(requires)}
    used = {name for entry in cuda.values() for name in entry["wheels"]}  # type: ignore[index]
    for entry in torch.values():
        for sets in entry["python"].values():
            used.update(sets["requires"])
            for build in sets["builds"]:
                used.update([build["wheel"], *build["libraries"]])
    data = {
        "schema": SCHEMA,
        "cuda": cuda,
        "torch": torch,
        "wheels": {name: wheels[name] for name in sorted(used)},
    }
    atomic.write_text(path, json.dumps(data, indent=1) + "\n")
