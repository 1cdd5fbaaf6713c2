"""The commands that build chosen variants with conda's own builders."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rattler_build import JinjaConfig, PlatformConfig, VariantConfig

from conda_bridge.errors import ConfigError, LabelError
from flashinfer_build import variants
from flashinfer_build.matrix import conda_commands

SPECS = variants.load()
FORGE = [spec.id for spec in SPECS if spec.on_conda_forge]
OTHER = [spec.id for spec in SPECS if not spec.on_conda_forge]
FILE = Path("build/variants/x.yaml")


def made(*names: str, channels: tuple[str, ...] = ()) -> conda_commands.CondaCommands:
    chosen = conda_commands.choose(SPECS, names, anywhere=bool(channels))
    return conda_commands.commands(SPECS, chosen, file=FILE, channels=channels)


def rows(path: Path) -> list[str]:
    """The ids in a variant file, as rattler-build reads it."""
    config = VariantConfig.from_conda_build_config(
        path, JinjaConfig(platform=PlatformConfig(target_platform="linux-64"))
    )
    return sorted(str(row["flashinfer_variant"]) for row in config.combinations())


def built(command: str, text: str, root: Path, tmp_path: Path) -> list[str]:
    """What a builder would build: the rows of the file that it reads, less what is not chosen."""
    words = shlex.split(command)
    # conda-build reads the file in the project's root by itself; -m replaces all zipped keys in it.
    file = root / "conda_build_config.yaml"
    if "-m" in words:
        given = words[words.index("-m") + 1]
        file = root / given
        if given == str(FILE):
            file = tmp_path / "rows.yaml"
            file.write_text(text)
    found = rows(file)
    if "--variants" in words:
        chosen = json.loads(words[words.index("--variants") + 1])
        assert list(chosen) == ["flashinfer_variant"]
        assert set(chosen["flashinfer_variant"]) <= set(found)  # else conda-build stops
        found = [name for name in found if name in chosen["flashinfer_variant"]]
    return found


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        ((), ()),
        (("cu124_torch24",), ()),
        (("cu130_torch213", "cpu_torch213"), ()),
        (("cu126",), ()),
        (("cpu",), ()),
        (("cu130",), ()),
        (("cu130",), ("mine",)),
        (("cu118",), ()),
        (("cu118_torch26",), ()),
        (tuple(OTHER), ()),
        (("cu132", "cu130_torch213"), ("mine", "ours")),
        (tuple(FORGE + OTHER), ()),
    ],
)
def test_every_builder_is_told_to_build_what_was_chosen(
    names: tuple[str, ...], channels: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    result = made(*names, channels=channels)
    assert list(result.commands) == ["conda build", "conda mambabuild", "rattler-build"]
    for builder, command in result.commands.items():
        assert f" {builder} " in f" {command} "
        assert built(command, result.text, root, tmp_path) == sorted(result.variants)
        assert (str(FILE) in command) <= (result.file == FILE)
    # boa takes --variants and builds every row all the same.
    assert "--variants" not in result.commands["conda mambabuild"]


def test_no_name_is_the_plain_command() -> None:
    result = made()
    assert list(result.variants) == FORGE
    assert result.file is None
    assert result.commands["conda build"].endswith(" conda build recipe/ -c conda-forge")
    assert result.commands["conda mambabuild"].endswith(" conda mambabuild recipe/ -c conda-forge")


def test_a_cuda_is_what_conda_forge_can_build_of_it_unless_there_are_other_channels() -> None:
    assert "cu130_torch29" not in made("cu130").variants
    assert "cu130_torch213" in made("cu130").variants
    assert "cu130_torch29" in made("cu130", channels=("mine",)).variants
    assert set(made("cu118").variants) == {f"cu118_torch2{minor}" for minor in (4, 5, 6, 7)}


def test_the_channels_that_have_what_conda_forge_lacks() -> None:
    cu118 = made("cu118_torch24")
    assert cu118.lacking == ()
    for command in cu118.commands.values():
        assert command.endswith(" -c nvidia/label/cuda-11.8.0 -c conda-forge")
    [text] = made("cu132_torch215").lacking
    assert text.startswith("cu132_torch215: pytorch 2.15 for CUDA 13 ")
    mine = made("cu132_torch215", channels=("https://example.org/a b",))
    assert mine.lacking == ()
    assert mine.commands["conda build"].endswith("-c 'https://example.org/a b' -c conda-forge")


def test_a_driver_is_promised_where_cuda_packages_are_tested() -> None:
    assert made("cu124", "cpu").commands["conda build"].startswith("CONDA_OVERRIDE_CUDA=12.4 ")
    assert made("cpu").commands["conda build"].startswith("conda build ")


def test_names_that_are_none() -> None:
    with pytest.raises(ConfigError, match="cu99 is not in the matrix"):
        made("cu99")
    with pytest.raises(ConfigError, match="cu139_torch213 is not in the matrix"):
        made("cu139_torch213")
    with pytest.raises(LabelError, match="not a variant"):
        made("--all")


def program(
    root: Path, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts/matrix.py"), "conda-args", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def test_the_program_writes_the_file_and_says_the_commands(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "rows.yaml"
    wanted = ["cu124_torch24", "-o", str(file)]
    dry = program(root, *wanted, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert not file.exists()
    done = program(root, *wanted)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == f"wrote {file}"
    assert lines == list(json.loads(dry.stdout)["commands"].values())
    assert rows(file) == ["cu124_torch24"]


def test_the_program_refuses_what_is_no_variant(root: Path) -> None:
    done = program(root, "cu124_torch99")
    assert done.returncode == 2
    assert "cu124_torch2" in done.stderr  # near it
    done = program(root, "cpu", "--all")
    assert done.returncode == 2


def test_the_files_name_is_short_and_each_choices_own(root: Path) -> None:
    every = [spec.id for spec in SPECS]
    name = conda_commands.default_file(every).name
    assert len(name) < 100
    assert name != conda_commands.default_file(every[:-1]).name
    assert conda_commands.default_file(["cpu"] * 30).name == "cpu.yaml"
    assert program(root, *every, "--dry-run").returncode == 0


@pytest.mark.parametrize("output", ["{}", "{}/file/rows.yaml", "/proc/nowhere/rows.yaml"])
def test_a_file_that_cannot_be_written(root: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "file").touch()
    path = output.format(tmp_path)
    done = program(root, "cu118_torch24", "-o", path)
    assert done.returncode == 2
    assert path in done.stderr or str(Path(path).parent) in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file"]
    done = program(root, "cu118_torch24", "-o", path, "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)


def test_a_file_of_somebody_else_is_kept(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "conda_build_config.yaml"
    path.write_text("pytorch:\n  - mine\n")
    done = program(root, "cu118_torch24", "-o", str(path))
    assert done.returncode == 2
    assert "was not written by conda-args" in done.stderr
    assert path.read_text() == "pytorch:\n  - mine\n"
    path.unlink()
    for names in (["cu118_torch24"], ["cu124"]):  # its own may be written again
        assert program(root, *names, "-o", str(path)).returncode == 0
    assert "cu124_torch24" in rows(path)


def test_from_another_folder_the_commands_say_where_they_are_for(
    root: Path, tmp_path: Path
) -> None:
    done = program(root, "cu124_torch24", "-o", "rows.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "rows.yaml"
    assert rows(file) == ["cu124_torch24"]
    assert f"in {root}:" in done.stdout.splitlines()
    assert f"-m {file} " in done.stdout
