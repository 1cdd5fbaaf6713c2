"""project: the label is what was measured, and a difference stops the build."""

from __future__ import annotations

import ast
import os
from dataclasses import replace
from pathlib import Path

import pytest

from conda_bridge.errors import BridgeError, ConfigError, LabelMismatch, ToolchainError
from flashinfer_build.compile import project as project_module
from flashinfer_build.compile.measure import Nvcc, Torch
from flashinfer_build.compile.project import Project

NVCC = Nvcc(Path("/cuda/bin/nvcc"), Path("/cuda"), "12.4.131", (12, 4))
TORCH = Torch(Path("/site/torch"), "2.4.1+cu121", (2, 4), "12.1", False)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_module, "find_nvcc", lambda _environ: NVCC)
    monkeypatch.setattr(project_module, "find_torch", lambda _environ: TORCH)


@pytest.mark.usefixtures("measured")
def test_the_label_is_measured_whatever_version_is_set() -> None:
    plain = Project.measure({})
    assert plain.label.wheel_version == f"{plain.public_version}+cu124torch2.4"
    named = Project.measure({"FLASHINFER_BUILD_VERSION": "9.8.7"})
    assert named.label.wheel_version == "9.8.7+cu124torch2.4"
    cpu = Project.measure({"FLASHINFER_FORCE_CPU": "1"})
    assert cpu.label.variant.id == "cpu_torch24"
    assert cpu.arch_list == ""


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("expected", ["cu124_torch25", "cu121_torch24", "cpu_torch24"])
def test_another_variant_than_expected_stops(expected: str) -> None:
    with pytest.raises(LabelMismatch, match=expected) as caught:
        Project.measure({"FLASHINFER_EXPECT_VARIANT": expected})
    assert caught.value.exit_code == 1


@pytest.mark.usefixtures("measured")
def test_the_expected_variant_goes_on() -> None:
    project = Project.measure({"FLASHINFER_EXPECT_VARIANT": "cu124_torch24"})
    assert project.variant.id == "cu124_torch24"


def test_no_nvcc_is_the_cpu_build_unless_cuda_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_module, "find_nvcc", lambda _environ: None)
    monkeypatch.setattr(project_module, "find_torch", lambda _environ: TORCH)
    assert Project.measure({}).variant.id == "cpu_torch24"
    with pytest.raises(ToolchainError, match="there is no nvcc"):
        Project.measure({"FLASHINFER_REQUIRE_CUDA": "1"})


def test_no_torch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_module, "find_nvcc", lambda _environ: NVCC)
    monkeypatch.setattr(project_module, "find_torch", lambda _environ: None)
    project = Project.measure({})
    assert project.public_version
    with pytest.raises(ToolchainError, match="no torch to build against"):
        _ = project.label


CPU_TORCH = Torch(Path("/site/torch"), "2.4.1+cpu", (2, 4), None, False)


def _project(
    monkeypatch: pytest.MonkeyPatch, nvcc: Nvcc | None, torch: Torch | None, **environ: str
) -> Project:
    monkeypatch.setattr(project_module, "find_nvcc", lambda _environ: nvcc)
    monkeypatch.setattr(project_module, "find_torch", lambda _environ: torch)
    return Project.measure({"PATH": os.environ["PATH"], **environ})


@pytest.mark.parametrize(
    ("cuda", "torch_cuda", "fits"),
    [
        ((12, 4), "12.1", True),
        ((12, 4), "12.9", True),
        ((13, 0), "12.6", False),
        ((11, 8), "12.1", False),
        ((13, 0), None, True),
        (None, "12.6", True),
        (None, None, True),
    ],
)
def test_the_build_refuses_what_the_import_would(
    monkeypatch: pytest.MonkeyPatch,
    cuda: tuple[int, int] | None,
    torch_cuda: str | None,
    fits: bool,
) -> None:
    nvcc = Nvcc(Path("/none"), Path("/"), "{}.{}.99".format(*cuda), cuda) if cuda else None
    project = _project(monkeypatch, nvcc, replace(TORCH, cuda=torch_cuda))
    if fits:
        project.check(binding=True)
    else:
        with pytest.raises(LabelMismatch, match=r"would not import.*another major") as caught:
            project.check(binding=True)
        assert "CUDA_HOME" in caught.value.fix
    project.check(binding=False)  # the library knows no torch


LIBRARY = "component=libflashinfer\nversion={version}\ncuda={cuda}\narchs=\ncxx=gcc 12.2\n"


@pytest.mark.parametrize(
    ("version", "cuda", "words"),
    [
        ("9.8.7", "12.4.131", ""),
        ("9.8.7", "12.4.99", ""),
        ("9.8.6", "12.4.131", "version 9.8.6, CUDA 12.4"),
        ("9.8.7", "12.5.40", "version 9.8.7, CUDA 12.5"),
        ("9.8.7", "none", "version 9.8.7, for the CPU"),
        ("", "", "not a libflashinfer"),
    ],
)
def test_a_given_library_has_to_be_of_this_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, cuda: str, words: str
) -> None:
    """As flashinfer compares it with the binding when it is imported."""
    text = LIBRARY.format(version=version, cuda=cuda) if version else "another library"
    (tmp_path / "libflashinfer.so").write_bytes(b"\x7fELF\0" + text.encode() + b"\0\x01rest")
    project = _project(
        monkeypatch,
        NVCC,
        TORCH,
        FLASHINFER_LIBRARY_DIR=str(tmp_path),
        FLASHINFER_BUILD_VERSION="9.8.7",
    )
    if words:
        with pytest.raises(BridgeError, match=words):
            project.check(binding=True)
    else:
        project.check(binding=True)
    # The rule of the package says the same.
    if version:
        compat, label = project_module._compat(project.root), project.label
        build = compat.Build(
            *(label.variant.id, label.wheel_version, "2.4", "12.4.131", False, "9.0a"),
            *label.requests.values(),
        )
        binding = "version=9.8.7\nvariant=cu124_torch24\ntorch=2.4\ncxx11_abi=0"
        try:
            compat.check_library(build, binding, text.strip())
        except ImportError:
            assert words
        else:
            assert not words


def test_a_given_library_of_another_nightly_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of one day and version, and of another commit."""
    environ = {"FLASHINFER_LIBRARY_DIR": str(tmp_path), "FLASHINFER_BUILD_COMMIT": "1a2b3c4"}
    environ["FLASHINFER_BUILD_VERSION"] = "9.8.7.dev20261130"
    project = _project(monkeypatch, NVCC, TORCH, **environ)
    for commit, refused in (("1a2b3c4", False), ("2b3c4d5", True), ("", True)):
        version = f"9.8.7.dev20261130{'+g' if commit else ''}{commit}"
        text = LIBRARY.format(version=version, cuda="12.4.131")
        (tmp_path / "libflashinfer.so").write_bytes(b"\x7fELF\0" + text.encode() + b"\0")
        if refused:
            with pytest.raises(BridgeError, match=r"of version 9\.8\.7\.dev20261130"):
                project.check(binding=True)
        else:
            project.check(binding=True)


def test_a_folder_without_the_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = _project(monkeypatch, None, CPU_TORCH, FLASHINFER_LIBRARY_DIR=str(tmp_path))
    with pytest.raises(ToolchainError, match="there is no libflashinfer"):
        project.check(binding=True)


@pytest.mark.parametrize("binding", [False, True])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLASHINFER_BUILD_NUMBER", "two"),
        ("FLASHINFER_BUILD_NUMBER", "-1"),
        ("FLASHINFER_BUILD_COMMIT", "not-a-commit"),
        ("FLASHINFER_BUILD_VERSION", "1.0+cu124"),
        ("FLASHINFER_CUDA_ARCH_LIST", "7.5"),
        ("TORCH_CUDA_ARCH_LIST", "Volta"),
        ("CXX", "no-such-compiler"),
        ("CXXFLAGS", "-D_GLIBCXX_USE_CXX11_ABI=1"),
        ("LDFLAGS", "'"),
        ("MAX_JOBS", "0"),
        ("NVCC_APPEND_FLAGS", "-arch=sm_90"),
    ],
)
def test_what_cannot_be_used_stops_before_compiling(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, binding: bool
) -> None:
    project = _project(monkeypatch, NVCC, TORCH, **{variable: value})
    with pytest.raises(BridgeError) as caught:
        project.check(binding=binding)
    assert variable in str(caught.value)


def test_architectures_without_an_nvcc_stop_unless_the_cpu_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {"FLASHINFER_CUDA_ARCH_LIST": "9.0a"}
    with pytest.raises(ConfigError, match="there is no nvcc"):
        _project(monkeypatch, None, CPU_TORCH, **asked).check(binding=True)
    forced = _project(monkeypatch, None, CPU_TORCH, **asked, FLASHINFER_FORCE_CPU="yes")
    forced.check(binding=True)


@pytest.mark.parametrize(
    ("text", "cpu"), [("1", True), ("true", True), ("0", False), ("no", False)]
)
def test_yes_and_no(monkeypatch: pytest.MonkeyPatch, text: str, cpu: bool) -> None:
    project = _project(monkeypatch, NVCC, TORCH, FLASHINFER_FORCE_CPU=text)
    assert (project.nvcc is None) == cpu


@pytest.mark.parametrize("variable", ["FLASHINFER_FORCE_CPU", "FLASHINFER_REQUIRE_CUDA"])
def test_neither_yes_nor_no_stops(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    with pytest.raises(ConfigError, match="neither yes nor no"):
        _project(monkeypatch, None, TORCH, **{variable: "perhaps"})


@pytest.mark.usefixtures("measured")
def test_build_info_says_what_was_measured() -> None:
    environ = {"FLASHINFER_BUILD_COMMIT": "1a2b3c4", "FLASHINFER_BUILD_NUMBER": "2"}
    module = ast.parse(Project.measure(environ).build_info())
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert values["VARIANT"] == "cu124_torch24"
    assert values["CUDA"] == "12.4.131"
    assert values["TORCH"] == "2.4"
    assert values["CXX11_ABI"] is False
    assert values["COMMIT"] == "1a2b3c4"
    assert values["BUILD_NUMBER"] == 2
    assert values["VERSION"].endswith("+cu124torch2.4.g1a2b3c4")
