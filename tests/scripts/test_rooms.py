"""The rooms of scripts/: docs/architecture.md has each, and import-linter sees a wrong import."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("conda_bridge", "flashinfer_build")
LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_and_module_is_in_the_table(root: Path, package: str) -> None:
    table = (root / "docs/architecture.md").read_text().partition(f"| `scripts/{package}/` |")[2]
    rows = {
        line.split("|")[1].strip(" `"): line for line in table.partition("\n\n")[0].splitlines()[2:]
    }
    folder = root / "scripts" / package
    found = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    rooms = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert set(rows) == found | {f"{room}/" for room in rooms}
    for room in rooms - {"toolchain"}:  # toolchain.md has those
        modules = {path.stem for path in (folder / room).glob("*.py")} - {"__init__"}
        assert {f"`{name}`" for name in modules} == {
            word.strip() for word in rows[f"{room}/"].split("|")[3].split(",")
        }


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("conda_bridge/bridge/convert.py", "import flashinfer_build.variants", "knows neither"),
        ("conda_bridge/verify/gate.py", "import flashinfer", "knows neither"),
        ("conda_bridge/formats/elf.py", "from ..bridge import manylinux", "of conda_bridge"),
        ("conda_bridge/spare.py", "", "of conda_bridge"),
        ("flashinfer_build/variants.py", "from .compile import native", "of flashinfer_build"),
    ],
)
def test_a_wrong_import_breaks_a_contract(
    root: Path, tmp_path: Path, module: str, line: str, contract: str
) -> None:
    shutil.copytree(
        root / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(root / "pyproject.toml", tmp_path)
    with (tmp_path / "scripts" / module).open("a") as stream:
        stream.write(f"\n{line}\n")
    done = subprocess.run(
        [sys.executable, "-c", LINTER, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "scripts")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    [broken] = [text for text in done.stdout.splitlines() if text.endswith("BROKEN")]
    assert contract in broken
