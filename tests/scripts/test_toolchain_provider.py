"""The provider: a whole toolchain from a folder of toy wheels; what it does not have it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from wheel_factory import make_wheel

from conda_bridge.errors import ToolchainError
from flashinfer_build import toolchain
from flashinfer_build.label import Variant
from flashinfer_build.toolchain import Request, Toolchain, pypi
from flashinfer_build.toolchain.assembled import Assembled
from flashinfer_build.toolchain.lock import LOCK_FILE, SCHEMA, Lock, LockedWheel
from flashinfer_build.toolchain.pypi import PyPI

TAG = pypi._TAG


class Index:
    """A folder of toy wheels for pip, and the lock of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels: dict[str, str] = {}
        cpu = self.add("torch", "2.13.0+cpu", requires=["sympy"])
        plain = self.add("torch", "2.13.0", requires=["sympy", "nvidia-cublas"])
        library = self.add("nvidia-cublas", files={"nvidia/cu13/lib/libcublas.so.13": ""})
        compiler = [
            self.add("nvidia-cuda-nvcc", files={"nvidia/cu13/bin/nvcc": ""}),
            self.add("nvidia-nvvm", files={"nvidia/cu13/nvvm/bin/cicc": ""}),
            self.add("nvidia-cuda-crt", files={"nvidia/cu13/include/crt/x.h": ""}),
            self.add("nvidia-cuda-runtime", files={"nvidia/cu13/include/cuda.h": ""}),
            self.add("nvidia-cuda-cccl", files={"nvidia/cu13/include/cccl/cub.h": ""}),
        ]
        sets = {
            "builds": [
                {"wheel": cpu.filename, "libraries": []},
                {"wheel": plain.filename, "libraries": [library.filename]},
            ],
            "requires": [self.add(name).filename for name in ("sympy", "numpy", "pip")],
        }
        self.data: dict[str, Any] = {
            "schema": SCHEMA,
            "wheels": self.wheels,
            "tools": [self.add("ninja").filename],
            "debs": {},
            "debian": {"cuda": {}, "sysroot": {}},
            "cuda": {"13.0": {"wheels": [wheel.filename for wheel in compiler]}},
            "torch": {"2.13": {"cuda": "13.0", "python": {TAG: sets}}},
        }
        self.cpu_torch, self.plain_torch, self.library = cpu, plain, library

    def add(self, name: str, version: str = "1.0", **content: Any) -> LockedWheel:
        _, wheel = make_wheel(self.folder, name, version, **content)
        self.wheels[wheel.filename] = wheel.sha256
        return wheel

    def provider(self, cache: Path) -> Assembled:
        source = PyPI(cache, Lock(json.loads(json.dumps(self.data)), "toy lock"))
        return Assembled("toy", source, source, cache=cache)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    folder = tmp_path / "wheelhouse"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return Index(folder)


def quiet(_line: str) -> None: ...


def names_in(made: Toolchain) -> set[str]:
    names = set()
    channel = Path(made.channels[0].removeprefix("file://"))
    for subdir in ("linux-64", "noarch"):
        repodata = json.loads((channel / subdir / "repodata.json").read_text())
        names |= {record["name"] for record in repodata["packages.conda"].values()}
    return names


def test_a_cuda_toolchain_has_what_the_recipe_asks_for(index: Index, tmp_path: Path) -> None:
    made = index.provider(tmp_path / "cache").provide(
        Request(Variant((13, 0), (2, 13)), importable=True), report=quiet
    )
    assert made.torch_version == "2.13.0+cpu"
    assert made.torch_importable
    wanted = {"python", "pytorch", "numpy", "sympy", "pip", "gxx_linux-64", "sysroot_linux-64"}
    wanted |= {"cuda-nvcc", "cuda-version", "cuda-cudart-dev", "cuda-cudart-static", "cuda-cccl"}
    assert wanted <= names_in(made)
    assert f"{index.cpu_torch.filename} {index.cpu_torch.sha256}" in made.inputs
    assert made.variant_keys["cxx_compiler_version"].isdecimal()


def test_a_cpu_toolchain_has_no_cuda(index: Index, tmp_path: Path) -> None:
    made = index.provider(tmp_path / "cache").provide(
        Request(Variant(None, (2, 13)), importable=True), report=quiet
    )
    assert not any(name.startswith("cuda") for name in names_in(made))
    assert not any("nvidia" in line for line in made.inputs)


def test_a_toolchain_for_the_kernels_has_no_torch(index: Index, tmp_path: Path) -> None:
    request = Request(Variant((13, 0), (2, 13)), torch=False)
    made = index.provider(tmp_path / "cache").provide(request, report=quiet)
    assert {"ninja", "cuda-nvcc", "gxx_linux-64"} <= names_in(made)
    assert not names_in(made) & {"pytorch", "numpy", "pip"}
    assert (made.torch_version, made.trees) == ("", ())


def test_pip_is_asked_once_for_each_part(index: Index, tmp_path: Path) -> None:
    said: list[str] = []
    request = Request(Variant((13, 0), (2, 13)))
    index.provider(tmp_path / "cache").provide(request, report=said.append)
    assert len([line for line in said if line.startswith("asking pip")]) == 2  # CUDA, torch


def test_the_second_time_nothing_is_downloaded(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = index.provider(tmp_path / "cache")
    first = provider.provide(Request(Variant((13, 0), (2, 13)), importable=True), report=quiet)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    said: list[str] = []
    again = provider.provide(
        Request(Variant((13, 0), (2, 13)), importable=True), report=said.append
    )
    assert again == first
    assert not any("pip" in line for line in said)


def test_a_cuda_torch_gets_its_libraries_only_to_be_imported(index: Index, tmp_path: Path) -> None:
    (index.folder / index.cpu_torch.filename).unlink()
    library = index.folder / index.library.filename
    hidden = library.rename(tmp_path / "hidden")
    provider = index.provider(tmp_path / "cache")
    variant = Variant((13, 0), (2, 13))
    light = provider.provide(Request(variant, importable=False), report=quiet)
    assert light.torch_version == "2.13.0"
    assert not light.torch_importable
    with pytest.raises(ToolchainError, match="nvidia"):
        provider.provide(Request(variant, importable=True), report=quiet)
    hidden.rename(library)
    whole = provider.provide(Request(variant, importable=True), report=quiet)
    assert whole.torch_importable
    # In one folder, so that torch's $ORIGIN/../../nvidia leads to them.
    assert (whole.trees[0] / "site/torch.py").is_file()
    assert (whole.trees[0] / "site/nvidia/cu13/lib/libcublas.so.13").is_file()
    assert light.channels != whole.channels
    # The kernels do not see torch: what they are built from is the same for both.
    assert light.compiler_inputs == whole.compiler_inputs
    assert any(line.startswith("nvidia_cuda_nvcc") for line in light.compiler_inputs)
    assert not set(whole.compiler_inputs) - set(whole.inputs)
    assert f"{index.library.filename} {index.library.sha256}" in whole.inputs


def test_what_is_not_locked_is_refused_and_downloads_nothing(index: Index, tmp_path: Path) -> None:
    provider = index.provider(tmp_path / "cache")
    assert provider.missing(Request(Variant((13, 0), (2, 13)))) == ""
    assert "CUDA 12.4 has no compiler" in provider.missing(Request(Variant((12, 4), (2, 13))))
    assert "torch 2.4 is not locked" in provider.missing(Request(Variant((13, 0), (2, 4))))
    index.data["torch"]["2.13"]["cuda"] = "12.8"
    provider = index.provider(tmp_path / "cache")
    assert "built with CUDA 12.8" in provider.missing(Request(Variant((13, 0), (2, 13))))
    assert provider.missing(Request(Variant(None, (2, 13)))) == ""
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "name", ["cu130_torch213", "cu130_torch211", "cu132_torch215", "cpu_torch24", "cpu_torch213"]
)
def test_the_shipped_lock_supplies(name: str) -> None:
    assert toolchain.supply(Request(Variant.parse(name)), toolchain.providers()).provider == "pypi"


@pytest.mark.parametrize("name", ["cu126_torch26", "cu128_torch28", "cu130_torch29"])
def test_the_shipped_lock_says_what_it_lacks(name: str, tmp_path: Path) -> None:
    supply = toolchain.supply(Request(Variant.parse(name)), toolchain.providers())
    assert supply.provider is None
    assert supply.missing.startswith("pypi: ")
    with pytest.raises(ToolchainError, match=f"no provider has a toolchain for {name}"):
        toolchain.provide(Request(Variant.parse(name)), toolchain.providers(tmp_path))
    assert LOCK_FILE.is_file()
