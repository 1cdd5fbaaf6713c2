"""py-rattler installs the packages of wheels, and Python and pip see the projects in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from foreign_wheels import wheel

from conda_bridge.bridge.to_conda import to_conda
from conda_bridge.formats import conda_package, conda_writer

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
CP = f"cp{PYTHON.replace('.', '')}"
WORKER = Path(__file__).parents[2] / "scripts/flashinfer_build/tryout/install_worker.py"
INDEX = """
import asyncio, os, sys
from pathlib import Path
from rattler.index import index_fs
asyncio.run(index_fs(Path(sys.argv[1])))
os._exit(0)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv into which rattler put a pure project and a compiled one that requires it."""
    work = tmp_path_factory.mktemp("installed")
    wheels = [
        wheel(
            work,
            {
                "pure_toy/__init__.py": "def main(): print('pure')\n",
                "{data}/data/share/pure-toy/data.txt": "data\n",
                "{data}/scripts/pure-script": "#!python\nimport pure_toy; pure_toy.main()\n",
            },
            name="pure-toy",
            version="1.2",
            entry_points="[console_scripts]\npure-toy = pure_toy:main\n",
        ),
        wheel(
            work,
            {"fast_toy.py": "class App:\n    @staticmethod\n    def run(): print('fast')\n"},
            name="fast-toy",
            version="2.0+cu12toy1",
            tag=f"{CP}-{CP}-linux_x86_64",
            metadata=["Requires-Dist: pure-toy~=1.1", "Requires-Dist: none; extra == 'x'"],
            entry_points="[console_scripts]\nfast-toy = fast_toy:App.run\n",
        ),
    ]
    channel = work / "channel"
    for path in wheels:
        done = to_conda(path, work / "packages", level=1)
        subdir = channel / conda_package.read(done.path).index["subdir"]
        subdir.mkdir(parents=True, exist_ok=True)
        os.link(done.path, subdir / done.path.name)
    # Records without files; the Python is the venv's.
    for name, version, build in (
        ("python", f"{PYTHON}.1", "0"),
        ("python_abi", PYTHON, f"2_{CP}"),
    ):
        conda_writer.write(
            channel / "linux-64" / f"{name}-{version}-{build}.conda",
            index={
                **{"name": name, "version": version, "build": build, "build_number": 0},
                **{"subdir": "linux-64", "depends": []},
            },
            files=[],
            level=1,
        )
    prefix = work / "env"
    venv.create(prefix, with_pip=False, symlinks=True)
    request, answer = work / "request.json", work / "answer.json"
    asked = {"channels": [channel.as_uri()], "specs": ["fast-toy"], "prefix": str(prefix)}
    request.write_text(json.dumps(asked))
    _run(sys.executable, "-c", INDEX, channel)
    _run(sys.executable, WORKER, request, answer, RATTLER_CACHE_DIR=str(work / "cache"))
    assert "pure-toy 1.2 py_0" in json.loads(answer.read_text())
    return prefix


def _run(*arguments: object, **environ: str) -> str:
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONNOUSERSITE": "1", **environ},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("command", "said"), [("pure-toy", "pure"), ("pure-script", "pure"), ("fast-toy", "fast")]
)
def test_commands_run(environment: Path, command: str, said: str) -> None:
    assert _run(environment / "bin" / command).strip() == said


def test_python_and_pip_see_the_projects(environment: Path) -> None:
    python = environment / "bin/python"
    code = (
        "import json\nfrom importlib.metadata import distribution, files, version\n"
        "there = [f.locate().exists() for f in files('pure-toy') if 'pycache' not in str(f)]\n"
        "installer = distribution('fast-toy').read_text('INSTALLER')\n"
        "print(json.dumps([version('fast-toy'), installer, all(there), len(there)]))\n"
    )
    assert json.loads(_run(python, "-I", "-c", code)) == ["2.0+cu12toy1", "conda", True, 9]
    assert (environment / "share/pure-toy/data.txt").read_text() == "data\n"
    _run(sys.executable, "-m", "pip", "--python", python, "check")
