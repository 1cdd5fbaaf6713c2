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


REFUSED = {
    "a list on the key's line": 'pytorch: ["2.13"]',
    "without quotes": "pytorch: [2.13]",
    "several values": 'pytorch: ["2.12", "2.13"]',
    "a quoted key": '"pytorch": ["2.13"]',
    "spaces around": 'pytorch :  [ "2.13" ]  ',
    "in a block list": "zip_keys:\n  - [cuda_nvcc, pytorch]",
    "below its key": 'pytorch:\n  ["2.13"]',
    "between others": 'cuda_nvcc:\n  - "None"\npytorch: ["2.13"]\nc_stdlib:\n  - "sysroot"',
    "lines of Windows": 'pytorch: ["2.13"]\r\nc_stdlib: \r\n  - "sysroot"\r\n',
}
# All of these mean to conda-build what they mean in YAML.
TAKEN = {
    "a block list": 'pytorch:\n  - "2.13"',
    "blocks in blocks": "zip_keys:\n  -\n    - cuda_nvcc\n    - pytorch",
    "over several lines": 'pytorch: [\n  "2.13",\n]',
    "over two lines": 'pytorch: [\n  "2.12", "2.13" ]',
    "a remark behind it": 'pytorch: ["2.13"]  # the newest',
    "a remark with brackets": '# as ["2.13"]\npytorch:\n  - "2.13"  # not [2.12] (yet)',
    "a selector": 'pytorch:\n  - "2.13"  # [linux]\n  - "2.12"  # [not linux]',
    "a list and a selector": 'pytorch: ["2.13"]  # [linux]',
    "a list of nothing": 'other: []\npytorch:\n  - "2.13"',
    "brackets in a value": 'other:\n  - "a[0]"\npytorch:\n  - "2.13"',
    "nothing at all": "",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_list_that_conda_build_would_drop(meta_yaml: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "variant.yaml"
    file.write_bytes(text.encode())
    with pytest.raises(jinja2.TemplateNotFound) as raised:
        Recipe(meta_yaml, ROW, {}, config_files=[str(file)]).render()
    said = str(raised.value)
    assert "conda-build drops a list in square brackets" in said
    assert str(file) in said
    [line] = [line for line in text.splitlines() if "[" in line]
    assert line.strip() in said


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_what_conda_build_reads_as_it_stands(meta_yaml: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "variant.yaml"
    file.write_text(text)
    assert Recipe(meta_yaml, ROW, {}, config_files=[str(file)]).render()


def test_a_file_is_looked_for_where_the_command_was_given(meta_yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "variant.yaml").write_text('pytorch: ["2.13"]\n')
    files = ["variant.yaml"]
    with pytest.raises(jinja2.TemplateNotFound, match=r"in variant\.yaml"):
        Recipe(meta_yaml, ROW, {"PWD": str(tmp_path)}, config_files=files).render()
    # A program may start conda-build in another folder than its own, and leave PWD as it is.
    for elsewhere in ({"PWD": str(tmp_path.parent)}, {}):
        assert Recipe(meta_yaml, ROW, elsewhere, config_files=files).render()


def test_the_second_file_is_looked_at_too(meta_yaml: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text('pytorch:\n  - "2.13"\n')
    second.write_text('cuda_nvcc: ["13.0"]\n')
    with pytest.raises(jinja2.TemplateNotFound, match=r"second\.yaml"):
        Recipe(meta_yaml, ROW, {}, config_files=[str(first), str(second)]).render()
