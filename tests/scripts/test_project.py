"""project: the label is what was measured, and a difference stops the build."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from conda_bridge.errors import LabelMismatch, ToolchainError
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
