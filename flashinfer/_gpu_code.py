"""What a build's GPU architectures mean for a GPU: csrc/cuda/gpu_code.h has the same rule."""

from __future__ import annotations

import re

__all__ = ["NATIVE", "NONE", "OLDEST", "PTX", "UNKNOWN", "code_for", "entries", "ptx_runs"]

NATIVE = "native"
PTX = "PTX"
NONE = "none"
UNKNOWN = "unknown"  # an entry that is of no form that is known here

OLDEST = (8, 0)  # the kernels can be compiled for no older GPU
_ENTRY = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX)?", re.ASCII)


def entries(archs: str) -> list[str]:
    """The entries of a list such as ``8.0+PTX;9.0a``."""
    return [entry for entry in re.split(r"[;,\s]+", archs) if entry]


def code_for(archs: str, major: int, minor: int) -> tuple[str, str]:
    """The best code that there is for a GPU, and the entry of the list that brings it.

    Code runs on its major version from its minor on, and PTX on everything from its own version on;
    those of an ``a`` run on that version alone, and PTX of an ``f`` on its major version (the CUDA
    Programming Guide, "Compute Capabilities").

    Args:
        archs: the architectures of the build, ``8.0+PTX;9.0a``.
        major, minor: the GPU's compute capability.
    """
    best = (NONE, "")
    listed = entries(archs)
    for entry in listed:
        found = _ENTRY.fullmatch(entry)
        if not found:
            return UNKNOWN, entry
        version = (int(found[1]), int(found[2]))
        exact = (major, minor) == version
        newer = major == version[0] and minor >= version[1]
        if exact if found[3] == "a" else newer:
            return NATIVE, entry
        if found[4] and not found[3] and (newer or major > version[0]):
            best = (PTX, entry)
    return best if listed else (UNKNOWN, "")


def ptx_runs(cuda: tuple[int, int], driver: tuple[int, int]) -> bool:
    """Whether a driver for one CUDA compiles the PTX that another one wrote.

    It reads PTX up to its own version: "PTX ISA", release notes. 12.5 and 12.6 write the same.
    """
    return driver >= ((12, 5) if cuda == (12, 6) else cuda)
