"""The gate of a release: whole by the matrix, true by ``verify``, and fit to be published."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import ConfigError, LabelError
from conda_bridge.project import Project
from conda_bridge.publish import release_checks
from conda_bridge.publish.release_checks import DEFAULT_LIMIT, Line, Named
from conda_bridge.verify import gate
from conda_bridge.verify.findings import Report

from ..label import Label, Variant
from ..pipeline.pipeline import Pipeline
from .fan_out import check_tag
from .promises import Promise, check_promises, promised

__all__ = ["EVENTS", "Gate", "check", "check_folder"]

# What each event's artifacts are: nightlies, or not; a pull request's may be either.
EVENTS: Mapping[str, bool | None] = {"pull-request": None, "nightly": True, "release": False}
# The checks of verify that people ask a release for by name, as the report calls them.
_CLAIMS = {"abi3": "abi3", "floor": "manylinux"}
_BUILD_AGAIN = "mend the build and make it again; docs/verify.md says what the check proves"
_FIXES = {
    "abi3": "keep to the stable ABI of the tag's Python, or build with that tag's Py_LIMITED_API",
    "floor": "build with an older --glibc, or let --platform-tag auto find the tag that is true",
    "licences": "name the licence and its files in the recipe and in pyproject.toml",
    "label": "build it again; names are composed by scripts/label.py alone",
    "name": "build it again: an artifact must not be renamed",
    "payload": "make the wheel again from the packages: python scripts/bridge.py",
}


@dataclass(frozen=True)
class Gate:
    """What the gate found.

    Attributes:
        event: whose release it is.
        version: of the release; empty where no name says one.
        lines: of the report.
        unreadable: whether an artifact could not be read at all.
    """

    event: str
    version: str
    lines: tuple[Line, ...]
    unreadable: bool

    @property
    def refused(self) -> list[Line]:
        """The lines that something is to be done about."""
        return [line for line in self.lines if not line.passed]

    @property
    def exit_code(self) -> int:
        """0 it may be published, 1 it may not, 2 something in it cannot be read."""
        if self.unreadable:
            return 2
        return 1 if self.refused else 0

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "schema": 1,
            "event": self.event,
            "version": self.version,
            "exit_code": self.exit_code,
            "refused": len(self.refused),
            "lines": [line.as_dict() for line in self.lines],
        }


def check_folder(
    folder: Path,
    pipeline: Pipeline,
    project: Project,
    event: str,
    *,
    published: Mapping[str, Iterable[str]],
    limit: int = DEFAULT_LIMIT,
    environ: Mapping[str, str] = os.environ,
) -> Gate:
    """The gate of an event.

    Args:
        folder: with the release's packages and wheels.
        pipeline: of the checkout, which has the matrix.
        project: whose release it is.
        event: one of :data:`EVENTS`.
        published: under which sha256 each name is published.
        limit: the bytes that one file may have.
        environ: with what GitHub says of the tag that started a release.

    Raises:
        ArtifactError: there is nothing in the folder.
        ConfigError: the matrix cannot be used.
    """
    made = check(
        gate.collect([folder]),
        promised(pipeline, event),
        project,
        event,
        published=published,
        limit=limit,
    )
    lines = list(made.lines)
    if made.version and event != "pull-request":
        lines += _check_source(made.version, event, environ)
    return Gate(event, made.version, tuple(lines), made.unreadable)


def check(
    paths: Sequence[Path],
    promises: Sequence[Promise],
    project: Project,
    event: str,
    *,
    published: Mapping[str, Iterable[str]],
    limit: int = DEFAULT_LIMIT,
) -> Gate:
    """The gate of these files; see :func:`check_folder`.

    Args:
        paths: packages and wheels.
        promises: the variants that there have to be.
        project, event, published, limit: as there.
    """
    report = gate.verify(paths, project=project)
    names = [path.name for path in paths]
    lines: list[Line] = []
    items, known = [], []
    for path in paths:
        try:
            items.append(release_checks.named(path.name, project))
        except LabelError as error:
            fix = error.fix or "build it again: an artifact must not be renamed"
            lines.append(Line("labels", path.name, error.what, False, fix))
    for name in published:
        try:
            known.append(release_checks.named(name, project))
        except LabelError:
            continue  # of before the labels were as they are; nothing is ordered against it
    lines += release_checks.check_agreement(items, nightly=EVENTS[event])
    version, number, commit = _usual(items)
    if version:
        lines += check_promises(
            promises, names, report, version=version, number=number, commit=commit
        )
    else:
        lines.append(
            Line("variants", "all", "no file has a name of this project", False, _BUILD_AGAIN)
        )
    lines += _verified(report)
    lines += release_checks.check_order(items, known)
    lines += release_checks.check_sizes(paths, limit)
    unlicensed = {line.about for line in lines if line.check == "licences"}
    unreadable = {item.artifact for item in report.artifacts if item.error}
    told = unlicensed | unreadable
    lines += release_checks.check_licences([path for path in paths if path.name not in told])
    lines += release_checks.check_unchanged(paths, published)
    return Gate(event, version, tuple(lines), bool(report.errors))


def _usual(items: Sequence[Named]) -> tuple[str, int, str | None]:
    """Version, build number and commit of most files."""
    if not items:
        return "", 0, None
    counts = Counter((item.label.version, item.label.number, item.commit) for item in items)
    [((version, number, commit), _)] = counts.most_common(1)
    return version, number, commit or None


def _verified(report: Report) -> list[Line]:
    """What ``verify`` found, a line a check of an artifact; one for all that passed."""
    lines = []
    for item in report.artifacts:
        if item.error is not None:
            fix = item.error.fix or "fetch or build it again"
            lines.append(Line("readable", item.artifact, item.error.what, False, fix))
        for name in item.checks:
            found = [one for one in item.findings if one.check == name and not one.warning]
            if not found:
                continue
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            lines.append(
                Line(
                    _CLAIMS.get(name, name),
                    item.artifact,
                    f"{_said(found[0].member, found[0].what, found[0].expected)}{more}",
                    False,
                    _FIXES.get(name, _BUILD_AGAIN),
                )
            )
    for check_name, shown in _CLAIMS.items():
        held = [item for item in report.artifacts if check_name in item.checks]
        if held and not any(check_name in item.failed for item in held):
            lines.append(Line(shown, f"{len(held)} files", "what they claim is true", True))
    if not report.findings and not report.errors:
        what = f"{report.passed} checks passed, {len(report.warnings)} warnings"
        lines.append(Line("verify", f"{len(report.artifacts)} reports", what, True))
    return lines


def _said(member: str, what: str, expected: str) -> str:
    text = f"{member}: {what}" if member else what
    return f"{text} (expected: {expected})" if expected else text


def _check_source(version: str, event: str, environ: Mapping[str, str]) -> list[Line]:
    """The version is that of ``version.txt``, and of the tag that a release was started by."""
    expected = Label.public_version_of(environ=environ)
    public, _, _ = version.partition(".dev") if event == "nightly" else (version, "", "")
    if public != expected:
        fix = "build it from this checkout, or check it with the one that it was built from"
        what = f"{version}, and version.txt says {expected}"
        return [Line("labels", "version.txt", what, False, fix)]
    if event == "release":
        try:
            check_tag(environ, Label(Variant.parse("cpu_torch213"), version))
        except ConfigError as error:
            return [Line("labels", "tag", error.what, False, error.fix)]
    return [Line("labels", "version.txt", expected, True)]
