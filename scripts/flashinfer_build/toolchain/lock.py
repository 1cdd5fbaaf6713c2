"""What may enter a build: every wheel by file name and sha256, written once, read by the providers.

The lock (``toolchain.lock.json``) has these tables:

- ``wheels``: file name -> sha256. A file name occurs once, whatever number of sets need it.
- ``tools``: what a build needs of the Python index that has no part in torch.
- ``cuda``: CUDA release -> the wheels that make up its compiler.
- ``torch``: torch minor -> the CUDA it was built with, and for each CPython the wheels that are
  acceptable as torch (in the order of preference, each with the CUDA libraries it needs to be
  imported) and those it and the build need beside it.
- ``debs``: file name of a Debian package -> its path in the archive, size and sha256.
- ``debian``: CUDA release -> the packages of its compiler, and of a g++ where it needs an older
  one; glibc version -> the packages of a C library to link against.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from conda_bridge.errors import ArtifactError, ConfigError, ToolchainError
from conda_bridge.formats import foreign, limits
from conda_bridge.formats.json_reader import read_object

__all__ = [
    "LOCK_FILE",
    "SCHEMA",
    "CudaSet",
    "DebianCuda",
    "Lock",
    "LockedDeb",
    "LockedFile",
    "LockedWheel",
    "TorchBuild",
    "TorchSet",
]

SCHEMA = 2
LOCK_FILE = Path(__file__).with_name("toolchain.lock.json")


@dataclass(frozen=True, order=True)
class LockedFile:
    """A file that is acceptable under exactly one digest.

    Attributes:
        filename: its last part.
        sha256: of the file, in hexadecimal.
        folder: of the cache, where files of this kind are kept.
    """

    filename: str
    sha256: str
    folder: ClassVar[str] = "files"

    def place(self, cache: Path) -> Path:
        """Where it is kept once it is here and verified."""
        return cache / self.folder / self.sha256 / self.filename


@dataclass(frozen=True, order=True)
class LockedWheel(LockedFile):
    """A wheel, e.g. ``numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl``."""

    folder: ClassVar[str] = "wheels"

    @property
    def name(self) -> str:
        """The project's normalised name, e.g. ``typing-extensions``."""
        return str(foreign.wheel_name(self.filename)[0])

    @property
    def version(self) -> str:
        """The version with its local part, e.g. ``2.13.0+cpu``."""
        return str(foreign.wheel_name(self.filename)[1])


@dataclass(frozen=True, order=True)
class LockedDeb(LockedFile):
    """A package of Debian, e.g. ``nvidia-cuda-dev_12.4.127~12.4.1-2_amd64.deb``.

    Attributes:
        path: in the archive, e.g. ``pool/main/h/hello/hello_2.10-3_amd64.deb``.
        size: in bytes.
    """

    path: str
    size: int
    folder: ClassVar[str] = "debs"

    @property
    def package(self) -> str:
        """The package's name, e.g. ``nvidia-cuda-dev``."""
        return self.filename.split("_")[0]

    @property
    def upstream(self) -> str:
        """The version without Debian's revision, e.g. ``12.4.127``."""
        return re.split(r"[~+-]", unquote(self.filename.split("_")[1]).rpartition(":")[2])[0]


@dataclass(frozen=True)
class DebianCuda:
    """The compiler of one CUDA release from Debian.

    Attributes:
        release: as the label names it, e.g. ``(12, 4)``.
        toolkit: nvcc, headers, runtime.
        gxx: the C++ compiler that it needs and what that needs; empty where the machine's will do.
    """

    release: tuple[int, int]
    toolkit: tuple[LockedDeb, ...]
    gxx: tuple[LockedDeb, ...]


@dataclass(frozen=True)
class CudaSet:
    """The compiler of one CUDA release.

    Attributes:
        release: as the label names it, e.g. ``(13, 0)``.
        wheels: nvcc, NVVM, headers, runtime.
    """

    release: tuple[int, int]
    wheels: tuple[LockedWheel, ...]


@dataclass(frozen=True)
class TorchBuild:
    """One acceptable torch.

    Attributes:
        wheel: the torch wheel.
        libraries: the CUDA libraries without which it cannot be imported; empty for a CPU build.
    """

    wheel: LockedWheel
    libraries: tuple[LockedWheel, ...]


@dataclass(frozen=True)
class TorchSet:
    """One torch minor for one CPython.

    Attributes:
        minor: (major, minor).
        cuda: the CUDA release that the index's own build of it uses.
        builds: what is acceptable, the preferred one first.
        requires: torch's Python dependencies, numpy, and what builds and installs packages.
    """

    minor: tuple[int, int]
    cuda: tuple[int, int]
    builds: tuple[TorchBuild, ...]
    requires: tuple[LockedWheel, ...]


def _pair(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


class Lock:
    """The lock, checked when it is read.

    Attributes:
        where: the file it came from.
        data: as it was read.
        tools: the wheels of what compiles the kernels, for every supported CPython.
        debian_cuda: CUDA release -> its compiler from Debian.
        sysroots: glibc version -> the packages that it is made of.
    """

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.where = where
        if data.get("schema") != SCHEMA:
            raise ConfigError(
                f"lock schema {data.get('schema')!r}",
                where=where,
                expected=str(SCHEMA),
                fix="python scripts/lock_toolchain.py",
            )
        self.data = data
        try:
            self._wheels = {
                name: LockedWheel(name, self._checked(name, digest))
                for name, digest in data["wheels"].items()
            }
            self.tools = self._resolve(data["tools"])
            self._cuda = {
                _pair(release): CudaSet(_pair(release), self._resolve(entry["wheels"]))
                for release, entry in data["cuda"].items()
            }
            self._torch = {
                (_pair(minor), python): TorchSet(
                    _pair(minor),
                    _pair(entry["cuda"]),
                    tuple(
                        TorchBuild(self._wheels[build["wheel"]], self._resolve(build["libraries"]))
                        for build in wheels["builds"]
                    ),
                    self._resolve(wheels["requires"]),
                )
                for minor, entry in data["torch"].items()
                for python, wheels in entry["python"].items()
            }
            debs = {name: self._deb(name, **entry) for name, entry in data["debs"].items()}
            self.debian_cuda = {
                _pair(release): DebianCuda(
                    _pair(release),
                    tuple(debs[name] for name in entry["toolkit"]),
                    tuple(debs[name] for name in entry["gxx"]),
                )
                for release, entry in data["debian"]["cuda"].items()
            }
            self.sysroots = {
                glibc: tuple(debs[name] for name in names)
                for glibc, names in data["debian"]["sysroot"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"the lock is damaged: {type(error).__name__}: {error}",
                where=where,
                fix="python scripts/lock_toolchain.py",
            ) from None

    @classmethod
    def _deb(cls, filename: str, path: str, size: int, sha256: str) -> LockedDeb:
        if (
            ".." in path
            or not re.fullmatch(r"pool/[\w.+~/-]+", path)
            or Path(path).name != filename
            or len(filename) > limits.FILE_NAME
            or type(size) is not int
            or size < 0
        ):
            raise ValueError(f"{filename}: {path!r} is not its path")
        return LockedDeb(filename, cls._digest(filename, sha256), path, size)

    @classmethod
    def _checked(cls, filename: str, digest: str) -> str:
        try:
            foreign.wheel_name(filename)
        except foreign.Unreadable as error:
            raise ValueError(f"the wheel {filename[:80]!r}: {error}") from None
        return cls._digest(filename, digest)

    @staticmethod
    def _digest(filename: str, digest: str) -> str:
        if len(digest) != 64 or int(digest, 16) < 0 or digest != digest.lower():
            raise ValueError(f"{filename}: {digest!r} is not a sha256")
        return digest

    def _resolve(self, names: list[str]) -> tuple[LockedWheel, ...]:
        return tuple(self._wheels[name] for name in names)

    @classmethod
    def read(cls, path: Path = LOCK_FILE) -> Lock:
        """Reads and checks the lock at `path`.

        Raises:
            ConfigError: no JSON, another schema, or a set that names a wheel without a digest.
        """
        try:
            data = read_object(path, str(path))
        except (OSError, ArtifactError) as error:
            said = error.what if isinstance(error, ArtifactError) else error
            raise ConfigError(
                f"cannot be read: {said}", where=str(path), fix="python scripts/lock_toolchain.py"
            ) from None
        return cls(data, str(path))

    @property
    def cuda_releases(self) -> list[tuple[int, int]]:
        """The CUDA releases that have a compiler here."""
        return sorted(self._cuda)

    def torch_minors(self, python: str) -> list[tuple[int, int]]:
        """The torch minors locked for `python`, e.g. ``cp311``."""
        return sorted(minor for minor, tag in self._torch if tag == python)

    def cuda(self, release: tuple[int, int]) -> CudaSet:
        """The compiler of a CUDA release.

        Raises:
            ToolchainError: it is not in the lock.
        """
        if release not in self._cuda:
            known = ", ".join(f"{a}.{b}" for a, b in self.cuda_releases)
            raise ToolchainError(
                f"CUDA {release[0]}.{release[1]} has no compiler here",
                where=self.where,
                expected=f"one of: {known}",
                fix="build it with conda or rattler-build, which take nvcc from a channel",
            )
        return self._cuda[release]

    def torch(self, minor: tuple[int, int], python: str) -> TorchSet:
        """A torch minor for a CPython tag, e.g. ``(2, 13)`` and ``cp311``.

        Raises:
            ToolchainError: it is not in the lock.
        """
        found = self._torch.get((minor, python))
        if found is None:
            known = ", ".join(f"{a}.{b}" for a, b in self.torch_minors(python)) or "none"
            raise ToolchainError(
                f"torch {minor[0]}.{minor[1]} is not locked for {python}",
                where=self.where,
                expected=f"for {python} one of: {known}",
                fix="add it to scripts/flashinfer_build/toolchain/locking.py and run "
                "python scripts/lock_toolchain.py",
            )
        return found
