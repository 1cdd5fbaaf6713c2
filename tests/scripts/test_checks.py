"""What this project alone asks of its artifacts: the parts that several programs share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import pytest

from conda_bridge import project
from conda_bridge.errors import ArtifactError, BridgeError, LabelError, LabelMismatch
from flashinfer_build import bootstrap
from flashinfer_build.checks import build_info, index_page, labels, torch_abi
from flashinfer_build.checks.hooks import HOOKS

OURS = project.Project.load(bootstrap.project_root() / "pyproject.toml")


@pytest.mark.parametrize(
    "text",
    [b"import os\n", b"A = open('x').read()\n", b"A =", b"A.b = 1\n", b"A = B = 1\n",
     b"A = " + b"(" * 5000, b"\0", b"A: int = 1\n", b"A = 1\n'''not the first'''\n", b"A = [1]\n"],
)  # fmt: skip
def test_build_info_is_read_and_never_run(text: bytes) -> None:
    with pytest.raises(
        ArtifactError, match=r"where: cannot be read: (not Python|line \d)"
    ) as caught:
        build_info.read(text, "where", "build it again")
    assert (caught.value.expected, caught.value.fix) == ("names with constants", "build it again")


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
    requests = factories.label_of("cpu_torch26").requests.values()
    build = compat.Build("cpu_torch26", "0.1.6+cputorch2.6", torch, "", abi, "", *requests)
    finding = compat.explain(build, compat.Found(f"{torch}.0", "", not abi))
    rule = "PyPI's torch up to {}.{} has the old ABI".format(*torch_abi.OLD_UNTIL)
    assert rule in finding.problem
    assert compat.explain(build, compat.Found(f"{torch}.0", "", abi)) is None


@pytest.mark.parametrize(
    ("symbols", "kind"),
    [
        (["_ZN5torch3fooERKSs"], "old"),
        (["_ZN2at3fooERKSs"], "old"),
        (["_ZN3c103fooERKSs"], "old"),
        (["_ZN5torch3fooERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"], "new"),
        (["_ZN2at3fooERKSs",
          "_ZN3c103barERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"], "mixed"),
        (["_ZN2at3fooEi"], ""),
        (["_ZN5other3fooERKSs"], ""),
        (["_ZN7my2at3z3fooERKSs", "_ZN9my5torchx3fooERKSs"], ""),  # the letters, and no namespace
    ],
)  # fmt: skip
def test_the_strings_that_a_binding_wants_of_torch(symbols: list[str], kind: str) -> None:
    wanted = [SimpleNamespace(name=name) for name in symbols]
    library: Any = SimpleNamespace(undefined=wanted)
    assert torch_abi.measured(library) == kind
    assert (torch_abi.names(True), torch_abi.names(False)) == ("new", "old")


def test_the_overview_of_the_index() -> None:
    """A line a pair of CUDA and torch: the CPU first, then as numbers, with the newest wheel."""
    folders = {}
    for variant in ("cu130_torch213", "cu130_torch29", "cu126_torch213", "cpu_torch213"):
        versions = ("0.1.5", "0.1.6")
        built = [factories.label_of(variant, public_version=version) for version in versions]
        folders[variant.replace("_", "/")] = [
            OURS.scheme.parse_wheel_version(label.wheel_version, 0, "x") for label in built
        ]
    lines = index_page.index_page(folders).splitlines()
    rows = [line for line in lines if line.startswith("<tr>")]
    assert rows == [
        "<tr><th>CUDA</th><th>torch</th><th>index</th><th>install</th></tr>",
        *(
            f'<tr><td>{cuda}</td><td>{torch}</td><td><a href="{folder}/flashinfer/">{folder}</a>'
            f"</td><td><pre>pip install &quot;flashinfer=={newest}&quot; --extra-index-url"
            f" &lt;this address&gt;/{place}/</pre></td></tr>"
            for cuda, torch, folder, newest, place in (
                ("none (CPU)", "2.13", "cpu/torch213", "0.1.6+cputorch2.13", "cpu/torch2.13"),
                ("12.6", "2.13", "cu126/torch213", "0.1.6+cu126torch2.13", "cu126/torch2.13"),
                ("13.0", "2.9", "cu130/torch29", "0.1.6+cu130torch2.9", "cu130/torch2.9"),
                ("13.0", "2.13", "cu130/torch213", "0.1.6+cu130torch2.13", "cu130/torch2.13"),
            )
        ),
    ]
    assert lines.index("<table>") < lines.index(rows[0]) < lines.index("</table>")
    assert lines.index(rows[-1]) < lines.index("</table>")


def test_a_version_that_no_build_has_is_named_with_its_folder() -> None:
    read = OURS.scheme.parse_wheel_version("0.1+cu130torch2.13", 0, "x")
    with pytest.raises(LabelError, match="is not of the form") as caught:
        index_page.index_page({"cu130/torch2.13": [read]})
    assert caught.value.where == "index/cu130/torch2.13/flashinfer"


@pytest.mark.parametrize(
    ("variant", "spec"),
    [("cu130_torch213", "pytorch 2.13.* *cuda*"), ("cpu_torch29", "pytorch 2.9.* *cpu*")],
)
def test_a_package_of_a_wheel_has_the_torch_of_its_kind(variant: str, spec: str) -> None:
    label = factories.label_of(variant)
    read = OURS.scheme.parse_wheel_version(label.wheel_version, 0, label.wheel_file)
    assert HOOKS.conda_depends(read) == [spec]


@pytest.mark.parametrize(
    ("variant", "changes", "words"),
    [
        ("cu130_torch213", {"CUDA": "12.9.1"},
         ["CUDA is '12.9.1'", "cu130, as the file name has it", "python scripts/build.py"]),
        ("cpu_torch213", {"CUDA": "13.0"}, ["CUDA is '13.0'", "cpu, as"]),
        ("cu130_torch213", {"BUILD_NUMBER": 9},
         ["BUILD_NUMBER is 9", "0, as the file name has it", "python scripts/build.py"]),
        ("cu130_torch213", {"CXX11_ABI": "yes"}, ["CXX11_ABI is 'yes'", "True or False"]),
        ("cu130_torch213", {"CXX11_ABI": False},
         ["the old C++ string ABI (CXX11_ABI = False); it fits PyPI's torch up to 2.6",
          "the new C++ string ABI, which PyPI's torch 2.13 has",
          "build cu130_torch213 against the torch 2.13 of PyPI"]),
        ("cu126_torch26", {"CXX11_ABI": True},
         ["the new C++ string ABI (CXX11_ABI = True); it fits conda-forge's pytorch 2.6",
          "the old C++ string ABI, which PyPI's torch 2.6 has", "--no-wheel"]),
    ],
)  # fmt: skip
def test_what_the_build_wrote_is_held_against_the_name(
    tmp_path: Path, variant: str, changes: dict[str, object], words: list[str]
) -> None:
    """The message says what is there, where, what should be, and what to do."""
    label = factories.label_of(variant)
    package = factories.write_binding(
        tmp_path, label, files={factories.BUILD_INFO: factories.build_info(label, **changes)}
    )
    factories.write_library(tmp_path, label)
    with pytest.raises(BridgeError) as caught:
        factories.bridge(package, tmp_path / "out")
    assert caught.value.where == f"{label.conda_file}: {factories.BUILD_INFO}"
    for text in words:
        assert text in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gone", [factories.BUILD_INFO, "METADATA"])
def test_a_package_that_does_not_describe_its_build(tmp_path: Path, gone: str) -> None:
    label = factories.label_of()
    [path] = [path for path in factories.binding_files(label) if path.endswith(gone)]
    package = factories.write_binding(tmp_path, label, files={path: None})
    factories.write_library(tmp_path, label)
    with pytest.raises(ArtifactError, match="the file is missing") as caught:
        factories.bridge(package, tmp_path / "out")
    assert label.conda_file in caught.value.where
    assert gone.rpartition("/")[2] in caught.value.where
    assert "python scripts/build.py" in caught.value.fix


def test_a_wheel_of_the_old_string_abi_is_no_conda_package() -> None:
    """conda-forge's torch has the new one, whatever its version."""
    label = factories.label_of("cu126_torch26")
    read = OURS.scheme.parse_wheel_version(label.wheel_version, 0, label.wheel_file)
    wheel: Any = SimpleNamespace(path=Path(label.wheel_file))
    told = {build_info.PATH: factories.build_info(label, CXX11_ABI=True)}
    HOOKS.check_wheel(wheel, read, told)
    told = {build_info.PATH: factories.build_info(label, CXX11_ABI=False)}
    with pytest.raises(
        LabelMismatch, match=r"old C\+\+ string ABI \(CXX11_ABI = False\)"
    ) as caught:
        HOOKS.check_wheel(wheel, read, told)
    assert caught.value.where == f"{label.wheel_file}: {build_info.PATH}"
    assert "cu126_torch26" in str(caught.value.fix)
    with pytest.raises(ArtifactError, match="the file is missing"):
        HOOKS.check_wheel(wheel, read, {})
