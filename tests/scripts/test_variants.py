"""The reader of conda_build_config.yaml: what it gives, and what it refuses with key and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rattler_build import JinjaConfig, PlatformConfig, VariantConfig

from conda_bridge import variants
from conda_bridge.errors import ConfigError, LabelError
from conda_bridge.label import Variant

SMALL = """\
zip_keys:
  -
    - cuda_nvcc
    - pytorch
    - cuda_arch_list
    - gxx_below
cuda_nvcc:
  - "None"
  - "13.0"
pytorch:
  - "2.13"
  - "2.10"
cuda_arch_list:
  - "None"
  - "8.0+PTX;9.0a"
gxx_below:
  - "16"
  - "16"
cxx_compiler:
  - "gxx"
c_stdlib:
  - "sysroot"
c_stdlib_version:
  - "2.28"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "conda_build_config.yaml"
    path.write_text(text)
    return path


def test_the_matrix_of_the_project() -> None:
    specs = variants.load()
    ids = [spec.id for spec in specs]
    assert len(set(ids)) == len(ids)
    for wanted in (variants.DEFAULT_VARIANT, "cpu_torch213", "cu124_torch24", "cu130_torch211"):
        assert wanted in ids
    for spec in specs:
        assert Variant.from_pins(spec.cuda_nvcc, spec.pytorch) == spec.variant


def test_py_rattler_build_reads_the_same_matrix() -> None:
    config = VariantConfig.from_conda_build_config(
        variants.CONFIG_FILE, JinjaConfig(platform=PlatformConfig(target_platform="linux-64"))
    )
    read = [
        {key: str(value) for key, value in row.items() if key != "target_platform"}
        for row in config.combinations()
    ]
    ours = [spec.as_mapping() for spec in variants.load()]
    assert sorted(map(sorted_items, read)) == sorted(map(sorted_items, ours))


def sorted_items(row: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(row.items())


def test_a_small_matrix(tmp_path: Path) -> None:
    cpu, cuda = variants.load(write(tmp_path, SMALL))
    assert cpu.variant == Variant(None, (2, 13))
    assert cuda.variant == Variant((13, 0), (2, 10))
    assert cuda.as_rattler() == {
        "cuda_nvcc": ["13.0"],
        "pytorch": ["2.10"],
        "cuda_arch_list": ["8.0+PTX;9.0a"],
        "gxx_below": ["16"],
        "cxx_compiler": ["gxx"],
        "c_stdlib": ["sysroot"],
        "c_stdlib_version": ["2.28"],
    }


@pytest.mark.parametrize(
    ("old", "new", "what", "where"),
    [
        ('  - "2.10"', "  - 2.10", "'2.10' is not quoted", "12: pytorch"),
        ('cxx_compiler:\n  - "gxx"', 'cxx_compiler: ["gxx"]', "flow list", "19: cxx_compiler"),
        ('c_stdlib:\n  - "sysroot"', 'c_stdlib: "sysroot"', "not a list", "21: c_stdlib"),
        ('  - "2.10"', '  - "{{ torch }}"', "not a plain value", "12: pytorch"),
        ('  - "2.10"', '  - "2.10.1"', "not a version", "12: pytorch"),
        ('  - "13.0"', '  - "13"', "not a version", "9: cuda_nvcc"),
        ('  - "13.0"', '  - "9.2"', "has no label", "9: cuda_nvcc"),
        ('  - "13.0"', '  - "11.8"', "no sm_90a", "15: cuda_arch_list"),
        ('  - "8.0+PTX;9.0a"', '  - "sm_80"', "not a CUDA architecture", "15: cuda_arch_list"),
        ('  - "None"\n  - "8.0', '  - "9.0"\n  - "8.0', "for a CPU variant", "14: cuda_arch_list"),
        ('  - "16"\n  - "16"', '  - "16"\n  - "new"', "not a g++ major", "18: gxx_below"),
        ('  - "2.13"\n  - "2.10"', '  - "2.13"', "has 1 values", "11: pytorch"),
        ('  - "gxx"', '  - "gxx"\n  - "clangxx"', "has 2 values", "21: cxx_compiler"),
        ("gxx_below:\n", 'fortran:\n  - "16"\ngxx_below:\n', "no key of", "17: fortran"),
        ("gxx_below:\n", "pytorch:\n", "there twice", "16: pytorch"),
        ('  - "2.10"', '  - "2.10"  # [linux]', "a selector", "12"),
    ],
)
def test_what_a_builder_would_misread_is_refused_with_key_and_line(
    tmp_path: Path, old: str, new: str, what: str, where: str
) -> None:
    assert SMALL.count(old) == 1
    path = write(tmp_path, SMALL.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(what)) as caught:
        variants.load(path)
    assert caught.value.where == f"{path}:{where}"


def test_a_variant_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = SMALL.replace('  - "None"\n  - "13.0"', '  - "13.0"\n  - "13.0"', 1)
    text = text.replace('"2.13"', '"2.10"').replace('  - "None"', '  - "8.0"')
    with pytest.raises(ConfigError, match="cu130_torch210 is there twice"):
        variants.load(write(tmp_path, text))


@pytest.mark.parametrize(("key", "value"), [("cuda_arch_list", '"9.0"'), ("gxx_below", '"15"')])
def test_two_torches_of_one_cuda_share_their_kernels(tmp_path: Path, key: str, value: str) -> None:
    text = SMALL
    for name, extra in (
        ("cuda_nvcc", '"13.0"'),
        ("pytorch", '"2.11"'),
        ("cuda_arch_list", '"8.0+PTX;9.0a"'),
        ("gxx_below", '"16"'),
    ):
        row = f"  - {value if name == key else extra}\n"
        text = re.sub(rf"(?m)^{name}:\n(  - .*\n)+", lambda hit, row=row: hit[0] + row, text)
    with pytest.raises(ConfigError, match="for another torch") as caught:
        variants.load(write(tmp_path, text))
    assert caught.value.where.endswith(f": {key}")
    assert "they share kernels" in caught.value.expected


def test_keys_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'c_stdlib_version' is missing"):
        variants.load(write(tmp_path, SMALL.replace('c_stdlib_version:\n  - "2.28"\n', "")))
    with pytest.raises(ConfigError, match="zip_keys names cuda_nvcc, pytorch, cuda_arch_list"):
        variants.load(write(tmp_path, SMALL.replace("    - gxx_below\n", "")))


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [\n", "\x00", "a: &x [*x]\n"])
def test_what_is_no_configuration_at_all_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        variants.load(write(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        variants.load(tmp_path / "nowhere.yaml")


def test_select_keeps_the_order_asked_for_and_drops_repeats() -> None:
    chosen = variants.select(variants.load(), ["cu130_torch213", "cpu_torch213", "cu130_torch213"])
    assert [spec.id for spec in chosen] == ["cu130_torch213", "cpu_torch213"]


def test_select_names_near_matches() -> None:
    specs = variants.load()
    with pytest.raises(ConfigError, match="cu131_torch213 is not in the matrix") as caught:
        variants.select(specs, ["cu131_torch213"])
    assert "cu130_torch213" in caught.value.expected
    with pytest.raises(LabelError, match="not a variant") as misspelt:
        variants.select(specs, ["cu130-torch2.13"])
    assert "cu130_torch213" in misspelt.value.fix
