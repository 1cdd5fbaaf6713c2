"""A release is what was tried as a nightly: of the same commit, in the same variants.

A nightly's files cannot become a release's: their version is in their names, in METADATA and in the
libraries. So the release is built from the commit of the nightly, and what the two have to share is
checked before it is published.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.version import InvalidVersion, Version

from ..errors import ConfigError, ConflictError
from ..project import Project
from .record import Published, Record
from .release_checks import Named, named

__all__ = ["check_promotion"]


def check_promotion(
    nightly: str, files: Sequence[str], commit: str, record: Record, project: Project
) -> None:
    """Refuses to publish a release as the promotion of a nightly that it is not of.

    Args:
        nightly: its public version.
        files: the names of the release's artifacts.
        commit: that the release was built from.
        record: of the store that has the nightly.
        project: whose they are.

    Raises:
        ConfigError: there is no such nightly, or no commit was given.
        ConflictError: it was yanked; or another commit, version or variants than the release.
    """
    there = [item for item in record.files.values() if _is_of(item, nightly)]
    if not there:
        raise ConfigError(
            f"no nightly {nightly} is published there",
            where=record.store.name,
            expected=", ".join(_nightlies(record)[-5:]) or "a nightly that was published before",
        )
    yanked = [item for item in there if item.yanked is not None]
    if yanked:
        raise ConflictError(
            f"was yanked: {yanked[0].yanked}",
            where=yanked[0].file.name,
            fix="promote a nightly that has what is wrong mended",
        )
    commits = sorted({item.file.commit for item in there})
    if not commit:
        raise ConfigError(
            "it is not said which commit the release was built from",
            expected=f"--commit, with the whole name of {commits[0]}",
        )
    for other in commits:
        if not other or not commit.startswith(other):
            raise ConflictError(
                f"the release was built from {commit[:12]}, and the nightly from {other or '-'}",
                where=nightly,
                fix=f"tag the commit {other}, and build the release from there",
            )
    release = [named(name, project) for name in files]
    for item in release:
        version = Version(item.label.version)
        if version.is_devrelease or version.release != Version(nightly).release:
            raise ConflictError(
                f"has the version {version}",
                where=item.file,
                expected=f"a release of {Version(nightly).base_version}",
                fix="set the version to what the nightly was on the way to",
            )
    _check_variants([named(item.file.name, project) for item in there], release)


def _is_of(item: Published, nightly: str) -> bool:
    try:
        version = Version(nightly)
    except InvalidVersion:
        return False
    return version.is_devrelease and Version(item.file.version) == version and not item.pruned


def _nightlies(record: Record) -> list[str]:
    versions = {Version(item.file.version) for item in record.files.values() if not item.pruned}
    return [str(version) for version in sorted(versions) if version.is_devrelease]


def _check_variants(nightly: Sequence[Named], release: Sequence[Named]) -> None:
    one = {item.variant: item.file for item in nightly}
    other = {item.variant: item.file for item in release}
    for variant, file in one.items():
        if variant not in other:
            raise ConflictError(
                "is in the nightly, and its variant is not in the release",
                where=file,
                fix="build the release for that variant too",
            )
    for variant, file in other.items():
        if variant not in one:
            raise ConflictError(
                "is in the release, and its variant was not in the nightly",
                where=file,
                fix="publish a nightly of that commit with that variant first, and try it",
            )
