"""The main job's command line and plan; tests/artifacts looks at what it makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import factories
import pytest
import toy_artifacts as toy

from conda_bridge.errors import BuildFailed, ConfigError, LabelMismatch, ToolchainError
from conda_bridge.system import atomic
from conda_bridge.system.progress import Progress
from conda_bridge.system.usage import Cost
from conda_bridge.verify import gate
from flashinfer_build import report
from flashinfer_build.pipeline.jobs import STAGES, Job, LibraryJob, VariantJob
from flashinfer_build.pipeline.ledger import tree_digest
from flashinfer_build.pipeline.pipeline import BuildResult, Pipeline, Settings, kernel_sources
from flashinfer_build.pipeline.stages import Log, Outcome, Stage, StageFailed


def _build(root: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "build.py"), *words]
    whole = {**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1", **environ}
    return subprocess.run(command, capture_output=True, text=True, env=whole, cwd=root)


def test_list_names_both_sides_and_the_supplier_or_what_is_missing(root: Path) -> None:
    done = _build(root, "--list", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["variant"]: row for row in json.loads(done.stdout)}
    assert rows["cu130_torch213"]["provider"] == "pypi"
    version = (root / "version.txt").read_text().strip()
    assert rows["cu124_torch24"]["conda_file"] == f"flashinfer-{version}-cu124_torch24_0.conda"
    assert rows["cu124_torch24"]["wheel_file"].startswith(f"flashinfer-{version}+cu124torch2.4-")
    assert rows["cu124_torch24"]["provider"] == "debian"
    assert "CUDA 12.6" in rows["cu126_torch26"]["missing"]
    assert all(bool(row["provider"]) != bool(row["missing"]) for row in rows.values())
    table = _build(root, "--list").stdout
    assert all(variant in table for variant in rows)


@pytest.mark.parametrize("width", [100, 160])
def test_the_list_fits_with_every_name_whole(root: Path, tmp_path: Path, width: int) -> None:
    rows = Pipeline(Settings(root, tmp_path)).rows()
    lines = report.variants_table(rows, width=width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    text = "\n".join(lines)
    for row in rows:
        assert row["conda_file"] in text
        assert row["wheel_file"] in text
        [line] = [line for line in lines if line.startswith(row["variant"] + " ")]
        reason = row["missing"].split(":")[0]
        assert (row["provider"] or reason) in line
        assert row["arch_list"].replace("None", "-") in line


def test_a_nightly_of_the_commit_is_the_same_on_every_machine(root: Path) -> None:
    command = ["git", "-C", str(root), "log", "-1", "--format=%H %ct"]
    commit, seconds = subprocess.check_output(command, text=True).split()
    day = datetime.fromtimestamp(int(seconds), tz=UTC).strftime("%Y%m%d")
    rows = json.loads(
        _build(root, "--list", "--json", "--nightly", "commit", TZ="Asia/Tokyo").stdout
    )
    assert f".dev{day}-cpu_torch24_g{commit[:7]}_0." in rows[0]["conda_file"]


def test_nightly_and_build_number_reach_every_name(root: Path) -> None:
    nightly = ["--nightly", "20261122", "--commit", "1a2b3c4", "--build-number", "2"]
    rows = json.loads(_build(root, "--list", "--json", *nightly).stdout)
    [row] = [row for row in rows if row["variant"] == "cpu_torch213"]
    version = (root / "version.txt").read_text().strip()
    assert row["conda_file"] == f"flashinfer-{version}.dev20261122-cpu_torch213_g1a2b3c4_2.conda"
    assert row["wheel_file"].startswith(
        f"flashinfer-{version}.dev20261122+cputorch2.13.g1a2b3c4-2-cp38"
    )


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        (["--variant", "cu130_torch2130"], {}, "cu130_torch213"),
        (["--variant", "cu126_torch26"], {}, "cu126_torch26"),
        (["--list"], {"FLASHINFER_BUILD_VERSION": "0.1.6+abc"}, "FLASHINFER_BUILD_VERSION=0.1.6"),
        (["--all", "--variant", "cpu_torch213"], {}, "exclude each other"),
        (["--library", "cpu", "--variant", "cpu_torch213"], {}, "excludes"),
        (["--library", "cu999"], {}, "cpu, cu118"),
        (["--library", "cpu", "--stage", "wheel"], {}, "compiler, library, verify, publish"),
        (["--stage", "wheels"], {}, "try-conda"),
    ],
)
def test_unusable_input_says_what_to_do_with_status_2(
    root: Path, tmp_path: Path, words: list[str], environ: dict[str, str], said: str
) -> None:
    done = _build(root, *words, *([] if "--list" in words else ["-o", str(tmp_path)]), **environ)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_errors_as_json(root: Path) -> None:
    done = _build(root, "--json", "--variant", "nonsense")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] in ("LabelError", "ConfigError")


def test_chosen_architectures_get_a_folder_of_their_own(root: Path, tmp_path: Path) -> None:
    plain = Settings(root, tmp_path)
    hopper = Settings(root, tmp_path, arch_list="9.0a")
    old = Settings(root, tmp_path, arch_list="9.0a", glibc="2.31")
    both = Settings(root, tmp_path, arch_list="8.0+PTX;9.0a")
    assert plain.output_dir.name == "dist"
    assert hopper.output_dir.name == "dist-9.0a"
    assert old.output_dir.name == "dist-9.0a-glibc2.31"
    assert both.output_dir.name == "dist-8.0+PTX_9.0a"
    assert Settings(root, tmp_path, output=tmp_path / "x", arch_list="9.0a").output_dir.name == "x"


def test_git_ignores_the_folders_that_a_build_makes_by_default(root: Path, tmp_path: Path) -> None:
    outputs = [Settings(root, tmp_path).output_dir, Settings(root, tmp_path).build_dir]
    outputs += [Settings(root, tmp_path, arch_list="9.0a").output_dir]
    outputs += [Settings(root, tmp_path, glibc="2.31").output_dir]
    made = [str(path / "wheels" / "a.whl") for path in outputs]
    done = subprocess.run(
        ["git", "-C", str(root), "check-ignore", *made], capture_output=True, text=True
    )
    assert done.stdout.split() == made, done.stderr


def test_a_checkout_that_the_builders_cannot_work_in_is_refused_before_anything_is_made(
    root: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "my$checkout"
    odd.mkdir()
    (odd / "conda_build_config.yaml").write_text((root / "conda_build_config.yaml").read_text())
    pipeline = Pipeline(Settings(odd, tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"has '\$' in it"):
        pipeline.run(pipeline.select(None), Progress(0, quiet=True))
    assert [path.name for path in odd.iterdir()] == ["conda_build_config.yaml"]


def test_every_source_of_the_library_counts_and_the_binding_does_not(tmp_path: Path) -> None:
    for name in ("csrc/api.cpp", "csrc/cpu/norm.cpp", "csrc/torch/norm.cpp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("int x;\n")

    def key() -> str:
        there = [name for name in kernel_sources(tmp_path) if name.startswith("csrc/")]
        return tree_digest(tmp_path, there)

    before = key()
    (tmp_path / "csrc/torch/norm.cpp").write_text("int y;\n")
    assert key() == before
    (tmp_path / "csrc/planner.cpp").write_text("int z;\n")
    added = key()
    assert added != before
    (tmp_path / "csrc/cpu/norm.cpp").write_text("int y;\n")
    assert key() not in (before, added)


def test_the_default_is_one_variant_and_repeats_are_one(root: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(Settings(root, tmp_path))
    assert [spec.id for spec in pipeline.select(None)] == ["cu130_torch213"]
    chosen = pipeline.select(["cpu_torch213", "cpu_torch213", "cu130_torch211"])
    assert [spec.id for spec in chosen] == ["cpu_torch213", "cu130_torch211"]
    available = {spec.id for spec in pipeline.available()}
    assert {"cpu_torch213", "cu130_torch211", "cu130_torch213"} <= available
    assert "cu126_torch26" not in available


def test_kernels_are_the_same_job_whatever_the_torch(root: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(Settings(root, tmp_path))
    jobs = [pipeline.job(spec) for spec in pipeline.select(["cu130_torch211", "cu130_torch213"])]
    alone = pipeline.library("cu130")
    for job in jobs:
        assert job.kernels.library == alone.library
        assert job.kernels.spec == alone.spec
        shared = {stage.name for stage in job.stages()} & {stage.name for stage in alone.stages()}
        assert shared == {"cu130/compiler", "cu130/library"}
    own = [{stage.lock for stage in job.stages()} for job in jobs]
    assert own[0] & own[1] == {"cu130/compiler", "cu130"}


def test_the_wheel_is_what_lies_there_when_its_platform_is_measured(
    root: Path, tmp_path: Path
) -> None:
    def job(tag: str) -> VariantJob:
        pipeline = Pipeline(Settings(tmp_path, tmp_path, platform_tag=tag))
        return pipeline.job(pipeline.select(["cpu_torch213"])[0])

    for name in ("conda_build_config.yaml", "version.txt"):
        (tmp_path / name).write_text((root / name).read_text())
    usual = job("linux_x86_64").wheel
    assert job("auto").wheel == usual
    measured = usual.with_name(usual.name.replace("linux_x86_64", "manylinux_2_31_x86_64"))
    measured.parent.mkdir(parents=True)
    measured.touch()
    assert job("auto").wheel == measured
    assert measured.name in [path.name for path in job("auto").published]
    assert job("linux_x86_64").wheel == usual


def test_every_stage_needs_only_what_comes_before_it(root: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(Settings(root, tmp_path))
    jobs: list[Job] = [pipeline.library("cpu"), *map(pipeline.job, pipeline.select(None))]
    for job in jobs:
        before: set[str] = set()
        for stage in job.stages():
            assert set(stage.needs) <= before, stage.name
            before.add(stage.kind)
        assert before <= set(STAGES)
        proofs = {kind for kind in before if kind.startswith(("verify", "try"))}
        assert set(job.stages()[-1].needs) == proofs


def test_a_stage_alone_without_its_input_names_what_to_run_first(
    root: Path, tmp_path: Path
) -> None:
    pipeline = Pipeline(Settings(root, tmp_path, glibc="1.0"))  # a folder that nobody has
    specs = pipeline.select(["cpu_torch213"])
    result = pipeline.run(specs, Progress(0, quiet=True), stage="wheel")
    assert result.exit_code == 2
    said = str(result.failures["cpu_torch213"])
    assert "'toolchain' is not done" in said
    assert "python scripts/build.py --variant cpu_torch213 --stage toolchain" in said


def test_kernels_that_are_not_there_are_not_compiled_where_that_is_ruled_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("conda_build_config.yaml", "version.txt"):
        (tmp_path / name).write_text((root / name).read_text())
    for name in ("scripts", "csrc", "recipe", "LICENSE"):
        (tmp_path / name).symlink_to(root / name)
    pipeline = Pipeline(Settings(tmp_path, tmp_path / "cache"))
    job = pipeline.library("cpu")
    compiler = job.stages()[0]
    pipeline.ledger.record(compiler.name, compiler.key() or "", [], Cost())
    compiled: list[str] = []
    monkeypatch.setattr(LibraryJob, "_run_library", lambda self, log: compiled.append("kernels"))
    result = pipeline.run([], Progress(0, quiet=True), libraries=["cpu"], kernels=False)
    assert compiled == []
    assert result.exit_code == 2
    assert "the kernels are not built" in str(result.failures["cpu"])
    assert [outcome.outcome for outcome in result.variants["cpu"]] == ["kept"]


def test_the_result_has_the_worst_exit_code_and_is_json(tmp_path: Path) -> None:
    def nothing(_log: Log) -> tuple[list[Path], dict[str, object]]:
        return [], {}

    stage = Stage("b", "a/b", "b", "a", lambda: "k", nothing)
    failure = StageFailed(stage, Path("b.log"), BuildFailed("no"))
    kept = Outcome("a/b", "b", "kept", 0.0)
    bad = BuildResult(tmp_path, False, {"a": [], "c": [kept]}, {}, {"a": failure})
    assert bad.exit_code == 1
    assert not bad.unchanged
    assert json.loads(json.dumps(bad.as_dict()))["variants"]["a"]["error"]["what"]
    good = BuildResult(tmp_path, False, {"c": [kept]}, {}, {})
    assert (good.exit_code, good.unchanged) == (0, True)


# ---------------------------------------------------------------- conda packages alone


class Packages:
    """cu124_torch24 as built against a torch of the new C++ ABI: toy packages, staged."""

    def __init__(self, root: Path, folder: Path, *, wheel: bool) -> None:
        for name in ("csrc", "scripts", "conda_build_config.yaml", "pyproject.toml"):
            if not (folder / name).exists():
                (folder / name).symlink_to(root / name)
        version = {"FLASHINFER_BUILD_VERSION": "0.1.6"}
        pipeline = Pipeline(
            Settings(folder, folder / "cache", output=folder / "dist", wheel=wheel, environ=version)
        )
        [spec] = pipeline.select(["cu124_torch24"])
        self.job = pipeline.job(spec)
        label = self.job.label
        made = folder / "made"
        files = {
            factories.BUILD_INFO: factories.build_info(label, CUDA="12.4.131", CXX11_ABI=True),
            factories.MODULE: toy.binding(variant="cu124_torch24", torch="2.4"),
        }
        atomic.copy(toy.write_conda(made, label, files=files), self.job.binding)
        library = toy.library(cuda="12.4.131", archs="8.0+PTX;9.0a", gpu="zstd")
        packed = toy.write_conda_library(made, label, files={"lib/libflashinfer.so": library})
        atomic.copy(packed, self.job.staged_library)
        self.log = Log((folder / "log").open("w"), Progress(0, quiet=True))

    def run_stage(self, kind: str) -> list[Path]:
        [stage] = [stage for stage in self.job.stages() if stage.kind == kind]
        assert stage.key()
        return list(stage.run(self.log)[0])


@pytest.mark.parametrize(
    ("module", "kinds"),
    [
        ("conda_bridge/bridge/convert.py", {"wheel"}),
        ("conda_bridge/verify/binary.py", {"wheel", "verify", "publish"}),
        ("flashinfer_build/checks/artifacts.py", {"wheel", "verify", "publish"}),
        ("conda_bridge/publish/wheels.py", {"wheel", "publish"}),
        ("conda_bridge/formats/tar_stream.py", {"wheel", "verify", "publish"}),
        ("conda_bridge/verify/compare.py", set()),
        ("flashinfer_build/report.py", set()),
    ],
)
def test_stages_follow_the_code_of_both_packages(
    root: Path, tmp_path: Path, module: str, kinds: set[str]
) -> None:
    shutil.copytree(root / "scripts", tmp_path / "scripts")
    whole = Packages(root, tmp_path, wheel=True)
    atomic.copy(toy.write_wheel(tmp_path / "made", whole.job.label), whole.job.wheel)
    stages = [stage for stage in whole.job.stages() if stage.kind in ("wheel", "verify", "publish")]
    before = {stage.kind: stage.key() for stage in stages}
    assert None not in before.values()
    with (tmp_path / "scripts" / module).open("a") as stream:
        stream.write("x = 1\n")
    assert {stage.kind for stage in stages if stage.key() != before[stage.kind]} == kinds


def test_a_package_of_the_other_abi_gets_no_wheel_and_the_way_out_is_named(
    root: Path, tmp_path: Path
) -> None:
    whole = Packages(root, tmp_path, wheel=True)
    with pytest.raises(LabelMismatch) as caught:
        whole.run_stage("wheel")
    assert "the new C++ string ABI" in caught.value.what
    assert "build cu124_torch24 against the torch 2.4 of PyPI" in caught.value.fix
    assert "python scripts/build.py --no-wheel" in caught.value.fix
    assert not whole.job.wheel.exists()


def test_without_a_wheel_the_packages_are_verified_and_published_alone(
    root: Path, tmp_path: Path
) -> None:
    alone = Packages(root, tmp_path, wheel=False)
    assert [stage.kind for stage in alone.job.stages()] == [
        *("toolchain", "compiler", "library", "binding", "verify", "try-conda", "publish")
    ]
    needs = {stage.kind: stage.needs for stage in alone.job.stages()}
    assert needs["verify"] == ("binding",)
    assert needs["publish"] == ("verify", "try-conda")
    made = [alone.job.binding, alone.job.staged_library]
    assert gate.verify(made, project=alone.job.project).findings == ()
    assert alone.run_stage("verify") == []
    made = alone.run_stage("publish")
    assert made == alone.job.published
    assert [path.name for path in made] == [
        "flashinfer-0.1.6-cu124_torch24_0.conda",
        "libflashinfer-0.1.6-cu124_0.conda",
    ]
    assert all(path.is_file() for path in made)
    output = tmp_path / "dist"
    assert not list(output.rglob("*.whl"))
    records = json.loads((output / "channel/linux-64/repodata.json").read_text())
    assert set(records["packages.conda"]) == {path.name for path in made}


# ---------------------------------------------------------------- conda channels


def test_the_state_of_the_channels_is_part_of_the_key(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(Settings(root, tmp_path))
    [spec] = pipeline.select(["cpu_torch213"])
    job = pipeline.job(spec)
    channels = ["one"]
    monkeypatch.setattr(
        "flashinfer_build.pipeline.jobs.toolchain.state", lambda _request, _among: channels[0]
    )

    def key() -> str | None:
        [stage] = [stage for stage in job.stages() if stage.kind == "toolchain"]
        return stage.key()

    before = key()
    assert before == key()
    channels[0] = "two"
    assert key() not in (before, None)

    def unreadable(*_args: object) -> str:
        raise ToolchainError("the channel cannot be read")

    monkeypatch.setattr("flashinfer_build.pipeline.jobs.toolchain.state", unreadable)
    assert key() is None  # so the stage runs, and says so itself


def test_a_name_that_is_no_channel_ends_the_program(root: Path) -> None:
    done = _build(root, "--list", "--channel", "defaults")
    assert done.returncode == 2
    assert "conda config --show default_channels" in done.stderr
