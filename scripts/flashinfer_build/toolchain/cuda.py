"""conda-forge's CUDA packages: their names, and how they depend on each other.

Programs are in ``bin/``, everything for the target in ``targets/x86_64-linux/``. Where the files
come from is somebody else's matter (:mod:`.cuda_wheels`, :mod:`.debian.cuda`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from conda_bridge.formats.conda_writer import PackageFile

from .packages import PackageSpec

__all__ = ["TARGET", "CudaFiles", "cuda_specs"]

TARGET = "targets/x86_64-linux"

# The packages with files of their own -> what they need beside cuda-version. The ones with
# `_linux-64` hold files for the target; the plain ones, below, are what a recipe asks for.
_HOLDERS: Mapping[str, tuple[str, ...]] = {
    "cuda-nvcc-tools": (),
    "cuda-nvcc-dev_linux-64": (),
    "cuda-nvvm-tools": (),
    "cuda-nvvm-dev_linux-64": (),
    "cuda-crt-dev_linux-64": (),
    "cuda-cudart_linux-64": (),
    "cuda-cudart-static_linux-64": (),
    "cuda-cudart-dev_linux-64": ("cuda-cudart_linux-64",),
    "cuda-cccl_linux-64": (),
}
_NVCC = (
    "cuda-nvcc-tools",
    "cuda-nvcc-dev_linux-64",
    "cuda-nvvm-tools",
    "cuda-nvvm-dev_linux-64",
    "cuda-crt-dev_linux-64",
)
# Names without files of their own -> the part whose version they have, and what they bring.
_NAMES = {
    "cuda-nvcc_linux-64": ("cuda-nvcc-tools", (*_NVCC, "cuda-cudart-dev_linux-64")),
    "cuda-nvcc": ("cuda-nvcc-tools", (*_NVCC, "cuda-cudart-dev_linux-64")),
    "cuda-cudart": ("cuda-cudart_linux-64", ("cuda-cudart_linux-64",)),
    "cuda-cudart-static": ("cuda-cudart-static_linux-64", ("cuda-cudart-static_linux-64",)),
    "cuda-cudart-dev": (
        "cuda-cudart-dev_linux-64",
        ("cuda-cudart-dev_linux-64", "cuda-cudart-static_linux-64", "cuda-cccl_linux-64"),
    ),
    "cuda-cccl": ("cuda-cccl_linux-64", ("cuda-cccl_linux-64",)),
    "cuda-crt": ("cuda-crt-dev_linux-64", ("cuda-crt-dev_linux-64",)),
}


@dataclass(frozen=True)
class CudaFiles:
    """What one package holds.

    Attributes:
        version: of the package.
        identity: what its bytes depend on.
        files: makes the list of its files when they are needed.
        licences: further members below ``info/``.
    """

    version: str
    identity: tuple[str, ...]
    files: Callable[[], Iterable[PackageFile]]
    licences: Mapping[str, bytes]


def cuda_specs(release: tuple[int, int], contents: Mapping[str, CudaFiles]) -> list[PackageSpec]:
    """The packages of one CUDA release.

    Args:
        release: as the label names it, e.g. ``(12, 4)``.
        contents: the files of every package that holds some, by its name.
    """
    major, minor = release
    exact = f"cuda-version {major}.{minor}.*"
    specs = {
        "cuda-version": PackageSpec(
            "cuda-version",
            f"{major}.{minor}",
            noarch="generic",
            constrains=(f"__cuda >={major}",),
        )
    }
    for name, depends in _HOLDERS.items():
        held = contents[name]
        specs[name] = PackageSpec(
            name,
            held.version,
            identity=held.identity,
            files=held.files,
            depends=(exact, *depends),
            info_files=held.licences,
            flavour="cuda",
        )
    for name, (like, depends) in _NAMES.items():
        specs[name] = PackageSpec(
            name, specs[like].version, depends=(exact, *depends), flavour="cuda"
        )
    return list(specs.values())
