"""SBOMs in a wheel's or package's ``.dist-info/sboms`` (PEP 770), anybody's: can they be read?"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ArtifactError
from ..formats import cyclonedx
from .findings import ArtifactReport

__all__ = ["PATTERN", "check_sboms"]

PATTERN = "*.dist-info/sboms/*"


def check_sboms(report: ArtifactReport, contents: Mapping[str, bytes]) -> None:
    """Adds a finding for every CycloneDX document that is none.

    Args:
        report: takes the check and its findings.
        contents: files by their path in the wheel; those in no ``sboms`` are left alone.
    """
    for path, text in sorted(contents.items()):
        if "/sboms/" not in path or not cyclonedx.is_cyclonedx(path):
            continue
        report.ran("sbom")
        try:
            cyclonedx.read(text, path)
        except ArtifactError as error:
            place = str(error.where or "").partition(": ")[2]
            what = f"{place}: {error.what}" if place else error.what
            report.add("sbom", what, member=path, expected=error.expected)
