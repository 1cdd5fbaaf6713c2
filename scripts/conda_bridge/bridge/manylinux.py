"""Which manylinux policy shared objects reach, and what keeps them from an older one.

The policies are auditwheel's own: for each, the symbol versions and the libraries that every Linux
of that age has. Its analysis is not used. It looks for each needed library on the disk it runs on,
and those that another wheel brings are not there.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from ..errors import ConfigError, LabelMismatch

if TYPE_CHECKING:  # it takes its time to import
    from ..formats.elf import SharedObject

__all__ = [
    "ARCHITECTURES",
    "LINUX",
    "Obstacle",
    "Policy",
    "architecture",
    "choose_tag",
    "is_name",
    "is_plain",
    "lowest",
    "obstacles",
    "policies",
    "policy_of",
    "strangers",
]

LINUX = "linux_x86_64"
# The machine that an ELF file names -> the processor's name in platform tags.
ARCHITECTURES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_PPC64": "ppc64le",
    "EM_S390": "s390x",
    "EM_RISCV": "riscv64",
}
# Loaders name the platform itself; auditwheel leaves them out as well.
_PATTERN = re.compile(r"[*?\[]")
_LOADER = re.compile(r"ld(-linux-[a-z0-9-]+|64)\.so\.[0-9]+")


@dataclass(frozen=True)
class Policy:
    """A manylinux policy.

    Attributes:
        tag: e.g. ``manylinux_2_28_x86_64``.
        aliases: older names of the same, e.g. ``manylinux2014_x86_64``.
        versions: the symbol versions it has, by family: ``GLIBC`` -> ``{"2.2.5", ...}``.
        libraries: the libraries it has.
        withheld: symbols that must not be used all the same, by library.
    """

    tag: str
    aliases: tuple[str, ...]
    versions: Mapping[str, frozenset[str]]
    libraries: frozenset[str]
    withheld: Mapping[str, frozenset[str]]

    def newest(self, family: str) -> str:
        """The newest version of a family, e.g. ``2.28`` of ``GLIBC``; empty where it has none."""
        numbers = [v for v in self.versions.get(family, ()) if re.fullmatch(r"[\d.]+", v)]
        return max(numbers, key=_number, default="")


@dataclass(frozen=True)
class Obstacle:
    """Why a file does not fit a policy.

    Attributes:
        file: the shared object.
        what: e.g. ``exp@GLIBC_2.29`` or ``libgomp.so.1``.
        expected: what the policy has instead.
    """

    file: str
    what: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file} needs {self.what}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def architecture(libraries: Sequence[SharedObject]) -> str:
    """The processor that `libraries` are for, as platform tags name it; x86_64 where none says."""
    return next((ARCHITECTURES.get(item.machine, "") for item in libraries), "x86_64")


def is_plain(tag: str) -> bool:
    """Whether a platform tag promises nothing of the system but its processor."""
    return tag.startswith("linux_")


@cache
def policies(arch: str = "x86_64") -> tuple[Policy, ...]:
    """All policies for a processor, that for the oldest systems first; none for a strange one."""
    # Only here: verify and the bridge start without it.
    from auditwheel.architecture import Architecture
    from auditwheel.libc import Libc
    from auditwheel.policy import WheelPolicies

    if arch not in {item.value for item in Architecture}:
        return ()
    found = WheelPolicies(libc=Libc.GLIBC, arch=Architecture(arch))
    return tuple(
        Policy(
            tag=str(item.name),
            aliases=tuple(item.aliases),
            versions=dict(item.symbol_versions),
            libraries=frozenset(item.whitelist),
            withheld=dict(item.blacklist),
        )
        for item in sorted(found, key=lambda item: -item.priority)
        if not is_plain(str(item.name))
    )


def policy_of(tag: str, arch: str = "x86_64") -> Policy:
    """The policy with this name or alias.

    Raises:
        ConfigError: there is none.
    """
    for policy in policies(arch):
        if tag == policy.tag or tag in policy.aliases:
            return policy
    raise ConfigError(
        f"{tag!r} is no platform tag that can be proved",
        where="platform tag",
        expected=", ".join(("auto", f"linux_{arch}", *(item.tag for item in policies(arch)))),
    )


def is_name(text: str) -> bool:
    """Whether a library's name is meant by `text` as it is, and no pattern for several."""
    return not _PATTERN.search(text)


@lru_cache(maxsize=16)
def _patterns(provided: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(text for text in provided if not is_name(text)))


def strangers(
    policy: Policy | None, library: SharedObject, provided: Collection[str] = ()
) -> tuple[str, ...]:
    """The libraries that `library` needs and nobody promises.

    Args:
        policy: the libraries of it are there; None for no policy.
        library: a shared object.
        provided: names and patterns of libraries that are in the wheel or come with what it
            requires.
    """
    names = frozenset(provided)
    patterns = _patterns(names)
    return tuple(
        name
        for name in library.needed
        if not _LOADER.fullmatch(name)
        and (policy is None or name not in policy.libraries)
        and name not in names
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    )


def obstacles(
    policy: Policy, libraries: Sequence[SharedObject], provided: Collection[str] = ()
) -> tuple[Obstacle, ...]:
    """What `libraries` need and `policy` does not have, file by file; nothing where they fit.

    Args:
        policy: that is asked for.
        libraries: every shared object in the wheel.
        provided: names and patterns of libraries that are in the wheel or come with what it
            requires.
    """
    found: list[Obstacle] = []
    for library in libraries:
        where = library.name.partition(": ")[2] or library.name
        found += [
            Obstacle(where, name, "only libraries that every such Linux has")
            for name in strangers(policy, library, provided)
        ]
        newer = [
            (provider, version, family)
            for provider, versions in library.required_versions.items()
            for version in versions
            for family, _, number in (version.partition("_"),)
            if number not in policy.versions.get(family, frozenset({number}))
        ]
        users = _users(library) if newer else {}
        for provider, version, family in newer:
            named = [users[key] for key in ((version, provider), (version, "")) if key in users]
            what = f"{min(named)}@{version}" if named else f"{version} of {provider}"
            found.append(Obstacle(where, what, f"{family}_{policy.newest(family)} at most"))
        found += _withheld(policy, library, where)
    return tuple(found)


def _users(library: SharedObject) -> dict[tuple[str, str], str]:
    """(version, library that has it) -> the first symbol that asks for it, by name."""
    found: dict[tuple[str, str], str] = {}
    for symbol in library.undefined:
        key = symbol.version, symbol.library
        found[key] = min(found.get(key, symbol.name), symbol.name)
    return found


def _withheld(policy: Policy, library: SharedObject, where: str) -> list[Obstacle]:
    """The symbols that must not be used of libraries that every such Linux has."""
    of_library: dict[str, list[str]] = {}
    for name in dict.fromkeys(library.needed):
        for symbol in policy.withheld.get(name, ()):
            of_library.setdefault(symbol, []).append(name)
    if not of_library:
        return []
    return [
        Obstacle(where, f"{symbol.name} of {name}", "another function")
        for symbol in library.undefined
        if not symbol.weak
        for name in of_library.get(symbol.name, ())
    ]


def lowest(libraries: Sequence[SharedObject], provided: Collection[str] = ()) -> Policy | None:
    """The policy for the oldest systems that `libraries` fit; None where they fit none."""
    return next(
        (
            policy
            for policy in policies(architecture(libraries))
            if not obstacles(policy, libraries, provided)
        ),
        None,
    )


def choose_tag(
    wanted: str, libraries: Sequence[SharedObject], provided: Collection[str] = (), arch: str = ""
) -> str:
    """The platform tag for a wheel of `libraries`.

    Args:
        wanted: ``linux_x86_64``, a policy's tag, or ``auto`` for the lowest policy that is true;
            where none is, that is ``linux_x86_64`` (or another processor's).
        libraries: every shared object in the wheel.
        provided: names and patterns of libraries that are in the wheel or come with what it
            requires.
        arch: the processor; empty for that of `libraries`.

    Raises:
        ConfigError: there is no such policy.
        LabelMismatch: the libraries do not reach it.
    """
    arch = arch or architecture(libraries)
    plain = f"linux_{arch}"
    if wanted == plain:
        return wanted
    if wanted == "auto":
        reached = lowest(libraries, provided)
        return reached.tag if reached else plain
    policy = policy_of(wanted, arch)
    in_the_way = obstacles(policy, libraries, provided)
    if in_the_way:
        first = in_the_way[0]
        more = f", and {len(in_the_way) - 1} more" if len(in_the_way) > 1 else ""
        reached = lowest(libraries, provided)
        raise LabelMismatch(
            f"needs {first.what}{more}, which {wanted} does not have",
            where=first.file,
            expected=first.expected,
            fix=f"ask for {reached.tag if reached else plain}, which is true, "
            "or build with an older sysroot",
        )
    return policy.tag
