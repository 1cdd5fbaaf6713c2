"""Labels: composing, parsing, order, and the failures of the field that they have to end."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rattler
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from conda_bridge.errors import ConfigError, LabelError
from conda_bridge.project import Project
from flashinfer_build import label as label_module
from flashinfer_build.label import (
    Label,
    LibraryLabel,
    Variant,
    check_public_version,
    conda_spelling,
)
from flashinfer_build.pipeline.code_key import closure

settings.register_profile("no deadline", deadline=None)  # other jobs share the machine
settings.load_profile("no deadline")

CU124_TORCH24 = Variant((12, 4), (2, 4))
CPU_TORCH213 = Variant(None, (2, 13))

numbers = st.one_of(st.integers(0, 12), st.integers(0, 10**18 - 1))
variants = st.builds(
    Variant,
    st.none() | st.tuples(st.integers(10, 99), st.integers(0, 20)),
    st.tuples(st.integers(1, 9), st.integers(0, 30)),
)
commits = st.none() | st.text("0123456789abcdef", min_size=7, max_size=40)


@st.composite
def public_versions(draw: st.DrawFn) -> str:
    """Any public version that a label can have; small numbers, so that equal parts are common."""
    text = ".".join(str(draw(numbers)) for _ in range(3))
    if draw(st.booleans()):
        text += draw(st.sampled_from(["a", "b", "rc"])) + str(draw(numbers))
    if draw(st.booleans()):
        text += f".post{draw(numbers)}"
    if draw(st.booleans()):
        text += f".dev{draw(numbers)}"
    return text


@st.composite
def version_pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two public versions, most often of the same or a neighbouring release."""
    release = ".".join(str(draw(st.integers(0, 2))) for _ in range(3))
    return tuple(  # type: ignore[return-value]
        draw(public_versions()) if draw(st.integers(0, 4)) == 0 else release + draw(suffixes())
        for _ in range(2)
    )


@st.composite
def suffixes(draw: st.DrawFn) -> str:
    small = st.sampled_from([0, 1, 2, 10, 20261122])
    parts = [
        draw(st.sampled_from(["", "a", "b", "rc"])),
        draw(st.sampled_from(["", ".post"])),
        draw(st.sampled_from(["", ".dev"])),
    ]
    return "".join(f"{part}{draw(small)}" for part in parts if part)


labels = st.builds(Label, variants, public_versions(), numbers, commits)


def sign(less: bool, greater: bool) -> int:
    return int(greater) - int(less)


def pep440_order(a: str, b: str) -> int:
    return sign(Version(a) < Version(b), Version(a) > Version(b))


def conda_order(a: str, b: str) -> int:
    one, other = rattler.Version(a), rattler.Version(b)
    return sign(one < other, one > other)


# ---------------------------------------------------------------- the table of forms


def test_every_form_of_a_cuda_label() -> None:
    label = Label(CU124_TORCH24, "0.1.6")
    assert label.as_dict() == {
        "variant": "cu124_torch24",
        "public_version": "0.1.6",
        "conda_version": "0.1.6",
        "conda_build": "cu124_torch24_0",
        "conda_build_number": "1204000",
        "conda_file": "flashinfer-0.1.6-cu124_torch24_0.conda",
        "wheel_version": "0.1.6+cu124torch2.4",
        "wheel_file": "flashinfer-0.1.6+cu124torch2.4-cp38-abi3-linux_x86_64.whl",
        "index_dir": "cu124/torch2.4",
    }
    assert label.lib_conda_build == "cu124_0"
    assert label.lib_conda_file == "libflashinfer-0.1.6-cu124_0.conda"


@pytest.mark.parametrize("index", ["https://wheels.test", "https://wheels.test/"])
def test_the_commands_that_install_a_build(index: str) -> None:
    label = Label(CU124_TORCH24, "0.1.7rc1", 2)
    assert label.pip_install(index) == (
        'pip install "flashinfer==0.1.7rc1+cu124torch2.4"'
        " --extra-index-url https://wheels.test/cu124/torch2.4/"
    )
    assert label.conda_install("file://$PWD/channel") == (
        'conda install -c file://$PWD/channel -c conda-forge "flashinfer=0.1.7.rc1=cu124_torch24_2"'
    )
    # Once it is there, there is no other to name.
    assert label.library.conda_install("conda-forge") == (
        'conda install -c conda-forge "libflashinfer=0.1.7.rc1=cu124_2"'
    )


def test_every_form_of_a_cpu_label() -> None:
    label = Label(CPU_TORCH213, "0.1.6")
    assert label.wheel_file == "flashinfer-0.1.6+cputorch2.13-cp38-abi3-linux_x86_64.whl"
    assert label.conda_file == "flashinfer-0.1.6-cpu_torch213_0.conda"
    assert label.lib_conda_file == "libflashinfer-0.1.6-cpu_0.conda"
    assert label.index_dir == "cpu/torch2.13"


def test_every_form_of_a_rebuilt_nightly() -> None:
    label = Label.compose(
        CU124_TORCH24, environ={}, public_version="0.1.7rc1", nightly="20261122",
        commit="1a2b3c4", build_number=2,
    )  # fmt: skip
    assert label.wheel_version == "0.1.7rc1.dev20261122+cu124torch2.4.g1a2b3c4"
    assert label.conda_version == "0.1.7.rc1.dev20261122"
    assert label.conda_build == "cu124_torch24_g1a2b3c4_2"
    assert label.lib_conda_build == "cu124_g1a2b3c4_2"
    assert label.wheel_file_for("cp39", "abi3", "manylinux_2_34_x86_64") == (
        "flashinfer-0.1.7rc1.dev20261122+cu124torch2.4.g1a2b3c4-2-cp39-abi3-manylinux_2_34_x86_64.whl"
    )


@given(labels)
def test_every_label_survives_its_names(label: Label) -> None:
    assert Label.parse_wheel_file(label.wheel_file) == label
    assert Label.parse_conda_file(label.conda_file) == label
    assert Label.parse_lib_conda_file(label.lib_conda_file) == label.library
    assert Label.parse_conda_file(f"{label.conda_stem}.tar.bz2") == label
    assert LibraryLabel.parse_conda_file(f"{label.library.conda_stem}.tar.bz2") == label.library
    assert Variant.parse(label.variant.id) == label.variant
    unnumbered = Label(label.variant, label.public_version, 0, label.commit)
    assert Label.parse_wheel_version(label.wheel_version) == unnumbered


@given(labels, st.sampled_from(["manylinux_2_31_x86_64", "linux_x86_64.manylinux_2_28_x86_64"]))
def test_a_label_survives_another_platform_tag(label: Label, platform: str) -> None:
    name = label.wheel_file_for("cp38", "abi3", platform)
    assert Label.parse_wheel_file(name) == label
    assert "cp38-abi3-manylinux" in {str(tag)[:19] for tag in parse_wheel_filename(name)[3]}


@pytest.mark.parametrize("platform", ["", "Linux", "manylinux_2_31_x86_64.", "a b", "a/b", "<b>"])
def test_what_is_no_tag_is_refused(platform: str) -> None:
    with pytest.raises(LabelError, match="is not a tag"):
        Label.parse_wheel_file(f"flashinfer-0.1.6+cputorch2.13-cp38-abi3-{platform}.whl")


@given(labels)
def test_installers_read_the_wheel_name_as_we_do(label: Label) -> None:
    name, version, build, tags = parse_wheel_filename(label.wheel_file)
    assert (name, str(version)) == ("flashinfer", label.wheel_version)
    assert build == ((label.build_number, "") if label.build_number else ())
    assert {str(tag) for tag in tags} == {"cp38-abi3-linux_x86_64"}


@given(labels, labels)
def test_different_labels_never_share_a_name(a: Label, b: Label) -> None:
    assume(a != b)
    assert a.wheel_file != b.wheel_file
    assert a.conda_file != b.conda_file


@given(variants)
def test_pins_name_the_variant(variant: Variant) -> None:
    cuda = "{}.{}".format(*variant.cuda) if variant.cuda else "None"
    assert Variant.from_pins(cuda, "{}.{}".format(*variant.torch)) == variant


# ---------------------------------------------------------------- order


@given(version_pairs())
@settings(max_examples=2000)
@example(("0.1.6rc1", "0.1.6.dev1"))
@example(("0.1.6a1.post1", "0.1.6a2.dev1"))
@example(("0.1.6.post1.dev20261122", "0.1.6"))
def test_pep440_and_conda_order_agree(pair: tuple[str, str]) -> None:
    a, b = pair
    assert pep440_order(a, b) == conda_order(conda_spelling(a), conda_spelling(b))


def test_without_its_own_spelling_conda_orders_pre_releases_wrongly() -> None:
    assert pep440_order("0.1.6rc1", "0.1.6.dev1") == 1
    assert conda_order("0.1.6rc1", "0.1.6.dev1") == -1
    assert conda_order(conda_spelling("0.1.6rc1"), "0.1.6.dev1") == 1


@given(version_pairs(), variants, commits, st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=500)
def test_wheels_and_conda_packages_of_a_variant_order_alike(
    pair: tuple[str, str], variant: Variant, commit: str | None, m: int, n: int
) -> None:
    """pip orders by (version, build tag), conda by (version, build number)."""
    a, b = Label(variant, pair[0], m, commit), Label(variant, pair[1], n, commit)

    def wheel(label: Label) -> tuple[object, ...]:
        _, version, build, _ = parse_wheel_filename(label.wheel_file)
        return (version, build)

    def conda(label: Label) -> tuple[object, ...]:
        return (rattler.Version(label.conda_version), label.build_number)

    pip_says = sign(wheel(a) < wheel(b), wheel(a) > wheel(b))
    conda_says = sign(conda(a) < conda(b), conda(a) > conda(b))
    assert pip_says == conda_says


@given(version_pairs(), variants, variants, commits, commits)
@settings(max_examples=500)
def test_no_local_part_outranks_a_public_version(
    pair: tuple[str, str], x: Variant, y: Variant, c: str | None, d: str | None
) -> None:
    a, b = pair
    assume(pep440_order(a, b) != 0)
    one, other = Label(x, a, 0, c), Label(y, b, 0, d)
    assert pep440_order(one.wheel_version, other.wheel_version) == pep440_order(a, b)


# ---------------------------------------------------------------- what broke in the field


def test_flashinfer_663_a_build_version_keeps_the_label() -> None:
    """The nightly job set FLASHINFER_BUILD_VERSION, and the wheel lost its CUDA and torch."""
    label = Label.compose(CU124_TORCH24, environ={"FLASHINFER_BUILD_VERSION": "0.1.6"})
    assert label.wheel_file == "flashinfer-0.1.6+cu124torch2.4-cp38-abi3-linux_x86_64.whl"
    with pytest.raises(LabelError, match="does not say which CUDA and torch"):
        Label.parse_wheel_file("flashinfer-0.1.6-cp38-abi3-linux_x86_64.whl")


def test_flashinfer_663_version_and_sha_in_one_variable_is_refused_with_the_way_out() -> None:
    with pytest.raises(LabelError) as caught:
        Label.compose(CU124_TORCH24, environ={"FLASHINFER_BUILD_VERSION": "0.1.6+1a2b3c4"})
    assert "FLASHINFER_BUILD_VERSION=0.1.6 " in caught.value.fix
    assert "FLASHINFER_BUILD_COMMIT=1a2b3c4" in caught.value.fix


def test_flashinfer_1726_1934_stable_and_nightly_take_one_path() -> None:
    """Removed in one place and restored in another: here there is no second place."""
    stable = Label.compose(CU124_TORCH24, environ={})
    nightly = Label.compose(CU124_TORCH24, environ={}, nightly="20261122", commit="1a2b3c4")
    by_variable = Label.compose(
        CU124_TORCH24,
        environ={
            "FLASHINFER_BUILD_VERSION": f"{stable.public_version}.dev20261122",
            "FLASHINFER_BUILD_COMMIT": "1a2b3c4",
        },
    )
    assert nightly == by_variable
    assert nightly.variant == stable.variant
    assert f"+{stable.variant.local_version}" in nightly.wheel_version


@pytest.mark.parametrize("commit", ["0123456", "1234567", "0000000"])
def test_flashinfer_2199_an_all_digit_commit_is_not_read_as_a_number(commit: str) -> None:
    assert str(Version("0.1.6+0123456")) == "0.1.6+123456"  # what a bare commit would suffer
    label = Label(CU124_TORCH24, "0.1.6.dev20261122", commit=commit)
    assert str(Version(label.wheel_version)) == label.wheel_version
    assert Label.parse_wheel_version(label.wheel_version).commit == commit


def test_flashinfer_2199_later_nightlies_sort_later_whatever_their_commits() -> None:
    early = Label(CU124_TORCH24, "0.1.6.dev20261122", commit="fffffff")
    late = Label(CU124_TORCH24, "0.1.6.dev20261123", commit="0000000")
    assert pep440_order(early.wheel_version, late.wheel_version) == -1
    assert conda_order(early.conda_version, late.conda_version) == -1


def test_flashinfer_2199_a_nightly_below_the_release_it_follows_is_refused() -> None:
    with pytest.raises(LabelError, match=r"does not sort above 0\.1\.6") as caught:
        Label.compose(
            CU124_TORCH24,
            environ={},
            public_version="0.1.6",
            nightly="20261122",
            released=["0.1.5", "0.1.6"],
        )
    assert "version.txt" in caught.value.fix


def test_vllm_42338_a_nightly_of_the_next_release_beats_the_stable_one_of_another_cuda() -> None:
    """A stalled nightly pre-release lost to a stable wheel built for another CUDA."""
    stable = Label(Variant((13, 0), (2, 13)), "0.1.6")
    nightly = Label.compose(
        Variant((12, 9), (2, 9)),
        environ={},
        public_version="0.1.7",
        nightly="20261122",
        commit="5497ffb",
        released=[stable.public_version],
    )
    assert pep440_order(nightly.wheel_version, stable.wheel_version) == 1
    assert conda_order(nightly.conda_version, stable.conda_version) == 1


def test_torch_2_4_is_a_minor_not_a_release() -> None:
    """``torch==2.4`` does not match 2.4.1; the label names minors, requirements take ``.*``."""
    requirement = SpecifierSet("=={}.{}.*".format(*CU124_TORCH24.torch))
    assert "2.4.1" in requirement and "2.4.1" not in SpecifierSet("==2.4")
    with pytest.raises(LabelError, match=r"major\.minor"):
        Variant.from_pins("12.4", "2.4.1")


def test_torch_2_10_is_not_torch_2_1() -> None:
    ten, nine, one = (Label(Variant((12, 4), (2, minor)), "0.1.6") for minor in (10, 9, 1))
    assert len({ten.conda_file, nine.conda_file, one.conda_file}) == 3
    assert pep440_order(ten.wheel_version, nine.wheel_version) == 1
    assert Label.parse_conda_file(ten.conda_file).variant.torch == (2, 10)


@pytest.mark.parametrize(
    "version", ["0.1.6.post1", "0.2.0.post2", "0.1.6rc1", "0.1.6.dev20261122", "0.1.6.post1.dev1"]
)
def test_flashinfer_694_post_and_nightly_names_parse(version: str) -> None:
    """The index script crashed on ``.post1`` and nightly names, and knew a fixed set of CUDAs."""
    for variant in (CU124_TORCH24, Variant((14, 9), (3, 0)), CPU_TORCH213):
        label = Label(variant, version, 1, "1a2b3c4")
        assert Label.parse_wheel_file(label.wheel_file) == label
        assert Label.parse_conda_file(label.conda_file) == label


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "text",
    ["", "0.1", "0.1.6.1", "1!0.1.6", "v0.1.6", "0.1.6-rc1", "0.1.6.rc1", "0.1.6rc", "0.01.6",
     "0.1.6 ", "0.1.6\n", "0.1.6.dev", "latest", "0.1.6+cu124torch2.4", "0.1.6rc1+g1a2b3c4",
     "9999999999999999999.0.0"],
)  # fmt: skip
def test_public_versions_that_are_refused(text: str) -> None:
    with pytest.raises(LabelError):
        check_public_version(text)


@given(st.text(max_size=30))
def test_any_text_is_a_canonical_version_or_refused(text: str) -> None:
    try:
        check_public_version(text)
    except LabelError:
        return
    assert str(Version(text)) == text and len(Version(text).release) == 3


@pytest.mark.parametrize(
    "text",
    ["", "cu124", "cu124_torch2.4", "cu12.4_torch24", "cu12_torch24", "cu0124_torch24",
     "cu124_torch", "cu124torch24", "CU124_torch24", "cpu_torch024", "cu124_torch24_0",
     "rocm62_torch24", "cu1204_torch24", "cu124_torch204", "cu124_torch2\u0664"],
)  # fmt: skip
def test_variants_that_are_refused(text: str) -> None:
    with pytest.raises(LabelError):
        Variant.parse(text)


@pytest.mark.parametrize(
    "name",
    [
        "flashinfer-0.1.6-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124torch24-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124torch2.4.1a2b3c4-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124torch2.4.g1a2b3-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124torch2.4-0-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124torch2.4-01-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124torch2.4-1a-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124torch2.04-cp38-abi3-linux_x86_64.whl",
        "flashinfer_python-0.1.6+cu124torch2.4-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6%2Bcu124torch2.4-cp38-abi3-linux_x86_64.whl",
        "flashinfer-0.1.6+cu124torch2.4-cp38-abi3-linux_x86_64.conda",
        "flashinfer-0.1.6+cu124torch2.4.whl",
        "flashinfer-0.1+cu124torch2.4-cp38-abi3-linux_x86_64.whl",
        "",
    ],
)
def test_wheel_names_that_are_refused(name: str) -> None:
    with pytest.raises(LabelError) as caught:
        Label.parse_wheel_file(name)
    assert caught.value.where == name


@pytest.mark.parametrize(
    "name",
    [
        "flashinfer-0.1.6.conda",
        "flashinfer-0.1-cu124_torch24_0.conda",
        "flashinfer-0.1.6-cu124_0.conda",
        "flashinfer-0.1.6-cu124_torch24.conda",
        "flashinfer-0.1.6-cu124_torch24_00.conda",
        "flashinfer-0.1.6rc1-cu124_torch24_0.conda",
        "flashinfer-0.1.6-cu124_torch24_g123_0.conda",
        "flashinfer-0.1.6-h123_cu124_torch24_0.conda",
        "libflashinfer-0.1.6-cu124_torch24_0.conda",
        "flashinfer-0.1.6-cu124_torch24_0.tar.gz",
        "flashinfer-0.1.6-cu124_torch24_0.bz2",
        "flashinfer-0.1.6-cu124_torch24_00.tar.bz2",
        "flashinfer-0.1.6-cu124_torch24_0.conda.tar.bz2",
        "flashinfer-0.1.6-cu124_torch24_0.tar.bz2.conda",
        "flashinfer-0.1.6-cu124_torch24_0.TAR.BZ2",
    ],
)
def test_conda_names_that_are_refused(name: str) -> None:
    with pytest.raises(LabelError) as caught:
        Label.parse_conda_file(name)
    assert caught.value.where == name


def test_library_names_that_are_refused() -> None:
    for name in (
        "libflashinfer-0.1.6.conda",
        "libflashinfer-0.1-cu124_0.conda",
        "libflashinfer-0.1.6-cu124_torch24_0.conda",
        "flashinfer-0.1.6-cu124_0.conda",
        "libflashinfer-0.1.6rc1-cu124_0.conda",
        "libflashinfer-0.1.6-cu124_01.conda",
        "libflashinfer-0.1.6-cu124_01.tar.bz2",
        "flashinfer-0.1.6-cu124_0.tar.bz2",
    ):
        with pytest.raises(LabelError) as caught:
            LibraryLabel.parse_conda_file(name)
        assert caught.value.where == name


@given(st.text(max_size=60), st.sampled_from([".whl", ".conda", ".tar.bz2", ""]))
def test_any_name_is_ours_or_refused(stem: str, ending: str) -> None:
    for parse in (Label.parse_wheel_file, Label.parse_conda_file, Label.parse_lib_conda_file):
        with pytest.raises(LabelError):
            parse(stem + ending)


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        ({"FLASHINFER_BUILD_COMMIT": "abc"}, "FLASHINFER_BUILD_COMMIT"),
        ({"FLASHINFER_BUILD_COMMIT": "1A2B3C4"}, "FLASHINFER_BUILD_COMMIT"),
        ({"FLASHINFER_BUILD_COMMIT": "g1a2b3c4"}, "FLASHINFER_BUILD_COMMIT"),
        ({"FLASHINFER_BUILD_NUMBER": "-1"}, "FLASHINFER_BUILD_NUMBER"),
        ({"FLASHINFER_BUILD_NUMBER": "two"}, "FLASHINFER_BUILD_NUMBER"),
        ({"FLASHINFER_BUILD_NUMBER": "01"}, "FLASHINFER_BUILD_NUMBER"),
        ({"FLASHINFER_BUILD_VERSION": "0.1"}, "FLASHINFER_BUILD_VERSION"),
    ],
)
def test_an_environment_that_cannot_be_used_names_its_variable(
    environ: dict[str, str], where: str
) -> None:
    with pytest.raises(LabelError) as caught:
        Label.compose(CU124_TORCH24, environ=environ)
    assert caught.value.where == where


def test_a_version_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "version.txt"
    for text in ("0.1", "", "0.1.6+cu124"):
        file.write_text(text)
        with pytest.raises(LabelError) as caught:
            Label.public_version_of(file, {})
        assert caught.value.where == str(file)
    file.write_text("0.1.6\n")
    assert Label.public_version_of(file, {}) == "0.1.6"


def test_a_library_of_a_cuda_without_a_label_is_refused() -> None:
    for wrong in (((9, 0), "0.1.6"), ((100, 0), "0.1.6"), (None, "0.1"), (None, "0.1.6", -1)):
        with pytest.raises(LabelError):
            LibraryLabel(*wrong)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match="is not a commit"):
        LibraryLabel(None, "0.1.6", 0, "abc")


@pytest.mark.parametrize("day", ["2026112", "20261322", "20260230", "2026-11-22", "", "1122"])
def test_days_that_are_refused(day: str) -> None:
    with pytest.raises(LabelError, match="is not a day"):
        Label.compose(CU124_TORCH24, environ={}, nightly=day)


def test_a_nightly_of_a_development_version_is_refused() -> None:
    with pytest.raises(LabelError, match="already"):
        Label.compose(
            CU124_TORCH24, environ={"FLASHINFER_BUILD_VERSION": "0.1.6.dev1"}, nightly="20261122"
        )


def test_arguments_outrank_the_environment_and_empty_variables_are_unset() -> None:
    environ = {
        "FLASHINFER_BUILD_VERSION": "",
        "FLASHINFER_BUILD_COMMIT": "",
        "FLASHINFER_BUILD_NUMBER": "7",
    }
    assert Label.compose(CU124_TORCH24, environ=environ).build_number == 7
    assert Label.compose(CU124_TORCH24, environ=environ).commit is None
    assert Label.compose(CU124_TORCH24, environ=environ, build_number=0).build_number == 0


# ---------------------------------------------------------------- where it has to run


def test_it_imports_packaging_and_the_standard_library_alone(root: Path) -> None:
    """With all that it imports of ours; ``tomli``, or pip's, where there is no ``tomllib``."""
    modules = set()
    for path in closure(root / "scripts", ["flashinfer_build.label"]):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(str(node.module).split(".")[0])
    foreign = modules - set(sys.stdlib_module_names) - {"conda_bridge", "flashinfer_build"}
    assert foreign == {"packaging", "tomli", "pip"}


@pytest.fixture
def table(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of pyproject.toml that labels are made by."""
    path = tmp_path / "pyproject.toml"
    path.write_text((root / "pyproject.toml").read_text())
    monkeypatch.setattr(label_module, "_PROJECT_FILE", path)
    label_module._grammar.cache_clear()
    yield path
    label_module._grammar.cache_clear()


def test_labels_are_spelled_as_the_table_says(table: Path) -> None:
    text = table.read_text()
    for old, new in (
        ('"{cuda}_torch{torch:flat}[_', '"t{torch:flat}.{cuda}[_'),
        ('"{cuda}torch{torch}[.g{commit}]"', '"{cuda}t{torch}[.g{commit}]"'),
        ('"{cuda}[_g{commit}]_{number}"', '"k{cuda}[_g{commit}]_{number}"'),
        ('"{cuda}/torch{torch}"', '"{torch}/{cuda}"'),
        ('none = "cpu"', 'none = "host"'),
    ):  # fmt: skip
        assert text.count(old) == 1
        text = text.replace(old, new)
    table.write_text(text)
    label = Label(CU124_TORCH24, "0.1.6")
    assert label.as_dict()["wheel_version"] == "0.1.6+cu124t2.4"
    assert (label.conda_build, label.lib_conda_build) == ("t24.cu124_0", "kcu124_0")
    assert (label.index_dir, label.variant.id) == ("2.4/cu124", "t24.cu124")
    assert Variant.parse("t24.host") == Variant(None, (2, 4))
    assert Label.parse_conda_file(label.conda_file) == label
    assert LibraryLabel.parse_conda_file(label.lib_conda_file) == label.library
    assert Label.parse_wheel_file(label.wheel_file) == label


@pytest.mark.parametrize(
    "lost", ["index-layout = .*", 'package = "libflashinfer"', r"\[tool.conda-b"]
)
def test_a_table_that_lacks_a_template_is_named(table: Path, lost: str) -> None:
    table.write_text(re.sub(lost, "", table.read_text()))
    with pytest.raises(ConfigError, match=r"pyproject\.toml: tool\.conda-bridge"):
        Variant.parse("cpu_torch213")


def test_the_names_are_the_tables(root: Path) -> None:
    project = Project.load(root / "pyproject.toml")
    assert project.config.package == label_module.NAME
    assert list(project.folds) == [label_module.LIBRARY_NAME]


def run_program(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLASHINFER_BUILD_")}
    return subprocess.run(
        [sys.executable, str(root / "scripts/label.py"), *arguments],
        env={**kept, "FLASHINFER_NO_BOOTSTRAP": "1", **environ},
        capture_output=True,
        text=True,
    )


def test_program_prints_json_with_the_documented_keys(root: Path) -> None:
    done = run_program(
        root, "cu124_torch24", "--json", "--nightly", "20261122", "--commit", "1a2b3c4",
        "--build-number", "2", FLASHINFER_BUILD_VERSION="0.1.9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "variant": "cu124_torch24",
        "public_version": "0.1.9.dev20261122",
        "conda_version": "0.1.9.dev20261122",
        "conda_build": "cu124_torch24_g1a2b3c4_2",
        "conda_build_number": "1204002",
        "conda_file": "flashinfer-0.1.9.dev20261122-cu124_torch24_g1a2b3c4_2.conda",
        "wheel_version": "0.1.9.dev20261122+cu124torch2.4.g1a2b3c4",
        "wheel_file": (
            "flashinfer-0.1.9.dev20261122+cu124torch2.4.g1a2b3c4-2-cp38-abi3-linux_x86_64.whl"
        ),
        "index_dir": "cu124/torch2.4",
    }


@pytest.mark.parametrize(
    "name",
    [
        "flashinfer-0.1.6+cu124torch2.4-cp38-abi3-linux_x86_64.whl",
        "dist/wheels/flashinfer-0.1.6+cu124torch2.4-cp38-abi3-manylinux_2_34_x86_64.whl",
        "flashinfer-0.1.6-cu124_torch24_0.conda",
        "croot/linux-64/flashinfer-0.1.6-cu124_torch24_0.tar.bz2",
    ],
)
def test_program_reads_names_back(root: Path, name: str) -> None:
    done = run_program(root, "--parse", name, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == Label(CU124_TORCH24, "0.1.6").as_dict()


@pytest.mark.parametrize("ending", [".conda", ".tar.bz2"])
def test_program_reads_a_library_name_back(root: Path, ending: str) -> None:
    done = run_program(root, "--parse", f"libflashinfer-0.1.6-cu124_0{ending}")
    assert done.returncode == 0, done.stderr
    assert "CUDA tag" in done.stdout and "cu124" in done.stdout
    done = run_program(root, "--parse", "notes.tar.gz")
    assert done.returncode == 2
    assert "ending in .whl, .conda or .tar.bz2" in done.stderr


def test_program_refuses_with_status_2_and_says_what_to_do(root: Path) -> None:
    done = run_program(root, "cpu_torch213", FLASHINFER_BUILD_VERSION="0.1.6+1a2b3c4")
    assert done.returncode == 2 and not done.stdout
    assert "set FLASHINFER_BUILD_VERSION=0.1.6" in done.stderr
    done = run_program(root, "--parse", "flashinfer-0.1.6-cp38-abi3-linux_x86_64.whl", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == "LabelError"


def test_program_keeps_a_nightly_above_the_last_release(root: Path) -> None:
    done = run_program(
        root, "cpu_torch213", "--nightly", "20261122", "--after", "0.1.6",
        FLASHINFER_BUILD_VERSION="0.1.6",
    )  # fmt: skip
    assert done.returncode == 2 and "does not sort above" in done.stderr
