"""Small rules of the two bridges, each by itself: what whole packages show only in part."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from foreign import project
from packaging.specifiers import SpecifierSet
from rattler import Version, VersionSpec

from conda_bridge.bridge import (
    agreement,
    conda_binaries,
    manylinux,
    names,
    tags,
)
from conda_bridge.bridge.conda_binaries import Object, measure
from conda_bridge.bridge.conda_constraint import constraint
from conda_bridge.bridge.conda_layout import record
from conda_bridge.bridge.conda_target import target
from conda_bridge.bridge.dependencies import MatchSpec, pip_requirement, pip_specifier, translate
from conda_bridge.errors import ArtifactError, ConfigError, ConflictError, LabelMismatch
from conda_bridge.formats import elf
from conda_bridge.formats.abi3 import Audit
from conda_bridge.label import Label


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


@pytest.mark.parametrize(
    ("build", "matches"),
    [("", True), ("h_0", True), ("h_*", True), ("*_0", True), ("h_1", False), ("H_0", False)],
)
def test_a_build_may_be_a_pattern(build: str, matches: bool) -> None:
    assert MatchSpec("numpy", "1.*", build).matches("1.2", "h_0") is matches
    assert not MatchSpec("numpy", "2.*", build).matches("1.2", "h_0")


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
        (("cp312", "none", "any"), "", ["python >=3.12,<3.13dev0"]),
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


# ---------------------------------------------------------------- what is said, and where


LONG = "X" * 100


@pytest.mark.parametrize(
    ("file", "content", "what", "where", "expected"),
    [
        ("a.json", f'{{"{LONG}": "x"}}', f"'{LONG[:80]}' is no name of a conda package", "",
         "lower-case letters, digits, and - _ ."),
        ("a.json", f'{{"x": "{LONG} {LONG}"}}', f"is '{LONG[:80]}'", ": x",
         "the name of a project on PyPI, or false where it is none"),
        ("a.json", f'[{{"conda_name": "x", "pypi_name": "x"}}, "{LONG}"]', f"is {LONG[:80]}",
         ": entry 1", "an object with conda_name and pypi_name"),
        ("a.json", "\"x\"", "has a str at its top", "", "conda name -> PyPI name, or"),
        ("a.toml", "x" * 1001, "is larger than 1000 bytes", "", ""),
        ("a.toml", "x", "is not TOML", "", ""),
        ("a.toml", "\udcff", "is not UTF-8", "", ""),
    ],
)  # fmt: skip
def test_a_mapping_that_is_none_says_where_and_what_would_be_one(
    file: str,
    content: str,
    what: str,
    where: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "_MAX_MAPPING", 1000)
    path = tmp_path / file
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        names.read_mapping(path)
    said = caught.value.what.partition(":")[0] if what.startswith("is not") else caught.value.what
    assert said == what
    assert caught.value.where == f"{path}{where}"
    assert caught.value.expected.startswith(expected)


def test_a_name_that_conda_uses_for_something_else() -> None:
    for asked, mapping, why in (
        ("Toy", {"toy": None}, "the mapping file says that it is no Python project"),
        ("zlib", {}, ""),
    ):
        with pytest.raises(ArtifactError) as caught:
            names.find_conda(asked, mapping=mapping, where="a.whl: Requires-Dist")
        said = f"requires {asked!r}, and conda has something else under that name ({why}"
        assert caught.value.what.startswith(said)
        assert caught.value.where == "a.whl: Requires-Dist"
        assert caught.value.expected == "the name of the conda package in a table"
        assert f'"<name in conda>" = "{asked.lower()}"' in caught.value.fix
    assert names.find_conda("toy", mapping={"toy": "toy"}).why == "the mapping file says so"
    assert names.find_conda("toy").assumed
    with pytest.raises(ArtifactError) as caught:
        names.find_conda("zlib")
    assert caught.value.where == ""  # no wheel was named


def test_who_says_a_name() -> None:
    own = project(dependencies={"fish": "pyfish", "squid": {"drop": "is linked in"}})
    assert names.find_pip("fish", own).why == "the configuration says so"
    assert names.find_conda("PyFish", own).why == "the configuration says so"
    assert names.find_pip("squid", own).why == "is linked in"
    assert names.find_pip("cod", required=["Cod"]).why.endswith("METADATA requires it")
    assert names.find_pip("numpy").why == names.find_pip("pytorch").why == "known to conda-bridge"
    with pytest.raises(ArtifactError, match="nobody has said what that is on PyPI") as caught:
        names.find_pip("cod.x", where="x.conda: depends")
    assert caught.value.where == "x.conda: depends"
    assert caught.value.expected.startswith("a name in a table, or in the package's own METADATA")
    assert '"cod.x" = "<name on PyPI>"' in caught.value.fix


@pytest.mark.parametrize(
    ("built_as", "python", "tag"),
    [
        (["cp312-none-any"], "3.12", "cp312-none"),
        (["cp312-none-any", "py2-none-any"], "3.12", "cp312-none"),
        (["cp312-none-any", "cp312-cp312-linux_x86_64"], "3.12", "cp312-none"),
        (["cp312-none-any", "py3-none-any"], "3.12", "py3-none"),
        (["cp311-none-any"], "3.12", "py3-none"),
        (["cp312-cp312-linux_x86_64"], "3.12", "cp312-cp312"),
        (["cp312-cp312-linux_x86_64"], "", "py3-none"),
        (["cp312-abi3-linux_x86_64"], "3.12", "py3-none"),
        ([], "3.12", "py3-none"),
        (["cp312-none-any"], "", "py3-none"),
        (["cp312"], "3.12", "py3-none"),
    ],
)
def test_the_tag_of_a_package_without_modules(built_as: list[str], python: str, tag: str) -> None:
    asked: Any = {"requires_python": ">=3.9", "built_as": built_as, "objects": {}, "where": "x"}
    found = tags.tag_of([], platform="any", python=python, **asked)
    assert str(found) == f"{tag}-any"


def test_modules_of_a_python_without_its_lock_have_its_abi() -> None:
    asked: Any = {"requires_python": "", "built_as": [], "objects": {}, "where": "x.conda"}
    for abi, python in (("cp313t", "3.13"), ("cp312", "3.12")):
        found = tags.tag_of([tags.Module("a.so", abi)], platform="x", python=python, **asked)
        assert (found.python, found.abi) == (abi.rstrip("t"), abi)
    with pytest.raises(ArtifactError, match="has extension modules for cp313t") as caught:
        tags.tag_of([tags.Module("a.so", "cp313t")], platform="x", python="3.12", **asked)
    assert caught.value.where == "x.conda"
    assert caught.value.expected == "cp312, as its folder lib/python3.12 says"


def test_a_module_of_one_python_in_a_package_for_all_is_named() -> None:
    modules = [tags.Module("x/a.abi3.so", "abi3"), tags.Module("x/b.cpython-312.so", "cp312")]
    asked: Any = {"requires_python": ">=3.9", "built_as": [], "objects": {}, "where": "x.conda"}
    for found in (modules, [*modules, tags.Module("x/c.so", "")][::2]):
        with pytest.raises(ArtifactError, match="not for the stable ABI") as caught:
            tags.tag_of(found, platform="linux_x86_64", python="", **asked)
        assert caught.value.where == f"x.conda: {found[1].path}"
        assert ".abi3.so" in caught.value.expected


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (Audit((3, 8), ("_a", "_b", "_c", "_d"), (), ()), "uses _a, _b, _c, not in the stable ABI"),
        (Audit((3, 8), (), (), ("libpython3.12.so",)), "needs libpython3.12.so, the library of"),
        (
            Audit((3, 13), (), (("P", (3, 11)), *((n, (3, 13)) for n in "QRST")), ()),
            "needs Python 3.13 (Q, R, S)",
        ),
        (Audit((3, 12), (), (("P", (3, 12)),), ()), ""),
    ],
)
def test_what_breaks_the_stable_abi_is_said(
    found: Audit, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags.abi3, "audit", lambda shared: found)
    module = tags.Module("x/a.abi3.so", "abi3")
    asked: Any = {"requires_python": "", "built_as": ["cp312-abi3-x"], "where": "x.conda"}
    asked |= {"platform": "linux_x86_64", "python": "3.13", "objects": {module.path: object()}}
    if not what:
        assert tags.tag_of([module], **asked).python == "cp312"
        return
    with pytest.raises(LabelMismatch) as caught:
        tags.tag_of([module], **asked)
    assert caught.value.what.startswith(what)
    assert caught.value.where == "x.conda: x/a.abi3.so"
    assert caught.value.expected == "the stable ABI of Python 3.12, as cp312-abi3 promises"
    assert "Py_LIMITED_API" in caught.value.fix


def test_a_library_that_nobody_brings_says_whose_it_may_be() -> None:
    shared: Any = SimpleNamespace(machine="EM_X86_64", needed=("libc.so.6", "libzz.so.1"))

    def check(platform: str, left_out: list[str], *provided: str) -> None:
        arch = "x86_64"
        tags.check_needed(platform, {"lib/a.so": shared}, provided, left_out, arch, "x.conda")

    check("linux_x86_64", [])  # it is the system's then
    check("auto", ["zz"], "libzz.so.*")
    for left_out, perhaps in ((["zz", "aa"], " (perhaps one of aa, zz)"), ([], "")):
        with pytest.raises(ArtifactError, match=r"needs libzz\.so\.1, which is not") as caught:
            check("auto", left_out)
        assert caught.value.where == "x.conda: lib/a.so"
        assert caught.value.expected.startswith(
            f"a conda package that has it, to be folded in{perhaps}, or a requirement"
        )
        assert '<name on PyPI> = ["libzz.so.1"]' in caught.value.fix
        assert "the platform tag linux_x86_64" in caught.value.fix
    tags.check_needed("any", {}, (), (), "", "x.conda")
    plain: Any = SimpleNamespace(machine="EM_X86_64", needed=("libc.so.6",))
    both = {"lib/0.so": plain, "lib/a.so": shared}
    with pytest.raises(ArtifactError, match=r"needs libzz\.so\.1") as caught:
        tags.check_needed("auto", both, (), (), "x86_64", "x.conda")
    assert caught.value.where == "x.conda: lib/a.so"


# ---------------------------------------------------------------- Pythons and constraints


def test_pythons_that_a_wheel_cannot_have_say_where() -> None:
    with pytest.raises(ArtifactError, match="is for the ABI foo") as caught:
        target(("cp312", "foo", "linux_x86_64"), "", "x.whl")
    assert caught.value.where == "x.whl" and "abi3 or none" in caught.value.expected
    with pytest.raises(ArtifactError, match=r"is for the ABIs abi3\.cp312") as caught:
        target(("cp312", "abi3.cp312", "linux_x86_64"), "", "x.whl")
    assert (caught.value.where, caught.value.expected) == ("x.whl", "one ABI in a wheel")
    assert target(("cp312", "none", "linux_x86_64"), "", "x.whl").minors == (12,)


@pytest.mark.parametrize(
    ("asked", "depends"),
    [
        (">=3.9,!=3.8.*", "python >=3.9"),
        (">=3.9,!=3.11.*", "python >=3.9,!=3.11.*"),
        (">=3.8,!=3.9.*", "python >=3.10"),
        ("!=3.9.*", "python >=3.10"),
        ("<3.13", "python >=3.10,<3.13dev0"),
    ],
)
def test_what_a_tag_says_is_not_said_again(asked: str, depends: str) -> None:
    found = target(("cp310" if "3.9," not in asked else "cp39", "abi3", "linux_x86_64"), asked, "x")
    assert found.depends[0].split(".0a0")[0] == depends


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("1.0,*,<2", "==1.0,<2"),
        ("*,<2", "<2"),
        (">=1,<2|>=2,<3", ">=1,<3"),
        (">=1,<2|>=3,<4", ">=1,<4,!=2.*"),
        ("<2|>=2,<3", "<3"),
        (">=1.5,<3,<2|>=2,<2.5", ">=1.5,<2.5"),
        (">=2,<2|>=3", None),
        ("1.*|3.*|4.*", ">=1,<5,!=2.*"),
        ("1.0|2.0", None),
    ],
)
def test_conda_alternatives_that_pip_has_a_word_for(version: str, wanted: str | None) -> None:
    if wanted is not None:
        assert pip_specifier(version, "x.conda") == wanted
        return
    with pytest.raises(ArtifactError, match="pip has no form"):
        pip_specifier(version, "x.conda")


def test_a_requirement_of_the_configuration_that_is_none_says_where() -> None:
    own = project(dependencies={"fish": "pyfish >=>1"})
    with pytest.raises(ArtifactError, match="is no requirement") as caught:
        translate(MatchSpec.parse("fish", "x"), "x.conda: depends", project=own)
    assert caught.value.where == "x.conda: depends"
    own = project(dependencies={"fish": "pyfish"})
    assert pip_requirement(MatchSpec.parse("fish >=1", "x"), "x", project=own) == "pyfish>=1"


def test_what_a_package_depends_on_is_a_list() -> None:
    for depends in (3, "numpy", [3]):
        package: Any = SimpleNamespace(path=Path("x.conda"), index={"depends": depends})
        with pytest.raises(ArtifactError, match="is not a list of dependencies") as caught:
            agreement.depends_of(package)
        assert caught.value.where.startswith("x.conda: info/index.json")
    bare: Any = SimpleNamespace(path=Path("x.conda"), index={})
    assert agreement.depends_of(bare) == []


def test_a_dependency_of_the_label_is_shown_by_its_name_for_pip() -> None:
    fields = {"torch": {"form": "{major:1}.{minor}", "depends": "pytorch"}}
    label = {"build": "{torch:flat}_{number}", "local": "{torch}", "rank": "torch"}
    own = project(
        package="toy",
        dependencies={"pytorch": "mytorch"},
        label={**label, "fields": {"torch": fields["torch"]}},
    )
    told: Any = Label("1.0", (("torch", "2.8"),), 0)
    package: Any = SimpleNamespace(path=Path("x.conda"))
    right = [MatchSpec.parse("pytorch 2.8.*", "x")]
    agreement.check_label_dependencies(package, right, told, own)
    other = MatchSpec.parse("pytorch 2.9.*", "x")
    for wrong, said in (
        ([], "no pytorch"),
        ([other], "pytorch 2.9.*"),
        ([*right, MatchSpec("pytorch", "", "")], "pytorch 2.8.*, pytorch"),
    ):
        with pytest.raises(ArtifactError) as caught:
            agreement.check_label_dependencies(package, wrong, told, own)
        assert caught.value.what == f"requires {said}"
        assert caught.value.where == "x.conda: info/index.json: depends"
        assert caught.value.expected == "mytorch==2.8.*, as the file name has it"


def test_old_strings_of_libstdcxx_itself_are_there() -> None:
    asked = [
        *(elf.Symbol("_Z1aSs", "GLIBCXX_3.4"), elf.Symbol("_Z1bSs", "CXXABI_1.3")),
        *(elf.Symbol("_Z1cSs", weak=True), elf.Symbol("_Z1dSs"), elf.Symbol("_Z1eSs", "TOY_1")),
        elf.Symbol("strlen"),
    ]
    shared: Any = SimpleNamespace(undefined=asked)
    assert conda_binaries._old_strings(shared) == ("_Z1dSs", "_Z1eSs")


def test_a_policy_knows_its_own_families_of_versions() -> None:
    policy = manylinux.policy_of("manylinux_2_28_x86_64")
    assert policy.newest("GLIBC") == "2.28"
    assert policy.newest("OPENSSL") == ""
    wanted = {"libc.so.6": ("GLIBC_2.17", "OPENSSL_3.0", "GLIBC_2.34")}
    facts = {"needed": ("libc.so.6",), "undefined": (), "required_versions": wanted}
    shared: Any = SimpleNamespace(name="x.conda: a.so", **facts)
    [found] = manylinux.obstacles(policy, [shared])
    assert found.expected == "GLIBC_2.28 at most" and "GLIBC_2.34" in found.what
