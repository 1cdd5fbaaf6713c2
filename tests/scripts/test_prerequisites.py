"""prerequisites: what a build without isolation lacks is named, with the command that brings it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from conda_bridge.errors import ToolchainError
from flashinfer_build.compile import prerequisites

ROOT = Path(__file__).resolve().parents[2]
HOOKS = ("get_requires_for_build_wheel", "prepare_metadata_for_build_wheel", "build_wheel")


def test_they_are_those_of_the_build_system() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {}
    for line in document["build-system"]["requires"]:
        name, _, floor = line.partition(";")[0].partition(">=")
        asked[name] = tuple(map(int, floor.split("."))) if floor else ()
    assert asked == prerequisites.REQUIREMENTS


def test_all_that_is_missing_or_old_is_named_at_once(tmp_path: Path) -> None:
    def installed(name: str) -> str:
        if name == "packaging":
            raise metadata.PackageNotFoundError(name)
        return "65.5.0"

    # A Python without ninja beside it, as far as can be seen.
    environ = {"PATH": str(tmp_path)}
    with pytest.raises(ToolchainError) as caught:
        prerequisites.check(environ, installed)
    assert caught.value.fix.startswith('pip install "setuptools>=70.1" "packaging>=22"')
    assert "setuptools: 65.5.0" in caught.value.what
    assert "packaging: none" in caught.value.what


def test_what_is_enough_is_enough() -> None:
    prerequisites.check(installed={"setuptools": "70.1.0", "packaging": "22.0"}.__getitem__)


def test_a_ninja_on_a_noexec_mount_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says of a program there that it may not be started, as of one without the bit."""
    (tmp_path / "ninja").write_text("")
    monkeypatch.setattr(prerequisites, "find_ninja", lambda _environ: "")
    with pytest.raises(ToolchainError, match="ninja: none"):
        prerequisites.check({"PATH": str(tmp_path)})
    monkeypatch.setattr(prerequisites, "_is_noexec", lambda folder: folder == str(tmp_path))
    with pytest.raises(ToolchainError, match="mounted noexec"):
        prerequisites.check({"PATH": f"/nowhere:{tmp_path}"})


@pytest.mark.parametrize(
    ("config", "implementation", "machine", "words"),
    [
        ({"Py_GIL_DISABLED": 1}, "cpython", "", "free-threaded"),
        ({}, "pypy", "", "pypy"),
        ({}, "cpython", "linux-aarch64", "linux-aarch64"),
        ({}, "cpython", "darwin-x86_64", "darwin-x86_64"),
        ({}, "cpython", "win32-AMD64", "win32-AMD64"),
    ],
)
def test_an_interpreter_that_cannot_load_the_binding_is_refused(
    config: dict[str, object], implementation: str, machine: str, words: str
) -> None:
    with pytest.raises(ToolchainError, match=words):
        prerequisites.check_interpreter(config.get, implementation, machine)


@pytest.mark.parametrize("missing", ["setuptools", "packaging"])
@pytest.mark.parametrize("hook", ["prepare_metadata_for_build_wheel", "build_editable", "setup.py"])
def test_no_traceback_where_it_is_missing(tmp_path: Path, missing: str, hook: str) -> None:
    """A bare interpreter, as a new virtual environment has it from Python 3.12 on."""
    hide = (
        "import importlib.metadata as m, sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name.split('.')[0] == {missing!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "real = m.version\n"
        "def version(name):\n"
        f"    if name == {missing!r}: raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
    )
    if hook == "setup.py":
        call = f"import runpy; runpy.run_path({str(ROOT / 'setup.py')!r}, run_name='__main__')"
    else:
        call = f"from flashinfer_build.compile import pep517; pep517.{hook}('.')"
    done = subprocess.run(
        [sys.executable, "-c", hide + call, "bdist_wheel"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(rf'to do: +pip install "{missing}>=', done.stderr)
