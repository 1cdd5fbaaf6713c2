"""Debian's CUDA as conda-forge's CUDA packages.

Debian spreads the toolkit over ``/usr``; here its programs go to ``bin/`` and ``nvvm/``, the rest
to ``targets/x86_64-linux/``. Debian's nvcc.profile names places below ``/usr``, so nvcc gets one
that finds everything relative to itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from conda_bridge.errors import ToolchainError
from conda_bridge.formats.conda_writer import PackageFile

from ..cuda import TARGET, CudaFiles, cuda_specs
from ..lock import DebianCuda, LockedDeb
from ..origin_record import Source, of_deb, with_record
from ..packages import PackageSpec
from ..unpacked import files_of
from .deb import package_file

__all__ = ["cuda_packages", "wanted"]

_LIB = r"usr/lib/x86_64-linux-gnu/"
_OWN = r"usr/lib/nvidia-cuda-toolkit/"
# The headers of the runtime, not those of cuBLAS and the like, which lie in the same folder.
_RUNTIME_HEADERS = (
    r"usr/(include/(?:builtin_types|channel_descriptor|common_functions|cooperative_groups|"
    r"cuComplex|cuda(?!libxt)|device_|driver_|host_|library_types|math_|mma|sm_\d|surface_|"
    r"texture_|vector_)[\w.]*\.(?:h|hpp)|include/cooperative_groups/.*)"
)


@dataclass(frozen=True)
class _Part:
    """One package: which files of which .deb, and where they go.

    Attributes:
        package: conda's name.
        debs: names of Debian's packages.
        moves: regular expression of a whole path -> its place.
    """

    package: str
    debs: tuple[str, ...]
    moves: tuple[tuple[str, str], ...]


_PARTS = (
    _Part(
        "cuda-nvcc-tools",
        ("nvidia-cuda-toolkit",),
        (
            (r"usr/(bin/(?:bin2c|cudafe\+\+|fatbinary|nvlink|ptxas|__nvcc_device_query))", r"\1"),
            (_OWN + r"(bin/(?:nvcc|crt/.*))", r"\1"),
        ),
    ),
    _Part(
        "cuda-nvcc-dev_linux-64",
        ("nvidia-cuda-dev",),
        ((r"usr/(include/(?:fatbinary_section|nvPTXCompiler)\.h)", rf"{TARGET}/\1"),),
    ),
    _Part("cuda-nvvm-tools", ("nvidia-cuda-toolkit",), ((_OWN + r"bin/(cicc)", r"nvvm/bin/\1"),)),
    _Part(
        "cuda-nvvm-dev_linux-64",
        ("nvidia-cuda-toolkit",),
        (
            (_OWN + r"(libdevice/.*)", r"nvvm/\1"),
            (r"usr/(include/nvvm\.h)", rf"{TARGET}/\1"),
        ),
    ),
    _Part(
        "cuda-crt-dev_linux-64",
        ("nvidia-cuda-dev",),
        ((r"usr/(include/crt/.*)", rf"{TARGET}/\1"),),
    ),
    _Part(
        "cuda-cudart_linux-64",
        ("libcudart12", "libcudart11.0"),
        ((_LIB + r"(libcudart\.so.*)", rf"{TARGET}/lib/\1"),),
    ),
    _Part(
        "cuda-cudart-static_linux-64",
        ("nvidia-cuda-dev",),
        ((_LIB + r"(libcud(?:art_static|adevrt)\.a)", rf"{TARGET}/lib/\1"),),
    ),
    _Part(
        "cuda-cudart-dev_linux-64",
        ("nvidia-cuda-dev",),
        (
            (_RUNTIME_HEADERS, rf"{TARGET}/\1"),
            (_LIB + r"(libcudart\.so|stubs/libcuda\.so)", rf"{TARGET}/lib/\1"),
        ),
    ),
    _Part(
        "cuda-cccl_linux-64",
        ("libcub-dev", "libcu++-dev", "libthrust-dev"),
        ((r"usr/(include/.*)", rf"{TARGET}/\1"),),
    ),
)
_PROFILE = f"""\
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/{TARGET}/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/{TARGET}/lib/stubs" "-L$(TOP)/{TARGET}/lib"
"""
_EXTRA = {"cuda-nvcc-tools": [PackageFile("bin/nvcc.profile", _PROFILE.encode())]}


def wanted(deb: LockedDeb) -> str:
    """What is unpacked of `deb`: a regular expression for the beginning of a path."""
    sources = [move[0] for part in _PARTS if deb.package in part.debs for move in part.moves]
    return "|".join([*dict.fromkeys(sources), r"usr/share/doc/[^/]*/copyright$"])


def _moved(part: _Part, trees: tuple[Path, ...]) -> Iterable[PackageFile]:
    for tree in trees:
        for path in files_of(tree):
            name = path.relative_to(tree).as_posix()
            for source, place in part.moves:
                found = re.fullmatch(source, name)
                if found:
                    yield package_file(path, found.expand(place))


def _sources(
    part: _Part, trees: Mapping[LockedDeb, Path]
) -> list[tuple[Source, Sequence[str] | None]]:
    """The Debian packages that a part has files of, each with those files."""
    return [
        (of_deb(deb, tree), [item.path for item in _moved(part, (tree,))])
        for deb, tree in trees.items()
    ]


def _files(part: _Part, trees: tuple[Path, ...]) -> Iterable[PackageFile]:
    return [*_moved(part, trees), *_EXTRA.get(part.package, ())]


def cuda_packages(locked: DebianCuda, trees: Mapping[LockedDeb, Path]) -> list[PackageSpec]:
    """The packages of one CUDA release.

    Args:
        locked: its packages in Debian.
        trees: the unpacked tree of each, with what is wanted.

    Raises:
        ToolchainError: a part is not in them.
    """
    contents = {}
    for part in _PARTS:
        of_part = {deb: trees[deb] for deb in locked.toolkit if deb.package in part.debs}
        if not of_part or not any(_moved(part, tuple(of_part.values()))):
            raise ToolchainError(
                f"no {' or '.join(part.debs)} among the packages of CUDA "
                "{}.{} in Debian".format(*locked.release),
                where=part.package,
                fix="python scripts/lock_toolchain.py --upgrade debian",
            )
        contents[part.package] = CudaFiles(
            next(iter(of_part)).upstream,
            (*(deb.sha256 for deb in of_part), repr(part.moves), _PROFILE),
            partial(_files, part, tuple(of_part.values())),
            with_record(_sources(part, of_part)),
        )
    return cuda_specs(locked.release, contents)
