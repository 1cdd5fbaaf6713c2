"""The release gate: whole artifacts pass, and each thing that can be wrong is found by its check."""

# ruff: noqa: E501  (tables: a case a line)

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import factories
import pytest
import toy_artifacts as toy
import toy_sboms

from conda_bridge.errors import ArtifactError, ConfigError, LabelError
from conda_bridge.formats import conda_writer
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.project import Project
from conda_bridge.verify import gate
from conda_bridge.verify.findings import SCHEMA_VERSION, Report
from conda_bridge.verify.gate import as_lines, collect
from flashinfer_build.label import Label

CUDA = factories.label_of("cu130_torch213")
CPU = factories.label_of("cpu_torch213")
OLD = factories.label_of("cu124_torch24")
PACKAGE = "site-packages/flashinfer"
OURS = Project.load(Path(__file__).parents[2] / "pyproject.toml")
verify = functools.partial(gate.verify, project=OURS)


def whole(folder: Path, label: Label) -> list[Path]:
    """Both conda packages and the wheel of a label."""
    return [
        toy.write_conda(folder, label),
        toy.write_conda_library(folder, label),
        toy.write_wheel(folder, label),
    ]


def failed(report: Report) -> set[str]:
    return {finding.check for finding in report.findings}


def only_error(report: Report) -> str:
    (error,) = report.errors
    assert report.exit_code == 2
    return str(error)


@pytest.mark.parametrize(
    "label",
    [
        CPU,
        CUDA,
        factories.label_of("cu130_torch213", build_number=2),
        factories.label_of("cpu_torch213", public_version="0.1.6rc1"),
        factories.label_of("cu130_torch211", public_version="0.1.6.dev20261122", commit="0123456"),
    ],
    ids=str,
)
def test_whole_artifacts_pass(tmp_path: Path, label: Label) -> None:
    report = verify(whole(tmp_path, label))
    assert report.findings == ()
    assert report.errors == ()
    assert report.warnings == ()
    assert report.exit_code == 0
    assert [item.kind for item in report.artifacts] == ["conda", "conda", "wheel", "pair"]
    assert report.artifacts[-1].facts["files"] == 5
    assert report.archs == (["compute_80", "sm_80", "sm_90a"] if label.variant.cuda else [])


def test_what_was_measured(tmp_path: Path) -> None:
    (item,) = verify([toy.write_wheel(tmp_path, CUDA)]).artifacts
    assert item.facts["cuda"] == "13.0.88"
    assert item.facts["torch"] == "2.13"
    assert item.facts["torch_abi"] == "new"
    assert item.facts["arch_list"] == "8.0+PTX;9.0a"
    assert item.facts["abi3"] == "3.2"
    assert item.label == "cu130_torch213 0.1.6"
    assert set(item.checks) == {
        *("zip", "name", "dependencies", "metadata", "record", "files", "licences", "elf"),
        *("machine", "runpath", "build-paths", "debug", "needed", "exports", "variant", "archs"),
        *("torch-abi", "abi3", "build-info", "floor", "calls", "sbom"),
    }


# ------------------------------------------------------------ SBOMs that are wrong


def _component(bill: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in bill["components"] if item["name"] == name)
    return found


def _without(name: str) -> toy_sboms.Change:
    def change(bill: dict[str, Any]) -> None:
        bill["components"] = [item for item in bill["components"] if item["name"] != name]
        bill["dependencies"] = []

    return change


def _of(name: str, **changes: object) -> toy_sboms.Change:
    return lambda bill: _component(bill, name).update(changes)


def _other_licence(bill: dict[str, Any]) -> None:
    bill["components"].append(toy_sboms.component("cub", "2", "headers", text=b"not there"))


def _no_licence(bill: dict[str, Any]) -> None:
    cub = toy_sboms.component("cub", "2", "headers")
    bill["components"].append({**cub, "properties": cub["properties"][:1]})


def _version(bill: dict[str, Any]) -> None:
    bill["metadata"]["component"]["version"] = "0.1.5"


SBOMS: list[tuple[str, str, str, str, toy_sboms.Change]] = [
    # what is wrong, the check, words of the finding, of which library, the change
    (
        "no runtime though there is GPU code",
        "sbom",
        "no CUDA runtime",
        "library",
        _without("cuda-cudart-static"),
    ),
    ("no compiler", "sbom", "no compiler of release 12.2", "library", _without("g++")),
    (
        "no compiler of the binding",
        "sbom",
        "no compiler of release 12.2",
        "binding",
        _without("g++"),
    ),
    ("no nvcc", "sbom", "no CUDA compiler 13.0.88", "library", _without("cuda-nvcc")),
    (
        "another nvcc",
        "sbom",
        "no CUDA compiler 13.0.88",
        "library",
        _of("cuda-nvcc", version="13.0.8"),
    ),
    ("another torch", "sbom", "torch is 2.11.0", "binding", _of("torch", version="2.11.0")),
    ("no torch", "sbom", "torch is none", "binding", _without("torch")),
    (
        "of another file",
        "sbom",
        "has the sha256 00",
        "library",
        _of("libflashinfer.so", hashes=[{"alg": "SHA-256", "content": "00" * 32}]),
    ),
    (
        "of another build",
        "sbom",
        "has the build id 00",
        "library",
        _of("libflashinfer.so", properties=[{"name": "flashinfer:build-id", "value": "00"}]),
    ),
    ("of no file", "sbom", "does not name the file", "library", _without("libflashinfer.so")),
    ("of another version", "sbom", "is about version 0.1.5", "library", _version),
    (
        "a licence that is not there",
        "licences",
        "licence texts of cub 2 are missing",
        "library",
        _other_licence,
    ),
    ("no licence", "licences", "its licence is not known", "binding", _no_licence),
    (
        "no CycloneDX",
        "sbom",
        "bomFormat is 'SPDX'",
        "binding",
        lambda bill: bill.update(bomFormat="SPDX"),
    ),
]


@pytest.mark.parametrize(
    ("check", "words", "part", "change"),
    [item[1:] for item in SBOMS],
    ids=[item[0] for item in SBOMS],
)
@pytest.mark.parametrize("kind", ["wheel", "conda"])
def test_an_sbom_that_is_wrong(
    tmp_path: Path, kind: str, check: str, words: str, part: str, change: toy_sboms.Change
) -> None:
    made = dict(zip(("library", "binding"), toy.libraries_of(CUDA), strict=True))[part]
    name, file = {
        "library": ("libflashinfer", "libflashinfer.so"),
        "binding": ("flashinfer", "_C.abi3.so"),
    }[part]
    text = toy_sboms.document(name, file, made, change)
    if kind == "wheel":
        path = toy.write_wheel(
            tmp_path, CUDA, **{"library_sbom" if part == "library" else "sbom": text}
        )
    elif part == "library":
        path = toy.write_conda_library(
            tmp_path, CUDA, files={"share/libflashinfer/sboms/libflashinfer.cdx.json": text}
        )
    else:
        own = f"site-packages/flashinfer-{CUDA.wheel_version}.dist-info"
        path = toy.write_conda(tmp_path, CUDA, files={f"{own}/sboms/flashinfer.cdx.json": text})
    report = verify([path])
    assert failed(report) == {check}
    assert any(words in finding.what and name in finding.member for finding in report.findings)


@pytest.mark.parametrize("part", ["sbom", "library_sbom"])
def test_a_library_without_an_sbom(tmp_path: Path, part: str) -> None:
    [finding] = verify([toy.write_wheel(tmp_path, CUDA, **{part: None})]).findings
    assert (finding.check, "there is no SBOM of" in finding.what) == ("sbom", True)


def test_licence_texts_that_are_missing(tmp_path: Path) -> None:
    assert failed(verify([toy.write_wheel(tmp_path, CUDA, licences=None)])) == {"licences"}


# ------------------------------------------------------------ wheels that are wrong

GPU: dict[str, Any] = {"cuda": "13.0.88", "archs": "8.0+PTX;9.0a", "gpu": "zstd"}
BIND = {"variant": "cu130_torch213"}


def lib(**changes: Any) -> bytes:
    return toy.library(**{**GPU, **changes})


def bind(**changes: Any) -> bytes:
    return toy.binding(**{**BIND, **changes})


WHEEL = b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"
TAG = b"Tag: cp38-abi3-linux_x86_64\n"
LEAK = 'const char* p(void) { return "/home/builder/csrc/norm.cu"; }\n'
MEMCPY = "void* memcpy();\nvoid* f(void* a, void* b, long n) { return memcpy(a, b, n); }\n"

WRONG: list[tuple[str, str, str, dict[str, bytes | None]]] = [
    # what is wrong, the check that has to find it, words of the finding, the files
    ("METADATA has another version", "name", "Version: 0.1.6", {"metadata": toy.metadata(CUDA, Version="0.1.6")}),
    ("METADATA has another name", "name", "Name: flash", {"metadata": toy.metadata(CUDA, Name="flash")}),
    ("WHEEL has another tag", "name", "cp39", {"wheel": WHEEL + b"Tag: cp39-abi3-linux_x86_64\n"}),
    ("WHEEL has a build tag more", "name", "Build", {"wheel": WHEEL + TAG + b"Build: 3\n"}),
    ("WHEEL says pure", "name", "Purelib", {"wheel": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n" + TAG}),
    ("WHEEL of another version", "name", "Wheel-Version", {"wheel": WHEEL.replace(b"1.0", b"2.0") + TAG}),
    ("torch is pinned to a patch", "dependencies", "torch==2.13.0", {"metadata": toy.metadata(CUDA, Requires_Dist="torch==2.13.0")}),
    ("== 2.13 without a star", "dependencies", "torch==2.13", {"metadata": toy.metadata(CUDA, Requires_Dist="torch==2.13")}),
    ("torch has no upper bound", "dependencies", "torch>=2.13", {"metadata": toy.metadata(CUDA, Requires_Dist="torch>=2.13")}),
    ("another torch", "dependencies", "torch==2.11", {"metadata": toy.metadata(CUDA, Requires_Dist="torch==2.11.*")}),
    ("no torch", "dependencies", "does not require", {"metadata": toy.metadata(CUDA, Requires_Dist="")}),
    ("torch from a URL", "dependencies", "URL", {"metadata": toy.metadata(CUDA, Requires_Dist="torch @ https://example.org/torch.whl")}),
    ("any Python", "dependencies", "Requires-Python", {"metadata": toy.metadata(CUDA, Requires_Python="")}),
    ("a Python older than the tag", "dependencies", "Requires-Python", {"metadata": toy.metadata(CUDA, Requires_Python=">=3.6")}),
    ("no summary", "metadata", "Summary", {"metadata": toy.metadata(CUDA, Summary="")}),
    ("no description", "metadata", "description", {"metadata": toy.metadata(CUDA).replace(b"# FlashInfer", b"")}),
    ("no licence file", "licences", "not in the wheel", {"licence": None}),
    ("an empty licence file", "licences", "not in the wheel", {"licence": b""}),
    ("METADATA names no licence file", "licences", "License-File", {"metadata": toy.metadata(CUDA, License_File="")}),
    ("another licence", "licences", "MIT", {"metadata": toy.metadata(CUDA, License_Expression="MIT")}),
    ("the header is missing", "files", "missing", {"api": None}),
    ("the library is missing", "files", "missing", {"library": None}),
    ("byte code", "files", "artefact", {"flashinfer/__pycache__/x.cpython-311.pyc": b"x"}),
    ("a file outside the package", "files", "outside", {"torch/lib/libc10.so": b"x"}),
    ("a library that is not ours", "files", "not ours", {"flashinfer/lib/libcudart.so.13": b"x"}),
    ("the binding is no library", "elf", "64-bit", {"binding": b"#!/bin/sh\n"}),
    ("the binding is of another variant", "variant", "cu130_torch211", {"binding": bind(variant="cu130_torch211")}),
    ("the binding is of another torch", "variant", "2.11", {"binding": bind(torch="2.11")}),
    ("the binding is of another version", "variant", "0.1.5", {"binding": bind(version="0.1.5")}),
    ("the library is of another version", "variant", "0.1.5", {"library": lib(version="0.1.5")}),
    ("the library is of another component", "variant", "component", {"library": lib(component="binding")}),
    ("the library says nothing", "variant", "flashinfer_info", {"library": lib(info=False)}),
    ("an arch is missing", "archs", "translation units", {"library": lib(archs="8.0+PTX;9.0a;10.0a")}),
    ("an arch too many", "archs", "translation units", {"library": lib(gpu="zstd blackwell")}),
    ("one unit lacks an arch", "archs", "1 of 2", {"library": lib(gpu="zstd relocatable")}),
    ("no GPU code", "archs", "no GPU code", {"library": lib(gpu="")}),
    ("GPU code in the binding", "archs", "GPU code", {"binding": bind(more='asm(".section .nv_fatbin,\\"a\\"\\n.quad 0\\n.text");\n')}),
    ("old string ABI", "torch-abi", "old C\\+\\+", {"binding": bind(symbols=(toy.OLD_ABI,), cxx11_abi="0"), "build_info": factories.build_info(CUDA, CXX11_ABI=False)}),
    ("symbols of both ABIs", "torch-abi", "mixed", {"binding": bind(symbols=(toy.OLD_ABI, toy.NEW_ABI))}),
    ("says new and is old (flash-attention 1783)", "torch-abi", "old string ABI", {"binding": bind(symbols=(toy.OLD_ABI,))}),
    ("a function of Python 3.10 (flashinfer 669)", "abi3", "3.10", {"binding": bind(python=("PyUnicode_AsUTF8AndSize",))}),
    ("a function of no stable ABI", "abi3", "_PyObject_LookupAttr", {"binding": bind(python=("_PyObject_LookupAttr",))}),
    ("a RUNPATH entry more", "runpath", "/opt/lib", {"binding": bind(runpath="$ORIGIN/lib:/opt/lib")}),
    ("no RUNPATH", "runpath", "no RUNPATH", {"binding": bind(runpath="")}),
    ("RPATH", "runpath", "DT_RPATH", {"library": lib(flags=("-Wl,-s", "-Wl,--disable-new-dtags,-rpath,$ORIGIN"))}),
    ("the CUDA runtime is not linked in", "needed", "libcudart", {"library": lib(needed=("libcudart.so.13",))}),
    ("a library of one Python", "abi3", "libpython", {"binding": bind(needed=("libflashinfer.so", "libc10.so", "libpython3.11.so.1.0"))}),
    ("does not need libflashinfer", "needed", "libflashinfer", {"binding": bind(needed=("libc10.so",))}),
    ("no module to import", "exports", "PyInit", {"binding": toy.library(component="binding")}),
    ("the architectures are no list", "archs", "hopper", {"library": lib(archs="8.0;hopper")}),
    ("_build_info.py sets no name", "build-info", "not a constant", {"build_info": b"a.b = 1\n"}),
    ("no requirement", "dependencies", "Requires-Dist", {"metadata": toy.metadata(CUDA, Requires_Dist="torch=2.13")}),
    ("no specifier", "dependencies", "Requires-Python", {"metadata": toy.metadata(CUDA, Requires_Python="three")}),
    ("exports more", "exports", "helper", {"library": lib(more='__attribute__((visibility("default"))) void helper(void) {}\n')}),
    ("another SONAME", "exports", "SONAME", {"library": lib(soname="libflashinfer.so.0")}),
    ("debug sections", "debug", "debug", {"library": lib(flags=("-g",))}),
    ("a path of the build machine", "build-paths", "/home/builder", {"library": lib(more=LEAK)}),
    ("_build_info.py of another variant", "build-info", "VARIANT", {"build_info": factories.build_info(CUDA, VARIANT="cpu_torch213")}),
    ("_build_info.py of another CUDA", "build-info", "CUDA", {"build_info": factories.build_info(CUDA, CUDA="13.0.1")}),
    ("_build_info.py of another ABI", "build-info", "CXX11", {"build_info": factories.build_info(CUDA, CXX11_ABI=False)}),
    ("_build_info.py runs code", "build-info", "not a constant", {"build_info": b"import os\n"}),
    ("_build_info.py is not Python", "build-info", "not Python", {"build_info": b"VERSION = \n"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "words", "files"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG]
)
def test_a_wrong_wheel_is_found(
    tmp_path: Path, check: str, words: str, files: dict[str, bytes | None]
) -> None:
    report = verify([toy.write_wheel(tmp_path, CUDA, files=files)])
    assert report.exit_code == 1
    assert check in failed(report)
    found = [str(finding) for finding in report.findings if finding.check == check]
    assert any(re.search(words, text) for text in found), found


def test_the_library_of_another_cuda(tmp_path: Path) -> None:
    report = verify([toy.write_wheel(tmp_path, CUDA, library=lib(cuda="12.4.131"))])
    assert "compiled with CUDA 12.4.131 (expected: 13.0)" in "\n".join(map(str, report.findings))


@pytest.mark.parametrize("part", ["library", "binding"])
def test_a_library_of_another_nightly_of_the_day(tmp_path: Path, part: str) -> None:
    label, other = (
        factories.label_of("cpu_torch213", public_version="0.1.6.dev20261122", commit=commit)
        for commit in ("0123456", "1234567")
    )
    parts = dict(zip(("library", "binding"), toy.libraries_of(other), strict=True))
    report = verify([toy.write_wheel(tmp_path, label, **{part: parts[part]})])
    assert failed(report) == {"variant"}
    [finding] = report.findings
    assert "version '0.1.6.dev20261122+g1234567'" in finding.what


def test_a_library_for_another_machine(tmp_path: Path) -> None:
    data = bytearray(toy.library())
    data[18:20] = (183).to_bytes(2, "little")  # e_machine
    report = verify([toy.write_wheel(tmp_path, CPU, library=bytes(data))])
    assert failed(report) == {"machine"}
    assert "EM_AARCH64" in str(report.findings[0])


def test_a_cpu_variant_with_gpu_code(tmp_path: Path) -> None:
    report = verify([toy.write_wheel(tmp_path, CPU, library=toy.library(gpu="zstd"))])
    assert failed(report) == {"archs"}


def test_the_cpu_library_in_a_cuda_wheel(tmp_path: Path) -> None:
    report = verify([toy.write_wheel(tmp_path, CUDA, library=toy.library())])
    assert {"variant", "archs", "build-info"} <= failed(report)


def test_the_arch_list_that_was_asked_for(tmp_path: Path) -> None:
    wheel = toy.write_wheel(tmp_path, CUDA)
    assert verify([wheel], arch_list="8.0+PTX;9.0a").exit_code == 0
    assert failed(verify([wheel], arch_list="9.0a")) == {"archs"}
    with pytest.raises(ConfigError):
        verify([wheel], arch_list="hopper")


def test_code_that_is_not_what_it_is_listed_as(tmp_path: Path) -> None:
    """The table of contents has the architectures that were asked for, the code inside has not."""
    data = bytearray((toy.FATBIN / "relocatable.bin").read_bytes())
    at = data.index((90).to_bytes(4, "little"), 800)
    data[at : at + 4] = (100).to_bytes(4, "little")  # sm_90a is listed as sm_100a
    (tmp_path / "lying.bin").write_bytes(data)
    library = toy.library(cuda="13.0.88", archs="8.0;10.0a", gpu=str(tmp_path / "lying"))
    info = factories.build_info(CUDA, ARCH_LIST="8.0;10.0a")
    report = verify([toy.write_wheel(tmp_path, CUDA, library=library, build_info=info)])
    assert failed(report) == {"archs"}
    assert "fatbin header says sm_100a, the image is 90" in str(report.findings[0])


def test_a_library_that_says_another_list_than_was_asked_for(tmp_path: Path) -> None:
    library = lib(archs="hopper")
    report = verify([toy.write_wheel(tmp_path, CUDA, library=library)], arch_list="8.0+PTX;9.0a")
    words = [str(finding) for finding in report.findings if finding.check == "archs"]
    assert "says it is built for 'hopper'" in words[0]


def test_a_tag_that_is_not_abi3(tmp_path: Path) -> None:
    name = CUDA.wheel_file_for("cp311", "cp311", "linux_x86_64")
    wheel = WHEEL + b"Tag: cp311-cp311-linux_x86_64\n"
    metadata = toy.metadata(CUDA, Requires_Python=">=3.11")
    path = toy.write_wheel(tmp_path, CUDA, name=name, wheel=wheel, metadata=metadata)
    (finding,) = verify([path]).findings
    assert "the tag is cp311-cp311-linux_x86_64" in str(finding)


def test_old_string_abi_is_right_for_an_old_torch(tmp_path: Path) -> None:
    library = toy.library(cuda="12.4.131", archs="8.0+PTX;9.0a", gpu="zstd")
    info = factories.build_info(OLD, CUDA="12.4.131")
    wheel = toy.write_wheel(tmp_path, OLD, library=library, build_info=info)
    assert verify([wheel]).findings == ()
    new = toy.binding(variant="cu124_torch24", torch="2.4", cxx11_abi="1")
    info = factories.build_info(OLD, CUDA="12.4.131", CXX11_ABI=True)
    wheel = toy.write_wheel(tmp_path, OLD, library=library, build_info=info, binding=new)
    (finding,) = verify([wheel]).findings
    assert "expected: old, as PyPI's torch 2.4 has" in str(finding)


def test_in_a_conda_package_the_old_string_abi_is_a_warning(tmp_path: Path) -> None:
    report = verify([toy.write_conda(tmp_path, OLD)])
    assert report.findings == ()
    (warning,) = report.warnings
    assert warning.check == "torch-abi"
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("platform", "finds"),
    [("manylinux_2_5_x86_64", True), ("manylinux1_x86_64", True), ("manylinux_2_17_x86_64", False),
     ("manylinux2014_x86_64", False), ("musllinux_1_1_x86_64", True),
     ("manylinux_2_29_x86_64", True), ("linux_x86_64.manylinux_2_12_x86_64", True)],
)  # fmt: skip
def test_the_glibc_floor_against_the_platform_tag(
    tmp_path: Path, platform: str, finds: bool
) -> None:
    tags = "".join(f"Tag: cp38-abi3-{tag}\n" for tag in platform.split("."))
    wheel = WHEEL + tags.encode()
    name = CUDA.wheel_file_for("cp38", "abi3", platform)
    path = toy.write_wheel(tmp_path, CUDA, name=name, wheel=wheel, library=lib(more=MEMCPY))
    assert failed(verify([path])) == ({"floor"} if finds else set())


def test_a_tag_that_the_libraries_do_not_reach_names_the_symbol(tmp_path: Path) -> None:
    wheel = WHEEL + b"Tag: cp38-abi3-manylinux_2_12_x86_64\n"
    name = CUDA.wheel_file_for("cp38", "abi3", "manylinux_2_12_x86_64")
    path = toy.write_wheel(tmp_path, CUDA, name=name, wheel=wheel, library=lib(more=MEMCPY))
    (found,) = verify([path]).findings
    assert found.check == "floor"
    assert found.member == "flashinfer/lib/libflashinfer.so"
    assert found.what == "needs memcpy@GLIBC_2.14, and the tag promises manylinux_2_12_x86_64"
    assert found.expected == "GLIBC_2.12 at most"


def test_floors_of_each_library_and_of_all(tmp_path: Path) -> None:
    path = toy.write_wheel(tmp_path, CUDA, library=lib(more=MEMCPY))
    (item,) = verify([path]).artifacts
    floors = item.facts["floors"]
    assert floors["flashinfer/lib/libflashinfer.so"]["GLIBC"] == "2.14"
    assert floors["flashinfer/lib/libflashinfer.so"]["manylinux"] == "manylinux_2_17_x86_64"
    assert floors["flashinfer/_C.abi3.so"].get("GLIBC") != "2.14"
    assert (item.facts["glibc"], item.facts["manylinux"]) == ("2.14", "manylinux_2_17_x86_64")


# ------------------------------------------------------------ RECORD and the archive

RECORD: list[tuple[str, dict[str, str | None], str]] = [
    ("another digest", {"flashinfer/__init__.py": toy.record_line("flashinfer/__init__.py", b"other\n")}, "sha256 is"),
    ("another size", {"flashinfer/__init__.py": toy.record_line("flashinfer/__init__.py", b"from flashinfer import _build_info\n").replace(",35", ",34")}, "35 bytes"),
    ("no digest", {"flashinfer/__init__.py": "flashinfer/__init__.py,,\n"}, "a digest in RECORD"),
    ("a digest of its own", {f"flashinfer-{CUDA.wheel_version}.dist-info/RECORD": toy.record_line(f"flashinfer-{CUDA.wheel_version}.dist-info/RECORD", b"")}, "has a digest"),
    ("a line is missing", {"flashinfer/__init__.py": None}, "is not in RECORD"),
    ("RECORD is not in RECORD", {f"flashinfer-{CUDA.wheel_version}.dist-info/RECORD": None}, "is not in RECORD"),
    ("a line too many", {"x": toy.record_line("flashinfer/gone.py", b"x")}, "not in the wheel"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "words"), [case[1:] for case in RECORD], ids=[c[0] for c in RECORD]
)
def test_a_wrong_record_is_found(tmp_path: Path, record: dict[str, str | None], words: str) -> None:
    report = verify([toy.write_wheel(tmp_path, CUDA, record=record)])
    assert failed(report) == {"record"}
    assert words in str(report.findings[0])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("flashinfer/x.py,md5=abc,1\n", "the digest"),
        ("flashinfer/x.py,sha256=!!!,1\n", "the digest"),
        ("flashinfer/x.py,1\n", "the line"),
        ("flashinfer/x.py,,-1\n", "the line"),
        ("flashinfer/__init__.py,,\n", "twice"),
        ('"flashinfer/x.py,,', "not a RECORD"),
    ],
)
def test_a_record_that_cannot_be_read(tmp_path: Path, line: str, words: str) -> None:
    report = verify([toy.write_wheel(tmp_path, CUDA, record={"x": line})])
    assert words in only_error(report)


def test_a_renamed_wheel(tmp_path: Path) -> None:
    path = toy.write_wheel(tmp_path, CUDA, name=factories.label_of("cu130_torch211").wheel_file)
    assert {"name", "dependencies", "variant", "build-info"} <= failed(verify([path]))


def test_a_wheel_without_a_label(tmp_path: Path) -> None:
    """flashinfer issue 663: the local part was lost."""
    path = toy.write_wheel(tmp_path, CUDA, name="flashinfer-0.1.6-cp38-abi3-linux_x86_64.whl")
    report = verify([path])
    assert isinstance(report.errors[0], LabelError)
    assert "no local part" in only_error(report)


def _rewrite(path: Path, change: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        change(archive)
    return path


def _link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("flashinfer/link")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


def _encrypted(archive: zipfile.ZipFile) -> None:
    archive.writestr("flashinfer/x", b"x")
    archive.infolist()[-1].flag_bits |= 1


def _huge(archive: zipfile.ZipFile) -> None:
    archive.writestr("flashinfer/x", b"x")
    archive.infolist()[-1].file_size = 1 << 40


def _past_the_end(archive: zipfile.ZipFile) -> None:
    archive.writestr("flashinfer/x", b"x")
    archive.infolist()[-1].compress_size = 1 << 30


HOSTILE: list[tuple[str, Callable[[zipfile.ZipFile], None], str]] = [
    ("leaves the folder", lambda a: a.writestr("../evil.py", b"x"), "leaves the package"),
    ("absolute", lambda a: a.writestr(_named("/etc/evil.py"), b"x"), "absolute"),
    ("a link", _link, "not a regular file"),
    ("twice", lambda a: a.writestr("flashinfer/__init__.py", b"x"), "second member"),
    ("below a file", lambda a: a.writestr("flashinfer/__init__.py/x", b"x"), "not a folder"),
    ("lzma", lambda a: a.writestr("flashinfer/x", b"x", zipfile.ZIP_LZMA), "compression method"),
    ("encrypted", _encrypted, "encrypted"),
    (
        "a folder and a file",
        lambda a: a.writestr("flashinfer/__init__.py/", b""),
        "both a file and a folder",
    ),
    ("too large", _huge, "unpacks to 1099511"),
    ("past the end", _past_the_end, "runs into the directory"),
    ("two dist-info folders", lambda a: a.writestr("x-1.dist-info/METADATA", b"x"), "2 .dist-info"),
]


def _named(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name
    return entry


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "words"), [case[1:] for case in HOSTILE], ids=[c[0] for c in HOSTILE]
)
def test_a_hostile_wheel_is_unusable(
    tmp_path: Path, change: Callable[[zipfile.ZipFile], None], words: str
) -> None:
    path = _rewrite(toy.write_wheel(tmp_path, CPU), change)
    before = sorted(tmp_path.rglob("*"))
    report = verify([path])
    assert words in only_error(report)
    assert path.name in only_error(report)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_with_a_zero_byte(tmp_path: Path) -> None:
    path = toy.write_wheel(tmp_path, CPU, files={"flashinfer/safe.py@.exe": b"x"})
    path.write_bytes(path.read_bytes().replace(b"safe.py@.exe", b"safe.py\0.exe"))
    assert "a zero byte" in only_error(verify([path]))


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"wheel": None}, "WHEEL: the member is missing"),
        ({"metadata": b"Name: \xff\n"}, "not UTF-8"),
        ({"metadata": b"x" * (17 << 20)}, "larger than"),
    ],
)
def test_metadata_that_cannot_be_read(
    tmp_path: Path, named: dict[str, bytes | None], words: str
) -> None:
    assert words in only_error(verify([toy.write_wheel(tmp_path, CPU, files=named)]))


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    """The same compressed bytes under many names: small to send, large to unpack."""
    path = toy.write_wheel(tmp_path, CPU)
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.infolist()[0]
        archive._didModify = True  # type: ignore[attr-defined]
        copy = zipfile.ZipInfo("flashinfer/copy.py")
        for name in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
            setattr(copy, name, getattr(first, name))
        archive.filelist.append(copy)
    assert "shares its bytes" in only_error(verify([path]))


def test_bytes_before_the_archive(tmp_path: Path) -> None:
    path = toy.write_wheel(tmp_path, CPU)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert "before the first member" in only_error(verify([path]))


def test_a_cut_wheel(tmp_path: Path) -> None:
    path = toy.write_wheel(tmp_path, CPU)
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        assert "cut off" in only_error(verify([path]))


def test_a_damaged_member(tmp_path: Path) -> None:
    path = toy.write_wheel(tmp_path, CPU)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("flashinfer/lib/libflashinfer.so")
    middle = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
    data[middle] ^= 0xFF
    path.write_bytes(data)
    assert "libflashinfer.so: cannot be unpacked" in only_error(verify([path]))


# ------------------------------------------------------------ conda packages that are wrong

Changes = Mapping[str, Any]


def depends(*changes: tuple[str, str]) -> dict[str, object]:
    """The dependencies of the CUDA package, with some replaced by the first word's name."""
    listed = list(factories.binding_index(CUDA)["depends"])  # type: ignore[call-overload]
    for old, new in changes:
        listed = [item for item in listed if item.split()[0] != old] + ([new] if new else [])
    return {"depends": listed}


CONDA: list[tuple[str, str, str, Changes]] = [
    ("any pytorch", "dependencies", "pytorch", {"index": depends(("pytorch", "pytorch"))}),
    ("pytorch without an upper bound", "dependencies", "pytorch", {"index": depends(("pytorch", "pytorch >=2.13"))}),
    ("another pytorch", "dependencies", "pytorch", {"index": depends(("pytorch", "pytorch 2.11.*"))}),
    ("no pytorch", "dependencies", "does not depend", {"index": depends(("pytorch", ""))}),
    ("any libflashinfer", "dependencies", "libflashinfer", {"index": depends(("libflashinfer", "libflashinfer 0.1.6"))}),
    ("another libflashinfer", "dependencies", "libflashinfer", {"index": depends(("libflashinfer", "libflashinfer 0.1.6 cpu_0"))}),
    ("any python", "dependencies", "python", {"index": depends(("python", ""))}),
    ("an older python", "dependencies", "python", {"index": depends(("python", "python >=3.6"))}),
    ("the CUDA runtime", "dependencies", "cuda-cudart", {"index": depends(("x", "cuda-cudart >=13"))}),
    ("no driver", "dependencies", "__cuda", {"index": depends(("__cuda", ""))}),
    ("a driver only where there is one", "dependencies", "__cuda", {"index": {**depends(("__cuda", "")), "constrains": ["__cuda >=13", "cuda-version >=13,<14"]}}),
    ("no CUDA major", "dependencies", "cuda-version", {"index": {"constrains": []}}),
    ("another CUDA major", "dependencies", "cuda-version", {"index": {"constrains": ["cuda-version >=12,<13"]}}),
    ("an old driver", "dependencies", "__cuda", {"index": depends(("__cuda", "__cuda >=12"))}),
    ("any kind of torch", "dependencies", "pytorch 2.13", {"index": depends(("pytorch", "pytorch 2.13.*"))}),
    ("torch for the CPU", "dependencies", "cpu", {"index": depends(("pytorch", "pytorch 2.13.* *cpu*"))}),
    ("a build number without the rank", "index", "build_number", {"index": {"build_number": 0}}),
    ("no requirement at all", "dependencies", "is no requirement", {"index": depends(("x", "x >=1,,<2"))}),
    ("not for every Python", "index", "noarch", {"index": {"noarch": None}}),
    ("another platform", "index", "aarch64", {"index": {"arch": "aarch64"}}),
    ("another licence", "index", "MIT", {"index": {"license": "MIT"}}),
    ("another build number", "index", "build_number", {"index": {"build_number": 7}}),
    ("the module is missing", "files", "missing", {"files": {factories.MODULE: None}}),
    ("byte code", "files", "artefact", {"files": {f"{PACKAGE}/__pycache__/x.pyc": b"x"}}),
    ("the library as well", "files", "not ours", {"files": {f"{PACKAGE}/lib/libflashinfer.so": b"x"}}),
    ("another binding", "variant", "cpu_torch213", {"files": {factories.MODULE: toy.binding()}}),
    ("another _build_info.py", "build-info", "VERSION", {"files": {factories.BUILD_INFO: factories.build_info(CPU)}}),
    ("the binding is no library", "elf", "64-bit", {"files": {factories.MODULE: b"x"}}),
    ("an older glibc than it needs", "floor", "glibc", {"index": depends(("__glibc", "__glibc >=2.5")), "files": {factories.MODULE: toy.binding(variant="cu130_torch213", more=MEMCPY)}}),
    ("an empty licence", "licences", "no licence", {"info": {"info/licenses/LICENSE": b""}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "words", "changes"), [case[1:] for case in CONDA], ids=[c[0] for c in CONDA]
)
def test_a_wrong_conda_package_is_found(
    tmp_path: Path, check: str, words: str, changes: Changes
) -> None:
    report = verify([toy.write_conda(tmp_path, CUDA, **changes)])
    assert report.exit_code == 1, report.errors
    found = [str(finding) for finding in report.findings if finding.check == check]
    assert any(words in text for text in found), list(map(str, report.findings))


def test_a_cpu_package_that_asks_for_cuda(tmp_path: Path) -> None:
    report = verify([toy.write_conda(tmp_path, CPU, index={"constrains": ["__cuda >=12"]})])
    assert failed(report) == {"dependencies"}


def test_a_wrong_library_package_is_found(tmp_path: Path) -> None:
    path = toy.write_conda_library(tmp_path, CUDA, files={"lib/libflashinfer.so": toy.library()})
    assert {"variant", "archs"} <= failed(verify([path]))


def test_a_library_package_that_holds_no_library(tmp_path: Path) -> None:
    path = toy.write_conda_library(tmp_path, CUDA, files={"lib/libflashinfer.so": b"x"})
    assert failed(verify([path])) == {"elf"}


def test_a_package_that_says_little(tmp_path: Path) -> None:
    """No summary, and the build prefix in a file."""
    payload = {"site-packages/flashinfer/y.py": b"y"}
    paths: list[dict[str, object]] = [
        {
            "_path": "site-packages/flashinfer/y.py",
            "path_type": "hardlink",
            "sha256": hashlib.sha256(b"y").hexdigest(),
            "size_in_bytes": 1,
            "prefix_placeholder": "/opt/placehold",
        },
    ]
    path = factories.raw_conda(
        tmp_path / CUDA.conda_file,
        payload=factories.tar_bytes(factories.tar_file(*item) for item in payload.items()),
        info=factories.info_tar(factories.binding_index(CUDA), paths),
    )
    report = verify([path])
    assert report.errors == ()
    words = {(f.check, f.member): f.what for f in report.findings}
    assert words["files", "site-packages/flashinfer/y.py"] == "holds the build prefix"
    assert words["about", "info/about.json"] == "no summary"


def test_a_link_in_a_package_is_not_in_the_wheel(tmp_path: Path) -> None:
    made, _ = toy.libraries_of(CUDA)
    files = {"lib/libflashinfer.so": made, "include/flashinfer/api.h": toy.API}
    link = PackageFile("lib/libflashinfer.so.0", None, link_target="libflashinfer.so")
    conda_writer.write(
        tmp_path / CUDA.lib_conda_file,
        index={
            **{
                "name": "libflashinfer",
                "version": CUDA.conda_version,
                "build": CUDA.lib_conda_build,
            },
            **toy.conda_index(CUDA, build_number=0, subdir="linux-64"),
        },
        files=[*factories.package_files(files), link],
        level=1,
    )
    report = verify([tmp_path / CUDA.lib_conda_file, toy.write_wheel(tmp_path, CUDA)])
    (finding,) = [finding for finding in report.findings if finding.check == "payload"]
    assert finding.member == "flashinfer/lib/libflashinfer.so.0"


def test_a_file_that_both_packages_have(tmp_path: Path) -> None:
    _, library, wheel = whole(tmp_path, CUDA)
    conda = toy.write_conda(tmp_path, CUDA, files={f"{PACKAGE}/include/flashinfer/api.h": toy.API})
    report = verify([conda, library, wheel])
    assert failed(report) == {"payload"}
    assert "is in flashinfer-" in str(report.findings[0])


def test_a_renamed_or_cut_package_is_unusable(tmp_path: Path) -> None:
    path = toy.write_conda(tmp_path, CUDA)
    renamed = path.with_name(factories.label_of("cu130_torch211").conda_file)
    shutil.copy(path, renamed)
    assert "renamed" in only_error(verify([renamed]))
    path.write_bytes(path.read_bytes()[:-100])
    assert path.name in only_error(verify([path]))


# ------------------------------------------------------------ several artifacts


def test_a_wheel_with_other_bytes_than_the_package(tmp_path: Path) -> None:
    conda, library, _ = whole(tmp_path, CUDA)
    wheel = toy.write_wheel(tmp_path, CUDA, init=b"print()\n", api=b"// other\n")
    report = verify([conda, library, wheel])
    assert failed(report) == {"payload"}
    assert [finding.member for finding in report.findings] == [
        "flashinfer/__init__.py",
        "flashinfer/include/flashinfer/api.h",
    ]


def test_a_file_that_only_one_of_them_has(tmp_path: Path) -> None:
    conda, library, _ = whole(tmp_path, CUDA)
    wheel = toy.write_wheel(tmp_path, CUDA, files={"flashinfer/more.py": b"", "init": None})
    report = verify([conda, library, wheel])
    assert failed(report) == {"payload", "files"}
    words = [str(finding) for finding in report.findings if finding.check == "payload"]
    assert "not in the wheel" in words[0]
    assert "in no conda package" in words[1]


def test_the_older_form_passes_the_same_checks(tmp_path: Path) -> None:
    *packages, wheel = whole(tmp_path, CUDA)
    new = verify([*packages, wheel])
    older = [factories.as_tar_bz2(path, tmp_path / "old") for path in packages]
    old = verify([*older, wheel])
    assert (old.findings, old.warnings, old.errors) == ((), (), ())
    assert old.passed == new.passed
    for one, other in zip(new.artifacts, old.artifacts, strict=True):
        assert (one.kind, one.label, one.checks) == (other.kind, other.label, other.checks)
        assert set(one.facts) == set(other.facts)
    assert old.artifacts[-1].facts["packages"] == [path.name for path in older]
    assert collect([tmp_path / "old"]) == sorted(older)


def test_a_package_that_is_given_twice_holds_the_same_files(tmp_path: Path) -> None:
    conda, library, wheel = whole(tmp_path, CUDA)
    for path in (conda, library):
        factories.as_tar_bz2(path)
    report = verify([tmp_path])
    assert (report.findings, report.errors) == ((), ())
    assert [item.artifact for item in report.artifacts if "same-files" in item.checks] == [
        f"{CUDA.conda_stem}.tar.bz2",
        f"{CUDA.library.conda_stem}.tar.bz2",
    ]
    api = {"include/flashinfer/api.h": b"// other\n"}
    factories.as_tar_bz2(toy.write_conda_library(tmp_path / "b", CUDA, files=api), tmp_path)
    report = verify([conda, library, tmp_path / f"{CUDA.library.conda_stem}.tar.bz2", wheel])
    [finding] = report.findings
    assert (finding.check, finding.artifact) == ("same-files", f"{CUDA.library.conda_stem}.tar.bz2")
    assert finding.member == "flashinfer/include/flashinfer/api.h"
    assert str(library) in finding.expected


def test_a_cut_package_of_the_older_form_is_unusable(tmp_path: Path) -> None:
    path = factories.as_tar_bz2(toy.write_conda(tmp_path / "x", CUDA), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    assert path.name in only_error(verify([path]))


def test_byte_code_is_a_finding_in_the_package_and_not_missing_in_the_wheel(tmp_path: Path) -> None:
    _, library, wheel = whole(tmp_path, CUDA)
    conda = toy.write_conda(tmp_path, CUDA, files={f"{PACKAGE}/__pycache__/x.pyc": b"x"})
    assert failed(verify([conda, library, wheel])) == {"files"}


def test_one_package_is_compared_with_what_it_has(tmp_path: Path) -> None:
    _, library, wheel = whole(tmp_path, CUDA)
    assert verify([library, wheel]).artifacts[-1].facts["files"] == 2
    toy.write_conda_library(tmp_path, CUDA, files={"include/flashinfer/api.h": b"// other\n"})
    assert failed(verify([library, wheel])) == {"payload"}


def test_a_package_and_a_library_of_other_architectures(tmp_path: Path) -> None:
    conda = toy.write_conda(tmp_path, CUDA)
    made = toy.library(cuda="13.0.88", archs="8.0;9.0a", gpu="relocatable")
    library = toy.write_conda_library(tmp_path, CUDA, files={"lib/libflashinfer.so": made})
    report = verify([conda, library])
    assert failed(report) == {"pinned-library"}
    assert "ARCH_LIST" in str(report.findings[0])


def test_a_binding_of_another_time_than_its_library(tmp_path: Path) -> None:
    """Names, labels and information sections agree, and the import would fail."""
    newer = toy.binding(symbols=(toy.NEW_ABI, "fi_added_since"))
    own = {f"{PACKAGE}/_C.abi3.so": newer}
    conda = toy.write_conda(tmp_path, CPU, files=own)
    library = toy.write_conda_library(tmp_path, CPU)
    assert verify([conda]).findings == ()
    wheel = toy.write_wheel(tmp_path, CPU, files={"flashinfer/_C.abi3.so": newer})
    for paths in ([conda, library], [wheel]):
        [finding] = verify(paths).findings
        assert finding.check == "calls"
        assert "fi_added_since" in finding.what


def test_one_unusable_artifact_does_not_hide_the_others(tmp_path: Path) -> None:
    paths = whole(tmp_path, CPU)
    paths[0].write_bytes(b"not a zip")
    wrong = toy.write_wheel(tmp_path, CUDA, api=None)
    report = verify([*paths, wrong])
    assert report.exit_code == 2
    assert len(report.errors) == 1
    assert failed(report) == {"files"}


def test_folders_are_searched(tmp_path: Path) -> None:
    whole(tmp_path / "a" / "b", CPU)
    (tmp_path / "a" / ".partial-x.whl").write_bytes(b"unfinished")
    (tmp_path / "a" / "notes.txt").write_text("x")
    found = collect([tmp_path, tmp_path / "a"])
    assert [path.suffix for path in found] == [".whl", ".conda", ".conda"]


@pytest.mark.parametrize("name", ["missing.whl", "missing", "notes.txt", "empty"])
def test_nothing_to_look_at(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=name) as caught:
        verify([tmp_path / name])
    assert all(ending in str(caught.value) for ending in (".conda", ".tar.bz2", ".whl"))


# ------------------------------------------------------------ the program


def program(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "verify.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"},
    )


def test_the_program_prints_a_table(root: Path, tmp_path: Path) -> None:
    whole(tmp_path, CUDA)
    done = program(root, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "compute_80 sm_80 sm_90a" in done.stdout
    assert "manylinux_2_5_x86_64" in done.stdout
    assert "0 findings" in done.stdout


def test_the_program_prints_json(root: Path, tmp_path: Path) -> None:
    path = toy.write_wheel(tmp_path, CUDA, api=None)
    done = program(root, path, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["schema_version"] == SCHEMA_VERSION
    (artifact,) = document["artifacts"]
    assert artifact["findings"] == [
        {
            "check": "files",
            "artifact": path.name,
            "member": "flashinfer/include/flashinfer/api.h",
            "what": "is missing",
            "expected": "",
        }
    ]
    states = {check["name"]: check["passed"] for check in artifact["checks"]}
    assert states["files"] is False
    assert states["record"] is True


def test_the_program_says_what_it_cannot_read(root: Path, tmp_path: Path) -> None:
    done = program(root, tmp_path / "missing.whl")
    assert (done.returncode, done.stdout) == (2, "")
    assert "missing.whl" in done.stderr
    done = program(root, tmp_path / "missing.whl", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == "ArtifactError"


def test_lines_for_a_log(tmp_path: Path) -> None:
    toy.write_wheel(tmp_path, CUDA, api=None)
    (tmp_path / CPU.wheel_file).write_bytes(b"x")
    text = "\n".join(as_lines(verify([tmp_path])))
    assert "20 of 21 checks" in text
    assert "finding: files:" in text
    assert f"{CPU.wheel_file}: unusable:" in text


@pytest.mark.parametrize("variant", ["cu130_torch20", "cu130_torch30", "cu130_torch10"])
def test_the_first_minor_of_a_torch_major_has_a_neighbour_too(variant: str, tmp_path: Path) -> None:
    """There is no torch 3.-1 to compare with."""
    label = factories.label_of(variant)
    toy.write_conda_library(tmp_path, label)
    path = toy.write_conda(tmp_path, label)
    report = verify([path])
    assert not [item for item in report.findings if item.check == "dependencies"]
    major = label.variant.torch[0]
    changed = [
        f"pytorch >={major - 1}.5,<{major}.1.0a0 *cuda*" if item.startswith("pytorch") else item
        for item in factories.binding_index(label)["depends"]  # type: ignore[attr-defined]
    ]
    path = toy.write_conda(tmp_path, label, index={"depends": changed})
    [finding] = [item for item in verify([path]).findings if item.check == "dependencies"]
    assert "pytorch" in finding.what
