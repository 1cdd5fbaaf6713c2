"""What this project alone asks of its artifacts: the parts that several programs share."""

from __future__ import annotations

import importlib.util

import factories
import pytest

from conda_bridge import project
from conda_bridge.errors import ArtifactError, LabelError
from flashinfer_build import bootstrap
from flashinfer_build.checks import build_info, labels, torch_abi

OURS = project.Project.load(bootstrap.project_root() / "pyproject.toml")


@pytest.mark.parametrize(
    "text",
    [b"import os\n", b"A = open('x').read()\n", b"A =", b"A.b = 1\n", b"A = B = 1\n",
     b"A = " + b"(" * 5000, b"\0", b"A: int = 1\n", b"A = 1\n'''not the first'''\n", b"A = [1]\n"],
)  # fmt: skip
def test_build_info_is_read_and_never_run(text: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"where: cannot be read: (not Python|line \d)"):
        build_info.read(text, "where")


def test_build_info_says_what_the_label_says() -> None:
    label = factories.label_of("cu130_torch213", build_number=1, commit="0123456")
    wanted = build_info.expected(label)
    found = build_info.parse(factories.build_info(label))
    assert list(build_info.differences(found, wanted)) == []
    changed = {**found, "BUILD_NUMBER": True, "TORCH": "2.1"}
    del changed["COMMIT"]
    assert list(build_info.differences(changed, wanted)) == [
        ("TORCH", "2.1", "2.13"),
        ("COMMIT", None, "0123456"),
        ("BUILD_NUMBER", True, 1),
    ]
    assert build_info.release(str(found["CUDA"])) == "13.0"
    assert build_info.release("") == ""


@pytest.mark.parametrize("variant", ["cu124_torch24", "cpu_torch213"])
def test_labels_as_conda_bridge_reads_them(variant: str) -> None:
    label = factories.label_of(variant, public_version="0.1.6rc1", build_number=3, commit="abcdef0")
    read = OURS.scheme.parse_build(label.conda_build, label.conda_version)
    assert labels.label_of(read) == label
    fold = OURS.folds["libflashinfer"]
    assert fold is not None
    read = OURS.scheme.parse_fold(fold, label.lib_conda_build, label.conda_version)
    assert labels.library_label_of(read) == label.library
    with pytest.raises(LabelError):
        labels.label_of(read)


@pytest.mark.parametrize(
    ("torch", "new"),
    [((1, 13), False), ((2, 6), False), ((2, 7), True), ((2, 13), True), ((3, 0), True)],
)
def test_pypi_torch_has_the_new_abi_from_2_7(torch: tuple[int, int], new: bool) -> None:
    assert torch_abi.pypi_has_new(torch) is new


@pytest.mark.parametrize("torch", ["2.6", "2.7"])
@pytest.mark.parametrize("abi", [False, True])
def test_what_a_user_is_told_of_the_abi_is_the_same_rule(torch: str, abi: bool) -> None:
    """``_compat`` ships in the wheel and cannot import the rule."""
    path = bootstrap.project_root() / "flashinfer" / "_compat.py"
    spec = importlib.util.spec_from_file_location("_compat_alone", path)
    assert spec is not None and spec.loader is not None
    compat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compat)
    build = compat.Build("cpu_torch26", "0.1.6+cputorch2.6", "0.1.6", "0.1.6", torch, "", abi)
    text = compat.explain(build, compat.Found(f"{torch}.0", "", not abi))
    assert "PyPI's torch up to {}.{} has the old ABI".format(*torch_abi.OLD_UNTIL) in text
    assert compat.explain(build, compat.Found(f"{torch}.0", "", abi)) == ""
