"""What CI fans out, against files that are kept; `python scripts/matrix.py --update-golden`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conda_bridge.errors import ConfigError
from flashinfer_build.label import Label, Variant
from flashinfer_build.matrix import fan_out
from flashinfer_build.pipeline.pipeline import Pipeline, Settings

GOLDEN = Path(__file__).with_name("golden")
_UPDATE = "`python scripts/matrix.py --update-golden` writes these files from the matrix"


def _matrix(root: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1", **environ}
    command = [sys.executable, str(root / "scripts" / "matrix.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=whole, cwd=root)


@pytest.fixture
def pipeline(root: Path, tmp_path: Path) -> Pipeline:
    return Pipeline(Settings(root, tmp_path, environ={}))


@pytest.mark.parametrize("event", fan_out.EVENTS)
@pytest.mark.parametrize("form", ["github", "json", "table"])
def test_the_jobs_are_those_that_are_kept(pipeline: Pipeline, event: str, form: str) -> None:
    made = getattr(fan_out.fan_out(pipeline, event), f"as_{form}")()
    assert made == (GOLDEN / f"{event}.{form}").read_text(), _UPDATE


def test_there_is_no_other_file(root: Path) -> None:
    wanted = {f"{event}.{form}" for event in fan_out.EVENTS for form in ("github", "json", "table")}
    assert {path.name for path in GOLDEN.iterdir()} == wanted


def test_the_program_prints_what_is_kept_and_hands_it_to_github(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    words = ["--format", "github", "--event", "nightly"]
    done = _matrix(root, *words, GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    assert done.stdout == output.read_text() == (GOLDEN / "nightly.github").read_text()
    values = dict(line.split("=", 1) for line in output.read_text().splitlines())
    kernels = [row["cuda_tag"] for row in json.loads(values["kernels"])["include"]]
    bindings = json.loads(values["bindings"])["include"]
    assert len(set(kernels)) == len(kernels)
    assert {row["cuda_tag"] for row in bindings} == set(kernels)


def test_every_variant_is_a_job_or_left_out_with_a_reason(pipeline: Pipeline) -> None:
    jobs = fan_out.fan_out(pipeline, "release")
    names = [row["name"] for row in (*jobs.bindings, *jobs.left_out)]
    assert sorted(names) == sorted(spec.id for spec in pipeline.specs)
    assert all(row["reason"] for row in jobs.left_out)


def test_a_pull_request_builds_the_newest_torch_of_each_cuda(pipeline: Pipeline) -> None:
    release = fan_out.fan_out(pipeline, "release")
    newest: dict[str, tuple[int, ...]] = {}
    for row in release.bindings:
        torch = tuple(map(int, row["torch"].split(".")))
        newest[row["cuda_tag"]] = max(newest.get(row["cuda_tag"], (0,)), torch)
    chosen = fan_out.fan_out(pipeline, "pull-request").bindings
    torches = {row["cuda_tag"]: tuple(map(int, row["torch"].split("."))) for row in chosen}
    assert torches == newest
    assert len(chosen) == len(newest)


def test_a_release_with_a_hole_is_not_complete(
    root: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    dist = tmp_path / "dist"
    wanted = fan_out.missing_files(pipeline, "pull-request", dist)
    assert any(name.endswith(".whl") for name in wanted)
    for name in wanted:
        path = dist / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    words = ["check", str(dist), "--event", "pull-request"]
    assert _matrix(root, *words).returncode == 0
    assert _matrix(root, "--event", "pull-request", "check", str(dist)).returncode == 0
    hole = next(name for name in wanted if name.startswith("channel/linux-64/libflashinfer"))
    (dist / hole).unlink()
    done = _matrix(root, *words)
    assert (done.returncode, done.stdout) == (1, f"missing {hole}\n")
    nightly = ["--nightly", "20261122", "--commit", "1a2b3c4"]
    assert _matrix(root, *words, *nightly).returncode == 1


def test_a_tag_has_to_say_the_version(root: Path) -> None:
    label = Label.compose(Variant.parse("cpu_torch213"), environ={})
    good = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": f"v{label.public_version}"}
    fan_out.check_tag(good, label)
    fan_out.check_tag({}, label)
    with pytest.raises(ConfigError, match=r"the tag is v9\.9"):
        fan_out.check_tag({**good, "GITHUB_REF_NAME": "v9.9"}, label)
    done = _matrix(root, "--format", "json", GITHUB_REF_TYPE="tag", GITHUB_REF_NAME="v9.9")
    assert done.returncode == 2
    assert "version.txt" in done.stderr
