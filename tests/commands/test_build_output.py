"""The last lines of a build: each takes what was just built, whatever else has the name."""

from __future__ import annotations

import contextlib
import io
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import factories
import pytest
from solver import Answer, Case, solve
from typed import HOSTILE, Elsewhere, by_program, install_lines

from conda_bridge.publish import index
from flashinfer_build import report
from flashinfer_build.pipeline.pipeline import BuildResult
from flashinfer_build.pipeline.stages import Outcome

CUDA = factories.label_of("cu130_torch213")
NIGHTLY = factories.label_of(
    "cpu_torch29", public_version="0.1.7rc1.dev20261122", commit="0123456", build_number=2
)
LIBRARY = factories.label_of("cu129_torch29")
PACKAGES_ALONE = factories.label_of("cu126_torch213", build_number=1)
LABELS = (CUDA, NIGHTLY, PACKAGES_ALONE)
DONE = Outcome("a/b", "b", "done", 1.0)


@dataclass(frozen=True)
class Built:
    """An output folder, the folder of the shell, what was printed there, and what is elsewhere."""

    folder: Path
    shell: Path
    lines: Sequence[str]
    elsewhere: Elsewhere


def write(folder: Path, dist: Path) -> dict[str, list[Path]]:
    """Publishes the labels' artifacts in `dist`; the files of each job, as a build has them."""
    files, artifacts = {}, []
    for label in LABELS:
        package = factories.write_pair(folder, label)
        artifacts += [package, folder / label.lib_conda_file]
        files[label.variant.id] = [
            dist / "channel" / "linux-64" / name
            for name in (label.conda_file, label.lib_conda_file)
        ]
        if label != PACKAGES_ALONE:
            wheel = factories.bridge(package, folder).path
            artifacts.append(wheel)
            page = dist / "index" / label.index_dir / "flashinfer" / "index.html"
            files[label.variant.id] += [dist / "wheels" / wheel.name, page]
    artifacts.append(factories.write_library(folder, LIBRARY))
    files[LIBRARY.variant.cuda_tag] = [dist / "channel" / "linux-64" / LIBRARY.lib_conda_file]
    # An earlier build of the same, and other variants, which the lines are not to take.
    for other in (
        factories.label_of("cpu_torch29", public_version="0.1.7rc1.dev20261122", commit="0123456"),
        factories.label_of("cu130_torch213", public_version="0.1.7"),
        factories.label_of("cu130_torch213", build_number=3),
        factories.label_of("cpu_torch213"),
    ):
        factories.write_pair(folder, other)
        artifacts += [folder / other.conda_file, folder / other.lib_conda_file]
    index.publish(artifacts, dist, project=factories.FLASHINFER)
    return files


# Where the output lies, seen from the folder of the shell, and how wide the terminal is.
@pytest.fixture(
    scope="module",
    params=[("shell", "dist", ""), ("a b", "dist", "1"), ("shell", "../$(a) quote'/di st", "")],
    ids=["here", "below a space", "elsewhere"],
)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    top: Path = tmp_path_factory.mktemp("built")
    shell, dist = top / request.param[0], (top / request.param[0] / request.param[1])
    shell.mkdir()
    dist.mkdir(parents=True)
    files = write(top / "made", dist)
    result = BuildResult(dist, False, {name: [DONE] for name in files}, files, {})
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(shell)
        if request.param[2]:
            patch.setenv("FORCE_COLOR", "1")  # as on a terminal
            patch.setenv("COLUMNS", "40")
        report.print_build(result)
    return Built(dist, shell, install_lines(printed.getvalue()), Elsewhere(top / "elsewhere"))


@pytest.fixture(scope="module")
def answers(built: Built) -> Mapping[str, Answer]:
    conda, _ = by_program(built.lines)
    cases = {line: built.elsewhere.case(line, built.shell, "13.0") for line in conda}
    channels = [(built.folder / "channel").as_uri(), built.elsewhere.channel]
    cases["bare"] = Case(channels, ["flashinfer"], priority=False)
    return solve(cases)


def test_there_is_a_line_for_each_thing_that_was_made(built: Built) -> None:
    conda, pip = by_program(built.lines)
    assert (len(conda), len(pip)) == (4, 2)
    here = "file://$PWD/dist/" in built.lines[0]
    assert here == (built.shell.name == "shell" and built.folder.parent == built.shell)


def test_conda_takes_the_package_that_was_built(
    built: Built, answers: Mapping[str, Answer]
) -> None:
    conda, _ = by_program(built.lines)
    for line, label in zip(conda, LABELS, strict=False):
        answer = answers[line]
        assert not answer.refusal
        assert answer["flashinfer"] == f"{label.conda_version} {label.conda_build}"
        assert answer["libflashinfer"] == f"{label.conda_version} {label.lib_conda_build}"
    answer = answers[conda[-1]]
    assert answer["libflashinfer"] == f"{LIBRARY.conda_version} {LIBRARY.lib_conda_build}"
    assert "flashinfer" not in answer


def test_without_a_version_conda_takes_another(answers: Mapping[str, Answer]) -> None:
    """What is elsewhere is hostile indeed."""
    assert answers["bare"]["flashinfer"].startswith(HOSTILE)


def test_pip_takes_the_wheel_that_was_built(built: Built) -> None:
    _, pip = by_program(built.lines)
    for line, label in zip(pip, (CUDA, NIGHTLY), strict=True):
        taken = built.elsewhere.pip_takes(line, built.shell)
        wheel = built.folder / "wheels" / label.wheel_file
        torch = "torch-{}.{}.".format(*label.variant.torch)
        assert taken.pop(label.wheel_file) == urllib.parse.unquote(wheel.resolve().as_uri())
        [name] = taken
        assert name.startswith(torch)
