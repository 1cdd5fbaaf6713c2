"""Which manylinux policy shared objects reach, and what keeps them from an older one.

The policies are auditwheel's own: for each, the symbol versions and the libraries that every Linux
of that age has. Its analysis is not used. It looks for each needed library on the disk it runs on,
and torch's are not there; the wheel requires torch, and torch brings them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ..artifact import LIBRARY_NAME
from ..errors import ConfigError, LabelMismatch
from ..formats.elf import SharedObject

__all__ = [
    "LINUX",
    "TORCH_LIBRARY",
    "Obstacle",
    "Policy",
    "choose_tag",
    "lowest",
    "obstacles",
    "policies",
    "policy_of",
]

LINUX = "linux_x86_64"
# Loaded from the torch that the wheel requires, before or with the binding.
TORCH_LIBRARY = re.compile(r"^lib(torch(_cpu|_cuda)?|c10(_cuda)?)\.so$")
_LOADER = "ld-linux-x86-64.so.2"  # names the platform itself; auditwheel leaves it out as well


@dataclass(frozen=True)
class Policy:
    """A manylinux policy for x86-64.

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


@cache
def policies() -> tuple[Policy, ...]:
    """All policies, the one for the oldest systems first."""
    # Only here: verify and the bridge start without it.
    from auditwheel.architecture import Architecture
    from auditwheel.libc import Libc
    from auditwheel.policy import WheelPolicies

    found = WheelPolicies(libc=Libc.GLIBC, arch=Architecture.x86_64)
    return tuple(
        Policy(
            tag=str(item.name),
            aliases=tuple(item.aliases),
            versions=dict(item.symbol_versions),
            libraries=frozenset(item.whitelist),
            withheld=dict(item.blacklist),
        )
        for item in sorted(found, key=lambda item: -item.priority)
        if item.name != LINUX
    )


def policy_of(tag: str) -> Policy:
    """The policy with this name or alias.

    Raises:
        ConfigError: there is none.
    """
    for policy in policies():
        if tag == policy.tag or tag in policy.aliases:
            return policy
    raise ConfigError(
        f"{tag!r} is no platform tag that can be proved",
        where="platform tag",
        expected=", ".join(("auto", LINUX, *(policy.tag for policy in policies()))),
    )


def obstacles(policy: Policy, libraries: Sequence[SharedObject]) -> tuple[Obstacle, ...]:
    """What `libraries` need and `policy` does not have, file by file; nothing where they fit."""
    found: list[Obstacle] = []
    for library in libraries:
        where = library.name.partition(": ")[2] or library.name
        for name in library.needed:
            provided = name in (LIBRARY_NAME, _LOADER) or TORCH_LIBRARY.match(name)
            if not provided and name not in policy.libraries:
                found.append(Obstacle(where, name, "only libraries that every such Linux has"))
        for provider, versions in library.required_versions.items():
            for version in versions:
                family, _, number = version.partition("_")
                if number not in policy.versions.get(family, frozenset({number})):
                    expected = f"{family}_{policy.newest(family)} at most"
                    found.append(Obstacle(where, _user(library, provider, version), expected))
        found += [
            Obstacle(where, f"{symbol.name} of {name}", "another function")
            for name in library.needed
            for symbol in library.undefined
            if symbol.name in policy.withheld.get(name, ())
        ]
    return tuple(found)


def _user(library: SharedObject, provider: str, version: str) -> str:
    """A symbol that asks for `version`, as ``pthread_create@GLIBC_2.34``."""
    names = sorted(
        symbol.name
        for symbol in library.undefined
        if symbol.version == version and symbol.library in ("", provider)
    )
    return f"{names[0]}@{version}" if names else f"{version} of {provider}"


def lowest(libraries: Sequence[SharedObject]) -> Policy | None:
    """The policy for the oldest systems that `libraries` fit; None where they fit none."""
    return next((policy for policy in policies() if not obstacles(policy, libraries)), None)


def choose_tag(wanted: str, libraries: Sequence[SharedObject]) -> str:
    """The platform tag for a wheel of `libraries`.

    Args:
        wanted: ``linux_x86_64``, a policy's tag, or ``auto`` for the lowest policy that is true;
            where none is, that is ``linux_x86_64``.
        libraries: every shared object in the wheel.

    Raises:
        ConfigError: there is no such policy.
        LabelMismatch: the libraries do not reach it.
    """
    if wanted == LINUX:
        return wanted
    if wanted == "auto":
        reached = lowest(libraries)
        return reached.tag if reached else LINUX
    policy = policy_of(wanted)
    in_the_way = obstacles(policy, libraries)
    if in_the_way:
        first = in_the_way[0]
        more = f", and {len(in_the_way) - 1} more" if len(in_the_way) > 1 else ""
        reached = lowest(libraries)
        raise LabelMismatch(
            f"needs {first.what}{more}, which {wanted} does not have",
            where=first.file,
            expected=first.expected,
            fix=f"ask for {reached.tag if reached else LINUX}, which is true, "
            "or build with an older sysroot",
        )
    return policy.tag
