"""What ``verify`` says, word for word where programs read it, and with its place for people."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import pytest
import rattler
import toy_artifacts as toy
from packaging.specifiers import SpecifierSet

from conda_bridge.errors import ArtifactError, LabelError
from conda_bridge.formats import conda_package, elf
from conda_bridge.project import Project
from conda_bridge.verify import binary, gate, names, places
from conda_bridge.verify.compare import Difference, compare, compare_all
from conda_bridge.verify.findings import ArtifactReport, Report
from conda_bridge.verify.gate import as_lines
from conda_bridge.verify.requirements import (
    before,
    holds_only,
    pip_holds_only,
    pythons,
    specs,
)

verify = functools.partial(gate.verify, project=factories.FLASHINFER)
WHEEL = "toy-1.0-py3-none-any.whl"


def report() -> Report:
    good = ArtifactReport(WHEEL, "wheel", "toy 1.0", facts={"glibc": "2.17", "archs": ["sm_90"]})
    good.ran("record")
    good.add("name", "is odd", warning=True)
    good.add("files", "is stray", member="x.a", expected="none")
    good.add("files", "is stray", member="x.a", expected="none")  # seen twice, said once
    bad = ArtifactReport("b.conda", "unknown", error=ArtifactError("is cut", where="b.conda"))
    return Report((good, bad))


def test_every_key_of_the_json() -> None:
    stray = {
        "check": "files",
        "artifact": WHEEL,
        "member": "x.a",
        "what": "is stray",
        "expected": "none",
    }
    odd = {"check": "name", "artifact": WHEEL, "member": "", "what": "is odd", "expected": ""}
    found = report()
    [error] = found.errors
    assert found.as_dict() == {
        "schema_version": 1,
        "exit_code": 2,
        "passed": 2,
        "findings": 1,
        "warnings": 1,
        "artifacts": [
            {
                "artifact": WHEEL,
                "kind": "wheel",
                "label": "toy 1.0",
                "checks": [
                    {"name": "record", "passed": True},
                    {"name": "name", "passed": True},
                    {"name": "files", "passed": False},
                ],
                "findings": [stray],
                "warnings": [odd],
                "facts": {"glibc": "2.17", "archs": ["sm_90"]},
                "error": None,
            },
            {
                "artifact": "b.conda",
                "kind": "unknown",
                "label": "",
                "checks": [],
                "findings": [],
                "warnings": [],
                "facts": {},
                "error": error.as_dict(),
            },
        ],
    }


def test_every_line_of_a_log() -> None:
    assert as_lines(report()) == [
        f"{WHEEL} (wheel): 2 of 3 checks",
        "  glibc: 2.17",
        "  archs: ['sm_90']",
        f"  warning: name: {WHEEL}: is odd",
        f"  finding: files: {WHEEL}: x.a: is stray (expected: none)",
        "b.conda: unusable: b.conda: is cut",
    ]


def test_the_exit_code_and_the_architectures() -> None:
    good, bad = report().artifacts
    assert Report((good,)).exit_code == 1
    assert Report((ArtifactReport(WHEEL, "wheel"),)).exit_code == 0
    more = ArtifactReport(WHEEL, "wheel", facts={"archs": ["compute_80", "sm_90"]})
    assert Report((good, bad, more)).archs == ["compute_80", "sm_90"]


def test_a_difference_says_what_is_on_either_side() -> None:
    assert str(Difference("index", "build", "h_0", "-")) == "index: build: h_0 | -"


def test_a_build_is_described_without_its_commit_and_number() -> None:
    label = factories.label_of("cu130_torch213", build_number=3, commit="0123456")
    for file, name in (
        (f"flashinfer-{label.conda_version}-{label.conda_build}.conda", "cu130_torch213"),
        (f"libflashinfer-{label.conda_version}-{label.lib_conda_build}.conda", "cu130"),
    ):
        package, read = names.conda_label(file, factories.FLASHINFER)
        assert names.describe(package, read, factories.FLASHINFER) == f"{name} 0.1.6"
    for name in ("toy", "toy-box"):
        package, read = names.conda_label(f"{name}-1.0-py311_7.conda", Project())
        assert (package, read.version, read.number) == (name, "1.0", 7)
        assert names.describe(package, read, Project()) == f"{name} 1.0"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("toy-1.0-py3-none-any.whl", "flashinfer-<version>[-<build>]-<python>-<abi>-<platform>"),
        ("flashinfer-1.0-py3.whl", "flashinfer-<version>[-<build>]-<python>-<abi>-<platform>"),
        ("toy-1.0-0.conda", "flashinfer-<version>-<build string>, and .conda or .tar.bz2"),
        ("flashinfer-1.0.conda", "flashinfer-<version>-<build string>, and .conda or .tar.bz2"),
    ],
)
def test_a_name_that_is_not_ours_says_what_ours_is(file: str, expected: str) -> None:
    read = names.wheel_label if file.endswith(".whl") else names.conda_label
    with pytest.raises(LabelError) as caught:
        read(file, factories.FLASHINFER)
    assert caught.value.where == file
    assert expected in str(caught.value.expected)


def test_where_the_files_of_a_package_are(tmp_path: Path) -> None:
    label = factories.label_of()
    path = factories.write_binding(
        tmp_path, label, files={"etc/conda/test-files/flashinfer/x.py": b"", "opt/x": b""}
    )
    found = places.places_of(conda_package.read(path), factories.FLASHINFER)
    assert found[factories.MODULE].path == "flashinfer/_C.abi3.so"
    assert found[factories.MODULE].installed
    left = found["etc/conda/test-files/flashinfer/x.py"]
    assert (left.path, left.kind) == ("etc/conda/test-files/flashinfer/x.py", "drop")
    assert not left.installed
    assert (found["opt/x"].path, found["opt/x"].kind) == ("opt/x", "")


@pytest.mark.parametrize(
    ("text", "minors"),
    [
        (">=3.8,<=3.9.0", [(3, 8), (3, 9)]),
        (">3.9.0,<3.9.6", [(3, 9)]),
        (">3.9.20,<3.10", [(3, 9)]),
        ("==2.7.*", [(2, 7)]),
        ("<3", [(2, 7)]),
        (">=4", []),
    ],
)
def test_the_pythons_that_a_constraint_accepts(text: str, minors: list[tuple[int, int]]) -> None:
    assert pythons(SpecifierSet(text).__contains__) == minors


@pytest.mark.parametrize(
    ("release", "version"),
    [((2, 13), "2.12.9999"), ((3, 0), "2.9999"), ((1,), "0.9999"), ((0, 0), ""), ((0,), "")],
)
def test_the_version_below_a_release(release: tuple[int, ...], version: str) -> None:
    assert before(release) == version


def test_a_record_with_a_file_too_many_says_which(tmp_path: Path) -> None:
    label = factories.label_of()
    path = toy.write_wheel(tmp_path, label, record={"flashinfer/gone.py": "flashinfer/gone.py,,"})
    [found] = [item for item in verify([path]).findings if item.check == "record"]
    assert (found.member, found.what) == (
        "flashinfer/gone.py",
        "is in RECORD, and not in the wheel",
    )


def test_a_path_that_is_not_there_says_what_could_be(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        verify([tmp_path / "none"])
    assert "there is no such file or folder" in str(caught.value)
    assert caught.value.where == str(tmp_path / "none")
    assert "or a folder that holds some" in str(caught.value.expected)


def test_packages_whose_names_differ_are_named(tmp_path: Path) -> None:
    one = factories.write_binding(tmp_path / "a", factories.label_of(build_number=1))
    other = factories.write_binding(tmp_path / "b", factories.label_of(build_number=2))
    found = compare(one, other).as_dict()
    assert [item for item in found["differences"] if item["part"] == "name"] == [
        {"part": "name", "item": "file name", "left": one.name, "right": other.name}
    ]
    assert {item["item"]: item["left"] for item in found["differences"]}["build_number"] == "1"
    assert [(item.name, item.same) for item in compare_all(one.parent, other.parent)] == [
        (one.name, False),
        (other.name, False),
    ]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("==2.4.*", True),
        (">=2.4,<2.5", True),
        (">=2.4", False),
        (">=2.4,<2.5.1", False),
        (">=2.4,<=2.5.0", False),
        (">2.4.0,<2.5", False),
        (">=2.3.9999,<2.5", False),
        ("==2.4.0", False),
        ("", False),
    ],
)
def test_a_constraint_that_holds_one_release_only(text: str, holds: bool) -> None:
    assert pip_holds_only(SpecifierSet(text), (2, 4)) is holds
    conda = [rattler.MatchSpec(f"x {text}".strip())]
    assert holds_only(conda, (2, 4)) is holds


def test_requirements_that_are_none_are_findings(tmp_path: Path) -> None:
    package: Any = SimpleNamespace(index={"depends": "x >=1", "constrains": ["y", "!? 1", 3]})
    seen = ArtifactReport("x.conda", "conda")
    assert list(specs(seen, package, "depends")) == ["x"]
    assert seen.findings == []
    assert list(specs(seen, package, "constrains")) == ["y"]
    assert [item.member for item in seen.findings] == ["info/index.json: constrains"] * 2
    assert list(specs(seen, package, "run")) == []


def test_what_is_measured_of_all_libraries() -> None:
    """The newest of each; what an earlier library had is kept."""
    made = [
        elf.read(toy.shared_object(source, ("-Wl,-s",), name), f"x.whl: {name}")
        for name, source in (
            (
                "a.so",
                "void* memcpy();\nvoid* f(void* a, void* b, long n){return memcpy(a, b, n);}\n",
            ),
            ("b.so", "int g(void) { return 1; }\n"),
        )
    ]
    seen = ArtifactReport("x.whl", "wheel")
    together = binary.measure_floors(seen, made, frozenset())
    assert seen.facts["glibc"] == together["GLIBC"] == "2.14"
    assert [seen.facts[key] for key in ("glibcxx", "cxxabi", "gcc")] == ["", "", ""]
    assert seen.facts["floors"]["a.so"]["GLIBC"] == "2.14"
    assert set(seen.facts["floors"]) == {"a.so", "b.so"}
    assert seen.facts["manylinux"] == seen.facts["floors"]["a.so"]["manylinux"]


def test_a_module_that_wants_one_python(tmp_path: Path) -> None:
    """Each finding of the stable ABI says which module; the newest Python wanted is the fact."""
    want = 'extern int w(void) asm("{0}");\n__attribute__((visibility("default")))'
    source = want + " int PyInit_{1}(void) {{ return w(); }}\n"
    seen = ArtifactReport("x.whl", "wheel")
    for name, symbol in (("a", "PyModule_Create2"), ("b", "PyType_GetName"), ("c", "PyList_New")):
        made = toy.shared_object(source.format(symbol, name), ("-Wl,-s",), f"{name}.so")
        binary.check_abi3(seen, elf.read(made, f"x.whl: {name}.so"), (3, 9))
    assert seen.facts["abi3"] == "3.11"
    [found] = seen.findings
    assert (found.member, found.what) == ("b.so", "needs Python 3.11 (PyType_GetName)")
    assert found.expected == "3.9 at most, as it promises"
    made = toy.shared_object(
        source.format("PyList_New", "d"), ("-Wl,-s",), "d.so", ("libpython3.11.so.1.0",)
    )
    binary.check_abi3(seen, elf.read(made, "x.whl: d.so"), None)
    assert (seen.findings[1].member, seen.findings[1].what) == (
        "d.so",
        "needs libpython3.11.so.1.0",
    )


def test_a_file_that_no_package_has_says_what_should_be(tmp_path: Path) -> None:
    label = factories.label_of("cu130_torch213", commit="0123456")
    conda, library = toy.write_conda(tmp_path, label), toy.write_conda_library(tmp_path, label)
    wheel = toy.write_wheel(tmp_path, label, files={"flashinfer/more.py": b"x = 1\n"})
    found = [item for item in verify([conda, library, wheel]).findings if item.check == "payload"]
    assert [(item.member, item.what, item.expected) for item in found] == [
        ("flashinfer/more.py", "is in no conda package", "the same files")
    ]


def test_a_package_twice_with_a_file_less(tmp_path: Path) -> None:
    label = factories.label_of()
    gone = "site-packages/flashinfer/__init__.py"
    conda = toy.write_conda(tmp_path, label)
    other = toy.write_conda(tmp_path / "b", label, files={gone: None})
    short = factories.as_tar_bz2(other, tmp_path)
    found = [item for item in verify([conda, short]).findings if item.check == "same-files"]
    assert [(item.member, item.what) for item in found] == [("flashinfer/__init__.py", "sha256 -")]
