"""code_key: the modules of a job are found from what it imports, not from a list."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flashinfer_build.pipeline.code_key import closure, code_key

JOB = "flashinfer_build.first"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Two packages of a few modules that import each other in every way."""
    files = {
        "flashinfer_build/__init__.py": "",
        "flashinfer_build/first.py": "from . import second\n"
        "from .room import third\n"
        "import conda_bridge.fourth\n",
        "flashinfer_build/second.py": "def late():\n    from conda_bridge.room import fifth\n",
        "flashinfer_build/worker.py": "",
        "flashinfer_build/apart.py": "from . import first\n",
        "flashinfer_build/room/__init__.py": "from conda_bridge import eighth\n",
        "flashinfer_build/room/third.py": "from ..sixth import name\nfrom .seventh import other\n",
        "flashinfer_build/room/seventh.py": "",
        "flashinfer_build/room/apart.py": "",
        "flashinfer_build/sixth.py": "from . import first\n",
        "conda_bridge/__init__.py": "from .version import VERSION\n",
        "conda_bridge/version.py": "VERSION = 1\n",
        "conda_bridge/fourth.py": "import os\nWORKER = ['-m', 'flashinfer_build.worker']\n",
        "conda_bridge/eighth.py": "",
        "conda_bridge/apart.py": "",
        "conda_bridge/room/__init__.py": "",
        "conda_bridge/room/fifth.py": "from pathlib import Path\n"
        "OPS = Path(__file__).with_name('copied.py')\n",
        "conda_bridge/room/copied.py": "",
        "elsewhere/__init__.py": "",
        "label.py": "from conda_bridge import apart\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_everything_imported_named_or_copied_counts_and_nothing_else(scripts: Path) -> None:
    found = {path.relative_to(scripts).as_posix() for path in closure(scripts, [JOB])}
    everything = {path.relative_to(scripts).as_posix() for path in scripts.rglob("*.py")}
    assert everything - found == {
        "flashinfer_build/apart.py",
        "flashinfer_build/room/apart.py",
        "conda_bridge/apart.py",
        "elsewhere/__init__.py",
        "label.py",
    }


@pytest.mark.parametrize(
    "name",
    [
        "flashinfer_build/first.py",
        "flashinfer_build/room/__init__.py",
        "flashinfer_build/room/seventh.py",
        "flashinfer_build/worker.py",
        "conda_bridge/__init__.py",
        "conda_bridge/version.py",
        "conda_bridge/fourth.py",
        "conda_bridge/eighth.py",
        "conda_bridge/room/__init__.py",
        "conda_bridge/room/fifth.py",
        "conda_bridge/room/copied.py",
    ],
)
def test_a_change_in_any_of_them_changes_the_key(scripts: Path, name: str) -> None:
    before = code_key(scripts, [JOB])
    with (scripts / name).open("a") as stream:
        stream.write("x = 1\n")
    after = code_key(scripts, [JOB])
    assert after != before
    for apart in ("flashinfer_build/apart.py", "conda_bridge/apart.py"):
        with (scripts / apart).open("a") as stream:
            stream.write("x = 1\n")
    assert code_key(scripts, [JOB]) == after


@pytest.mark.parametrize("name", ["flashinfer_build.nothing", "first", "json"])
def test_a_module_that_is_not_there_is_not_an_empty_list(scripts: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no module {name}"):
        closure(scripts, [name])


@pytest.mark.parametrize(
    "module",
    [
        "conda_bridge.verify.gate",
        "conda_bridge.bridge.convert",
        "flashinfer_build.tryout.install",
        "flashinfer_build.toolchain.assembled",
        "flashinfer_build.compile.project",
    ],
)
def test_what_python_itself_imports_is_found(root: Path, module: str) -> None:
    """Against the interpreter: every module of ours that is there after the import."""
    scripts = root / "scripts"
    program = (
        f"import json, sys, {module}\n"
        "ours = ('conda_bridge', 'flashinfer_build')\n"
        "names = [name for name in sys.modules if name.partition('.')[0] in ours]\n"
        "print(json.dumps([sys.modules[name].__file__ for name in names]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(scripts), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(map(Path, json.loads(done.stdout))) <= set(closure(scripts, [module]))


def test_workers_and_what_is_copied_are_found(root: Path) -> None:
    modules = ["flashinfer_build.compile.builder", "flashinfer_build.tryout.install"]
    names = {path.name for path in closure(root / "scripts", modules)}
    assert {"build_worker.py", "install_worker.py", "ops.py"} <= names


def test_modules_that_setup_py_runs_are_python_3_8(root: Path) -> None:
    """Where flashinfer is built, not where it is packaged; ruff has to know which those are."""
    scripts = root / "scripts"
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["ruff"]
    globs = [
        expanded
        for glob, version in settings["per-file-target-version"].items()
        if version == "py38"
        for expanded in _expanded(glob)
    ]
    modules = [
        "flashinfer_build.label",
        *(f"flashinfer_build.compile.{m}" for m in ("project", "pep517")),
    ]
    for path in closure(scripts, modules):
        ast.parse(path.read_text(), feature_version=(3, 8))
        assert path.relative_to(root).as_posix() in globs


def _expanded(glob: str) -> list[str]:
    head, brace, rest = glob.partition("{")
    if not brace:
        return [glob]
    names, _, tail = rest.partition("}")
    return [f"{head}{name}{tail}" for name in names.split(",")]
