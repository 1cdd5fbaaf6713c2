"""One wheel or conda package as its checks see it, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..formats.elf import SharedObject
from ..scheme import Label

__all__ = ["Artifact"]


@dataclass(frozen=True)
class Artifact:
    """What was read of a wheel or a conda package.

    Attributes:
        path: the file.
        kind: which of the two it is.
        name: the package's name; of a wheel, the distribution's.
        label: what its name says.
        digests: the sha256 of every file that installers put into site-packages, by its path in
            the wheel.
        contents: the files that the project's hooks look into, by path in the wheel.
        libraries: the shared objects, by path in the wheel.
    """

    path: Path
    kind: Literal["wheel", "conda"]
    name: str
    label: Label
    digests: Mapping[str, str]
    contents: Mapping[str, bytes]
    libraries: Mapping[str, SharedObject]
