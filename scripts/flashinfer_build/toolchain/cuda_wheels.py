"""NVIDIA's compiler wheels as conda-forge's CUDA packages.

The wheels hold one toolkit folder; conda-forge keeps programs in ``bin/`` and everything for the
target in ``targets/x86_64-linux/``. nvcc.profile finds both relative to itself, so it stays as it
is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from conda_bridge.errors import ToolchainError
from conda_bridge.formats.conda_writer import PackageFile

from .cuda import TARGET, CudaFiles, cuda_specs
from .lock import CudaSet, LockedWheel
from .origin_record import of_wheel, with_record
from .packages import PackageSpec
from .unpacked import SITE, files_of

__all__ = ["cuda_packages"]


@dataclass(frozen=True)
class _Part:
    """One package: which files of which wheel, by their path in the toolkit folder."""

    package: str
    wheel: str
    pattern: str


_PARTS = (
    _Part("cuda-nvcc-tools", "nvidia-cuda-nvcc", r"bin/"),
    _Part("cuda-nvcc-dev_linux-64", "nvidia-cuda-nvcc", r"include/|lib/"),
    _Part("cuda-nvvm-tools", "nvidia-nvvm", r"nvvm/bin/"),
    _Part("cuda-nvvm-dev_linux-64", "nvidia-nvvm", r"nvvm/libdevice/|include/|lib/"),
    _Part("cuda-crt-dev_linux-64", "nvidia-cuda-crt", r"include/"),
    _Part("cuda-cudart_linux-64", "nvidia-cuda-runtime", r"lib/libcudart\.so"),
    _Part("cuda-cudart-static_linux-64", "nvidia-cuda-runtime", r"lib/.*\.a$"),
    _Part("cuda-cudart-dev_linux-64", "nvidia-cuda-runtime", r"include/"),
    _Part("cuda-cccl_linux-64", "nvidia-cuda-cccl", r"include/|lib/"),
)


def _move(relative: str) -> str:
    first = relative.split("/", 1)[0]
    return f"{TARGET}/{relative}" if first in ("include", "lib") else relative


def _part_files(home: Path, pattern: str) -> Iterable[PackageFile]:
    for path in files_of(home):
        relative = path.relative_to(home).as_posix()
        if not re.match(pattern, relative):
            continue
        mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
        yield PackageFile(_move(relative), path, mode, None)
        versioned = re.fullmatch(r"lib/(lib\w+\.so)\.\d+", relative)
        if versioned:
            yield PackageFile(f"{TARGET}/lib/{versioned[1]}", None, 0o777, path.name)


def cuda_packages(locked: CudaSet, trees: Mapping[LockedWheel, Path]) -> list[PackageSpec]:
    """The packages of one CUDA release.

    Args:
        locked: its wheels.
        trees: the unpacked tree of each.

    Raises:
        ToolchainError: a part is not in the wheels.
    """
    major, minor = locked.release
    wheels = {wheel.name: wheel for wheel in locked.wheels}
    contents = {}
    for part in _PARTS:
        wheel = wheels.get(part.wheel)
        home = trees[wheel] / SITE / "nvidia" / f"cu{major}" if wheel else None
        if wheel is None or home is None or not home.is_dir():
            raise ToolchainError(
                f"no {part.wheel} among the wheels of CUDA {major}.{minor}",
                where=part.package,
                fix="python scripts/lock_toolchain.py",
            )
        contents[part.package] = CudaFiles(
            wheel.version,
            (wheel.sha256, part.pattern),
            partial(_part_files, home, part.pattern),
            with_record([(of_wheel(wheel, trees[wheel]), None)]),
        )
    return cuda_specs(locked.release, contents)
