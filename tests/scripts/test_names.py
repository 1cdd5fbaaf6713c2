"""Names of packages in conda and on PyPI: tables, mapping files, and what is never guessed."""

import json
import re

import pytest
from packaging.utils import canonicalize_name

from conda_bridge.bridge import name_tables
from conda_bridge.bridge.names import conda_name, find_conda, find_pip, pip_name, read_mapping
from conda_bridge.config import Config, Dropped
from conda_bridge.errors import ArtifactError, ConfigError
from conda_bridge.project import Project

TABLE = Project(config=Config(dependencies={"fish": "pyfish", "cuttle": Dropped("is linked in")}))


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("pytorch", "torch"),
        ("pytables", "tables"),
        ("msgpack-python", "msgpack"),
        ("numpy", "numpy"),
    ],
)
def test_known_both_ways(conda, pip):
    assert pip_name(conda) == pip
    assert conda_name(pip) == conda


def test_a_project_is_found_in_every_spelling():
    assert {conda_name(name) for name in ("PyYAML", "pyyaml")} == {"pyyaml"}
    assert conda_name("Typing.Extensions") == conda_name("typing-extensions") == "typing_extensions"


@pytest.mark.parametrize(
    "conda", ["zlib", "openssl", "libzlib", "cuda-cudart", "snappy", "__glibc"]
)
def test_a_library_is_no_project_of_the_same_name(conda):
    answer = find_pip(conda)
    assert answer.name is None and answer.why


def test_even_where_the_package_requires_the_project_of_that_name():
    # zstd on PyPI is a binding; conda's zstd is the library that another package of it needs.
    assert pip_name("zstd", required=["zstd"]) is None
    assert conda_name("zstd") == "python-zstd"


def test_what_the_package_requires_itself_is_a_name_on_pypi():
    assert pip_name("libertem", required=["LiberTEM"]) == "LiberTEM"
    assert pip_name("libertem") is None
    assert pip_name("some_thing", required=["some-thing"]) == "some-thing"
    assert pip_name("libsome-thing", required=["some-thing"]) is None


def test_an_unknown_dependency_is_not_guessed():
    with pytest.raises(ArtifactError) as caught:
        pip_name("cuttle.fish", required=["fish"], where="toy-1-0.conda")
    assert '"cuttle.fish" = "<name on PyPI>"' in caught.value.fix
    assert caught.value.where == "toy-1-0.conda"


def test_an_unknown_project_keeps_its_name_and_it_is_said():
    answer = find_conda("Some_Thing")
    assert (answer.name, answer.assumed) == ("some-thing", True)
    assert not find_conda("torch").assumed


def test_a_wheel_that_conda_has_in_another_form_keeps_its_own_name():
    assert conda_name("nvidia-cublas-cu12") == conda_name("nvidia-cublas") == "libcublas"
    assert conda_name("nvidia-cublas-cu12", own=True) == "nvidia-cublas-cu12"


def test_a_name_that_conda_has_for_something_else_is_refused():
    with pytest.raises(ArtifactError, match="something else under that name"):
        conda_name("pixman")
    assert conda_name("pixman", mapping={"pypixman": "pixman"}) == "pypixman"


def test_the_mapping_beats_the_configuration_and_that_the_tables():
    assert pip_name("fish", TABLE) == "pyfish"
    assert find_pip("cuttle", TABLE).why == "is linked in"
    assert pip_name("fish", TABLE, {"fish": "fishy"}) == "fishy"
    assert pip_name("pytorch", TABLE, {"pytorch": None}) is None
    assert conda_name("pyfish", TABLE) == "fish"
    whole = Project(config=Config(dependencies={"fish": "pyfish>=2,<3"}))
    assert conda_name("pyfish", whole) == "fish"
    assert conda_name("pyfish", TABLE, {"goldfish": "PyFish"}) == "goldfish"


def test_no_name_is_in_two_tables():
    different, same, not_python = (
        set(name_tables.DIFFERENT),
        set(name_tables.SAME),
        set(name_tables.NOT_PYTHON),
    )
    assert not (different & same | different & not_python | same & not_python)
    # Except where the name in conda is the library's, both directions agree.
    for conda, pip in name_tables.DIFFERENT.items():
        assert canonicalize_name(name_tables.DIFFERENT[conda_name(pip)]) == canonicalize_name(pip)
        assert pip_name(conda) == pip
    for name in same:
        assert canonicalize_name(name) == name and conda_name(name) == name
    assert not set(name_tables.TO_CONDA) & {canonicalize_name(n) for n in [*same, *different]}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.toml", 'fish = "pyfish"\nzlib = false\n"a.b" = "ab"\n'),
        ("names.json", '{"fish": "pyfish", "zlib": null, "a.b": "ab"}'),
        (
            "names.json",
            json.dumps(
                [
                    {"conda_name": "fish", "pypi_name": "pyfish", "import_name": "fish"},
                    {"conda_name": "zlib", "pypi_name": None},
                    {"conda_name": "a.b", "pypi_name": "ab", "mapping_source": "static"},
                ]
            ),
        ),
        (
            "names.json",
            json.dumps(
                {
                    "pyfish": {"conda_name": "fish", "pypi_name": "pyfish"},
                    "zlib": {"conda_name": "zlib", "pypi_name": False},
                    "ab": {"conda_name": "a.b", "pypi_name": "ab"},
                }
            ),
        ),
    ],
)
def test_mapping_files(tmp_path, file, text):
    path = tmp_path / file
    path.write_text(text)
    assert read_mapping(path) == {"fish": "pyfish", "zlib": None, "a.b": "ab"}


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("names.toml", b"fish = ", "is not TOML"),
        ("names.json", b"{", "is not JSON"),
        ("names.json", b"[" * 100_000, "is not JSON"),
        ("names.json", b"3", "has a int at its top"),
        ("names.json", b'[{"conda_name": "fish"}]', "entry 0"),
        ("names.toml", b'Fish = "fish"', "no name of a conda package"),
        ("names.toml", b'fish = "a b"', "fish: is 'a b'"),
        ("names.toml", b"fish = true", "fish: is 'True'"),
        ("names.toml", b"fish = 3", "fish: is '3'"),
        ("names.toml", b"\xff", "is not UTF-8"),
    ],
)
def test_what_is_no_mapping_is_said(tmp_path, file, content, what):
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(what)):
        read_mapping(path)


def test_no_mapping_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_mapping(tmp_path / "names.toml")
