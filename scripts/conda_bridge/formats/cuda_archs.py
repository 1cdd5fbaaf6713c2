"""What a list of GPU architectures means: nvcc's flags, and so the images in a fat binary."""

from __future__ import annotations

import re

from ..errors import ConfigError

__all__ = ["gencode_flags"]

_ARCH = re.compile(r"^(\d+)\.(\d)([af]?)(\+PTX)?$")


def gencode_flags(arch_list: str, where: str = "") -> list[str]:
    """nvcc's ``-gencode`` flags for a list such as ``8.0+PTX;9.0a`` (torch's notation).

    Args:
        arch_list: the list.
        where: who gave it, for messages.

    Raises:
        ConfigError: an entry that is not ``X.Y``, ``X.Ya`` or either with ``+PTX``.
    """
    flags: list[str] = []
    for entry in re.split(r"[;,\s]+", arch_list.strip()):
        found = _ARCH.match(entry)
        if not found:
            raise ConfigError(
                f"{entry!r} is not a CUDA architecture",
                where=where,
                expected="entries such as 8.0, 9.0a or 8.0+PTX, separated by ';'",
            )
        number = f"{found[1]}{found[2]}{found[3]}"
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if found[4]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags
