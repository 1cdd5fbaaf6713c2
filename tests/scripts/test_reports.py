"""What ``verify`` says, word for word where programs read it, and with its place for people."""

from __future__ import annotations

from pathlib import Path

import factories
import pytest
import toy_artifacts as toy
from packaging.specifiers import SpecifierSet

from conda_bridge.errors import ArtifactError, LabelError
from conda_bridge.formats import conda_package
from conda_bridge.project import Project
from conda_bridge.verify import names, places
from conda_bridge.verify.compare import Difference
from conda_bridge.verify.findings import ArtifactReport, Report
from conda_bridge.verify.gate import as_lines, verify
from conda_bridge.verify.requirements import before, pythons

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
    package, read = names.conda_label("toy-1.0-py311_7.conda", Project())
    assert (read.version, read.number) == ("1.0", 7)
    assert names.describe(package, read, Project()) == "toy 1.0"


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
