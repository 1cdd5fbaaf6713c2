"""Writes the lock: asks pip of each supported Python what the wanted versions resolve to.

What it has of Debian is :mod:`.debian.locking`'s. Nothing is installed. pip's own report gives file
names and digests, so the user's pip configuration (indexes, find-links, proxies, certificates) is
the one that counts.
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

from conda_bridge.errors import ToolchainError
from conda_bridge.formats import foreign
from conda_bridge.system import atomic

from .debian.locking import lock_debs
from .download import PIP_LINKS
from .lock import SCHEMA

__all__ = ["CUDA", "TOOLS", "TORCH", "write_lock"]

# CUDA release -> the requirement whose closure is its compiler.
CUDA = {
    "13.0": "cuda-toolkit[nvcc,cudart,crt,cccl,nvvm]==13.0.2",
    "13.2": "cuda-toolkit[nvcc,cudart,crt,cccl,nvvm]==13.2.2",
}
# torch minor -> the versions that are acceptable, the preferred one first. Each is locked for the
# Pythons that some index or find-links folder has it for.
TORCH = {
    "2.4": ("2.4.1",),
    "2.5": ("2.5.1",),
    "2.6": ("2.6.0",),
    "2.7": ("2.7.1",),
    "2.8": ("2.8.0",),
    "2.9": ("2.9.1",),
    "2.10": ("2.10.0",),
    "2.11": ("2.11.0",),
    "2.12": ("2.12.1",),
    "2.13": ("2.13.0+cpu", "2.13.0"),
    "2.14": ("2.14.1",),
    "2.15": ("2.15.0",),
}
# What compiles the kernels needs of Python's packages (recipe/recipe.yaml).
TOOLS = ("ninja", "packaging")
# numpy: torch warns without it. The rest builds and installs packages.
_BESIDE = ("numpy", "ninja", "packaging", "setuptools", "wheel", "pip")
# What a torch wheel pins of the CUDA it was built with.
_RUNTIME = re.compile(r"^(cuda-toolkit|nvidia-cuda-runtime-cu\d+)$")
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
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", env=environ
        )
        if done.returncode != 0:
            raise ToolchainError(
                "pip cannot resolve " + ", ".join(requirements) + ":",
                log=done.stderr[-1500:],
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
    """The CUDA release a torch wheel was built with, by the toolkit or runtime it requires."""
    for text in item["metadata"].get("requires_dist", []):
        requirement = Requirement(text)
        if not _RUNTIME.match(canonicalize_name(requirement.name)):
            continue
        for pin in requirement.specifier:
            if pin.operator == "==":
                return ".".join(pin.version.split(".")[:2])
    return None


def _normal(item: Mapping[str, Any]) -> str:
    return canonicalize_name(item["metadata"]["name"])


def _offered(python: str) -> set[str]:
    """The versions of torch that there are as wheels for an interpreter.

    Raises:
        ToolchainError: its pip cannot be asked.
    """
    done = subprocess.run(
        [python, str(PIP_LINKS), "torch"],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise ToolchainError(
            "pip cannot list the wheels of torch:", where=python, log=done.stderr[-1500:]
        )
    return {
        str(foreign.wheel_name(filename)[1])
        for _url, filename, _digest in json.loads(done.stdout)["links"]["torch"]
    }


def _tag_of(python: str) -> str:
    program = "import sys; print('cp%d%d' % sys.version_info[:2])"
    command = [python, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise ToolchainError(
            "this Python does not run:",
            log=done.stderr[-1500:],
            where=python,
            fix="name those that do with --python",
        )
    return done.stdout.strip()


class _Wheels:
    """The wheels that were met, by file name; one name never has two digests."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._digests = dict(known)

    def add(self, item: Mapping[str, Any]) -> str:
        """Takes a wheel of pip's report and returns its file name."""
        filename, digest = _wheel(item)
        if self._digests.setdefault(filename, digest) != digest:
            raise ToolchainError(
                "two digests for one file name",
                where=filename,
                expected=self._digests[filename],
                fix="resolve against one index, or remove the differing copy",
            )
        return filename

    def only(self, used: Iterable[str]) -> dict[str, str]:
        """The digests of the names in `used`, sorted."""
        return {name: self._digests[name] for name in sorted(set(used))}


def _torch_set(
    python: str, versions: Sequence[str], wheels: _Wheels
) -> tuple[str | None, dict[str, Any]]:
    """(CUDA release, entry of the lock) of one torch minor for one interpreter."""
    cuda: str | None = None
    builds: list[dict[str, object]] = []
    requires: set[str] = set()
    for version in versions:
        items = _pip_report(python, [f"torch==={version}", *_BESIDE])
        found = next(item for item in items if _normal(item) == "torch")
        others = [item for item in items if _normal(item) != "torch"]
        libraries = [wheels.add(item) for item in others if _LIBRARY.match(_normal(item))]
        cuda = _cuda_of(found) or cuda
        builds.append({"wheel": wheels.add(found), "libraries": sorted(libraries)})
        # The builds of one version have the same requirements beside the libraries; the last, the
        # index's own, is the one whose choice counts.
        requires = {wheels.add(i) for i in others if not _LIBRARY.match(_normal(i))}
    return cuda, {"builds": builds, "requires": sorted(requires)}


def _is_current(entry: Mapping[str, Any] | None, versions: Sequence[str]) -> bool:
    """Whether what is locked is what is wanted: the index's own version, and no other kind."""
    if entry is None:
        return False
    locked = [str(foreign.wheel_name(build["wheel"])[1]) for build in entry["builds"]]
    return set(locked) <= set(versions) and versions[-1] in locked


def write_lock(
    path: Path,
    pythons: Sequence[str],
    *,
    keep: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> None:
    """Resolves everything for every interpreter in `pythons` and writes the lock to `path`.

    Args:
        path: of the lock file.
        pythons: interpreters with pip, one for each CPython to support, e.g. ``python3.11``.
        keep: an earlier lock, of which everything that is still wanted stays as it is; None to
            resolve all anew.
        report: is told what is being resolved.

    Raises:
        ToolchainError: something cannot be had as a wheel with a digest.
    """
    keep = keep or {}
    wheels = _Wheels(keep.get("wheels", {}))

    tools: list[str] = keep.get("tools", [])
    if sorted(foreign.wheel_name(name)[0] for name in tools) != sorted(TOOLS):
        report("tools: " + ", ".join(TOOLS))
        tools = sorted(wheels.add(item) for item in _pip_report(pythons[0], TOOLS))

    cuda: dict[str, dict[str, Any]] = {}
    for release, requirement in CUDA.items():
        kept = keep.get("cuda", {}).get(release, {})
        if kept.get("requirement") == requirement:
            cuda[release] = kept
            continue
        report(f"CUDA {release}: {requirement}")
        items = _pip_report(pythons[0], [requirement])
        # The metapackage itself is empty; what it pins is what counts.
        names = sorted(wheels.add(item) for item in items if _normal(item) != "cuda-toolkit")
        cuda[release] = {"requirement": requirement, "wheels": names}

    torch: dict[str, dict[str, Any]] = {
        minor: {"cuda": keep.get("torch", {}).get(minor, {}).get("cuda"), "python": {}}
        for minor in TORCH
    }
    for python in pythons:
        tag = _tag_of(python)
        offered: set[str] | None = None
        for minor, versions in TORCH.items():
            kept = keep.get("torch", {}).get(minor, {}).get("python", {}).get(tag)
            if _is_current(kept, versions):
                torch[minor]["python"][tag] = kept
                continue
            offered = _offered(python) if offered is None else offered
            for version in versions:
                report(
                    f"torch {version} for {tag}"
                    + ("" if version in offered else ": not offered, left out")
                )
            there = [version for version in versions if version in offered]
            if there:
                built_with, torch[minor]["python"][tag] = _torch_set(python, there, wheels)
                torch[minor]["cuda"] = built_with or torch[minor]["cuda"]
    for minor, entry in torch.items():
        if not entry["python"]:
            raise ToolchainError(
                f"no index has torch {' or '.join(TORCH[minor])} for any of these Pythons",
                where=", ".join(pythons),
                fix="look at pip's indexes (`pip config list`), or take it out of locking.TORCH",
            )
        if not entry["cuda"]:
            raise ToolchainError(
                f"torch {minor} names no CUDA toolkit or runtime that it was built with",
                where="requirements of its wheel",
            )
    sets = [wanted for entry in torch.values() for wanted in entry["python"].values()]
    used = [*tools]
    for entry in cuda.values():
        used += entry["wheels"]
    for wanted in sets:
        used += wanted["requires"]
        for build in wanted["builds"]:
            used += [build["wheel"], *build["libraries"]]
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "tools": tools,
        "cuda": cuda,
        "torch": torch,
        "wheels": wheels.only(used),
    }
    data["debs"], data["debian"] = lock_debs(keep, report=report)
    atomic.write_text(path, json.dumps(data, indent=1) + "\n")
