"""Labels of any project: templates on both sides, and this project's own as one of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from conda_bridge.config import read
from conda_bridge.errors import ConfigError, LabelError
from conda_bridge.label import Label, Scheme, conda_spelling, public_version, split_conda_file
from conda_bridge.project import Project
from flashinfer_build import label as ours

TABLE = {
    "build": "py{python:flat}_{cuda}_torch{torch:flat}_{abi}_{number}",
    "local": "{cuda}torch{torch}cxx11abi{abi}.py{python}",
    "fields": {
        "cuda": {"form": "cu{major:2}{minor}"},
        "torch": {"form": "{major:1}.{minor}", "depends": "pytorch"},
        "abi": {"choices": ["true", "false"]},
        "python": {"form": "{major:1}.{minor}"},
    },
    "rank": "cuda",
}
VALUES = {"cuda": "12.8", "torch": "2.10", "abi": "true", "python": "3.12"}


def test_one_label_has_both_spellings():
    scheme = Scheme(TABLE)
    label = scheme.label("2.8.3rc1", VALUES, 3)
    assert scheme.conda_build(label) == "py312_cu128_torch210_true_3"
    assert scheme.wheel_version(label) == "2.8.3rc1+cu128torch2.10cxx11abitrue.py3.12"
    assert scheme.parse_build("py312_cu128_torch210_true_3", "2.8.3.rc1") == label
    assert scheme.parse_wheel_version(scheme.wheel_version(label), 3) == label
    assert scheme.index_build_number(label) == 1208003
    assert scheme.depends == {"torch": "pytorch"}
    wider = Scheme({**TABLE, "rank-step": 10})
    assert wider.index_build_number(label) == 12083


def test_a_project_without_labels_has_a_version_and_a_number():
    scheme = Scheme({})
    label = scheme.label("1.0", {}, 2)
    assert scheme.wheel_version(label) == "1.0"
    assert scheme.conda_build(label) == ""
    assert scheme.index_build_number(label) == 2
    for refused in (
        lambda: scheme.parse_build("h_0", "1.0"),
        lambda: scheme.label("1", {"a": "b"}),
    ):
        with pytest.raises(LabelError):
            refused()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"local": "{cuda}torch{torch}"}, r"\{abi\} is in one of build and local"),
        ({"build": "{cuda}_{torch}_{abi}_{python}"}, "no build number"),
        ({"build": "{cuda}-{torch}_{abi}_{python}_{number}"}, "no build string has"),
        ({"local": "{cuda}_torch{torch}cxx11abi{abi}.py{python}"}, "no local version has"),
        ({"rank": "abi"}, "no field with numbers"),
        ({"rank": "nothing"}, "no field with numbers"),
        ({"fields": {"commit": {"form": "{n}"}}}, "is there already"),
        ({"rank-step": 0}, "leave none of them room"),
        ({"fields": {"w": {"characters": "ab", "least": 0}}}, "no word has 0 to 0"),
        ({"fields": {"w": {"characters": "ab", "least": -1}}}, "no word has -1 to 0"),
        ({"fields": {"w": {"characters": "ab", "most": -1}}}, "no word has 1 to -1"),
        ({"fields": {"w": {"characters": "ab", "least": 3, "most": 2}}}, "no word has 3 to 2"),
        ({"fields": {"cuda": {}}}, "no kind"),
        ({"fields": {"cuda": {"form": "{n}", "choices": ["a"]}}}, "form and choices"),
        ({"local": "{commit}", "build": "{commit}_{number}"}, "write in another way"),
    ],
)
def test_a_table_that_loses_something_is_refused(change, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Scheme({**TABLE, **change}, "the table")
    assert caught.value.where.startswith("the table")
    assert caught.value.expected


@pytest.mark.parametrize(
    ("word", "right", "wrong"),
    [
        ({}, ["a", "abba" * 5], ["", "c"]),
        ({"least": 2}, ["ab", "abba" * 5], ["a"]),
        ({"least": 2, "most": 3}, ["ab", "bab"], ["a", "abba"]),
        ({"least": 2, "most": 2}, ["ab"], ["a", "bab"]),
        ({"most": 3}, ["a", "bab"], ["abba"]),
        ({"none": "plain", "most": 3}, [None, "bab"], ["abba"]),
    ],
)
def test_a_word_is_as_long_as_the_table_says(word, right, wrong):
    about = {"word": {"characters": "ab", **word}}
    scheme = Scheme({"build": "{word}_{number}", "local": "x{word}", "fields": about})
    for value in right:
        label = scheme.label("1.0", {"word": value})
        assert scheme.conda_build(label) == f"{value or 'plain'}_0"
        assert scheme.parse_build(scheme.conda_build(label), "1.0") == label
    for value in wrong:
        with pytest.raises(LabelError):
            scheme.label("1.0", {"word": value})
        with pytest.raises(LabelError):
            scheme.parse_build(f"{value}_0", "1.0")


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("toy-1.0-0.conda", ("toy-1.0-0", ".conda")),
        ("toy-1.0-0.tar.bz2", ("toy-1.0-0", ".tar.bz2")),
        ("toy-1.0-py3-none-any.whl", ("", "")),
        ("conda", ("", "")),
    ],
)
def test_a_package_file_is_known_by_its_ending(file, parts):
    assert split_conda_file(file) == parts


@pytest.mark.parametrize("version", ["1.0", "1.0+cu128", "1.0+cu128torch2.10cxx11abimaybe.py3.12"])
def test_other_versions_are_refused(version):
    with pytest.raises(LabelError, match=r"expected: ") as caught:
        Scheme(TABLE).parse_wheel_version(version, where="toy.whl")
    assert caught.value.where == "toy.whl"


def test_every_error_of_a_name_says_which_name():
    scheme = Scheme(TABLE)
    fold = scheme.build_template("{cuda}_{number}", "fold")
    wrong_cuda = Label("1.0", (("cuda", "x"),))
    for wrong in (
        lambda: scheme.parse_build("nothing", "1.0", "a.conda"),
        lambda: scheme.parse_build("py312_cu128_torch28_true_0", "1.0.alpha2", "a.conda"),
        lambda: scheme.parse_fold(fold, "nothing", "1.0", "a.conda"),
        lambda: scheme.parse_fold(fold, "cu128_0", "2024a", "a.conda"),
        lambda: scheme.label("1.0", {"torch": "2"}, 0, "a.conda"),
        lambda: scheme.label("1.0", {"other": "2"}, 0, "a.conda"),
        lambda: scheme.fold_build(fold, wrong_cuda, "a.conda"),
        lambda: scheme.conda_build(wrong_cuda, "a.conda"),
        lambda: scheme.local_version(wrong_cuda, "a.conda"),
        lambda: scheme.wheel_version(wrong_cuda, "a.conda"),
        lambda: scheme.parse_build("py312_cu128_torch28_true_0", "1.0+x", "a.conda"),
    ):
        with pytest.raises(LabelError) as caught:
            wrong()
        assert caught.value.where == "a.conda"


@pytest.mark.parametrize(
    ("conda", "pip"),
    [("0.1.6.rc1", "0.1.6rc1"), ("0.1.6rc1", "0.1.6rc1"), ("1!2.0", "1!2.0")]
    + [("1.0.post1", "1.0.post1"), ("2024.08.01", "2024.8.1"), ("1.0.dev3", "1.0.dev3")],
)
def test_versions_of_both_sides(conda, pip):
    assert public_version(conda) == pip


@pytest.mark.parametrize("conda", ["2024a", "1.0_1", "9e", "1.1.1w", "master", "1.0.alpha2", ""])
def test_versions_that_only_conda_has_are_refused(conda):
    with pytest.raises(LabelError, match="not a version that pip reads"):
        public_version(conda, "x.conda")


@pytest.fixture(scope="module")
def project():
    return Project.load(Path(__file__).parents[2] / "pyproject.toml")


_PUBLIC = st.builds(
    "{}.{}.{}{}{}".format,
    *(st.integers(0, 30) for _ in range(3)),
    st.sampled_from(["", "a1", "b2", "rc10"]),
    st.sampled_from(["", ".post1", ".dev20261122", ".post2.dev1"]),
)


@given(version=_PUBLIC)
def test_a_public_version_comes_back(version):
    assert public_version(conda_spelling(version)) == str(Version(version)) == version


@given(
    cuda=st.none() | st.tuples(st.integers(10, 99), st.integers(0, 120)),
    torch=st.tuples(st.integers(1, 9), st.integers(0, 120)),
    version=_PUBLIC,
    number=st.integers(0, 999),
    commit=st.none() | st.text("0123456789abcdef", min_size=7, max_size=40),
)
def test_this_projects_table_spells_its_labels(cuda, torch, version, number, commit, project):
    scheme = project.scheme
    expected = ours.Label(ours.Variant(cuda, torch), version, number, commit)
    values = {
        "cuda": "{}.{}".format(*cuda) if cuda else None,
        "torch": "{}.{}".format(*torch),
        "commit": commit,
    }
    label = scheme.label(version, values, number)
    assert scheme.wheel_version(label) == expected.wheel_version
    assert scheme.conda_build(label) == expected.conda_build
    assert scheme.index_build_number(label) == expected.conda_build_number
    assert label.conda_version == expected.conda_version
    fold = project.folds["libflashinfer"]
    assert scheme.fold_build(fold, label) == expected.lib_conda_build
    assert project.layout.format(values) == expected.index_dir
    assert scheme.parse_build(expected.conda_build, expected.conda_version) == label
    assert scheme.parse_wheel_version(expected.wheel_version, number) == label
    library = scheme.parse_fold(fold, expected.lib_conda_build, expected.conda_version)
    assert library == Label(version, (("cuda", values["cuda"]), ("commit", commit)), number)


def test_the_table_of_this_project_is_read(root):
    assert read(root / "pyproject.toml").package == "flashinfer"
