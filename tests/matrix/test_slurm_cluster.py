"""The cluster's script where there is no SLURM, and what it writes for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import slurm_cluster


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slurm_cluster, "PROGRAMS", ("sh", "slurmctld-of-nobody"))
    assert slurm_cluster.missing() == "SLURM is not installed here: no slurmctld-of-nobody"


def test_the_command_runs_in_namespaces_of_its_own(tmp_path: Path) -> None:
    words = slurm_cluster.command(tmp_path, 3, ["srun", "true"])
    assert words[:2] == ["unshare", "--mount"]
    assert {"--pid", "--kill-child", "--inside"} <= set(words)
    assert words[-3:] == ["--", "srun", "true"]
    assert words[words.index("--nodes") + 1] == "3"
