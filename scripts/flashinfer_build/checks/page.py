"""What the page beside the index asks of a machine, and how the doctor's report says it.

The rules are the doctor's (``flashinfer/_compat.py`` and ``flashinfer/env.py``, which are in the
packages): which torch, CUDA, driver, GPU and glibc a build runs with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from conda_bridge.hooks import Condition, Diagnosis, Fact

from ..label import NAME, Label
from . import torch_abi

__all__ = ["DIAGNOSIS", "conditions"]

DIAGNOSIS = Diagnosis(
    command=f"python -m {NAME}.env",
    facts=(
        Fact("torch", "torch", ("torch", "version"), r"^torch +(\d+\.\d+)"),
        Fact(
            "torch_cuda",
            "CUDA of that torch",
            ("torch", "cuda"),
            r"^torch +\d\S* for (?:CUDA (\d+\.\d+)|the CPU)",
        ),
        Fact("torch_abi", "", ("torch", "cxx11_abi"), r"^torch .*\b(new|old) C\+\+ ABI", 0),
        Fact(
            "driver",
            "CUDA of the driver",
            ("driver", "cuda"),
            r"^driver +(?:.*for CUDA (\d+\.\d+)|none|.*does not say)",
        ),
        Fact(
            "gpu",
            "compute capability",
            ("gpus", "*", "capability"),
            r"^GPU \d+ .*, (\d+\.\d+), [\d.]+ GiB",
        ),
        Fact("glibc", "glibc", ("system", "libc"), r"^system .*?(glibc \d+\.\d+|no glibc)"),
    ),
    client=Fact("client", "", ("installer",), r"^installed +by (\w+)", 0),
)
_NEW = ("true", "new")
_OLD = ("false", "old")
# Compute capabilities that a build without PTX is compared with.
_CAPABILITIES = [(major, minor) for major in range(5, 20) for minor in range(10)]
_ENTRY = re.compile(r"(\d+)\.(\d+)([af]?)(\+PTX)?")


def conditions(label: Label, gpu_code: Sequence[str], glibc: str) -> list[Condition]:
    """What a build asks.

    Args:
        label: of the build.
        gpu_code: in torch's notation; none where nobody knows.
        glibc: the oldest that it runs with; empty where nobody knows.
    """
    pypi = _NEW if torch_abi.pypi_has_new(label.variant.torch) else _OLD
    found = [
        Condition(
            "torch",
            "among",
            ("{torch}",),
            "It was built for torch {torch}, and the torch there is {found}.",
        ),
        Condition(
            "torch_abi",
            "among",
            pypi,
            "Its wheel fits PyPI's torch {torch}, and the torch there has the other C++ ABI, as"
            " conda's has: take the conda package.",
            ("pip", "uv", "uv-project"),
        ),
        Condition(
            "torch_abi",
            "among",
            _NEW,
            "Its conda package fits conda-forge's pytorch {torch}, and the torch there has the"
            " old C++ ABI, as PyPI's has: take the wheel.",
            ("conda",),
        ),
    ]
    if glibc:
        why = f"It needs glibc {glibc} or newer, and there is {{found}}."
        found.append(Condition("glibc", "least", (glibc,), why))
    if label.variant.cuda is None:
        why = (
            "It is for the CPU, and the torch there is for CUDA {found}: it would not use the GPU."
        )
        return [*found, Condition("torch_cuda", "among", ("none",), why)]
    return [*found, *_of_cuda(label.variant.cuda[0]), *_of_gpus(gpu_code)]


def _of_cuda(major: int) -> list[Condition]:
    majors = tuple(f"{major}.{other}" for other in range(10))
    return [
        Condition(
            "torch_cuda",
            "among",
            majors,
            "It is for CUDA {cuda}, and the CUDA of the torch there is {found}.",
        ),
        Condition("torch_cuda", "least", ("{cuda}",), "", wish=True),
        Condition(
            "driver",
            "least",
            (str(major),),
            "It is for CUDA {cuda}, and the CUDA of the driver there is {found}.",
        ),
    ]


def _of_gpus(gpu_code: Sequence[str]) -> list[Condition]:
    if not gpu_code:
        return []
    listed = ", ".join(gpu_code)
    why = f"It has GPU code {listed}, and none for a GPU of compute capability {{found}}."
    run = [item for item in _CAPABILITIES if any(_runs(entry, item) for entry in gpu_code)]
    if run and run == [item for item in _CAPABILITIES if item >= run[0]]:
        return [Condition("gpu", "least", ("{}.{}".format(*run[0]),), why)]
    return [Condition("gpu", "among", tuple("{}.{}".format(*item) for item in run), why)]


def _runs(entry: str, capability: tuple[int, int]) -> bool:
    """Whether a GPU runs an entry of the list; flashinfer/_gpu_code.py has the rule's source."""
    found = _ENTRY.fullmatch(entry)
    if not found:
        return False
    version = (int(found[1]), int(found[2]))
    if found[3] == "a":
        return capability == version
    if capability[0] == version[0]:
        return capability >= version
    return found[4] is not None and not found[3] and capability > version
