"""Where a file of a conda package is in the wheel, from its name alone.

A conda package is a piece of a prefix: ``site-packages``, ``bin``, ``lib``, ``share``. A wheel has
what goes into site-packages at its top, and the rest below ``<name>-<version>.data``, from where
pip installs it into the prefix (``data``, ``scripts``, ``headers``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from packaging.utils import canonicalize_name

from ..errors import ArtifactError, ConfigError
from ..formats.conda_package import CondaPackage
from ..project import Project

__all__ = ["DROP", "SBOMS", "Layout", "Place", "is_library", "python_of", "wheel_layout"]

DROP: Literal["drop"] = "drop"
Kind = Literal["site", "info", "script", "library", "data", "headers", "sbom", "drop"]

SBOMS = ".dist-info/sboms/"  # the wheel's own folder for them (PEP 770)

_ARCH_SITE = re.compile(r"lib/python(?P<version>\d+\.\d+)t?/site-packages/")
_INFO = re.compile(r"[^/]+\.(dist-info|egg-info)(/|$)")
_HEADERS = re.compile(r"include/python\d+\.\d+[a-z]*/[^/]+/")
_LINK_SCRIPT = re.compile(r"bin/\.[^/]+-(pre-link|post-link|pre-unlink|post-unlink)\.sh")
# Below the prefix, what a package may well have that is no Python; pip puts it there, too.
_DATA = ("share/", "etc/", "include/", "lib/", "libexec/", "man/", "doc/", "docs/", "examples/")
# What conda does when a package is installed or an environment is entered, and pip does not.
_CONDAS_OWN = {
    "etc/conda/activate.d/": "a script that conda runs when an environment is activated",
    "etc/conda/deactivate.d/": "a script that conda runs when an environment is left",
    "etc/conda/env_vars.d/": "variables that conda sets when an environment is activated",
    "Menu/": "an entry of a menu, which conda makes and pip does not",
    "conda-meta/": "conda's own record of an environment",
    "pkgs/": "a part of conda's own installation",
}
_TESTS = "etc/conda/test-files/"  # rattler-build puts the files of a recipe's tests there


def is_library(path: str) -> bool:
    """Whether a file is called as shared objects are."""
    return path.endswith(".so") or ".so." in path.rpartition("/")[2]


def python_of(package: CondaPackage) -> str:
    """The Python, such as ``3.12``, whose site-packages an arch package has; empty without one.

    Raises:
        ArtifactError: it has those of two.
    """
    found = {match["version"] for path in package.paths if (match := _ARCH_SITE.match(path))}
    if len(found) > 1:
        raise ArtifactError(
            f"has files for Python {' and '.join(sorted(found))}",
            where=package.path.name,
            expected="one site-packages",
        )
    return next(iter(found), "")


@dataclass(frozen=True)
class Place:
    """Where a file belongs.

    Attributes:
        kind: what it is there: a file of site-packages, of a ``.dist-info`` (which is written
            anew), a script, a shared library, data of the prefix, a header, an SBOM that was
            outside of a ``.dist-info``; or nothing.
        path: in the wheel; of a library in ``lib``, before it is called by its SONAME; of a
            ``.dist-info``, below site-packages.
        chosen: the configuration names this place.
        exact: it names this very file.
    """

    kind: Kind
    path: str
    chosen: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Layout:
    """The places of one package's files.

    Attributes:
        package: for messages.
        noarch: it is ``noarch: python``, and has site-packages at its top.
        stem: ``<name>-<version>`` of the wheel.
        files: prefix in the package -> prefix in the wheel, or ``drop``; the longest one counts.
        closed: whether `files` are all the places there are.
        keeps_lib: shared libraries stay in the prefix's ``lib``, where programs look for them.
    """

    package: str
    noarch: bool
    stem: str
    files: Mapping[str, str]
    closed: bool = False
    keeps_lib: bool = False

    @property
    def libraries(self) -> str:
        """The folder for shared libraries of the package's ``lib``."""
        if self.keeps_lib:
            return f"{self.stem}.data/data/lib/"
        return f"{self.stem.partition('-')[0]}.libs/"

    def place(self, path: str) -> Place:
        """The place of the file `path`.

        Raises:
            ArtifactError: it has none in a wheel.
        """
        if path.startswith(_TESTS) or "__pycache__" in path.split("/")[:-1]:
            return Place(DROP, "")  # byte code is for the installer to write
        chosen = self._chosen(path)
        if chosen is not None:
            return chosen
        if self.closed:
            raise self._homeless(path, "files below " + " and ".join(self._prefixes()))
        inner = self._site(path)
        if inner is not None:
            return Place("info" if _INFO.match(inner) else "site", inner)
        if path.startswith("python-scripts/") and self.noarch:
            return self._script(path.removeprefix("python-scripts/"))
        self._refuse_condas_own(path)
        if path.startswith("bin/"):
            return self._script(path.removeprefix("bin/"))
        if path.startswith("lib/") and is_library(path):
            return Place("library", self.libraries + path.rpartition("/")[2])
        header = _HEADERS.match(path)
        if header:
            return Place("headers", f"{self.stem}.data/headers/{path[header.end() :]}")
        if path.startswith(_DATA):
            return Place("data", f"{self.stem}.data/data/{path}")
        raise self._homeless(path, f"site-packages, bin, {', '.join(_DATA)}")

    def _prefixes(self) -> list[str]:
        return sorted(prefix for prefix, target in self.files.items() if target != DROP)

    def _chosen(self, path: str) -> Place | None:
        for prefix in sorted(self.files, key=len, reverse=True):
            if not path.startswith(prefix):
                continue
            if prefix != path and not prefix.endswith("/"):
                continue
            if self.files[prefix] == DROP:
                return Place(DROP, "", True)
            target = self.files[prefix] + path.removeprefix(prefix)
            if target.startswith(SBOMS):
                return Place("sbom", f"{self.stem}{target}", True, prefix == path)
            if target.startswith(".data/"):
                target = self.stem + target
            kind: Kind = "library" if is_library(path) else "site"
            kind = "script" if ".data/scripts/" in target else kind
            return Place(kind, target, True, prefix == path)
        return None

    def _site(self, path: str) -> str | None:
        arch = _ARCH_SITE.match(path)
        if arch and not self.noarch:
            return path[arch.end() :]
        if path.startswith("site-packages/") or arch:
            if self.noarch and not arch:
                return path.removeprefix("site-packages/")
            raise ArtifactError(
                "is below site-packages/" if not arch else f"is below {arch[0]}",
                where=f"{self.package}: {path}",
                expected="lib/pythonX.Y/site-packages/ in a package for one Python, and "
                "site-packages/ in one for every Python (noarch: python, CEP 20)",
            )
        return None

    def _script(self, name: str) -> Place:
        if "/" in name:
            raise self._homeless(f"bin/{name}", "programs directly below bin/")
        return Place("script", f"{self.stem}.data/scripts/{name}")

    def _refuse_condas_own(self, path: str) -> None:
        what = next((text for prefix, text in _CONDAS_OWN.items() if path.startswith(prefix)), "")
        if _LINK_SCRIPT.fullmatch(path):
            what = "a script that conda runs when the package is installed or removed"
        if what:
            raise ArtifactError(
                f"is {what}; a wheel has none",
                where=f"{self.package}: {path}",
                fix=self._way_out(path, alone=path.startswith("bin/")),
            )

    def _homeless(self, path: str, expected: str) -> ArtifactError:
        return ArtifactError(
            "cannot go into a wheel",
            where=f"{self.package}: {path}",
            expected=expected,
            fix=self._way_out(path),
        )

    @staticmethod
    def _way_out(path: str, *, alone: bool = False) -> str:
        folder, _, name = path.rpartition("/")
        alone = alone or not folder  # what else is in the folder is right where it is
        prefix = path if alone else f"{folder}/"
        return (
            "if the wheel is right without it, say so in [tool.conda-bridge.files]: "
            f'"{prefix}" = "drop"; or say where it goes: "{prefix}" = '
            f'"<package>/{name if alone else ""}"'
        )


def wheel_layout(
    package: CondaPackage, project: Project, stem: str = "", *, keeps_lib: bool = False
) -> Layout:
    """The places of the files of `package`, the project's main package or one to be folded in.

    Args:
        package: that has been read.
        project: whose configuration has places of its own.
        stem: ``<name>-<version>`` of the wheel; empty for the package's own.
        keeps_lib: see :class:`Layout`.

    Raises:
        ConfigError: a place is for a file, and the package has a folder of that name.
    """
    fold = next((item for item in project.config.fold if item.package == package.name), None)
    files = {**project.config.files, **(fold.files if fold else {})}
    for prefix in files:
        if not prefix.endswith("/") and any(
            path.startswith(f"{prefix}/") for path in package.paths
        ):
            raise ConfigError(
                f"{prefix!r} is a folder in {package.path.name}",
                where="[tool.conda-bridge] files",
                expected="a file, or the name of a folder with / at its end",
                fix=f'write "{prefix}/"',
            )
    name = project.config.wheel_name or package.name
    return Layout(
        package=package.path.name,
        noarch=package.index.get("noarch") == "python",
        stem=stem or f"{canonicalize_name(name).replace('-', '_')}-{package.version}",
        files=files,
        closed=bool(fold and fold.files),
        keeps_lib=keeps_lib,
    )
