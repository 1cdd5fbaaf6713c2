"""What conda has to be asked for where pip is asked for a version: the same versions, both ways.

PEP 440 and conda order versions alike but where a release has letters behind it. conda inserts a
zero before a letter that follows a dot, so ``2.0rc1`` is older than ``2.0.rc1``, and that is the
same as ``2.0.0rc1``; every pre-release has a place of its own by how many zeros its release is
written with, and how it is written is up to whoever made the package (conda-forge has ``2.0.0rc1``,
this program ``2.0.0.rc1``). A bound is stated for each of the places, so that a version is accepted
in every spelling or in none.

PEP 440 on top of that leaves the pre-releases of ``2.0`` out of ``<2.0``, and the post-releases of
``1.0`` out of ``>1.0``. What conda has no words for is a local version (``==1.0+cpu``): it is a
matter of pip's builds, and left out. Only a post-release has to be written with as many numbers as
the bound it is compared with: to conda, ``1.post1`` is newer than ``1.0.5``.
"""

from __future__ import annotations

from itertools import product

from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from ..errors import ArtifactError

__all__ = ["constraint"]

# Comparisons that all have to hold; of several such, one.
_All = tuple[str, ...]
_MAX_ALTERNATIVES = 64
_MAX_NUMBER = 10**18  # conda's tools keep a version's numbers in 64 bits


def constraint(specifiers: SpecifierSet, where: str = "", numbers: int = 0) -> str:
    """The conda constraint of version specifiers; empty for any version.

    Args:
        specifiers: PEP 440's.
        where: the wheel, for messages.
        numbers: how many every version of the project is written with, where that is known, as it
            is of Python's: three, and no post-release. 0 for a project that nothing is known of.

    >>> constraint(SpecifierSet("~=1.4.2"))
    '>=1.4.2,<1.5dev0'
    >>> constraint(SpecifierSet("==2.8.*"))
    '2.8.*'
    >>> constraint(SpecifierSet("<2"))
    '<2dev0'
    >>> constraint(SpecifierSet(">2.7,!=3.0.*"), numbers=3)
    '>2.7,!=3.0.*'

    Raises:
        ArtifactError: one that has no such form.
    """
    alternatives: list[_All] = [()]
    # In one order: a set has none of its own. Lower bounds first, as people write them.
    for item in sorted(specifiers, key=lambda one: ("><~=!".index(one.operator[0]), str(one))):
        found = _of(item, where, numbers)
        alternatives = [(*one, *other) for one, other in product(alternatives, found)]
        if len(alternatives) > _MAX_ALTERNATIVES:
            raise ArtifactError(
                f"the version {str(specifiers)!r} is more than conda can be told", where=where
            )
    # What is said twice means nothing more.
    return "|".join(dict.fromkeys(",".join(dict.fromkeys(one)) for one in alternatives))


def _of(item: Specifier, where: str, numbers: int) -> list[_All]:
    operator, text = item.operator, item.version
    if operator == "===":
        operator = "=="
    try:
        version = Version(text.removesuffix(".*"))
        if max(version.epoch, *version.release, *_numbers_behind(version)) >= _MAX_NUMBER:
            raise InvalidVersion
    except InvalidVersion:
        raise ArtifactError(
            f"{item} is not a version that conda reads",
            where=where,
            expected="a version as in PEP 440, with numbers of up to 18 digits",
        ) from None
    if text.endswith(".*"):
        return _prefix(operator, version, numbers)
    if version.local is not None:
        if operator == "!=":
            return [()]  # conda's builds are none of pip's
        version = Version(version.public)
    if operator == "~=":
        return [
            (*one, _below(version.release[:-1], version))
            for one in _compared(">=", version, numbers)
        ]
    return _compared(operator, version, numbers)


def _numbers_behind(version: Version) -> tuple[int, ...]:
    """Those of a pre-, post- and development release."""
    return (version.pre[1] if version.pre else 0, version.post or 0, version.dev or 0)


def _compared(operator: str, version: Version, numbers: int) -> list[_All]:
    if _before_final(version):
        return _in_places(operator, version, numbers)
    text = version.public
    if operator == "<":
        if version.is_postrelease:
            return [(f"<{text}" if version.is_devrelease else f"<{text}.dev0",)]
        return [(f"<{_first(_stripped(version.release), version)}",)]
    if operator == ">" and not version.is_postrelease and not numbers:
        # No post-release of the same; its release may be written with zeros.
        posts = [_written(release, version, ".post.*") for release in _lengths(version)]
        return [(f">{text}", *(f"!={post}" for post in posts))]
    return [(f"{operator}{text}",)]


def _prefix(operator: str, version: Version, numbers: int) -> list[_All]:
    """``==1.2.*`` and ``!=1.2.*``."""
    release = version.release
    if version.public != _written(release, version, ""):
        raise ArtifactError(f"{operator}{version}.* names a pre-release and all of it")
    if len(release) == 1 or release[-1] or len(release) <= numbers:
        glob = f"{version.public}.*"
        return [(glob if operator == "==" else f"!={glob}",)]
    # 1.0.* holds 1 as well, which does not begin so.
    first, next_one = _first(_stripped(release), version), _below(release, version)
    if operator == "==":
        return [(f">={first}", next_one)]
    return [(f"<{first}",), (next_one.replace("<", ">="),)]


def _in_places(operator: str, version: Version, numbers: int) -> list[_All]:
    """A comparison with a pre-release, in each place that it may have in conda's order."""
    suffix = version.public[len(_written(version.release, version, "")) :].lstrip(".")
    lengths = _lengths(version, 1, numbers)
    places = [_written(release, version, suffix) for release in lengths]
    starts = [_first(release, version) for release in lengths]
    if operator == "==":
        return [(f"=={place}",) for place in places]
    if operator == "!=":
        return [tuple(f"!={place}" for place in places)]
    if operator in (">", ">="):
        ends = [(f"<{start}",) for start in starts[1:]]
        return [
            (f"{operator}{place}", *end) for place, end in zip(places, [*ends, ()], strict=True)
        ]
    found: list[_All] = [(f"{operator}{places[0]}",)]
    if not (operator == "<" and suffix == "dev0"):
        found += [
            (f">={start}", f"{operator}{place}")
            for start, place in zip(starts[1:], places[1:], strict=True)
        ]
    return found


def _before_final(version: Version) -> bool:
    return version.pre is not None or (version.is_devrelease and not version.is_postrelease)


def _stripped(release: tuple[int, ...]) -> tuple[int, ...]:
    end = len(release)
    while end > 1 and not release[end - 1]:
        end -= 1
    return release[:end]


def _lengths(version: Version, more: int = 0, numbers: int = 0) -> list[tuple[int, ...]]:
    """The release with no zeros at its end, and with one more each time up to three numbers.

    Args:
        version: of which.
        more: further zeros.
        numbers: the one length that versions have; 0 where they may have any.
    """
    shortest = _stripped(version.release)
    if numbers:
        return [(*shortest, *[0] * (numbers - len(shortest)))]
    longest = max(len(version.release), 3) + more
    return [
        (*shortest, *[0] * (length - len(shortest))) for length in range(len(shortest), longest + 1)
    ]


def _written(release: tuple[int, ...], version: Version, suffix: str) -> str:
    epoch = f"{version.epoch}!" if version.epoch else ""
    return epoch + ".".join(map(str, release)) + suffix


def _first(release: tuple[int, ...], version: Version) -> str:
    """What is older than everything that is called by this release."""
    return _written(release, version, "dev0")


def _below(release: tuple[int, ...], version: Version) -> str:
    """Below the next release of as many numbers, and below its pre-releases."""
    return f"<{_first((*release[:-1], release[-1] + 1), version)}"
