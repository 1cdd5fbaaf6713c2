"""What the recipes refuse to be rendered with, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import jinja2
import pytest
from meta_yaml import Recipe
from rattler_build import (
    PlatformConfig,
    RattlerBuildError,
    RenderConfig,
    Stage0Recipe,
    VariantConfig,
)

from flashinfer_build import variants

[SPEC] = variants.select(variants.load(), ["cu130_torch213"])
ROW = SPEC.as_mapping()

Render = Callable[[Mapping[str, str]], object]


@pytest.fixture
def meta_yaml(root: Path) -> Path:
    return root / "recipe/meta.yaml"


@pytest.fixture(params=["meta.yaml", "recipe.yaml"])
def render(request: pytest.FixtureRequest, root: Path) -> Render:
    """Renders one of the recipes for the pins that it is given."""

    def by_rattler_build(pins: Mapping[str, str]) -> object:
        platform = PlatformConfig(target_platform="linux-64", experimental=True)
        config = VariantConfig({key: [value] for key, value in pins.items()})
        recipe = Stage0Recipe.from_file(root / "recipe/recipe.yaml")
        return recipe.render(config, RenderConfig(platform=platform))

    def by_conda_build(pins: Mapping[str, str]) -> object:
        return Recipe(root / "recipe/meta.yaml", pins, {}).render()

    return by_rattler_build if request.param == "recipe.yaml" else by_conda_build


def refusal(render: Render, pins: Mapping[str, str]) -> str:
    with pytest.raises((jinja2.TemplateNotFound, RattlerBuildError)) as raised:
        render(pins)
    return " ".join(str(raised.value).split())


def without(key: str) -> dict[str, str]:
    return {name: value for name, value in ROW.items() if name != key}


def test_a_conda_build_that_does_not_know_python_version_independent(meta_yaml: Path) -> None:
    with pytest.raises(jinja2.TemplateNotFound) as raised:
        Recipe(meta_yaml, ROW, {}, version_independent=False).render()
    assert "conda-build >=25.3.2" in str(raised.value)
    assert "conda env create -f environment.yml" in str(raised.value)


def test_the_files_that_the_refusals_name_are_there(root: Path) -> None:
    for name in (
        "environment.yml",
        "environment-mambabuild.yml",
        "conda_build_config.yaml",
        "scripts/matrix.py",
    ):
        assert name in (root / "recipe/meta.yaml").read_text()
        assert (root / name).is_file()


def test_no_variant(render: Render) -> None:
    said = refusal(render, {})
    assert "no variant" in said
    assert "-m conda_build_config.yaml" in said


@pytest.mark.parametrize(
    ("pins", "cuda", "torch"),
    [
        ({**ROW, "flashinfer_variant": "cu130_torch212"}, "13.0", "2.13"),
        ({**ROW, "pytorch": "2.12"}, "13.0", "2.12"),
        ({**ROW, "cuda_nvcc": "12.9"}, "12.9", "2.13"),
        ({**ROW, "cuda_nvcc": "None"}, "None", "2.13"),
        (without("flashinfer_variant"), "13.0", "2.13"),
    ],
    ids=["another row's name", "another torch", "another CUDA", "the CPU", "no name"],
)
def test_pins_of_two_rows(render: Render, pins: Mapping[str, str], cuda: str, torch: str) -> None:
    said = refusal(render, pins)
    assert f"CUDA {cuda} with torch {torch} is not the row that flashinfer_variant names" in said
    assert "python scripts/matrix.py conda-args" in said


# What is asked for, in a file; each is one that conda-build drops or reads in its own way.
ASKED = {
    "a block list": 'pytorch:\n  - "2.13"',
    "a list on the key's line": 'pytorch: ["2.13"]',
    "without quotes": "pytorch: [2.13]",
    "a quoted key": '"pytorch": ["2.13"]',
    "an anchor": 'pytorch: &x ["2.13"]',
    "a tag": 'pytorch: !!seq ["2.13"]',
    "a long key": '? pytorch\n: ["2.13"]',
    "below its key": 'pytorch:\n  ["2.13"]',
    "over several lines": 'pytorch: [\n  "2.13",\n]',
    "a scalar": 'pytorch: "2.13"',
    "lines of Windows": 'pytorch: ["2.13"]\r\nc_stdlib: \r\n  - "sysroot"\r\n',
    "a name": 'flashinfer_variant:\n  - "cu130_torch213"',
    "two pins": 'pytorch:\n  - "2.13"\ncuda_nvcc:\n  - "13.0"',
    "several values": 'pytorch:\n  - "2.13"\n  - "2.10"',
}
OTHER = {
    spec.id: spec.as_mapping()
    for spec in variants.select(variants.load(), ["cu130_torch212", "cu126_torch29", "cpu_torch24"])
}


@pytest.mark.parametrize("text", ASKED.values(), ids=ASKED)
def test_a_row_that_was_not_asked_for_stops(meta_yaml: Path, tmp_path: Path, text: str) -> None:
    """conda-build drops what it cannot use, and would build this row beside the right one."""
    root_file, file = meta_yaml.parents[1] / "conda_build_config.yaml", tmp_path / "variant.yaml"
    file.write_bytes(text.encode())
    files = [str(root_file), str(file)]
    assert Recipe(meta_yaml, ROW, {}, config_files=files).render()
    for pins in OTHER.values():
        with pytest.raises(jinja2.TemplateNotFound) as raised:
            Recipe(meta_yaml, pins, {}, config_files=files).render()
        said = str(raised.value)
        assert f"{file} asks for " in said
        assert "python scripts/matrix.py conda-args" in said


def test_a_file_that_is_not_found_any_more(meta_yaml: Path, tmp_path: Path) -> None:
    """conda-build renders again while it packages, in another folder: -m may be relative."""
    file = tmp_path / "gone.yaml"
    assert Recipe(meta_yaml, ROW, {}, config_files=[str(file)]).render()


def test_a_torch_is_one_whether_quoted_or_not(meta_yaml: Path, tmp_path: Path) -> None:
    """2.10 without quotes is 2.1 to YAML, and 2.10 to conda-build."""
    [spec] = variants.select(variants.load(), ["cu130_torch210"])
    file = tmp_path / "variant.yaml"
    file.write_text("pytorch:\n  - 2.10\ncuda_nvcc:\n  - 13.0\n")
    assert Recipe(meta_yaml, spec.as_mapping(), {}, config_files=[str(file)]).render()


@pytest.mark.parametrize("arguments", [["--variants", "{}"], ["--variants={}"]])
@pytest.mark.parametrize(
    "asked", ['{"pytorch": "2.13", "cuda_nvcc": "12.4"}', "{pytorch: [2.4], cuda_nvcc: ['13.0']}"]
)
def test_pins_on_the_command_line_that_are_no_row(
    meta_yaml: Path, arguments: list[str], asked: str
) -> None:
    """conda-build takes the first pin, drops the other, and builds every row with the first."""
    words = [word.replace("{}", asked) for word in arguments]
    for pins in (ROW, *OTHER.values()):
        with pytest.raises(jinja2.TemplateNotFound, match="--variants asks for "):
            Recipe(meta_yaml, pins, {}, arguments=words).render()


def test_the_command_line_comes_after_the_files(meta_yaml: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text('pytorch:\n  - "2.12"\n')
    second.write_text('cuda_nvcc:\n  - "13.0"\npytorch:\n  - "2.11"\n')
    files = [str(first), str(second)]
    words = ["recipe/", "--variants", '{"pytorch": ["2.13"]}']
    assert Recipe(meta_yaml, ROW, {}, config_files=files, arguments=words).render()
    with pytest.raises(jinja2.TemplateNotFound, match=r"second\.yaml asks for pytorch 2\.11"):
        Recipe(meta_yaml, ROW, {}, config_files=files).render()


@pytest.mark.parametrize("number", ["1000", "-1", "007", "abc", "1.5", "99999999999999999999"])
def test_a_build_number_that_is_none(
    meta_yaml: Path, root: Path, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "FLASHINFER_BUILD_NUMBER"
    with pytest.raises(jinja2.TemplateNotFound, match="is not a build number"):
        Recipe(meta_yaml, ROW, {name: number}).render()
    monkeypatch.setenv(name, number)
    platform = PlatformConfig(target_platform="linux-64", experimental=True)
    config = VariantConfig({key: [value] for key, value in ROW.items()})
    # Of what is no number at all rattler-build says so itself.
    with pytest.raises(RattlerBuildError, match=r"is not a build number|cannot convert|invalid"):
        Stage0Recipe.from_file(root / "recipe/recipe.yaml").render(
            config, RenderConfig(platform=platform)
        )
