"""Building from source with pip, as a developer does: the label, the words without nvcc, errors."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typed import Elsewhere, install_lines

from conda_bridge.project import Project
from conda_bridge.verify import gate
from flashinfer_build.label import Label

_NO_CUDA = {"PATH": "/usr/bin:/bin", "CUDA_HOME": "", "NVCC": ""}


def _environ(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLASHINFER_")}
    own = Path(sys.executable).parent  # ninja
    return {**kept, **_NO_CUDA, "PATH": f"{own}:{_NO_CUDA['PATH']}", **more}


def _setup(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "setup.py", *words],
        cwd=folder,
        env=_environ(**more),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def source(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    target = tmp_path_factory.mktemp("sdist")
    done = _setup(root, "-q", "sdist", "-d", str(target))
    assert done.returncode == 0, done.stderr
    [archive] = target.glob("*.tar.gz")
    # A source distribution has no variant, so its name has no label.
    assert archive.name == f"flashinfer-{(root / 'version.txt').read_text().strip()}.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    folder = archive.with_name(archive.name.removesuffix(".tar.gz"))
    assert not (folder / "flashinfer" / "_build_info.py").exists()
    return folder


def test_pip_builds_the_sdist_for_the_torch_at_hand_without_nvcc(
    source: Path, tmp_path: Path, root: Path
) -> None:
    command = [sys.executable, "-P", "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    # Every source is compiled; how fast what comes out would run is not looked at here.
    flags = {"CXXFLAGS": "-O0"}
    done = subprocess.run(
        [*command, "-v", "-w", str(tmp_path), str(source)],
        env=_environ(FLASHINFER_FORCE_CPU="1", FLASHINFER_BUILD_VERSION="9.8.7", **flags),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [wheel] = tmp_path.glob("*.whl")
    label = Label.parse_wheel_file(wheel.name)
    # flashinfer #663: a version from the environment used to drop the label.
    assert label.public_version == "9.8.7"
    assert label.variant.id == "cpu_torch213"
    assert wheel.name.endswith("-cp38-abi3-linux_x86_64.whl")
    assert "this is the CPU build cpu_torch213" in done.stdout + done.stderr
    # With the SBOMs of both libraries, which are true of them, and the licences that those name.
    report = gate.verify([wheel], project=Project.load(root / "pyproject.toml"))
    wrong = [found for found in report.findings if found.check in ("sbom", "licences")]
    assert wrong == []
    assert "sbom" in report.artifacts[0].checks


def test_an_import_of_the_source_says_what_installs_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is for any folder, and pip takes that source and no package of that name."""
    called = [sys.executable, "-c", "import flashinfer"]
    done = subprocess.run(called, cwd=source, env=_environ(), capture_output=True, text=True)
    assert "this is its source tree" in done.stderr
    [line] = install_lines(done.stderr)
    for name, value in _environ(FLASHINFER_FORCE_CPU="1").items():
        monkeypatch.setenv(name, value)
    # Without a network the isolated build, which brings setuptools and ninja, is left out.
    alone = ("--no-build-isolation", "--no-deps")
    taken = Elsewhere(tmp_path / "elsewhere").pip_takes(line, tmp_path, *alone)
    assert list(taken.values()) == [source.as_uri()]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"FLASHINFER_REQUIRE_CUDA": "1", "FLASHINFER_FORCE_CPU": "1"},
            "FLASHINFER_REQUIRE_CUDA=1",
        ),
        ({"FLASHINFER_BUILD_VERSION": "9.8.7+cu124"}, "FLASHINFER_BUILD_VERSION=9.8.7"),
        (
            {"FLASHINFER_EXPECT_VARIANT": "cpu_torch24", "FLASHINFER_FORCE_CPU": "1"},
            "cpu_torch24",
        ),
    ],
)
def test_what_cannot_be_built_stops_with_what_to_do(
    source: Path, environ: dict[str, str], words: str
) -> None:
    done = _setup(source, "bdist_wheel", **environ)
    assert done.returncode == 1
    assert "error:" in done.stderr
    assert words in done.stderr
    assert not (source / "dist").exists()
