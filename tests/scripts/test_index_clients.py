"""Installers that are not in the test environment: asked when ``FLASHINFER_INDEX_CLIENTS`` is set.

It names a folder, in which the environments of the installers are made from PyPI and kept. What was
run is in docs/index.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import factories
import installers
import pytest
from test_forms import CPU, CUDA, NIGHTLY, OLDER, Server, made, put, server, site

# Fixtures of that module are fixtures here.
__all__ = ["made", "server", "site"]

_FOLDER = os.environ.get("FLASHINFER_INDEX_CLIENTS", "")
pytestmark = pytest.mark.skipif(
    not _FOLDER, reason="FLASHINFER_INDEX_CLIENTS names no folder for the installers"
)
# The first pip that knows manylinux_2_28 (PEP 600), on the first Python that the wheels are for.
OLDEST = "20.3"


def _environment(name: str, python: str, *requirements: str) -> Path:
    """The programs of an environment, which is made where it is not there yet."""
    folder = Path(_FOLDER) / name
    if not (folder / "bin" / "done").exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *requirements]
        subprocess.run(pip, check=True)
        (folder / "bin" / "done").touch()
    return folder / "bin"


def _run(cwd: Path, *words: str | Path, **environ: str) -> str:
    left = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, capture_output=True, text=True, env={**left, **environ}
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module", params=["oldest", "newest"])
def pip(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    python = os.environ.get("FLASHINFER_OLDEST_PYTHON", "python3.8")
    if request.param == "oldest":
        programs = _environment(f"pip-{OLDEST}", python, f"pip=={OLDEST}")
    else:
        programs = _environment("pip-newest", sys.executable, "-U", "pip")
    yield [str(programs / "python"), "-m", "pip", "--isolated", "--disable-pip-version-check"]


@pytest.mark.parametrize("how", ["http", "file"])
@pytest.mark.parametrize(
    ("folder", "wanted", "expected"),
    [
        ("cu130/torch2.13", "flashinfer", CUDA),
        ("cu130_torch213", "flashinfer", CUDA),
        ("simple", f"flashinfer=={CUDA.wheel_version}", CUDA),
        ("simple", f"flashinfer=={OLDER.wheel_version}", OLDER),  # yanked, and pinned
        ("torch2.13", f"flashinfer=={CPU.wheel_version}", CPU),
        ("nightly/cu130", "flashinfer", NIGHTLY),
    ],
)
def test_pip(
    pip: list[str], server: Server, site: Path, tmp_path: Path,
    how: str, folder: str, wanted: str, expected: factories.Label,
) -> None:  # fmt: skip
    base = server.address if how == "http" else site.as_uri()
    index = ["--no-cache-dir", "--index-url", f"{base}/index/{folder}/"]
    pre = ["--pre"] if expected is NIGHTLY else []
    _run(tmp_path, *pip, "download", *index, *pre, "-d", "plain", wanted)
    assert [path.name for path in (tmp_path / "plain").iterdir()] == [expected.wheel_file]
    digest = _run(tmp_path, *pip, "hash", tmp_path / "plain" / expected.wheel_file)
    sha256 = digest.rsplit("sha256:", 1)[1].strip()
    requirement = f"flashinfer=={expected.wheel_version} --hash=sha256:{sha256}"
    (tmp_path / "requirements.txt").write_text(requirement + "\n")
    words = ["install", *index, *pre, "--require-hashes", "-r", "requirements.txt"]
    _run(tmp_path, *pip, *words, "--target", "site")
    assert (tmp_path / "site/flashinfer/__init__.py").is_file()
    (tmp_path / "requirements.txt").write_text(requirement.replace(sha256, "0" * 64) + "\n")
    with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
        _run(tmp_path, *pip, *words, "--target", "other")


@pytest.mark.parametrize("how", ["http", "file"])
def test_uv_installs(server: Server, site: Path, tmp_path: Path, how: str) -> None:
    uv = installers.UV
    base = server.address if how == "http" else site.as_uri()
    _run(
        tmp_path,
        *(uv, "pip", "install", "--cache-dir", "cache", "--python", sys.executable),
        *("--target", "site", "--default-index", f"{base}/index/simple/"),
        f"flashinfer=={CUDA.wheel_version}",
    )
    assert (tmp_path / "site/flashinfer/__init__.py").is_file()


def test_pdm_locks_and_syncs(server: Server, tmp_path: Path) -> None:
    pdm = _environment("pdm", sys.executable, "pdm", "hishel<2") / "pdm"
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "toy"\nversion = "1"\nrequires-python = ">=3.10"\n'
        'dependencies = ["flashinfer==0.1.6"]\n'
        f'[[tool.pdm.source]]\nname = "pypi"\nurl = "{server.address}/index/cu130/torch2.13/"\n'
        "[tool.pdm]\ndistribution = false\n"
    )
    # An environment of its own: PDM installs into the interpreter that it is given.
    _run(tmp_path, sys.executable, "-m", "venv", ".venv")
    _run(tmp_path, pdm, "use", "--first", tmp_path / ".venv/bin/python")
    _run(tmp_path, pdm, "lock")
    lock = (tmp_path / "pdm.lock").read_text()
    assert CUDA.wheel_version in lock
    assert "sha256:" in lock
    _run(tmp_path, pdm, "lock", "--check")
    for _ in range(2):
        _run(tmp_path, pdm, "sync", "--no-self")
    assert (tmp_path / "pdm.lock").read_text() == lock
    assert next(tmp_path.glob(".venv/lib/*/site-packages/flashinfer/__init__.py"))


def test_poetry_locks_and_syncs(server: Server, tmp_path: Path) -> None:
    poetry = _environment("poetry", sys.executable, "poetry") / "poetry"
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "toy"\nversion = "1"\nrequires-python = ">=3.10"\n'
        'dependencies = ["flashinfer==0.1.6"]\n'
        "[tool.poetry]\npackage-mode = false\n"
        f'[[tool.poetry.source]]\nname = "ours"\nurl = "{server.address}/index/cu130/torch2.13/"\n'
        'priority = "primary"\n'
    )
    environ = {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_CACHE_DIR": str(tmp_path / "cache")}
    _run(tmp_path, poetry, "lock", **environ)
    lock = (tmp_path / "poetry.lock").read_text()
    assert CUDA.wheel_version in lock
    _run(tmp_path, poetry, "check", "--lock", **environ)
    for _ in range(2):
        _run(tmp_path, poetry, "sync", **environ)
    assert (tmp_path / "poetry.lock").read_text() == lock
    assert next(tmp_path.glob(".venv/lib/*/site-packages/flashinfer/__init__.py"))


def test_what_uv_locked_is_there_after_an_addition(site: Path, tmp_path: Path) -> None:
    """A lock file from before a release still installs after it."""
    from test_release import artifacts

    copy = tmp_path / "site"
    subprocess.run(["cp", "-a", str(site), str(copy)], check=True)
    running = Server(copy)
    uv = installers.UV
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "toy"\nversion = "1"\nrequires-python = ">=3.10"\n'
        'dependencies = ["flashinfer"]\n'
        f'[[tool.uv.index]]\nurl = "{running.address}/index/cu130/torch2.13/"\ndefault = true\n'
    )
    words = ("--cache-dir", "cache", "--python", sys.executable)
    _run(tmp_path, uv, "lock", *words)
    lock = (tmp_path / "uv.lock").read_text()
    newer = factories.label_of("cu130_torch213", public_version="0.1.8")
    put(copy, artifacts(tmp_path / "newer", newer))
    _run(tmp_path, uv, "sync", "--locked", *words)
    assert (tmp_path / "uv.lock").read_text() == lock
    _run(tmp_path, uv, "lock", "--upgrade", *words)
    assert newer.wheel_version in (tmp_path / "uv.lock").read_text()
    running.http.shutdown()
