"""The release gate as a whole: whatever is in an artifact, it ends with a report."""

from __future__ import annotations

import json
from pathlib import Path

from conda_bridge.project import Project
from conda_bridge.verify.gate import as_lines, verify

from ..mutators import conda, zip
from ..target import Target
from ._places import from_file
from .archives import PACKAGE, WHEEL, conda_seeds, of_wheel, wheel_seeds

__all__ = ["TARGETS"]


def judge(path: Path) -> None:
    """The verdict on an artifact; an error in it is raised."""
    report = verify([path], project=Project())
    assert report.exit_code in (0, 1, 2)
    json.dumps(report.as_dict())
    as_lines(report)
    for error in report.errors:
        raise error


_VERIFY = "conda_bridge.verify."
TARGETS = (
    Target(
        "verify-wheel",
        from_file(WHEEL, judge),
        (_VERIFY + "wheel", _VERIFY + "gate:verify collect as_lines", _VERIFY + "names"),
        lambda: [wheel_seeds()["ours"]],
        zip.archive(of_wheel),
        ("Requires-Dist", "Requires-Python", "console_scripts", "Tag", "Root-Is-Purelib"),
    ),
    Target(
        "verify-conda",
        from_file(f"{PACKAGE}.conda", judge),
        (_VERIFY + "conda", _VERIFY + "gate:verify collect as_lines", _VERIFY + "requirements"),
        conda_seeds,
        conda.package,
        ("depends", "constrains", "noarch", "subdir", "python >=3.8", "build_number", "license"),
    ),
)
