"""The matrix on a real SLURM: two nodes at work, logs and costs kept, the bytes of a local run."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_cluster

from flashinfer_build import bootstrap
from flashinfer_build.label import Label, Variant
from flashinfer_build.pipeline.ledger import Ledger, file_digest

VARIANTS = ("cpu_torch213", "cu130_torch213")
# What `python scripts/test.py` has built is built once more on the cluster, from the binding on.
_AGAIN = ("binding", "wheel", "verify", "try-conda", "try-pip")
_LIMIT_SECONDS = 900

pytestmark = [
    pytest.mark.artifacts,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "-"),
]


def _run(root: Path, cluster: Path, output: Path) -> subprocess.CompletedProcess[str]:
    # fmt: off
    matrix = [
        str(bootstrap.environment("tools") / "bin" / "python"), str(root / "scripts" / "matrix.py"),
        "run", *(word for variant in VARIANTS for word in ("--variant", variant)),
        "--output", str(output), "--executor", "slurm", "--jobs", "4", "--threads", "1",
        "--", "--slurm-status-command", "squeue", "--slurm-no-account",
        "--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2",
    ]
    # fmt: on
    command = slurm_cluster.command(cluster, 2, matrix)
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    # Without an answer from the controller Snakemake would wait for ever.
    return subprocess.run(
        command, cwd=root, env=environ, capture_output=True, text=True, timeout=_LIMIT_SECONDS
    )


def _machine() -> tuple[set[str], list[str]]:
    """The cluster's kind of daemons that run, and SLURM's configuration."""
    said = subprocess.run(["ps", "-eo", "pid,comm"], capture_output=True, text=True).stdout
    daemons = {
        line.strip()
        for line in said.splitlines()
        if line.split()[-1].startswith(("slurmctld", "slurmd", "munged"))
    }
    return daemons, sorted(str(path) for path in Path("/etc/slurm").rglob("*"))


def test_a_matrix_over_two_nodes(root: Path, dist: Path, tmp_path: Path) -> None:
    before = _machine()
    ledger = Ledger(root / "build" / "ledger")
    for variant in VARIANTS:
        for stage in _AGAIN:
            ledger.forget(f"{variant}/{stage}")
    cluster, output = tmp_path / "cluster", tmp_path / "dist"
    cluster.mkdir()
    done = _run(root, cluster, output)
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said[-4000:]

    jobs = (cluster / "jobs.txt").read_text().splitlines()
    assert all("JobState=COMPLETED" in line for line in jobs), jobs
    assert len(jobs) >= len(VARIANTS) * len(_AGAIN)
    nodes = {node for line in jobs for node in re.findall(r"NodeList=(\S+)", line)}
    assert nodes == {"n1", "n2"}

    for variant in VARIANTS:
        label = Label.compose(Variant.parse(variant))
        for name in (
            f"channel/linux-64/{label.conda_file}",
            f"channel/linux-64/{label.lib_conda_file}",
            f"wheels/{label.wheel_file}",
        ):
            assert file_digest(output / name) == file_digest(dist / name), name
        kept = root / "build" / "matrix" / variant
        for stage in _AGAIN:
            assert (kept / f"{stage}.log").read_text()
            with (kept / f"{stage}.benchmark.tsv").open() as stream:
                [row] = csv.DictReader(stream, delimiter="\t")
            assert float(row["s"]) > 0
    assert re.search(r"cu130_torch213 +toolchain +kept", done.stdout), done.stdout
    assert _machine() == before


def test_a_cluster_that_is_not_ready_says_so(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    program = [sys.executable, slurm_cluster.__file__, "--folder", str(tmp_path), "--", "true"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not empty" in done.stderr
