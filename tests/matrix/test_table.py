"""The table of the matrix: the variant files are what it says, and what it may not say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conda_bridge.errors import ConfigError
from flashinfer_build import variants
from flashinfer_build.matrix import table

ROOT = variants.CONFIG_FILE.parent
SMALL = """\
[common]
cxx-compiler = "gxx"
c-stdlib = "sysroot"
c-stdlib-version = "2.28"
[cpu]
gxx = "14"
gxx-below = "16"
torch = ["2.13"]
[cuda."13.0"]
gxx = "14"
gxx-below = "16"
archs = "9.0a"
torch = ["2.13", "2.9"]
torch-elsewhere = ["2.10"]
[cuda."12.4"]
gxx = "12"
gxx-below = "14"
archs = "8.0"
torch = ["2.6"]
"""


def test_the_variant_files_are_what_the_table_says() -> None:
    made = table.variant_files(table.read(ROOT / table.TABLE_FILE))
    assert set(made) == {"conda_build_config.yaml", variants.OTHER_CHANNELS}
    for name, text in made.items():
        assert (ROOT / name).read_text() == text, "run `python scripts/matrix.py config`"


def test_every_row_comes_back_from_the_files(tmp_path: Path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(SMALL)
    for name, text in table.variant_files(table.read(path)).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    specs = variants.load(tmp_path / "conda_build_config.yaml")
    assert [(spec.id, spec.on_conda_forge) for spec in specs] == [
        ("cpu_torch213", True),
        ("cu124_torch26", True),
        ("cu130_torch29", True),
        ("cu130_torch210", False),
        ("cu130_torch213", True),
    ]
    for spec in specs[1:]:
        [cuda] = [
            one for version, one in table.read(path).cuda.items() if version == spec.cuda_nvcc
        ]
        assert (spec.cxx_compiler_version, spec.gxx_below, spec.cuda_arch_list) == (
            *(cuda.gxx, cuda.gxx_below),
            cuda.archs,
        )
    assert dict(specs[0].common)["c_stdlib_version"] == "2.28"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALL.replace("gxx-below", "gxx_below", 1), "gxx"),
        (SMALL.replace('archs = "8.0"\n', ""), "archs"),
        (SMALL.replace('"2.6"', "2.6"), "torch"),
        (SMALL.replace('["2.6"]', "[]"), "cuda.12.4"),
        (SMALL.replace('"2.10"', '"2.9"'), "2.9 is there twice"),
        (SMALL.replace("12.4", "12"), "cuda.12"),
        (SMALL.replace('"2.6"', '"two"'), "two"),
        (SMALL + "[rocm]\n", "rocm"),
        ("[", "TOML"),
    ],
)
def test_a_table_that_says_something_else(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        table.read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_program(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for name in ("scripts", "recipe", "requirements", "tests/matrix/golden"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "version.txt", "conda_build_config.yaml"):
        shutil.copy(ROOT / name, root)
    file = root / table.TABLE_FILE
    assert run(root, "--check") == (0, "nothing has changed")
    file.write_text(file.read_text().replace('torch-elsewhere = ["2.15"]', 'torch = ["2.15"]'))
    before = (root / "conda_build_config.yaml").read_text()
    code, told = run(root, "--check")
    assert code == 1
    assert "conda_build_config.yaml is not what recipe/matrix.toml says" in told
    assert (root / "conda_build_config.yaml").read_text() == before
    assert run(root)[0] == 0
    assert run(root, "--check") == (0, "nothing has changed")
    [spec] = [
        spec
        for spec in variants.load(root / "conda_build_config.yaml")
        if spec.id == "cu132_torch215"
    ]
    assert spec.on_conda_forge
    file.write_text(file.read_text() + "[nothing]\n")
    code, told = run(root)
    assert code == 2
    assert "nothing" in told


def run(root: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, root / "scripts/matrix.py", "config", *words],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    return done.returncode, (done.stdout + done.stderr).strip()
