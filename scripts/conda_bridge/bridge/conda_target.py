"""Which conda a wheel is for: its subdir, its Python, and where files go in the prefix.

A wheel's tag says for which Python, ABI and platform it is; conda says the same by the subdir, by
``noarch: python`` and by dependencies:

========================  ================  ===================================================
tag                       package           requires
========================  ================  ===================================================
``py3-none-any``          noarch: python    ``python >=3.x``
``py3-none-linux_...``    noarch: python,   the same; it is for one platform only
                          in a subdir
``cp38-abi3-linux_...``   noarch: python,   ``python >=3.8``, ``_python_abi3_support 1.*`` and
                          in a subdir       ``cpython >=3.8`` (CEP 20)
``cp312-cp312-linux_...`` for one Python    ``python >=3.12,<3.13.0a0``, ``python_abi 3.12.*``
========================  ================  ===================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ..errors import ArtifactError
from ..formats import foreign
from .conda_constraint import constraint

__all__ = ["MACHINES", "Target", "target"]

# The machine of a platform tag, of an ELF header and of a marker, by subdir.
SUBDIRS = {"x86_64": "linux-64", "aarch64": "linux-aarch64", "ppc64le": "linux-ppc64le"}
MACHINES = {subdir: machine for machine, subdir in SUBDIRS.items()}
_LINUX = re.compile(r"(?:linux|manylinux(?:1|2010|2014|_\d+_\d+))_(?P<machine>[a-z0-9_]+)")
_PYTHON = re.compile(r"(?P<kind>py|cp)3(?P<minor>\d*)")
_ABI = re.compile(r"cp3(?P<minor>\d+)(?P<flags>[a-z]*)")
_OTHER_SYSTEMS = {"macosx": "macOS", "win": "Windows", "musllinux": "a Linux with musl"}
# Pythons that a package for every Python is looked at with: those there are, and some to come.
NEWEST = 20


@dataclass(frozen=True)
class Target:
    """What a wheel's package is for.

    Attributes:
        subdir: of the channel: ``noarch``, ``linux-64``, ``linux-aarch64``...
        python: the one minor of Python 3 that it is for; None for every one.
        abi: of that Python, such as ``cp312``; empty where nothing is compiled for it.
        stable_abi: whether it needs CPython's stable ABI.
        minors: of Python 3 that it can be installed in.
        depends: what it requires of Python.
    """

    subdir: str
    python: int | None
    abi: str
    stable_abi: bool
    minors: tuple[int, ...]
    depends: tuple[str, ...]

    @property
    def noarch(self) -> bool:
        """Whether it is ``noarch: python``: conda puts its files where each Python wants them."""
        return self.python is None

    @property
    def site(self) -> str:
        """The folder of modules in the package, with a slash at its end."""
        if self.python is None:
            return "site-packages/"
        free_threaded = "t" if self.abi.endswith("t") else ""
        return f"lib/python3.{self.python}{free_threaded}/site-packages/"

    @property
    def scripts(self) -> str:
        """The folder of programs in the package, with a slash at its end."""
        return "python-scripts/" if self.noarch else "bin/"

    @property
    def word(self) -> str:
        """How a build string names it: ``py312``, ``abi3`` or ``py``."""
        if self.python is not None:
            return f"py3{self.python}" + ("t" if self.abi.endswith("t") else "")
        return "abi3" if self.stable_abi else "py"


def target(tags: tuple[str, str, str], requires_python: str, where: str) -> Target:
    """The target of a wheel.

    Args:
        tags: python, ABI and platform tag of its file name; of each, several may be joined by dots.
        requires_python: of its METADATA; may be empty.
        where: the wheel, for messages.

    Raises:
        ArtifactError: a platform or a Python that conda on Linux does not have, or several at once.
    """
    python_tags, abis, platforms = (tag.split(".") for tag in tags)
    subdir = _subdir(platforms, where)
    kinds = [found for tag in python_tags if (found := _PYTHON.fullmatch(tag))]
    if not kinds:
        raise ArtifactError(
            f"is for {tags[0]}", where=where, expected="a wheel for Python 3 (py3, cp3x)"
        )
    wanted = _specifiers(requires_python, where)
    exact = [found for abi in abis if (found := _ABI.fullmatch(abi))]
    lowest = min(int(found["minor"] or 0) for found in kinds)
    generic = [found for found in kinds if found["kind"] == "py"]
    if "abi3" in abis and subdir == "noarch":
        raise ArtifactError(
            f"is for the ABI {tags[1]} and no platform",
            where=where,
            expected="the tag of a platform, or the ABI none",
        )
    if "abi3" in abis or generic:
        stable = "abi3" in abis
        if exact:
            raise ArtifactError(
                f"is for the ABIs {tags[1]}", where=where, expected="one ABI in a wheel"
            )
        minors = _minors(range(lowest, NEWEST + 1), wanted, where)
        oldest = f"3.{lowest}"
        if not lowest:  # py3 is for every Python 3, py2.py3 for older ones too
            oldest = "" if any(tag.startswith("py2") for tag in python_tags) else "3"
        bounds = _above(oldest, wanted)
        depends = [_python(bounds, where)]
        if stable:
            depends += [f"cpython >=3.{minors[0]}", "_python_abi3_support 1.*"]
        return Target(subdir, None, "", stable, minors, tuple(depends))
    only = {int(found["minor"] or 0) for found in (*exact, *kinds)}
    if len(only) != 1 or len(exact) > 1 or not all(only):
        raise ArtifactError(
            f"is for the Pythons {tags[0]} with the ABIs {tags[1]}",
            where=where,
            expected="a wheel for one Python, or for the stable ABI (abi3)",
        )
    [minor] = only
    _minors([minor], wanted, where)
    abi = exact[0][0] if exact else ""
    if not abi and "none" not in abis:
        raise ArtifactError(f"is for the ABI {tags[1]}", where=where, expected="cp3x, abi3 or none")
    if subdir == "noarch":
        bounds = SpecifierSet(f">=3.{minor},<3.{minor + 1}") & wanted
        return Target(subdir, None, "", False, (minor,), (_python(bounds, where),))
    depends = [f"python >=3.{minor},<3.{minor + 1}.0a0"]
    if not all(wanted.contains(f"3.{minor}.{patch}") for patch in range(60)):
        depends.append(_python(wanted, where))
    depends.append(f"python_abi 3.{minor}.* *_{abi or f'cp3{minor}'}")
    return Target(subdir, minor, abi or f"cp3{minor}", False, (minor,), tuple(depends))


def _subdir(platforms: Iterable[str], where: str) -> str:
    found = set()
    for platform in platforms:
        if platform == "any":
            found.add("noarch")
            continue
        linux = _LINUX.fullmatch(platform)
        subdir = SUBDIRS.get(linux["machine"]) if linux else None
        if subdir is None:
            system = next(
                (name for start, name in _OTHER_SYSTEMS.items() if platform.startswith(start)), ""
            )
            raise ArtifactError(
                f"is for {platform}" + (f", that is {system}" if system else ""),
                where=where,
                expected="a wheel for any platform, or for Linux with glibc on "
                + ", ".join(SUBDIRS),
            )
        found.add(subdir)
    if len(found) != 1:
        raise ArtifactError(
            f"is for {' and '.join(sorted(found))} at once", where=where, expected="one platform"
        )
    return found.pop()


def _specifiers(text: str, where: str) -> SpecifierSet:
    try:
        return foreign.specifiers(text)
    except foreign.Unreadable as error:
        raise ArtifactError(
            f"{text!r:.200} is no version specifier: {error}",
            where=f"{where}: Requires-Python",
            expected="comparisons as in PEP 440, such as >=3.9",
        ) from error


def _minors(candidates: Iterable[int], wanted: SpecifierSet, where: str) -> tuple[int, ...]:
    found = tuple(
        minor
        for minor in candidates
        if any(wanted.contains(f"3.{minor}.{patch}") for patch in (*range(30), 99))
    )
    if not found:
        raise ArtifactError(
            f"Requires-Python is {str(wanted)!r}",
            where=where,
            expected="a Python that its tag is for",
        )
    return found


def _above(oldest: str, wanted: SpecifierSet) -> SpecifierSet:
    """`wanted` from the Python `oldest` on, and nothing that is said by that already."""
    if not oldest:
        return wanted
    bound = Version(oldest)
    left = [
        item
        for item in wanted
        if not (item.operator in (">=", "!=") and Version(item.version.removesuffix(".*")) < bound)
    ]
    if any(item.operator == ">=" for item in left):
        return SpecifierSet(",".join(map(str, left)))
    return SpecifierSet(",".join([f">={oldest}", *map(str, left)]))


def _python(bounds: SpecifierSet, where: str) -> str:
    # Python's versions have three numbers, and there are no post-releases of them.
    return f"python {constraint(bounds, where, numbers=3)}".strip()
