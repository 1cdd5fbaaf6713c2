"""The reader of conda_build_config.yaml: what it gives, and what it refuses with key and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rattler_build import JinjaConfig, PlatformConfig, VariantConfig

from conda_bridge.errors import ConfigError, LabelError
from flashinfer_build import variants
from flashinfer_build.label import Variant

SMALL = """\
zip_keys:
  -
    - flashinfer_variant
    - cuda_nvcc
    - pytorch
    - cuda_arch_list
    - cxx_compiler_version
    - gxx_below
flashinfer_variant:
  - "cpu_torch213"
  - "cu130_torch210"
cuda_nvcc:
  - "None"
  - "13.0"
pytorch:
  - "2.13"
  - "2.10"
cuda_arch_list:
  - "None"
  - "8.0+PTX;9.0a"
cxx_compiler_version:
  - "14"
  - "14"
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
ROW = "11: flashinfer_variant"


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
    other = variants.CONFIG_FILE.parent / variants.OTHER_CHANNELS
    for path, on_conda_forge in ((variants.CONFIG_FILE, True), (other, False)):
        ours = [
            spec.as_mapping() for spec in variants.load() if spec.on_conda_forge == on_conda_forge
        ]
        assert sorted(map(sorted_items, rows_as_rattler_build_reads(path))) == sorted(
            map(sorted_items, ours)
        )


def rows_as_rattler_build_reads(path: Path) -> list[dict[str, str]]:
    config = VariantConfig.from_conda_build_config(
        path, JinjaConfig(platform=PlatformConfig(target_platform="linux-64"))
    )
    return [
        {key: str(value) for key, value in row.items() if key != "target_platform"}
        for row in config.combinations()
    ]


def test_chosen_rows_are_a_file_that_says_the_same(tmp_path: Path) -> None:
    """What `matrix.py conda-args` writes, read by the builder and by our own reader."""
    chosen = [spec for spec in variants.load() if spec.cuda_nvcc in ("None", "11.8")]
    path = tmp_path / "rows.yaml"
    path.write_text(variants.as_config(chosen, "For a test.\n\nTwo lines."))
    rows = [spec.as_mapping() for spec in chosen]
    read = rows_as_rattler_build_reads(path)
    assert sorted(map(sorted_items, read)) == sorted(map(sorted_items, rows))
    assert [spec.as_mapping() for spec in variants.load(path)] == rows


def sorted_items(row: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(row.items())


def test_a_small_matrix(tmp_path: Path) -> None:
    cpu, cuda = variants.load(write(tmp_path, SMALL))
    assert cpu.variant == Variant(None, (2, 13))
    assert cuda.variant == Variant((13, 0), (2, 10))
    assert cuda.as_rattler() == {
        "flashinfer_variant": ["cu130_torch210"],
        "cuda_nvcc": ["13.0"],
        "pytorch": ["2.10"],
        "cuda_arch_list": ["8.0+PTX;9.0a"],
        "cxx_compiler_version": ["14"],
        "gxx_below": ["16"],
        "cxx_compiler": ["gxx"],
        "c_stdlib": ["sysroot"],
        "c_stdlib_version": ["2.28"],
    }


@pytest.mark.parametrize(
    ("old", "new", "what", "where"),
    [
        ('  - "2.10"', "  - 2.10", "'2.10' is not quoted", "17: pytorch"),
        ('cxx_compiler:\n  - "gxx"', 'cxx_compiler: ["gxx"]', "flow list", "27: cxx_compiler"),
        ('c_stdlib:\n  - "sysroot"', 'c_stdlib: "sysroot"', "not a list", "29: c_stdlib"),
        ('  - "2.10"', '  - "{{ torch }}"', "not a plain value", "17: pytorch"),
        ('  - "2.10"', '  - "2.10.1"', "not a version", "17: pytorch"),
        ('  - "2.10"', '  - "2.11"', "names a row with CUDA 13.0 and torch 2.11", ROW),
        ('  - "cu130_torch210"', '  - "cu130_torch21"', "names a row with CUDA 13.0", ROW),
        ('  - "13.0"', '  - "13"', "not a version", "14: cuda_nvcc"),
        ('  - "13.0"', '  - "9.2"', "has no label", "14: cuda_nvcc"),
        ('  - "8.0+PTX;9.0a"', '  - "sm_80"', "not a CUDA architecture", "20: cuda_arch_list"),
        ('  - "None"\n  - "8.0', '  - "9.0"\n  - "8.0', "for a CPU variant", "19: cuda_arch_list"),
        ('  - "16"\n  - "16"', '  - "16"\n  - "new"', "not a g++ major", "26: gxx_below"),
        ('  - "14"\n  - "14"', '  - "14"\n  - "x"', "not a g++ major", "23: cxx_compiler_version"),
        ('  - "14"\n  - "14"', '  - "14"\n  - "16"', "nvcc refuses", "23: cxx_compiler_version"),
        ('  - "2.13"\n  - "2.10"', '  - "2.13"', "has 1 values", "16: pytorch"),
        ('  - "gxx"', '  - "gxx"\n  - "clangxx"', "has 2 values", "29: cxx_compiler"),
        ("gxx_below:\n", 'fortran:\n  - "16"\ngxx_below:\n', "no key of", "25: fortran"),
        ("gxx_below:\n", "pytorch:\n", "there twice", "24: pytorch"),
        ('  - "2.10"', '  - "2.10"  # [linux]', "a selector", "17"),
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


def test_hopper_needs_cuda_12(tmp_path: Path) -> None:
    text = SMALL.replace('"13.0"', '"11.8"').replace("cu130_torch210", "cu118_torch210")
    with pytest.raises(ConfigError, match="no sm_90a"):
        variants.load(write(tmp_path, text))


def test_a_variant_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = SMALL.replace("cpu_torch213", "cu130_torch210")
    text = text.replace('  - "None"\n  - "13.0"', '  - "13.0"\n  - "13.0"', 1)
    text = text.replace('"2.13"', '"2.10"').replace('  - "None"', '  - "8.0"')
    with pytest.raises(ConfigError, match="cu130_torch210 is there twice"):
        variants.load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("key", "value"),
    [("cuda_arch_list", '"9.0"'), ("gxx_below", '"15"'), ("cxx_compiler_version", '"13"')],
)
def test_two_torches_of_one_cuda_share_their_kernels(tmp_path: Path, key: str, value: str) -> None:
    text = SMALL
    for name, extra in (
        ("flashinfer_variant", '"cu130_torch211"'),
        ("cuda_nvcc", '"13.0"'),
        ("pytorch", '"2.11"'),
        ("cuda_arch_list", '"8.0+PTX;9.0a"'),
        ("cxx_compiler_version", '"14"'),
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
    with pytest.raises(ConfigError, match="zip_keys names flashinfer_variant, cuda_nvcc, pytorch"):
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


def test_the_rows_of_other_channels_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, SMALL)
    other = tmp_path / variants.OTHER_CHANNELS
    other.parent.mkdir()
    text = SMALL.replace("2.13", "2.15").replace("torch213", "torch215")
    text = text.replace("2.10", "2.9").replace("torch210", "torch29")
    other.write_text(text)
    specs = variants.load(tmp_path / "conda_build_config.yaml")
    assert [(spec.id, spec.on_conda_forge) for spec in specs] == [
        ("cpu_torch213", True),
        ("cpu_torch215", False),
        ("cu130_torch29", False),
        ("cu130_torch210", True),
    ]
    other.write_text(SMALL)
    with pytest.raises(ConfigError, match="is there twice") as caught:
        variants.load(tmp_path / "conda_build_config.yaml")
    assert caught.value.where.startswith(str(other))
    other.write_text(text.replace('"2.28"', '"2.17"'))
    with pytest.raises(ConfigError, match=r"2\.17") as caught:
        variants.load(tmp_path / "conda_build_config.yaml")
    assert caught.value.where == str(other)
