"""A build by its stages: one alone, kernels without a torch, kernels that another machine built."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

from solver import solve
from typed import Elsewhere, install_lines

from flashinfer_build.label import Label, Variant
from flashinfer_build.pipeline.ledger import file_digest

_VARIANT = "cpu_torch213"


def _program(root: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / name), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=root)


def test_a_stage_alone_is_kept_when_nothing_has_changed(root: Path, dist: Path) -> None:
    words = ["--variant", _VARIANT, "--stage", "wheel", "--json", "--output", str(dist)]
    done = _program(root, "build.py", *words)
    assert done.returncode == 0, done.stderr
    [stage] = json.loads(done.stdout)["variants"][_VARIANT]["stages"]
    assert (stage["stage"], stage["outcome"]) == (f"{_VARIANT}/wheel", "kept")
    assert stage["cost"]["peak_memory"] > 1 << 20
    assert (root / stage["log"]).is_file()


def test_the_library_alone_is_verified_and_published_without_a_torch(
    root: Path, dist: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record.json"
    words = ["--library", "cpu", "--output", str(tmp_path / "dist"), "--record", str(record)]
    done = _program(root, "build.py", *words)
    assert done.returncode == 0, done.stderr
    made = [path for path in (tmp_path / "dist").rglob("*") if path.suffix in (".conda", ".whl")]
    name = Label.compose(Variant.parse(_VARIANT)).lib_conda_file
    assert [path.name for path in made] == [name]
    assert file_digest(made[0]) == file_digest(dist / "channel" / "linux-64" / name)
    stages = json.loads(record.read_text())["variants"]["cpu"]["stages"]
    assert [stage["stage"].split("/")[1][:7] for stage in stages] == [
        *("compile", "library", "verify", "publish")
    ]
    assert stages[1]["outcome"] == "kept"  # the variants of the cpu have it already


def test_kernels_that_are_built_are_taken_and_missing_ones_are_not_compiled(
    root: Path, dist: Path, tmp_path: Path
) -> None:
    words = ["--variant", _VARIANT, "--no-kernels", "--output", str(tmp_path / "dist")]
    done = _program(root, "build.py", *words)
    assert done.returncode == 0, done.stderr
    wheel = Label.compose(Variant.parse(_VARIANT)).wheel_file
    made = tmp_path / "dist" / "wheels" / wheel
    assert file_digest(made) == file_digest(dist / "wheels" / wheel)
    _check_that_it_is_installed(done.stdout, root, made, tmp_path)
    entry = root / "build" / "ledger" / "cpu" / "library.json"
    kept = tmp_path / "library.json"
    shutil.move(entry, kept)
    try:
        done = _program(root, "build.py", *words)
    finally:
        shutil.move(kept, entry)
    assert done.returncode == 2
    assert "the kernels are not built" in done.stderr


def _check_that_it_is_installed(said: str, root: Path, wheel: Path, tmp_path: Path) -> None:
    """The lines at a build's end take what it made, though others have a higher version."""
    elsewhere = Elsewhere(tmp_path / "elsewhere")
    conda, pip = install_lines(said)
    assert elsewhere.pip_takes(pip, root)[wheel.name] == unquote(wheel.as_uri())
    label = Label.parse_wheel_file(wheel.name)
    answer = solve({"": elsewhere.case(conda, root)})[""]
    assert answer["flashinfer"] == f"{label.conda_version} {label.conda_build}"
    assert answer["libflashinfer"] == f"{label.conda_version} {label.lib_conda_build}"


def test_the_report_of_what_is_built(root: Path, dist: Path) -> None:
    words = ["report", "--variant", _VARIANT, "--output", str(dist), "--json"]
    done = _program(root, "matrix.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    assert set(jobs) == {"cpu", _VARIANT}
    assert all(job["built"] for job in jobs.values())
    outcomes = {stage["stage"]: stage for stage in jobs[_VARIANT]["stages"]}
    assert outcomes["try-pip"]["summary"]
    assert outcomes["binding"]["peak_memory"] > 100 << 20
