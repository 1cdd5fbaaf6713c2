"""Which pip requirement says what a conda dependency says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..errors import ArtifactError

__all__ = ["PIP_NAMES", "SYSTEM", "MatchSpec", "pip_requirement", "pip_specifier"]

# conda name -> pip name
PIP_NAMES = {
    "pytorch": "torch",
    "numpy": "numpy",
    "packaging": "packaging",
    "typing-extensions": "typing-extensions",
    "typing_extensions": "typing-extensions",
}
# Conda dependencies that need no Requires-Dist, and why.
SYSTEM = {
    "__cuda": "conda's own; the label says which CUDA",
    "__glibc": "the platform tag says it",
    "__unix": "the platform tag says it",
    "__linux": "the platform tag says it",
    "_libgcc_mutex": "conda's own",
    "libgcc": "torch needs it already",
    "libgcc-ng": "torch needs it already",
    "libstdcxx": "torch needs it already",
    "libstdcxx-ng": "torch needs it already",
    "cuda-version": "the CUDA runtime is linked in; the label says its version",
    # What conda-forge's packages add.
    "libtorch": "a part of pip's torch",
    "cpython": "the dependency on python says it",
    "_python_abi3_support": "conda's own",
}

# Builds of a conda package that pip tells apart by the index, or by what the user has.
_OF_EITHER_KIND = {"torch": ("*cuda*", "cuda*", "*cpu*", "cpu*")}

_PART = re.compile(r"(?P<operator>>=|<=|==|!=|~=|>|<|=)?(?P<version>[0-9][^\s,|=<>!~]*|\*)")


@dataclass(frozen=True)
class MatchSpec:
    """A conda dependency in the three-part form of ``index.json``.

    Attributes:
        name: of the package.
        version: the version constraint; empty for any.
        build: the build string; empty for any.
    """

    name: str
    version: str
    build: str

    @classmethod
    def parse(cls, text: str, where: str) -> MatchSpec:
        """Reads ``name [version [build]]``.

        Raises:
            ArtifactError: any other form (channels, brackets).
        """
        parts = text.split()
        if not 1 <= len(parts) <= 3 or not re.fullmatch(r"[a-z0-9_.-]+", parts[0]):
            raise ArtifactError(
                f"{text!r} is not a dependency this project writes",
                where=where,
                expected="name, version and build, separated by spaces",
            )
        return cls(*(parts + ["", ""])[:3])

    def __str__(self) -> str:
        return " ".join(part for part in (self.name, self.version, self.build) if part)


def pip_specifier(version: str, where: str) -> str:
    """The PEP 440 specifier of a conda version constraint: ``2.13.*`` is ``==2.13.*``.

    Raises:
        ArtifactError: alternatives (``|``) and whatever else pip cannot say.
    """
    specifiers = []
    for part in filter(None, version.split(",")):
        found = _PART.fullmatch(part)
        if not found:
            raise ArtifactError(
                f"pip has no form for the version {version!r}",
                where=where,
                expected="comparisons joined by commas",
            )
        operator, number = found["operator"] or "==", found["version"]
        if number == "*":
            continue
        if operator == "=":
            operator, number = "==", number.removesuffix(".*") + ".*"
        if operator not in ("==", "!="):
            number = number.removesuffix(".*")
        specifiers.append(f"{operator}{number}")
    try:
        # In the order written: a set has none of its own.
        return ",".join(str(SpecifierSet(specifier)) for specifier in specifiers)
    except InvalidSpecifier as error:
        raise ArtifactError(f"{version!r}: {error}", where=where) from error


def pip_requirement(spec: MatchSpec, where: str, also: Iterable[str] = ()) -> str | None:
    """The ``Requires-Dist`` of a conda dependency, or None where pip needs none.

    Args:
        spec: the dependency.
        where: the package, for messages.
        also: names that the caller handles itself.

    Raises:
        ArtifactError: a dependency that nobody has said a pip name for.
    """
    if spec.name in SYSTEM or spec.name in also:
        return None
    name = PIP_NAMES.get(spec.name)
    if name is None:
        raise ArtifactError(
            f"depends on {str(spec)!r}, which has no known name on PyPI",
            where=where,
            fix="add it to PIP_NAMES (or SYSTEM) in scripts/conda_bridge/bridge/dependencies.py",
        )
    if spec.build and spec.build not in _OF_EITHER_KIND.get(name, ()):
        raise ArtifactError(
            f"depends on the build {spec.build!r} of {spec.name}; pip knows no builds",
            where=where,
            expected=f"{spec.name} {spec.version}",
        )
    return f"{name}{pip_specifier(spec.version, where)}"
