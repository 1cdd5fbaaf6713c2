"""What ``verify`` found, as data: checks that passed, findings, warnings, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import BridgeError
from ..formats import limits
from ..printable import printable, shortened

__all__ = ["SCHEMA_VERSION", "ArtifactReport", "Finding", "Report"]

# Raised whenever a key of `Report.as_dict` changes its meaning or goes away.
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: the name of the check that it failed.
        artifact: the file name of the wheel or package.
        member: the file in it, or the field, where that is known.
        what: what was found.
        expected: what would have been right.
        warning: right by the rules, but worth a look; does not count as a finding.
    """

    check: str
    artifact: str
    what: str
    member: str = ""
    expected: str = ""
    warning: bool = False

    def __str__(self) -> str:
        where = f"{self.artifact}: {self.member}" if self.member else self.artifact
        text = f"{self.check}: {where}: {self.what}"
        return printable(f"{text} (expected: {self.expected})" if self.expected else text)

    def as_dict(self) -> dict[str, str]:
        """The same facts for ``--json``."""
        return {
            "check": self.check,
            "artifact": self.artifact,
            "member": self.member,
            "what": self.what,
            "expected": self.expected,
        }


@dataclass
class ArtifactReport:
    """One wheel or conda package, or (kind ``pair``) a wheel and the packages of its label.

    Attributes:
        artifact: the file name.
        kind: what it is.
        label: which build it is, and the public version.
        checks: the names of the checks that ran, in order.
        findings: what is wrong, and warnings.
        facts: what was measured, for people and machines.
        error: why it could not be read at all.
    """

    artifact: str
    kind: Literal["wheel", "conda", "pair", "unknown"]
    label: str = ""
    checks: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    error: BridgeError | None = None

    def __post_init__(self) -> None:
        self._seen = set(self.findings)

    def ran(self, name: str) -> None:
        """Notes that a check ran."""
        if name not in self.checks:
            self.checks.append(name)

    def add(
        self, check: str, what: str, *, member: str = "", expected: str = "", warning: bool = False
    ) -> None:
        """Notes what a check found, once: a project's own check may see what everybody's saw."""
        self.ran(check)
        short = shortened(what), shortened(member), shortened(expected)
        finding = Finding(check, self.artifact, *short, warning)
        if finding in self._seen:
            return
        if len(self.findings) < limits.FINDINGS:
            self._seen.add(finding)
            self.findings.append(finding)
            return
        # A file can be made to have millions. Each check that has one more still fails.
        more = Finding(check, self.artifact, "more findings, which are not listed", warning=warning)
        if more not in self._seen:
            self._seen.add(more)
            self.findings.append(more)

    @property
    def failed(self) -> frozenset[str]:
        """The names of the checks with a finding."""
        return frozenset(finding.check for finding in self.findings if not finding.warning)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "artifact": self.artifact,
            "kind": self.kind,
            "label": self.label,
            "checks": [{"name": name, "passed": name not in self.failed} for name in self.checks],
            "findings": [found.as_dict() for found in self.findings if not found.warning],
            "warnings": [found.as_dict() for found in self.findings if found.warning],
            "facts": self.facts,
            "error": self.error.as_dict() if self.error else None,
        }


@dataclass(frozen=True)
class Report:
    """Everything one run of ``verify`` proved or found."""

    artifacts: tuple[ArtifactReport, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is wrong."""
        return tuple(f for report in self.artifacts for f in report.findings if not f.warning)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """All that is worth a look."""
        return tuple(f for report in self.artifacts for f in report.findings if f.warning)

    @property
    def errors(self) -> tuple[BridgeError, ...]:
        """Why inputs could not be read."""
        return tuple(report.error for report in self.artifacts if report.error)

    @property
    def passed(self) -> int:
        """How many checks ran without a finding."""
        return sum(len(report.checks) - len(report.failed) for report in self.artifacts)

    @property
    def archs(self) -> list[str]:
        """The GPU code in all of them, e.g. ``["compute_80", "sm_80", "sm_90a"]``."""
        return sorted({code for report in self.artifacts for code in report.facts.get("archs", ())})

    @property
    def exit_code(self) -> int:
        """0 nothing found, 1 a finding, 2 an input that cannot be read."""
        if self.errors:
            return 2
        return 1 if self.findings else 0

    def as_dict(self) -> Mapping[str, Any]:
        """For ``--json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "exit_code": self.exit_code,
            "passed": self.passed,
            "findings": len(self.findings),
            "warnings": len(self.warnings),
            "artifacts": [report.as_dict() for report in self.artifacts],
        }
