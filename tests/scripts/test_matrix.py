"""The matrix: its plan, what Snakemake makes of it with a program that only pretends to build."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conda_bridge.errors import ConfigError
from conda_bridge.system import atomic
from conda_bridge.system.usage import Cost
from flashinfer_build import bootstrap, report
from flashinfer_build.compile import native
from flashinfer_build.matrix import plan as matrix_plan
from flashinfer_build.matrix import report as matrix_report
from flashinfer_build.matrix import run as matrix_run
from flashinfer_build.pipeline.jobs import LibraryJob, VariantJob
from flashinfer_build.pipeline.ledger import Ledger
from flashinfer_build.pipeline.options import words
from flashinfer_build.pipeline.pipeline import Pipeline, Settings


@pytest.fixture
def pipeline(root: Path, tmp_path: Path) -> Pipeline:
    """Of a checkout with the real matrix and nothing built."""
    for name in ("conda_build_config.yaml", "version.txt"):
        shutil.copy(root / name, tmp_path)
    for name in ("recipe", "csrc", "flashinfer", "scripts"):
        (tmp_path / name).symlink_to(root / name)
    for name in ("LICENSE", "setup.py", "pyproject.toml", "README.md", "MANIFEST.in"):
        shutil.copy(root / name, tmp_path)
    return Pipeline(Settings(tmp_path, tmp_path / "cache", environ={}))


def _names(plan: matrix_plan.Plan) -> list[str]:
    return [job.name for job in plan.jobs]


def test_kernels_once_for_all_torches_of_a_cuda(pipeline: Pipeline) -> None:
    plan = matrix_plan.plan(pipeline, cuda_tags=["cu130"])
    jobs = _names(plan)
    assert jobs.count("cu130") == 1
    assert {"cu130_torch211", "cu130_torch213"} <= set(jobs)
    # Those of the same CUDA without a toolchain were not named, so they are no failure.
    assert all(not item.asked and item.reason for item in plan.missing)
    stages = [stage.name for job in plan.jobs for stage in plan.stages_of(job)]
    assert len(stages) == len(set(stages))
    assert "cu130/publish" not in "".join(stages)


def test_what_was_named_and_cannot_be_built_is_a_failure(pipeline: Pipeline) -> None:
    plan = matrix_plan.plan(pipeline, variants=["cpu_torch213", "cu121_torch24"])
    [missing] = plan.missing
    assert (missing.name, missing.asked) == ("cu121_torch24", True)
    made = matrix_report.MatrixReport(plan, {}, {})
    assert made.exit_code == 1
    with pytest.raises(ConfigError, match="can be built here") as caught:
        matrix_plan.plan(pipeline, variants=["cu121_torch24"])
    assert "CUDA 12.1" in str(caught.value)
    with pytest.raises(ConfigError, match="no CUDA tag"):
        matrix_plan.plan(pipeline, cuda_tags=["cu999"])


def test_rules_have_the_needs_of_the_stages(pipeline: Pipeline) -> None:
    plan = matrix_plan.plan(pipeline, variants=["cpu_torch213"], libraries=["cpu"])
    config = json.loads(json.dumps(plan.as_config(["b"], [], 3)))
    rules = {rule["name"]: rule for rule in config["stages"]}
    assert rules["variant_binding"]["needs"] == [["toolchain", False], ["library", True]]
    assert rules["cuda_tag_publish"]["needs"] == [["verify", False]]
    kinds = {f"cuda_tag_{stage.kind}" for stage in plan.libraries[0].stages()}
    kinds |= {f"variant_{s.kind}" for s in plan.stages_of(plan.variants[0])}
    assert set(rules) == {kind.replace("-", "_") for kind in kinds}
    # A stage that compiles takes a compiler's memory for each of its threads.
    assert rules["cuda_tag_library"]["threads"] == 3
    assert rules["cuda_tag_library"]["memory_mb"] == native.CUDA_JOB_MEMORY >> 20
    assert rules["variant_wheel"]["threads"] == 1


def test_a_small_machine_runs_fewer_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_run, "available_memory", lambda: native.CUDA_JOB_MEMORY * 2)
    assert matrix_run.Where(16).compilers() == 2
    assert matrix_run.Where(1).compilers() == 1
    monkeypatch.setattr(matrix_run, "available_memory", lambda: 1)
    assert matrix_run.Where(16).compilers() == 1
    assert f"mem_mb={native.CUDA_JOB_MEMORY >> 20}" in matrix_run.Where(16).options()
    assert matrix_run.Where(16, threads=5).compilers() == 5
    assert "--jobs" in matrix_run.Where(9, executor="slurm").options()


def test_options_reach_the_stages_as_they_were_given(tmp_path: Path) -> None:
    plain = Settings(tmp_path, tmp_path)
    assert words(plain) == []
    # fmt: off
    asked = Settings(
        tmp_path, tmp_path, output=tmp_path / "o", arch_list="8.0+PTX;9.0a", glibc="2.31",
        platform_tag="auto", replace=True, nightly="20261122", commit="1a2b3c4", build_number=0,
    )
    assert words(asked) == [
        "--arch", "8.0+PTX;9.0a", "--glibc", "2.31", "--output", str(tmp_path / "o"),
        "--nightly", "20261122", "--commit", "1a2b3c4", "--build-number", "0",
        "--platform-tag", "auto", "--replace",
    ]
    # fmt: on
    assert matrix_run.work_folder(asked).name == "matrix-8.0+PTX_9.0a-glibc2.31"


def test_the_report_tells_done_kept_failed_and_not_run_apart(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    plan = matrix_plan.plan(pipeline, variants=["cpu_torch213"])
    [library, variant] = plan.jobs
    assert isinstance(library, LibraryJob)
    assert isinstance(variant, VariantJob)
    folder = tmp_path / "matrix"
    ledger = pipeline.ledger
    for job in plan.jobs:  # both toolchains are done
        stage = plan.stages_of(job)[0]
        ledger.record(stage.name, stage.key() or "", [], Cost(1.5, 2.5, 5 << 20), {"summary": "s"})
    failure = {"what": "no such file [red]", "cost": Cost(3.0, 4.0, 6 << 20).as_dict()}
    record = {"variants": {"cpu": {"error": failure, "stages": []}}}
    atomic.write_text(folder / "cpu" / "library.json", json.dumps(record))
    (tmp_path / "build" / "logs" / "cpu").mkdir(parents=True)
    (tmp_path / "build" / "logs" / "cpu" / "library.log").write_text("said")
    made = matrix_report.make(plan, ledger, folder, {"cpu/compiler"})
    outcomes = [(stage.kind, stage.outcome) for stage in made.stages["cpu"]]
    assert outcomes == [("compiler", "kept"), ("library", "failed")]
    assert made.stages["cpu"][1].cost == Cost(3.0, 4.0, 6 << 20)
    assert made.stages["cpu_torch213"][0].outcome == "done"
    assert {stage.outcome for stage in made.stages["cpu_torch213"][1:]} == {"not run"}
    assert made.exit_code == 1
    table = report.matrix_table(made)
    assert "failed cpu: library: no such file [red]" in table
    assert "library.log" in table
    assert "0 of 2 built" in table
    made.write(tmp_path / "report.json")
    whole = json.loads((tmp_path / "report.json").read_text())
    assert whole["jobs"]["cpu"]["stages"][1]["peak_memory"] == 6 << 20


# ---------------------------------------------------------------- Snakemake itself

# Stands in for build.py: says when it starts and ends, and does what a file tells it.
_BUILD = """
import json, os, signal, sys, time
from pathlib import Path

words = sys.argv[1:]
job, stage = words[1], words[words.index("--stage") + 1]
record = Path(words[words.index("--record") + 1])
here = Path(__file__).parent
with (here / "calls.txt").open("a") as stream:
    stream.write(f"start {job}/{stage} {os.environ['MAX_JOBS']}\\n")
fault = here / f"{job}-{stage}.fault"
what = fault.read_text() if fault.exists() else ""
time.sleep(float(what[6:]) if what.startswith("sleep ") else 0.05)
if what == "once":
    fault.unlink()
error = {"what": "it broke"} if what in ("fail", "once") else None
record.parent.mkdir(parents=True, exist_ok=True)
record.write_text(json.dumps({"variants": {job: {"error": error}}}))
with (here / "calls.txt").open("a") as stream:
    stream.write(f"end {job}/{stage}\\n")
sys.exit(1 if error else 0)
"""


@pytest.fixture
def snakemake(
    root: Path, pipeline: Pipeline, tmp_path: Path
) -> Callable[..., tuple[subprocess.Popen[str], Callable[[], list[str]]]]:
    """Starts Snakemake on the real rules with the pretended program."""
    (tmp_path / "build.py").write_text(textwrap.dedent(_BUILD))
    plan = matrix_plan.plan(pipeline, variants=["cpu_torch213", "cu130_torch213"])
    python = bootstrap.environment("matrix") / "bin" / "python"
    place = tmp_path / "place"
    place.mkdir()
    config = plan.as_config([sys.executable, str(tmp_path / "build.py")], [], 2)
    (place / "plan.json").write_text(json.dumps(config))

    def calls() -> list[str]:
        path = tmp_path / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []

    def start() -> tuple[subprocess.Popen[str], Callable[[], list[str]]]:
        # fmt: off
        command = [
            str(python), "-m", "snakemake", "--snakefile", str(root / "scripts" / "matrix.smk"),
            "--directory", str(place), "--configfile", str(place / "plan.json"),
            *matrix_run.SNAKEMAKE, *matrix_run.Where(2).options(),
        ]
        # fmt: on
        return (
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            ),
            calls,
        )

    return start


def test_a_failure_stops_what_depends_on_it_and_nothing_else(
    tmp_path: Path, snakemake: Callable[..., tuple[subprocess.Popen[str], Callable[[], list[str]]]]
) -> None:
    (tmp_path / "cpu_torch213-wheel.fault").write_text("fail")
    (tmp_path / "cu130_torch213-toolchain.fault").write_text("once")
    child, calls = snakemake()
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 1, said
    ended = [line.split()[1] for line in calls() if line.startswith("end")]
    assert "cu130_torch213/publish" in ended  # its download failed once, and was tried again
    assert ended.count("cu130_torch213/toolchain") == 2
    assert ended.count("cpu_torch213/wheel") == 1
    assert not {"cpu_torch213/verify", "cpu_torch213/publish"} & set(ended)
    order = [line.split()[1] for line in calls() if line.startswith("start")]
    assert order.index("cu130/library") < order.index("cu130_torch213/binding")
    threads = {line.split()[1]: line.split()[2] for line in calls() if line.startswith("start")}
    assert (threads["cu130/library"], threads["cpu_torch213/wheel"]) == ("2", "1")
    assert (tmp_path / "place" / "cu130" / "library.benchmark.tsv").read_text().startswith("s\t")


def test_after_a_kill_only_what_was_not_done_runs_again(
    tmp_path: Path, snakemake: Callable[..., tuple[subprocess.Popen[str], Callable[[], list[str]]]]
) -> None:
    slow = tmp_path / "cu130-library.fault"
    slow.write_text("sleep 60")
    child, calls = snakemake()
    deadline = time.monotonic() + 60
    while not any("start cu130/library" in line for line in calls()):
        assert time.monotonic() < deadline, child.poll()
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = {line.split()[1] for line in calls() if line.startswith("end")}
    assert "cu130/library" not in before
    assert not (tmp_path / "place" / "cu130" / "library.done").exists()
    slow.unlink()
    (tmp_path / "calls.txt").unlink()
    child, calls = snakemake()
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 0, said
    after = {line.split()[1] for line in calls() if line.startswith("end")}
    assert {"cu130/library", "cu130_torch213/publish"} <= after
    assert not {"cu130/compiler"} & after
    (tmp_path / "calls.txt").unlink()
    child, calls = snakemake()
    child.communicate(timeout=120)
    assert calls() == []


def test_stamps_say_what_the_ledger_says(pipeline: Pipeline, tmp_path: Path) -> None:
    plan = matrix_plan.plan(pipeline, variants=["cpu_torch213"])
    ledger: Ledger = pipeline.ledger
    stage = plan.stages_of(plan.jobs[0])[0]
    ledger.record(stage.name, stage.key() or "", [], Cost())
    wrong = tmp_path / "place" / "cpu_torch213" / "wheel.done"
    wrong.parent.mkdir(parents=True)
    wrong.touch()
    assert matrix_run.set_stamps(plan, ledger, tmp_path / "place") == {"cpu/compiler"}
    stamps = {p.relative_to(tmp_path / "place").as_posix() for p in tmp_path.rglob("*.done")}
    assert stamps == {"cpu/compiler.done"}


def test_what_follows_a_stage_that_is_due_is_due_too(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = matrix_plan.plan(pipeline, variants=["cpu_torch213", "cu130_torch213"])
    ledger = pipeline.ledger
    changed = {"cpu/library", "cu130_torch213/wheel"}
    stages = {job.name: plan.stages_of(job) for job in plan.jobs}
    for job_stages in stages.values():
        for stage in job_stages:
            if stage.name not in changed:
                ledger.record(stage.name, "k", [], Cost())
    fixed = {name: [replace(one, key=lambda: "k") for one in all_] for name, all_ in stages.items()}
    monkeypatch.setattr(matrix_plan.Plan, "stages_of", lambda self, job: fixed[job.name])
    done = matrix_run.set_stamps(plan, ledger, tmp_path / "place")
    assert done == {
        *("cpu/compiler", "cpu_torch213/toolchain", "cu130/compiler", "cu130/library"),
        *("cu130_torch213/toolchain", "cu130_torch213/binding"),
    }
