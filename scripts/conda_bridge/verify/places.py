"""Where the files of a conda package are in the wheel of it, as the bridge lays them out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..bridge.layout import DROP, wheel_layout
from ..errors import ArtifactError
from ..formats.conda_package import CondaPackage
from ..project import Project

__all__ = ["ARCH_SITE", "Place", "places_of"]

# Where a package for one Python has its modules.
ARCH_SITE = re.compile(r"lib/python(\d+)\.(\d+)t?/site-packages/", re.ASCII)


@dataclass(frozen=True)
class Place:
    """What becomes of one file.

    Attributes:
        path: in the wheel; of what is in none, in the package.
        kind: as the bridge has it: ``site``, ``info``, ``library``, ...; ``drop`` for what stays
            behind, and empty for what has no place in a wheel.
        chosen: the project's configuration names it.
    """

    path: str
    kind: str
    chosen: bool = False

    @property
    def installed(self) -> bool:
        """Whether the wheel has the file as it is, under this very name.

        Metadata is written anew, programs begin with another line, and a library of the prefix is
        called by its SONAME.
        """
        return self.kind in ("site", "data", "headers") or (self.kind == "library" and self.chosen)

    def is_one_of(self, patterns: Iterable[str]) -> bool:
        """Whether the path in the wheel fits one of these paths and patterns."""
        return any(fnmatchcase(self.path, pattern) for pattern in patterns)


def places_of(package: CondaPackage, project: Project) -> dict[str, Place]:
    """The places of all files, by their path in the package.

    The folder ``<name>-<version>.data`` has the package's name, which may not be the wheel's.
    """
    layout = wheel_layout(package, project)
    places = {}
    for path in package.paths:
        try:
            found = layout.place(path)
        except ArtifactError:
            places[path] = Place(path, "")
            continue
        there = path if found.kind == DROP else found.path
        places[path] = Place(there, found.kind, found.chosen)
    return places
