"""A build in another folder, killed on its way: it continues, and gives the same bytes."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conda_bridge.label import Label, Variant
from conda_bridge.ledger import file_digest

_SOURCES = ("csrc", "flashinfer", "recipe", "scripts", "requirements")
_FILES = (
    *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "conda_build_config.yaml"),
    *("pyproject.toml", "setup.py", "version.txt"),
)
_VARIANT = "cpu_torch213"


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """The sources in another folder, without anything that was built."""
    target = tmp_path / "another-checkout"
    unwanted = shutil.ignore_patterns("__pycache__", "_build_info.py", "*.so", "*.egg-info")
    for name in _SOURCES:
        shutil.copytree(root / name, target / name, ignore=unwanted)
    for name in _FILES:
        shutil.copy2(root / name, target / name)
    return target


def test_killed_builds_continue_and_give_the_same_bytes(checkout: Path, dist: Path) -> None:
    label = Label.compose(Variant.parse(_VARIANT))
    wanted = [
        dist / "channel" / "linux-64" / label.conda_file,
        dist / "channel" / "linux-64" / label.lib_conda_file,
        dist / "wheels" / label.wheel_file,
    ]
    output = checkout / "dist"
    command = [sys.executable, "scripts/build.py", "--variant", _VARIANT]
    log = checkout.parent / "log.txt"
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    for _ in range(4):
        with log.open("w") as stream:
            child = subprocess.Popen(
                command,
                cwd=checkout,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            time.sleep(moments.uniform(1, 15))
            child.send_signal(signal.SIGKILL)
            child.wait()
        for made in wanted:
            path = output / made.relative_to(dist)
            assert not path.exists() or file_digest(path) == file_digest(made), seed
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    for made in wanted:
        path = output / made.relative_to(dist)
        assert file_digest(path) == file_digest(made), f"seed {seed}: {path.name}"
    partial = [path for path in output.rglob(".partial-*") if path.is_file()]
    assert partial == []
