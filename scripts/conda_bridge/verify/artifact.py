"""One wheel or conda package as its checks see it, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..formats.conda_package import CondaPackage
from ..formats.content import Held
from ..formats.elf import SharedObject
from ..formats.wheel_reader import Wheel
from ..label import Label

__all__ = ["Artifact", "Payload"]

# Files by their path, with their sha256; a link as ``link to <target>``.
Payload = dict[str, str]


@dataclass(frozen=True)
class Artifact:
    """What was read of a wheel or a conda package.

    Attributes:
        path: the file.
        kind: which of the two it is.
        name: the package's name; of a wheel, the distribution's.
        label: what its name says; of a package to be folded in, by that package's template.
        source: what was read of it; a `Wheel` or a `CondaPackage`, as `kind` says.
        digests: the sha256 of every file that installers put into site-packages, by its path in
            the wheel.
        contents: the files that the project's hooks look into, by path in the wheel.
        libraries: the shared objects that could be read, by path in the wheel.
        arch_list: the GPU architectures that were asked for; None where nobody did.
    """

    path: Path
    kind: Literal["wheel", "conda"]
    name: str
    label: Label
    source: Wheel | CondaPackage
    digests: Mapping[str, str]
    contents: Mapping[str, bytes]
    libraries: Mapping[str, SharedObject]
    arch_list: str | None = None

    def checked(self) -> Artifact:
        """The same without what only the checks of itself need: other artifacts come to it."""
        return replace(
            self,
            contents={},
            libraries={
                path: replace(
                    library, undefined=(), exported=(), gpu={}, sections=(), data=Held(b"")
                )
                for path, library in self.libraries.items()
            },
        )
