"""manylinux policies: which one is reached, what is in the way, and auditwheel as a witness."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import toy_artifacts as toy
from auditwheel.wheel_abi import analyze_wheel_abi
from factories import FLASHINFER, bridge, label_of, write_pair

from conda_bridge.bridge import manylinux
from conda_bridge.errors import ArtifactError, ConfigError, LabelMismatch
from conda_bridge.formats import elf
from conda_bridge.formats.elf import SharedObject, Symbol
from conda_bridge.project import Project
from conda_bridge.publish.index import update_wheel_index
from conda_bridge.verify import gate
from flashinfer_build.label import Label

CPU = label_of()
OURS = Project.load(Path(__file__).parents[2] / "pyproject.toml")
# GLIBC_2.14 on x86-64, whatever the machine's own glibc is.
MEMCPY = "void* memcpy();\nvoid* f(void* a, void* b, long n) { return memcpy(a, b, n); }\n"


# In the wheel, or in the torch that it requires.
PROVIDED = ("libflashinfer.so", *FLASHINFER.config.provided_by["torch"])


def library(*versions: str, needed: tuple[str, ...] = ("libc.so.6",), **more: Any) -> SharedObject:
    """A library that asks for these symbol versions, each by a symbol of its own."""
    provider = needed[0] if needed else "libc.so.6"
    wanted = tuple(Symbol(f"f{n}", version, provider) for n, version in enumerate(versions))
    values = {"undefined": wanted, "required_versions": {provider: versions}, **more}
    made = elf.read(toy.library(), "toy.conda: lib/libflashinfer.so")
    return dataclasses.replace(made, needed=needed, **values)


def reached(*libraries: SharedObject) -> str:
    policy = manylinux.lowest(libraries, PROVIDED)
    return policy.tag.removesuffix("_x86_64") if policy else ""


# ---------------------------------------------------------------- the policies


def test_policies_are_ordered_and_grow() -> None:
    found = manylinux.policies()
    glibc = [tuple(map(int, policy.tag.split("_")[1:3])) for policy in found]
    assert glibc == sorted(glibc)
    assert {(2, 17), (2, 24), (2, 28), (2, 31), (2, 34), (2, 35), (2, 36), (2, 39)} <= set(glibc)
    for older, newer in itertools.pairwise(found):
        assert older.libraries <= newer.libraries
        for family, versions in older.versions.items():
            assert versions <= newer.versions[family]


@pytest.mark.parametrize(
    ("tag", "glibc", "glibcxx", "cxxabi", "gcc"),
    [
        ("manylinux_2_17_x86_64", "2.17", "3.4.19", "1.3.7", "4.8.0"),
        ("manylinux2014_x86_64", "2.17", "3.4.19", "1.3.7", "4.8.0"),
        ("manylinux_2_28_x86_64", "2.28", "3.4.24", "1.3.11", "7.0.0"),
        ("manylinux_2_31_x86_64", "2.31", "3.4.28", "1.3.12", "7.0.0"),
        ("manylinux_2_34_x86_64", "2.34", "3.4.29", "1.3.13", "7.0.0"),
    ],
)
def test_limits_of_a_policy(tag: str, glibc: str, glibcxx: str, cxxabi: str, gcc: str) -> None:
    policy = manylinux.policy_of(tag)
    limits = [policy.newest(family) for family in ("GLIBC", "GLIBCXX", "CXXABI", "GCC")]
    assert limits == [glibc, glibcxx, cxxabi, gcc]


@pytest.mark.parametrize("tag", ["manylinux_2_29_x86_64", "manylinux_2_28_aarch64", "any", ""])
def test_a_policy_that_is_not_defined(tag: str) -> None:
    with pytest.raises(ConfigError, match="manylinux_2_28_x86_64"):
        manylinux.policy_of(tag)


# ---------------------------------------------------------------- what is reached


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (("GLIBC_2.2.5",), "manylinux_2_5"),
        (("GLIBC_2.14",), "manylinux_2_17"),
        (("GLIBC_2.17",), "manylinux_2_17"),
        (("GLIBC_2.17", "CXXABI_1.3.9"), "manylinux_2_24"),
        (("GLIBC_2.29",), "manylinux_2_31"),
        (("GLIBC_2.2.5", "GLIBCXX_3.4.29"), "manylinux_2_34"),
        (("GLIBC_2.2.5", "GCC_12.0.0"), "manylinux_2_35"),
        (("GLIBC_2.34",), "manylinux_2_34"),
        (("GLIBC_2.99",), ""),
        (("GLIBC_PRIVATE",), ""),
        (("GLIBC_ABI_SOMETHING_NEW",), ""),
    ],
)
def test_the_lowest_policy(versions: tuple[str, ...], expected: str) -> None:
    assert reached(library(*versions)) == expected


def test_every_library_counts() -> None:
    assert reached(library("GLIBC_2.2.5"), library("GLIBC_2.29")) == "manylinux_2_31"


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        (("libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2"), "manylinux_2_5"),
        (("libflashinfer.so", "libtorch_cpu.so", "libc10.so", "libtorch_cuda.so"), "manylinux_2_5"),
        # No policy has OpenMP: the system's may be missing.
        (("libgomp.so.1",), ""),
        (("libcudart.so.13",), ""),
        (("libtorch_cpu.so.2",), ""),
    ],
)
def test_libraries_that_it_needs(needed: tuple[str, ...], expected: str) -> None:
    made = library(needed=("libc.so.6", *needed), required_versions={}, undefined=())
    assert reached(made) == expected


def test_a_function_that_is_withheld() -> None:
    blocked = sorted(manylinux.policy_of("manylinux_2_28_x86_64").withheld["libz.so.1"])[0]
    made = library(needed=("libz.so.1",), required_versions={}, undefined=(Symbol(blocked),))
    assert reached(made) == ""
    (first, *_) = manylinux.obstacles(manylinux.policy_of("manylinux_2_28_x86_64"), [made])
    assert (first.what, first.expected) == (f"{blocked} of libz.so.1", "another function")


def test_what_is_in_the_way_is_named() -> None:
    made = library("GLIBC_2.2.5", "GLIBC_2.34")
    (found,) = manylinux.obstacles(manylinux.policy_of("manylinux_2_31_x86_64"), [made])
    assert str(found) == "lib/libflashinfer.so needs f1@GLIBC_2.34"
    assert found.expected == "GLIBC_2.31 at most"


# ---------------------------------------------------------------- the tag of a wheel


def test_the_tag_that_is_asked_for() -> None:
    made = library("GLIBC_2.29")
    assert manylinux.choose_tag("linux_x86_64", [made]) == "linux_x86_64"
    assert manylinux.choose_tag("auto", [made]) == "manylinux_2_31_x86_64"
    assert manylinux.choose_tag("manylinux_2_34_x86_64", [made]) == "manylinux_2_34_x86_64"
    with pytest.raises(
        LabelMismatch, match=r"(?s)f0@GLIBC_2\.29.*ask for manylinux_2_31_x86_64"
    ) as e:
        manylinux.choose_tag("manylinux_2_28_x86_64", [made])
    assert e.value.where == "lib/libflashinfer.so"


def test_auto_promises_nothing_that_is_not_true() -> None:
    made = library("GLIBC_2.99")
    assert manylinux.choose_tag("auto", [made]) == "linux_x86_64"
    with pytest.raises(LabelMismatch, match="ask for linux_x86_64"):
        manylinux.choose_tag("manylinux_2_41_x86_64", [made])


def _pair(folder: Path, label: Label, more: str = "") -> Path:
    """The two conda packages of `label`; `more` is C for its library."""
    package = toy.write_conda(folder, label)
    files = {"lib/libflashinfer.so": toy.library(more=more)} if more else {}
    toy.write_conda_library(folder, label, files=files)
    return package


def _tag_inside(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        lines = archive.read(name).decode().splitlines()
    return next(line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: "))


def test_name_tag_index_and_gate_agree(root: Path, tmp_path: Path) -> None:
    package = _pair(tmp_path / "linux-64", CPU, MEMCPY)
    made = bridge(package, tmp_path / "wheels", platform_tag="auto")
    assert made.path.name == CPU.wheel_file_for("cp38", "abi3", "manylinux_2_17_x86_64")
    assert _tag_inside(made.path) == "cp38-abi3-manylinux_2_17_x86_64"
    assert Label.parse_wheel_file(made.path.name) == CPU
    update_wheel_index(tmp_path, project=Project.load(root / "pyproject.toml"))
    page = tmp_path / "index" / CPU.index_dir / "flashinfer" / "index.json"
    (entry,) = json.loads(page.read_text())["files"]
    assert entry["filename"] == made.path.name
    report = gate.verify([package.parent, tmp_path / "wheels"], project=OURS)
    assert (report.findings, report.errors) == ((), ())
    (wheel,) = (item for item in report.artifacts if item.kind == "wheel")
    assert wheel.facts["manylinux"] == "manylinux_2_17_x86_64"
    assert wheel.facts["floors"]["flashinfer/lib/libflashinfer.so"]["GLIBC"] == "2.14"


def test_wheels_of_one_label_are_each_compared_with_the_packages(tmp_path: Path) -> None:
    package = _pair(tmp_path / "linux-64", CPU)
    bridge(package, tmp_path / "wheels")
    bridge(package, tmp_path / "wheels", platform_tag="auto")
    kinds = [item.kind for item in gate.verify([tmp_path], project=OURS).artifacts]
    assert kinds == ["conda", "conda", "wheel", "wheel", "pair", "pair"]


def test_a_tag_that_is_not_reached_is_refused(tmp_path: Path) -> None:
    package = _pair(tmp_path, CPU, MEMCPY)
    with pytest.raises(LabelMismatch, match=r"lib/libflashinfer\.so: needs memcpy@GLIBC_2\.14"):
        bridge(package, tmp_path / "out", platform_tag="manylinux_2_12_x86_64")
    with pytest.raises(ConfigError, match="manylinux_2_29"):
        bridge(package, tmp_path / "out", platform_tag="manylinux_2_29_x86_64")
    assert not (tmp_path / "out").exists()


def test_the_older_name_of_a_policy_becomes_the_newer(tmp_path: Path) -> None:
    made = bridge(_pair(tmp_path, CPU), tmp_path, platform_tag="manylinux2014_x86_64")
    assert made.path.name.endswith("-manylinux_2_17_x86_64.whl")


def test_a_file_that_cannot_be_looked_into_gets_no_promise(tmp_path: Path) -> None:
    package = write_pair(tmp_path)  # its libraries are no ELF files
    with pytest.raises(ArtifactError, match=r"_C\.abi3\.so"):
        bridge(package, tmp_path, platform_tag="auto")


def test_the_program_says_what_is_in_the_way(root: Path, tmp_path: Path) -> None:
    package = _pair(tmp_path, CPU, MEMCPY)
    command = [sys.executable, str(root / "scripts" / "bridge.py"), str(package)]
    command += ["-o", str(tmp_path), "--json", "--platform-tag"]
    done = subprocess.run([*command, "manylinux_2_12_x86_64"], capture_output=True, text=True)
    assert done.returncode == 1
    (error,) = json.loads(done.stdout)["errors"]
    assert "memcpy@GLIBC_2.14" in error["what"]
    done = subprocess.run([*command, "auto"], capture_output=True, text=True)
    assert done.returncode == 0
    assert json.loads(done.stdout)["wheels"][0]["file"].endswith("-manylinux_2_17_x86_64.whl")


# ---------------------------------------------------------------- a witness


@pytest.mark.parametrize("more", ["", MEMCPY], ids=["nothing", "memcpy"])
def test_auditwheel_comes_to_the_same_answer(tmp_path: Path, more: str) -> None:
    path = bridge(_pair(tmp_path, CPU, more), tmp_path, platform_tag="auto").path
    theirs = analyze_wheel_abi(
        None,
        None,
        path,
        frozenset({"libtorch_cpu.so", "libc10.so"}),
        disable_isa_ext_check=False,
        allow_graft=False,
    )
    assert theirs.overall_policy.name == path.stem.rpartition("-")[2]
