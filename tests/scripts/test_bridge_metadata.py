"""What a project says of itself and requires, from one package's metadata to the other's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from foreign import project
from packaging.specifiers import SpecifierSet

from conda_bridge.bridge.conda_constraint import constraint
from conda_bridge.bridge.conda_requirements import read_requirements
from conda_bridge.bridge.conda_target import target
from conda_bridge.bridge.metadata import DistInfo, compose, entry_points, needs_of
from conda_bridge.errors import ArtifactError
from conda_bridge.formats.wheel import Metadata

METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nLicense-File: COPYING\n"


def package(*depends: str, licence: str = "", **about: object) -> Any:
    index = {"depends": list(depends), "license": licence}
    return SimpleNamespace(
        name="demo", version="1.0", path=Path("demo.conda"), index=index, about=about
    )


def stated(*requires: str, python: str = "", **facts: Any) -> Metadata:
    return Metadata("demo", "1.0", python, requires_dist=requires, **facts)


# ---------------------------------------------------------------- .dist-info


def test_the_files_of_a_dist_info() -> None:
    files = {
        "METADATA": METADATA,
        "WHEEL": b"Tag: py3-none-any\n",
        "licenses/a/LICENSE": b"MIT",
        "COPYING": b"copy",
        "sboms/x.json": b"{}",
        "AUTHORS": b"me",
    }
    own = DistInfo.read("demo-1.0.dist-info", files, "demo.conda: demo-1.0.dist-info")
    assert own.licenses == {"a/LICENSE": b"MIT", "COPYING": b"copy"}
    assert own.others == {"sboms/x.json": b"{}", "AUTHORS": b"me"}
    assert own.built_as == ["py3-none-any"]
    assert own.where == "demo.conda: demo-1.0.dist-info/METADATA"


@pytest.mark.parametrize(
    ("folder", "name", "where"),
    [
        ("demo.dist-info", "METADATA", "x/METADATA"),
        ("demo.egg-info", "PKG-INFO", "x/PKG-INFO"),
        ("demo.egg-info", "", "x"),
        ("demo.dist-info", "", None),
    ],
)
def test_the_file_with_the_metadata(folder: str, name: str, where: str | None) -> None:
    own = DistInfo.read(folder, {name: METADATA}, "x")
    assert (own.where if own.metadata else None) == where


def test_the_programs_of_entry_points() -> None:
    text = "[console_scripts]\nb = m:b\n[gui_scripts]\nC = m:c\n[toy.plugins]\nx = y:z\n"
    own = DistInfo(folder="demo.dist-info", entry_points=text)
    assert own.scripts() == {"b": "m:b", "C": "m:c"}
    assert entry_points(own, ["b = m:other", "C=m:c"], "link.json") == text
    assert entry_points(own, ["a = m:a", "b = m:other"], "link.json") == (
        "[console_scripts]\nb = m:b\na = m:a\n\n[gui_scripts]\nC = m:c\n\n[toy.plugins]\nx = y:z\n"
    )
    assert entry_points(DistInfo(), [" a = m:a "], "w") == "[console_scripts]\na = m:a\n"


def test_entry_points_that_are_none_say_where_and_what_is_wanted() -> None:
    own = DistInfo(folder="demo.dist-info", entry_points="a = m:a\n")
    with pytest.raises(ArtifactError, match="cannot be read: File contains no section") as caught:
        own.scripts()
    assert caught.value.where == "demo.dist-info/entry_points.txt"
    assert "[console_scripts]" in caught.value.expected
    with pytest.raises(ArtifactError, match="'a m:a' is no entry point") as caught:
        entry_points(DistInfo(), ["a m:a"], "info/link.json")
    assert (caught.value.where, caught.value.expected) == (
        "info/link.json",
        "tool = package.module:main",
    )


# ---------------------------------------------------------------- of conda, for pip


@pytest.mark.parametrize(
    ("depends", "requires", "wanted"),
    [
        # Words that conda has not: METADATA's own, where they say the same.
        (f"numpy {constraint(SpecifierSet('~=1.4.2'))}", ["numpy~=1.4.2"], ["numpy~=1.4.2"]),
        ("numpy >=1.5", ["numpy~=1.4.2"], ["numpy>=1.5"]),
        ("numpy", ['numpy; extra == "x"'], ["numpy", 'numpy; extra == "x"']),
        ("numpy", ['numpy; python_version < "3.9"'], ['numpy; python_version < "3.9"']),
        ("numpy >=2", ["numpy[b,a]>=1"], ["numpy[a,b]>=2"]),
        # Extras of the configuration and of METADATA.
        ("toyd >=2", ["toy[a]>=1"], ["toy[a,b]"]),
        ("numpy", ["extra"], ["extra", "numpy"]),
    ],
)
def test_requirements_have_what_metadata_says_of_them(
    depends: str, requires: list[str], wanted: list[str]
) -> None:
    own = project(dependencies={"toyd": "toy[b]"})
    assert needs_of([package(depends)], own, None, stated(*requires)).dist == wanted


def test_a_requirement_that_the_package_has_not_stays_and_is_noted() -> None:
    found = needs_of([package("numpy")], project(), None, stated("numpy", "scipy>=1"))
    assert found.dist == ["numpy", "scipy>=1"]
    assert found.notes == ["METADATA requires scipy>=1, and the conda package does not"]


def test_a_part_of_the_wheel_is_no_requirement() -> None:
    """What stands behind it in the list is one all the same, under the user's own name for it."""
    demo = package("demo", "numpy", "toyd >=1.4.2,<1.5dev0")
    found = needs_of([demo], project(), {"toyd": "toy"}, stated("toy~=1.4.2"))
    assert found.dist == ["numpy", "toy~=1.4.2"]


def test_a_requirement_that_is_none_says_where() -> None:
    with pytest.raises(ArtifactError, match="'numpy >=>1': ") as caught:
        needs_of([package("numpy")], project(), None, stated("numpy >=>1"))
    assert caught.value.where == "METADATA: Requires-Dist"


def test_pythons_that_pip_has_no_word_for_are_those_of_metadata() -> None:
    demo = package("python 2.7.*|>=3.6")
    assert needs_of([demo], project(), None, stated(python=">=3.6")).python == ">=3.6"
    for source in (None, stated(python=">=3.7"), stated()):
        with pytest.raises(ArtifactError, match="pip has no form") as caught:
            needs_of([demo], project(), None, source)
        assert caught.value.where == "demo.conda: info/index.json: depends"
        said = source.requires_python if source else ""
        assert f"(it is {said!r})" in caught.value.expected


def test_the_metadata_of_a_wheel() -> None:
    """Name, version, requirements and licence are conda's; the rest is first of METADATA."""
    source = stated("old", python=">=3.8", license_expression="Zlib", license="free", summary="own")
    demo = package(
        license="MIT", summary="A  demo", description=" long\n", home="https://X.example"
    )
    made = compose("demo", "2.0", ">=3.9", ["new"], demo, source, ["LICENSE"])
    assert (made.version, made.requires_python, made.requires_dist) == ("2.0", ">=3.9", ("new",))
    assert (made.license_expression, made.license, made.license_files) == (
        *("MIT", "free"),
        ("LICENSE",),
    )
    assert (made.summary, made.description) == ("own", "long")
    assert made.description_type == "text/plain"
    assert made.urls == {"Homepage": "https://x.example/"}
    bare = compose("demo", "2.0", "", [], demo, None, [])
    assert (bare.summary, bare.license) == ("A demo", "MIT")


@pytest.mark.parametrize(
    ("own", "folded", "wanted"),
    [
        ("MIT", ["MIT"], "MIT"),
        ("MIT", ["Zlib", "BSD-3-Clause"], "MIT AND BSD-3-Clause AND Zlib"),
        ("MIT", ["Apache-2.0 OR Zlib"], "MIT AND (Apache-2.0 OR Zlib)"),
        ("MIT", ["my own words"], "MIT"),
        ("my own words", ["Zlib"], ""),
    ],
)
def test_the_licence_of_a_wheel_is_that_of_all_its_packages(
    own: str, folded: list[str], wanted: str
) -> None:
    others = [package(licence=text) for text in folded]
    made = compose("demo", "1.0", "", [], package(license=own), None, [], others)
    assert made.license_expression == wanted


# ---------------------------------------------------------------- of pip, for conda


def read(*texts: str, tag: tuple[str, str, str] = ("py3", "none", "any"), **names: str) -> Any:
    wanted = target(tag, ">=3.9", "toy.whl")
    return read_requirements(texts, wanted, project(), dict(names), "toy.whl")


@pytest.mark.parametrize(
    ("marker", "why"),
    [
        ('implementation_name == "cpython"', ""),
        ('implementation_name != "cpython"', "not on this target"),
        ('platform_python_implementation == "PyPy"', "not on this target"),
        ('platform_python_implementation == "CPython"', ""),
        ('platform_release == "6.1"', "not on this target"),
        ('platform_version == "#1"', "not on this target"),
        ('sys_platform == "win32"', "not on this target"),
        ('extra == "x"', "of an extra, which conda does not have"),
        ('python_version < "3.8"', "not on this target"),
    ],
)
def test_a_marker_is_asked_of_the_package_and_not_of_this_machine(
    marker: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {
        **{"implementation_name": "pypy", "platform_python_implementation": "PyPy"},
        **{"platform_release": "6.1", "platform_version": "#1", "sys_platform": "win32"},
        **{"os_name": "nt", "platform_system": "Windows", "platform_machine": "AMD64"},
        **{"python_version": "3.7", "python_full_version": "3.7.1"},
        "implementation_version": "3.7.1",
    }
    monkeypatch.setattr("packaging.markers.default_environment", lambda: here)
    found = read(f"numpy; {marker}")
    assert found.depends == ([] if why else ["numpy"])
    assert list(found.dropped.values()) == ([why] if why else [])


def test_what_is_decided_of_a_requirement_is_said() -> None:
    one = ("cp312", "cp312", "linux_x86_64")
    late = 'numpy; python_full_version < "3.12.5"'
    everywhere = "is required everywhere: one package serves all of"
    said = str(read(late, tag=one).remarks[0])
    assert said.endswith(f"{everywhere} Python 3.12, and conda has no markers")
    said = str(read('numpy; python_version < "3.11"').remarks[0])
    assert said.endswith(f"{everywhere} Python 3.9 and later, and conda has no markers")
    assert read("numpy[b,a]>=1").remarks == [
        "'numpy[a,b]>=1': conda has no extras; what [a,b] requires is not among the dependencies"
    ]
    assert read("numpy==1.0+cpu").remarks == [
        "'numpy==1.0+cpu': the local version tells pip's builds apart and is left out"
    ]
    assert read("toy", **{"toy-conda": "Toy"}).depends == ["toy-conda"]


@pytest.mark.parametrize(
    ("texts", "agree"),
    [
        (["numpy==1.0rc1"], True),
        (["numpy>1.0", "numpy<1.0.0.0.5"], True),
        (["numpy>=2", "numpy<3"], True),
        (["numpy>=1!2", "numpy<1!3"], True),
        (["numpy>=2", "numpy<2"], False),
        (["numpy==1.*", "numpy==2.*"], False),
    ],
)
def test_requirements_of_different_pythons_have_to_agree(texts: list[str], agree: bool) -> None:
    """Some version has to be left, however close the bounds are."""
    marked = [f'{text}; python_version < "3.11"' for text in texts[:1]]
    if agree:
        assert len(read(*marked, *texts[1:]).depends) == len(texts)
        return
    with pytest.raises(ArtifactError, match="and no version of numpy is both") as caught:
        read(*marked, *texts[1:])
    assert caught.value.where == "toy.whl: Requires-Dist"
    assert "one list of dependencies" in caught.value.expected
    assert "one Python" in caught.value.fix


def test_a_requirement_by_address_says_what_to_do() -> None:
    with pytest.raises(ArtifactError, match="requires toy by its address") as caught:
        read("toy @ https://x/y.whl")
    assert caught.value.where == "toy.whl: Requires-Dist"
    assert caught.value.expected.startswith("a name and a version")
    assert "make a conda package of that wheel too" in caught.value.fix
