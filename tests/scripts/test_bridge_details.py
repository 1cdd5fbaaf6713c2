"""Small rules of the two bridges, each by itself: what whole packages show only in part."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from rattler import Version, VersionSpec

from conda_bridge.bridge import agreement, conda_binaries, names, tags
from conda_bridge.bridge.conda_binaries import Object, measure
from conda_bridge.bridge.conda_constraint import constraint
from conda_bridge.bridge.conda_layout import record
from conda_bridge.bridge.conda_target import target
from conda_bridge.bridge.dependencies import MatchSpec, pip_specifier
from conda_bridge.errors import ArtifactError, ConflictError, LabelMismatch


def thing(path: str = "toy/_core.so", **changes: Any) -> Object:
    """The facts of a shared object for x86_64."""
    facts: dict[str, Any] = {
        **{"machine": "x86_64", "soname": "", "needed": (), "floors": {}, "gpu": False},
        **{"old_strings": (), "exported": frozenset()},
    }
    return Object(path=path, **{**facts, **changes})


def needs(*objects: Object, local: str = "", brought: Any = None) -> conda_binaries.Needs:
    return measure(objects, "linux-64", local, brought or {}, "toy.whl")


# ---------------------------------------------------------------- binaries


@pytest.mark.parametrize(
    ("version", "gcc"),
    [("3.4.21", ">=5"), ("3.4.22", ">=6"), ("3.4.29", ">=11"), ("3.4.30", ">=12"),
     ("3.4.34", ">=15"), ("3.4.99", ""), ("3.4.3", ">=5"), ("3.4", ""), ("4.0.1", "")],
)  # fmt: skip
def test_the_gcc_of_a_libstdcxx(version: str, gcc: str) -> None:
    found = needs(thing(needed=("libstdc++.so.6",), floors={"GLIBCXX": version, "GLIBC": "2.17"}))
    assert found.depends == ["__glibc >=2.17,<3.0.a0", f"libstdcxx {gcc}".strip()]


@pytest.mark.parametrize(
    ("needed", "local", "depends", "constrains"),
    [
        (("libcudart.so.12",), "", ["__cuda >=12"], ["cuda-version >=12,<13"]),
        ((), "cu126torch2.8", ["__cuda >=12"], ["cuda-version >=12,<13"]),
        ((), "CU130", ["__cuda >=13"], ["cuda-version >=13,<14"]),
        (("libcudart.so.13",), "cu126", ["__cuda >=13"], ["cuda-version >=13,<14"]),
        ((), "acu126", ["__cuda"], []),
        ((), "", ["__cuda"], []),
        (("libcudart.so.12", "libcudart.so.13"), "", ["__cuda"], []),
    ],
)
def test_the_cuda_of_gpu_code(
    needed: tuple[str, ...], local: str, depends: list[str], constrains: list[str]
) -> None:
    found = needs(thing(gpu=True, needed=needed), local=local)
    assert [item for item in found.depends if item.startswith("__cuda")] == depends
    assert found.constrains == constrains
    unsaid = "has GPU code, and does not say of which CUDA: any driver is taken"
    assert found.remarks == ([] if constrains else [unsaid])
    assert needs(thing(needed=needed), local=local).constrains == []  # no GPU code


def test_libraries_of_another_machine_are_named() -> None:
    arm = [thing(f"a{number}.so", machine="aarch64") for number in range(3)]
    one = "a0.so is for aarch64, the package for linux-64"
    assert needs(thing()).remarks == []
    assert needs(thing(), arm[0]).remarks == [one]
    assert needs(*arm[:2]).remarks == [f"{one}; so are 1 more"]
    assert needs(*arm, thing()).remarks == [f"{one}; so are 2 more"]
    assert needs(thing(machine="aarch64", floors={"GLIBC": "2.34"})).depends == []


def test_whose_a_needed_library_is() -> None:
    """Inside by its name or SONAME, the system's, a package's by a pattern, or nobody's."""
    found = needs(
        thing(needed=("liba.so", "libb.so.1", "libc.so.6", "libtorch_cpu.so", "libwho.so.2")),
        thing("toy.libs/liba.so"),
        thing("toy.libs/b-1.so", soname="libb.so.1"),
        brought={"torch": ["libtorch*.so"], "jax": ["libjax*.so"]},
    )
    assert found.linked == ("torch",)
    assert found.unknown == ("libwho.so.2",)


def test_old_strings_are_refused_unless_they_are_inside() -> None:
    wants = thing(old_strings=("_Z1fSs", "_Z1aSs"))
    needs(wants, thing("b.so", exported=frozenset({"_Z1fSs", "_Z1aSs"})))
    with pytest.raises(LabelMismatch, match="wants _Z1aSs, which takes the old kind") as caught:
        needs(thing("c.so"), wants)
    assert caught.value.where == "toy.whl: toy/_core.so"
    assert "_GLIBCXX_USE_CXX11_ABI=1" in caught.value.expected
    assert "cxx11abiTRUE" in caught.value.fix


# ---------------------------------------------------------------- versions


@pytest.mark.parametrize(
    ("asked", "taken", "left"),
    [
        (">1.0", ["1.0.1", "1.1", "2.0.rc1"], ["1.0", "1.0.post1", "1.0.0.post2", "0.9"]),
        (">=1.0", ["1.0", "1.0.post1", "1.0.1"], ["1.0.rc1", "1.0rc1", "0.9"]),
        ("<=1.0", ["1.0", "1.0.rc1", "0.9"], ["1.0.post1", "1.0.1"]),
        ("<1.0", ["0.9", "0.9.post1"], ["1.0", "1.0rc1", "1.0.0rc1", "1.0.rc1"]),
        ("!=1.0", ["1.0.1", "0.9", "1.0.post1"], ["1.0", "1.0.0"]),
        ("==1.0.*", ["1.0", "1.0.7"], ["1.1", "0.9"]),
        ("~=1.4.2", ["1.4.2", "1.4.9"], ["1.5", "1.4.1", "1.5.rc1"]),
        ("==1.0+cpu", ["1.0"], ["1.0.1"]),
    ],
)
def test_conda_takes_what_pip_takes(asked: str, taken: list[str], left: list[str]) -> None:
    spec = VersionSpec(constraint(SpecifierSet(asked)))
    assert [version for version in taken if not spec.matches(Version(version))] == []
    assert [version for version in left if spec.matches(Version(version))] == []


def test_a_version_that_conda_cannot_be_told_says_where() -> None:
    for text in ("===spam", ",".join(f"!=1.{n}.0.*" for n in range(8))):
        with pytest.raises(ArtifactError) as caught:
            constraint(SpecifierSet(text), "toy.whl: METADATA")
        assert caught.value.where == "toy.whl: METADATA"


@pytest.mark.parametrize("version", ["1.0|3.0|>5", ">=1.0.x_y", "=(1"])
def test_a_version_that_pip_cannot_be_told_says_where_and_what_to_do(version: str) -> None:
    with pytest.raises(ArtifactError, match="pip has no form for the version") as caught:
        pip_specifier(version, "toy.conda: depends", "x")
    assert caught.value.where == "toy.conda: depends"
    assert caught.value.expected == "comparisons joined by commas"
    assert "x" in caught.value.fix


@pytest.mark.parametrize("text", ["numpy", "numpy >=1", "numpy ==1.0 h_0"])
def test_a_dependency_is_shown_as_it_is_written(text: str) -> None:
    assert str(MatchSpec.parse(text, "x")) == text


# ---------------------------------------------------------------- files and tags


def test_the_record_of_an_installed_package() -> None:
    """As pip would write it: beside site-packages, sorted, and RECORD itself without a digest."""
    for tag, site, scripts in (
        (("py3", "none", "any"), "site-packages/", "python-scripts/"),
        (("cp312", "cp312", "linux_x86_64"), "lib/python3.12/site-packages/", "bin/"),
    ):
        made = record(
            [
                (f"{site}x.py", "sha256=abc", 3),
                (f"{scripts}x", "", None),
                ("share/x", "sha256=d", 0),
            ],
            f"{site}x.dist-info/RECORD",
            target(tag, "", "x.whl"),
        )
        assert made.decode().splitlines() == [
            "../../../bin/x,,",
            "../../../share/x,sha256=d,0",
            "x.dist-info/RECORD,,",
            "x.py,sha256=abc,3",
        ]


@pytest.mark.parametrize(
    ("tag", "asked", "depends"),
    [
        (("py3", "none", "any"), "", ["python >=3"]),
        (("py2.py3", "none", "any"), "", ["python"]),
        (("py3", "none", "any"), ">=3.9", ["python >=3.9"]),
        (("cp312", "cp312", "linux_x86_64"), ">=3.8",
         ["python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312"]),
    ],
)  # fmt: skip
def test_the_pythons_of_a_package(
    tag: tuple[str, str, str], asked: str, depends: list[str]
) -> None:
    assert list(target(tag, asked, "x.whl").depends) == depends


@pytest.mark.parametrize(
    ("path", "abi"),
    [
        ("x/_C.abi3.so", "abi3"),
        ("x/_C.cpython-312-x86_64-linux-gnu.so", "cp312"),
        ("x/_C.cpython-313t-x86_64-linux-gnu.so", "cp313t"),
        ("x/_C.cpython-38.so", "cp38"),
        ("x/_C.so", None),
        ("x/lib_C.so.1", None),
    ],
)
def test_the_python_of_a_module(path: str, abi: str | None) -> None:
    found = tags.module_of(path, None, "x.conda")
    assert (found.abi if found else None) == abi
    assert tags.needs_a_look(path) is (abi is None)


def test_a_module_of_another_interpreter_says_where() -> None:
    path = "x/_C.pypy310-pp73-x86_64-linux-gnu.so"
    with pytest.raises(ArtifactError, match="another interpreter than CPython") as caught:
        tags.module_of(path, None, "x.conda")
    assert caught.value.where == f"x.conda: {path}"
    assert ".abi3.so" in caught.value.expected


@pytest.mark.parametrize("subdir", ["win-64", "osx-arm64", 3])
def test_a_subdir_that_cannot_be_proved_says_what_can(subdir: object) -> None:
    with pytest.raises(ArtifactError, match="subdir is") as caught:
        tags.architecture_of(subdir, "x.conda: info/index.json")
    assert caught.value.where == "x.conda: info/index.json"
    assert caught.value.expected.startswith("noarch, linux-64, linux-aarch64")
    assert "bridge the Linux or noarch package" in caught.value.fix


def test_why_a_name_has_none_is_said() -> None:
    assert names.find_pip("zlib").why
    assert names.find_pip("__glibc").why


# ---------------------------------------------------------------- what a package says of itself


@pytest.mark.parametrize(
    ("about", "index", "files", "what", "expected", "fix"),
    [
        ({"license": "MIT"}, {}, ["LICENSE"], "", "", ""),
        ({}, {"license": "MIT"}, ["LICENSE"], "", "", ""),
        ({"license": "mit"}, {"license": "Zlib"}, ["LICENSE"], "", "", ""),
        ({"license": "Zlib"}, {"license": "MIT"}, ["x"], "is 'Zlib'", "'MIT', as", "make it"),
        ({}, {}, ["x"], "license is ''", "'MIT', as", "make it"),
        ({"license": "My own"}, {}, ["x"], "'My own' is not an SPDX", "'MIT', as", "make it"),
        ({"license": "MIT"}, {}, [], "has no licence file", "", "license_file"),
    ],
)  # fmt: skip
def test_the_licence_of_a_project_is_in_its_packages(
    about: dict[str, str],
    index: dict[str, str],
    files: list[str],
    what: str,
    expected: str,
    fix: str,
) -> None:
    package: Any = SimpleNamespace(about=about, index=index, path=Path("toy.conda"))
    config: Any = SimpleNamespace(license="MIT", rebuild="make it")
    owner: Any = SimpleNamespace(config=config)
    if not what:
        agreement.check_license(package, owner, files)
        return
    with pytest.raises(ArtifactError) as caught:
        agreement.check_license(package, owner, files)
    assert caught.value.where.startswith("toy.conda: info/")
    assert what in caught.value.what
    assert expected in caught.value.expected and bool(expected) == bool(caught.value.expected)
    assert fix in caught.value.fix
    config.license = ""
    agreement.check_license(package, owner, files)  # nobody said which


def test_both_forms_of_a_package_hold_the_same_files() -> None:
    def made(name: str, **files: str) -> Any:
        entries = {
            path: SimpleNamespace(path=path, is_link=sha == "link", sha256=sha)
            for path, sha in files.items()
        }
        return SimpleNamespace(path=Path(name), paths=entries)

    agreement.check_same_files(made("a.conda", x="1", y="2"), made("a.tar.bz2", x="1", y="2"))
    for other in ({"x": "1"}, {"x": "1", "y": "3"}, {"x": "1", "y": "2", "z": "4"}, {"y": "2"}):
        with pytest.raises(ConflictError, match=r"the files of a\.conda beside it") as caught:
            agreement.check_same_files(made("a.conda", x="1", y="2"), made("a.tar.bz2", **other))
        assert caught.value.where == "a.tar.bz2"
        assert caught.value.expected == "the same files in both forms of a package"
        assert caught.value.fix == "remove the one that is not meant"
