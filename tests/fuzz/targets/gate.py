"""The release gate as a whole: whatever is in an artifact, it ends with a report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import factories
import toy_artifacts as toy

from conda_bridge.project import Project
from conda_bridge.verify.gate import as_lines, verify

from ..mutators import conda, zip
from ..mutators.chance import Chance
from ..mutators.elf import elf
from ..mutators.text import lines
from ..target import Target
from ._places import from_file, made
from .archives import PACKAGE, WHEEL, conda_seeds, of_wheel, wheel_seeds
from .binaries import SMALL

__all__ = ["TARGETS"]

_STRANGER = Project()


def judge(path: Path, project: Project = _STRANGER) -> None:
    """The verdict on an artifact; an error in it is raised."""
    report = verify([path], project=project)
    assert report.exit_code in (0, 1, 2)
    json.dumps(report.as_dict())
    as_lines(report)
    for error in report.errors:
        raise error


def _own_seeds() -> Iterable[bytes]:
    """A wheel of this project, with libraries as small as a linker makes them."""
    library, binding = toy.library(flags=SMALL), toy.binding(flags=SMALL)
    yield made(
        "own", lambda folder: toy.write_wheel(folder, _LABEL, library=library, binding=binding)
    )


def _of_own(name: str, data: bytes, chance: Chance) -> bytes:
    """What is in such a wheel, each file by its own format."""
    if name.endswith(".so"):
        return elf(data, chance)
    return _LINES(data, chance) if name.endswith(".py") else of_wheel(name, data, chance)


_LINES = lines()
_LABEL = factories.label_of()
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
        "verify-own",
        from_file(_LABEL.wheel_file, lambda path: judge(path, factories.FLASHINFER)),
        ("flashinfer_build.checks.artifacts", "flashinfer_build.checks.build_info"),
        _own_seeds,
        zip.archive(_of_own),
        ("VERSION = ", "TORCH = ", "CXX11_ABI = ", "b''", "component=", "libtorch_cpu.so"),
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
