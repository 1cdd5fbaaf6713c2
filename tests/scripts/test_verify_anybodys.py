"""The checks that hold for anybody's wheels and conda packages, and what a table adds to them.

Each check passes on an artifact that is right, and finds the one thing that is made wrong.
"""

# ruff: noqa: E501  (tables: a case a line)

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import toy_artifacts as toy
from foreign_wheels import wheel

from conda_bridge import config
from conda_bridge.bridge.convert import bridge
from conda_bridge.formats import conda_writer
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.project import Project
from conda_bridge.verify.findings import ArtifactReport, Finding
from conda_bridge.verify.gate import verify

LINUX = "linux_x86_64"
MODULE = "toy/_core.cpython-311-x86_64-linux-gnu.so"
STABLE = "toy/_core.abi3.so"
LICENSED = ["License-Expression: MIT", "License-File: LICENSE"]
PYTHON = "toy/__init__.py"
MEMCPY = (
    "void* memcpy();\nvoid* f(void* a, void* b, long n) { return memcpy(a, b, n); }\n"  # GLIBC_2.14
)


@functools.cache
def module(
    *,
    wants: tuple[str, ...] = ("PyModule_Create2",),
    needed: tuple[str, ...] = (),
    flags: tuple[str, ...] = ("-Wl,-s",),
    more: str = "",
) -> bytes:
    """An extension module ``_core``."""
    source = "".join(f'extern int want{i}(void) asm("{s}");\n' for i, s in enumerate(wants))
    calls = " + ".join(f"want{i}()" for i in range(len(wants))) or "0"
    source += (
        f'__attribute__((visibility("default"))) int PyInit__core(void) {{ return {calls}; }}\n'
    )
    return toy.shared_object(source + more, flags, "_core.so", needed)


@functools.cache
def library(name: str = "libtoy.so.1") -> bytes:
    """A plain shared library."""
    source = '__attribute__((visibility("default"))) int toy(void) { return 1; }\n'
    return toy.shared_object(source, ("-Wl,-s", f"-Wl,-soname,{name}"), name)


def runpath(path: str, *, old: bool = False) -> tuple[str, ...]:
    tags = "--disable-new-dtags" if old else "--enable-new-dtags"
    return ("-Wl,-s", f"-Wl,{tags},-rpath,{path}")


def of(path: Path, project: Project | None = None, **options: Any) -> ArtifactReport:
    [found] = verify([path], project=project or Project(), **options).artifacts
    assert found.error is None, found.error
    return found


def texts(found: list[Finding], check: str, *, warning: bool = False) -> list[str]:
    return [str(item) for item in found if item.check == check and item.warning is warning]


def good(folder: Path, files: Mapping[str, bytes | str] | None = None, **changes: Any) -> Path:
    """A wheel for CPython 3.11 with a licence."""
    payload = {PYTHON: "", MODULE: module(), "{info}/licenses/LICENSE": "MIT\n", **(files or {})}
    options: dict[str, Any] = {"tag": f"cp311-cp311-{LINUX}", "metadata": LICENSED, **changes}
    return wheel(
        folder, {key: data for key, data in payload.items() if data is not None}, **options
    )


# ------------------------------------------------------------ wheels that are right

RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("for one CPython", {}),
    ("for any Python", {"files": {MODULE: None}, "tag": "py3-none-any"}),
    ("for the stable ABI", {"files": {MODULE: None, STABLE: module()}, "tag": f"cp38-abi3-{LINUX}", "metadata": [*LICENSED, "Requires-Python: >=3.9"]}),
    ("free-threaded", {"files": {MODULE: None, "toy/_core.cpython-313t-x86_64-linux-gnu.so": module()}, "tag": f"cp313-cp313t-{LINUX}"}),
    ("for PyPy", {"files": {MODULE: None, "toy/_core.pypy310-pp73-x86_64-linux-gnu.so": module()}, "tag": f"pp310-pypy310_pp73-{LINUX}"}),
    ("a tag of CPython without an ABI", {"tag": f"cp311-none-{LINUX}"}),
    ("a module without a suffix", {"files": {MODULE: None, "toy/_core.so": module()}}),
    ("two platform tags", {"tag": "cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64"}),
    ("musl", {"files": {MODULE: module(needed=("libc.musl-x86_64.so.1",), flags=("-Wl,-s", "-nostdlib"))}, "tag": "cp311-cp311-musllinux_1_2_x86_64"}),
    ("a manylinux tag between two policies", {"files": {MODULE: module(more=MEMCPY)}, "tag": "cp311-cp311-manylinux_2_16_x86_64"}),
    ("libraries inside", {"files": {MODULE: module(needed=("libtoy.so.1",)), "toy.libs/libtoy.so.1": library()}, "tag": "cp311-cp311-manylinux_2_17_x86_64"}),
    ("a library that every Linux has", {"files": {MODULE: module(needed=("libX11.so.6",))}, "tag": "cp311-cp311-manylinux_2_17_x86_64"}),
    ("a search path of its own", {"files": {MODULE: module(flags=runpath("$ORIGIN/../toy.libs", old=True))}}),
    ("a script of the linker", {"files": {"toy/libtoy.so": "/* GNU ld script */\nGROUP ( libtoy.so.1 )\n"}}),
    ("a program", {"files": {MODULE: None, "{data}/scripts/toy": b"\x7fELF\x02\x01" + bytes(10) + b"\x02\0" + bytes(40)}, "tag": f"py3-none-{LINUX}"}),
    ("of macOS", {"files": {MODULE: None, "toy/_core.cpython-311-darwin.so": b"\xcf\xfa\xed\xfe"}, "tag": "cp311-cp311-macosx_11_0_arm64"}),
    ("of Windows", {"files": {MODULE: None, "toy/_core.cp311-win_amd64.pyd": b"MZ"}, "tag": "cp311-cp311-win_amd64"}),
    ("entry points", {"entry_points": "[console_scripts]\ntoy = toy:main\nmore = toy._core:main [all]\nother = elsewhere.x:y\n[toy.plugins]\nname = toy\n"}),
    ("data", {"files": {"{data}/data/share/toy/x": "x", "{data}/purelib/toy/y.py": "y"}}),
    ("another spelling of the name", {"name": "Toy.Box", "metadata": LICENSED}),
    ("a build tag", {"build": "2b"}),
    ("a local version", {"version": "1.0+cpu.1"}),
]  # fmt: skip


@pytest.mark.parametrize("changes", [case[1] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_a_right_wheel_passes(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = of(good(tmp_path, **changes))
    assert [str(item) for item in found.findings] == []
    assert {"zip", "name", "dependencies", "metadata", "record", "files", "licences"} <= set(
        found.checks
    )


def test_the_checks_of_libraries_run_where_there_are_some(tmp_path: Path) -> None:
    about_libraries = {"elf", "machine", "runpath", "needed", "floor"}
    found = of(good(tmp_path / "a", {MODULE: None, STABLE: module()}, tag=f"cp38-abi3-{LINUX}"))
    assert {*about_libraries, "abi3"} <= set(found.checks)
    assert (found.facts["abi3"], found.facts["manylinux"]) == ("3.2", "manylinux_2_5_x86_64")
    found = of(good(tmp_path / "b", {MODULE: None}, tag="py3-none-any"))
    assert not {*about_libraries, "abi3", "archs", "entry-points"} & set(found.checks)
    assert found.label == "toy 1.0"


def test_what_is_no_library_of_this_kind_is_not_measured(tmp_path: Path) -> None:
    program = b"\x7fELF\x01\x01" + bytes(60)  # of 32 bits
    found = of(good(tmp_path, {"toy/bin/tool": program}))
    assert found.facts["unmeasured"] == ["toy/bin/tool"]
    assert found.findings == []


# ------------------------------------------------------------ wheels that are wrong

WRONG: list[tuple[str, str, str, dict[str, Any]]] = [
    ("METADATA of another project", "name", "Name: toy, other", {"metadata": ["Name: other", *LICENSED]}),
    ("METADATA of another version", "name", "Version: 1.0", {"file_version": "1.1"}),
    ("no tag", "name", "Tag: ", {"wheel_lines": ["Wheel-Version: 1.0", "Root-Is-Purelib: false"]}),
    ("another build tag", "name", "Build: ''", {"build": "1", "wheel_lines": ["Wheel-Version: 1.0", "Root-Is-Purelib: false", f"Tag: cp311-cp311-{LINUX}"]}),
    ("WHEEL of a version that nobody reads", "name", "Wheel-Version: 2.0", {"wheel_lines": ["Wheel-Version: 2.0", "Root-Is-Purelib: false", f"Tag: cp311-cp311-{LINUX}"]}),
    ("neither pure nor not", "name", "Root-Is-Purelib: maybe", {"wheel_lines": ["Wheel-Version: 1.0", "Root-Is-Purelib: maybe", f"Tag: cp311-cp311-{LINUX}"]}),
    ("pure with a module", "name", "Root-Is-Purelib is not false", {"wheel_lines": ["Wheel-Version: 1.0", "Root-Is-Purelib: true", f"Tag: cp311-cp311-{LINUX}"]}),
    ("any platform with a module", "name", "is for one machine", {"tag": "py3-none-any"}),
    ("any platform with a module of Windows", "name", "is for one machine", {"files": {MODULE: None, "toy/_core.pyd": b"MZ"}, "tag": "py3-none-any"}),
    ("a module of another CPython", "name", "is a module of cp310 alone", {"files": {"toy/_x.cpython-310-x86_64-linux-gnu.so": module()}}),
    ("a module of one CPython for the stable ABI", "name", "is a module of cp311 alone", {"tag": f"cp38-abi3-{LINUX}"}),
    ("a module of one CPython for any Python", "name", "is a module of cp311 alone", {"tag": f"py3-none-{LINUX}"}),
    ("a stable module for any Python", "name", "is a module of abi3 alone", {"files": {MODULE: None, STABLE: module()}, "tag": f"py3-none-{LINUX}"}),
    ("no requirement", "dependencies", "Requires-Dist: 'numpy=1'", {"metadata": [*LICENSED, "Requires-Dist: numpy=1"]}),
    ("a requirement from a URL", "dependencies", "names a URL", {"metadata": [*LICENSED, "Requires-Dist: numpy @ https://example.org/n.whl"]}),
    ("no specifier", "dependencies", "Requires-Python: 'three'", {"metadata": [*LICENSED, "Requires-Python: three"]}),
    ("not for the Python of its tag", "dependencies", "3.11 accepted, as the tag cp311 says", {"metadata": [*LICENSED, "Requires-Python: >=3.12"]}),
    ("for no Python of its tag", "dependencies", "3.13 accepted", {"files": {MODULE: None, STABLE: module()}, "tag": f"cp313-abi3-{LINUX}", "metadata": [*LICENSED, "Requires-Python: <3.13"]}),
    ("two summaries", "metadata", "Summary is there 2 times", {"metadata": [*LICENSED, "Summary: a", "Summary: b"]}),
    ("a line of RECORD", "record", "sha256 is", {"record": {PYTHON: ("sha256=" + "A" * 43, "0")}}),
    ("a file that is not in RECORD", "record", "is not in RECORD", {"record": {PYTHON: None}}),
    ("byte code", "files", "build artefact", {"files": {"toy/__pycache__/x.cpython-311.pyc": b"x"}}),
    ("an object file", "files", "build artefact", {"files": {"toy/x.o": b"x"}}),
    ("data for nobody", "files", "no installer knows", {"files": {"{data}/share/x": b"x"}}),
    ("another's data", "files", "no installer knows", {"files": {"other-1.0.data/data/x": b"x"}}),
    ("a licence file that is not there", "licences", "is not in the wheel", {"files": {"{info}/licenses/LICENSE": None}}),
    ("no licence expression", "licences", "License-Expression", {"metadata": ["License-Expression: Mit licence", "License-File: LICENSE"]}),
    ("entry points in no form", "entry-points", "cannot be read", {"entry_points": "toy\n"}),
    ("an entry point that names nothing", "entry-points", "toy = toy main", {"entry_points": "[x]\ntoy = toy main\n"}),
    ("a script without a function", "entry-points", "expected: package.module:function", {"entry_points": "[console_scripts]\ntoy = toy\n"}),
    ("an entry point of a module that is not there", "entry-points", "has no such module", {"entry_points": "[console_scripts]\ntoy = toy.cli:main\n"}),
    ("a module that is no library", "elf", "64-bit", {"files": {MODULE: b"#!/bin/sh\n"}}),
    ("a module of another processor", "machine", "expected: EM_AARCH64", {"tag": "cp311-cp311-manylinux_2_17_aarch64"}),
    ("a search path of one machine", "runpath", "RUNPATH has /opt/lib", {"files": {MODULE: module(flags=runpath("$ORIGIN:/opt/lib"))}}),
    ("the folder of whoever starts it", "runpath", "DT_RPATH has lib", {"files": {MODULE: module(flags=runpath("lib", old=True))}}),
    ("a library of nobody", "needed", "needs libtoy.so.1", {"files": {MODULE: module(needed=("libtoy.so.1",))}}),
    ("newer than its stable ABI", "abi3", "needs Python 3.10 (PyUnicode_AsUTF8AndSize)", {"files": {MODULE: None, STABLE: module(wants=("PyUnicode_AsUTF8AndSize",))}, "tag": f"cp38-abi3-{LINUX}"}),
    ("newer than its stable ABI, without a suffix", "abi3", "needs Python 3.10", {"files": {MODULE: None, "toy/_core.so": module(wants=("PyUnicode_AsUTF8AndSize",))}, "tag": f"cp38-abi3-{LINUX}"}),
    ("a function of no stable ABI", "abi3", "_PyObject_LookupAttr is not in the stable ABI", {"files": {MODULE: None, STABLE: module(wants=("_PyObject_LookupAttr",))}, "tag": f"cp38-abi3-{LINUX}"}),
    ("an older system than it needs", "floor", "memcpy@GLIBC_2.14", {"files": {MODULE: module(more=MEMCPY)}, "tag": "cp311-cp311-manylinux_2_12_x86_64"}),
    ("an older system than it needs, between two policies", "floor", "GLIBC_2.14, and the tag promises manylinux_2_13", {"files": {MODULE: module(more=MEMCPY)}, "tag": "cp311-cp311-manylinux_2_13_x86_64"}),
    ("glibc on musl", "floor", "no symbol of glibc", {"files": {MODULE: module(more=MEMCPY)}, "tag": "cp311-cp311-musllinux_1_2_x86_64"}),
]  # fmt: skip


# Findings that say all there is to say: a thing that should not be there, or cannot be read.
SAYS_IT_ALL = re.compile(
    r"is a build artefact|is not in|is no requirement|cannot be read|Requires-|License-Expression"
    r"|names a URL|is there 2 times|is no 64-bit"
)


def says_where_and_what_instead(found: list[Finding]) -> None:
    for item in found:
        assert item.member, str(item)
        assert item.expected or SAYS_IT_ALL.search(item.what), str(item)


@pytest.mark.parametrize(
    ("check", "words", "changes"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_a_wrong_wheel_is_found(
    tmp_path: Path, check: str, words: str, changes: dict[str, Any]
) -> None:
    found = of(good(tmp_path, **changes)).findings
    assert any(words in text for text in texts(found, check)), list(map(str, found))
    assert {item.check for item in found if not item.warning} == {check}
    says_where_and_what_instead(found)


@pytest.mark.parametrize(
    ("check", "words", "changes"),
    [
        ("licences", "names no License-File", {"metadata": ["License: MIT"]}),
        ("files", "other wheels may install", {"files": {"tests/test_toy.py": ""}}),
        ("name", "Root-Is-Purelib is not false", {"files": {MODULE: None, "toy/libtoy.so": library()}, "tag": f"py3-none-{LINUX}", "wheel_lines": ["Wheel-Version: 1.0", "Root-Is-Purelib: true", f"Tag: py3-none-{LINUX}"]}),
    ],
)  # fmt: skip
def test_what_is_worth_a_look(
    tmp_path: Path, check: str, words: str, changes: dict[str, Any]
) -> None:
    [finding] = of(good(tmp_path, **changes)).findings
    assert finding.warning
    assert finding.check == check
    assert words in str(finding)


@pytest.mark.parametrize(
    "file", ["toy-1.0.whl", "toy-one-py3-none-any.whl", "toy-1.0-x-py3-none-any.whl"]
)
def test_no_wheels_name(tmp_path: Path, file: str) -> None:
    path = good(tmp_path).rename(tmp_path / file)
    report = verify([path])
    assert report.exit_code == 2
    assert "not a wheel's name" in str(report.errors[0])


def test_gpu_code_against_what_was_asked_for(tmp_path: Path) -> None:
    """Of a project whose libraries say nothing: what is inside is known all the same."""
    fat = toy.library(gpu="zstd", info=False, soname="libtoy.so.1")
    path = good(tmp_path, {MODULE: None, "toy/libtoy.so.1": fat}, tag=f"py3-none-{LINUX}")
    found = of(path)
    assert found.facts["archs"] == ["compute_80", "sm_80", "sm_90a"]
    assert found.findings == []
    assert of(path, arch_list="8.0+PTX;9.0a").findings == []
    [finding] = of(path, arch_list="9.0a").findings
    assert (finding.check, finding.expected) == ("archs", "sm_90a")


def test_libraries_that_a_requirement_brings(tmp_path: Path) -> None:
    files = {MODULE: module(needed=("libtorch_cpu.so",))}
    said = Project.of(config.parse({"provided-by": {"torch": ["libtorch*.so"]}}, "x"))
    requires = [*LICENSED, "Requires-Dist: torch"]
    path = good(tmp_path / "a", files, metadata=requires, tag="cp311-cp311-manylinux_2_17_x86_64")
    assert of(path, said).findings == []
    assert {item.check for item in of(path).findings} == {"needed", "floor"}
    path = good(tmp_path / "b", files)
    assert {item.check for item in of(path, said).findings} == {"needed"}, "it is not required"


def test_the_licence_that_a_project_has(tmp_path: Path) -> None:
    said = Project.of(config.parse({"license": "BSD-3-Clause"}, "x"))
    [finding] = of(good(tmp_path / "a"), said).findings
    assert (finding.check, finding.what) == ("licences", "the licence is 'MIT'")
    path = good(tmp_path / "b", metadata=["License: BSD-3-Clause"])
    [finding] = of(path, said).findings
    assert (finding.warning, finding.what) == (False, "METADATA names no License-File")


# ------------------------------------------------------------ conda packages

SITE = "lib/python3.11/site-packages/"
ARCH = {"depends": ["python >=3.11,<3.12.0a0", "python_abi 3.11.* *_cp311", "__glibc >=2.17"]}
NOARCH = {"subdir": "noarch", "noarch": "python", "depends": ["python >=3.9"]}


def package(
    folder: Path,
    files: Mapping[str, bytes | str | None] | None = None,
    *,
    info: Mapping[str, bytes] | None = None,
    placeholders: Mapping[str, str] | None = None,
    **index: Any,
) -> Path:
    """A conda package for CPython 3.11 with a licence."""
    payload = {f"{SITE}{PYTHON}": "", f"{SITE}{MODULE}": module(), **(files or {})}
    facts: dict[str, Any] = {
        **{"name": "toy", "version": "1.0", "build": "py311_0", "build_number": 0},
        **{"subdir": "linux-64", "license": "MIT", **ARCH, **index},
    }
    made = {
        path: data.encode() if isinstance(data, str) else data
        for path, data in payload.items()
        if data is not None
    }
    members = {"info/licenses/LICENSE": b"MIT\n", **(info or {})}
    if placeholders:
        members["info/paths.json"] = json.dumps(
            {
                "paths": [
                    {
                        **{"_path": path, "path_type": "hardlink", "size_in_bytes": len(data)},
                        "sha256": hashlib.sha256(data).hexdigest(),
                        **({"prefix_placeholder": placeholders[path], "file_mode": "binary"} if path in placeholders else {}),
                    }
                    for path, data in sorted(made.items())
                ],
                "paths_version": 1,
            }
        ).encode()  # fmt: skip
    path = folder / "{name}-{version}-{build}.conda".format(**facts)
    folder.mkdir(parents=True, exist_ok=True)
    conda_writer.write(
        path,
        index={key: value for key, value in facts.items() if value is not None},
        files=[PackageFile(name, data) for name, data in made.items()],
        info_files={name: data for name, data in members.items() if data},
        level=1,
        threads=1,
    )
    return path


PURE = {f"{SITE}{PYTHON}": None, f"{SITE}{MODULE}": None, f"site-packages/{PYTHON}": ""}
PREFIX = "/opt/b/_h_env_placehold_placehold"

RIGHT_PACKAGES: list[tuple[str, dict[str, Any]]] = [
    ("for one CPython", {}),
    ("for any Python", {"files": PURE, **NOARCH}),
    ("generic", {"files": {**PURE, f"site-packages/{PYTHON}": None, "share/x": ""}, "subdir": "noarch", "noarch": "generic", "depends": []}),
    ("of the stable ABI", {"files": {f"{SITE}{MODULE}": None, f"{SITE}{STABLE}": module()}}),
    ("of the stable ABI for any Python (CEP 20)", {"files": {**PURE, f"site-packages/{STABLE}": module()}, "noarch": "python", "depends": ["python >=3.8"]}),
    ("pinned by python_abi", {"depends": ["python", "python_abi 3.11.* *_cp311"]}),
    ("byte code in a package for one Python", {"files": {f"{SITE}toy/__pycache__/x.cpython-311.pyc": b"x"}}),
    ("no Python at all", {"files": {**PURE, f"site-packages/{PYTHON}": None, "lib/libtoy.so.1": library()}, "depends": []}),
    ("a library of another package", {"files": {f"{SITE}{MODULE}": module(needed=("libother.so.2",))}, "depends": [*ARCH["depends"], "libother"]}),
    ("platform and arch", {"platform": "linux", "arch": "x86_64"}),
    ("a version of conda's own", {"version": "2024a"}),
    ("a prefix that installers replace", {"files": {"lib/libtoy.so.1": module(flags=runpath(f"{PREFIX}/lib"), more=f'const char* p(void) {{ return "{PREFIX}/share"; }}')}, "placeholders": {"lib/libtoy.so.1": PREFIX}}),
    ("of macOS", {"files": {f"{SITE}{MODULE}": None, f"{SITE}toy/_core.cpython-311-darwin.so": b"\xcf\xfa"}, "subdir": "osx-arm64"}),
    ("entry points", {"files": PURE, **NOARCH, "info": {"info/link.json": b'{"noarch": {"type": "python", "entry_points": ["toy = toy:main"]}}'}}),
]  # fmt: skip


@pytest.mark.parametrize(
    "changes", [case[1] for case in RIGHT_PACKAGES], ids=[case[0] for case in RIGHT_PACKAGES]
)
def test_a_right_package_passes(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = of(package(tmp_path, **changes))
    assert [str(item) for item in found.findings] == []
    assert {"name", "index", "paths", "files", "licences", "dependencies", "floor"} <= set(
        found.checks
    )


WRONG_PACKAGES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("no build number", "index", "build_number is True", {"build_number": True}),
    ("a build number below 0", "index", "build_number is -1", {"build_number": -1}),
    ("no subdir", "index", "subdir is 'linux'", {"subdir": "linux"}),
    ("another platform", "index", "platform is 'osx'", {"platform": "osx"}),
    ("another arch", "index", "arch is 'arm64'", {"arch": "arm64"}),
    ("noarch of no kind", "index", "noarch is 'java'", {"noarch": "java"}),
    ("noarch without a kind", "index", "noarch is None", {"files": PURE, **NOARCH, "noarch": None}),
    ("generic for one platform", "index", "expected: none, as the subdir is linux-64", {"noarch": "generic"}),
    ("a module in noarch", "index", "is for one machine", {"files": {**PURE, "site-packages/toy/libtoy.so": library()}, **NOARCH}),
    ("the site-packages of one Python in noarch: python", "index", "lies in the site-packages of one Python", {"files": {**PURE, f"{SITE}toy/x.py": ""}, **NOARCH, "depends": ["python 3.11.*"]}),
    ("rubbish", "files", "build artefact", {"files": {f"{SITE}toy/x.orig": "x"}}),
    ("byte code in noarch: python", "files", "build artefact", {"files": {**PURE, "site-packages/toy/__pycache__/x.cpython-311.pyc": b"x"}, **NOARCH}),
    ("an entry point that names nothing", "entry-points", "toy = toy", {"files": PURE, **NOARCH, "info": {"info/link.json": b'{"noarch": {"entry_points": ["toy = toy"]}}'}}),
    ("no requirement", "dependencies", "is no requirement", {"depends": [*ARCH["depends"], "numpy >=1,,<2"]}),
    ("no constraint", "dependencies", "is no requirement", {"constrains": ["numpy >=1,,<2"]}),
    ("for any Python, and needs none", "dependencies", "does not depend on python", {"files": PURE, **NOARCH, "depends": []}),
    ("a module of one CPython for all", "dependencies", "expected: python 3.11.*", {"depends": ["python >=3.11"]}),
    ("a module of one CPython without python", "dependencies", "does not depend on python", {"depends": []}),
    ("files of one Python for another", "dependencies", "expected: python 3.11.*", {"files": {f"{SITE}{MODULE}": None}, "depends": ["python 3.12.*"]}),
    ("a module of another CPython", "dependencies", "expected: python 3.10.*", {"files": {f"{SITE}toy/_x.cpython-310-x86_64-linux-gnu.so": module()}}),
    ("a module of one CPython in noarch: python", "dependencies", "is a module of cp311 alone", {"files": {**PURE, f"site-packages/{MODULE}": module()}, "noarch": "python", "depends": ["python >=3.9"]}),
    ("a module that is no library", "elf", "64-bit", {"files": {f"{SITE}{MODULE}": "x"}}),
    ("a library of another processor", "machine", "expected: EM_AARCH64", {"subdir": "linux-aarch64"}),
    ("a search path of one machine", "runpath", "/opt/lib", {"files": {f"{SITE}{MODULE}": module(flags=runpath("/opt/lib"))}}),
    ("a library of nobody", "needed", "needs libother.so.2", {"files": {**PURE, f"site-packages/{PYTHON}": None, "lib/libtoy.so.1": module(needed=("libother.so.2",))}, "depends": ["__glibc >=2.17"]}),
    ("a prefix that nobody replaces", "paths", "holds the build prefix", {"files": {"lib/libtoy.so.1": module(more=f'const char* p(void) {{ return "{PREFIX}/share"; }}')}}),
    ("newer than its stable ABI", "abi3", "needs Python 3.10", {"files": {**PURE, f"site-packages/{STABLE}": module(wants=("PyUnicode_AsUTF8AndSize",))}, "noarch": "python", "depends": ["python >=3.9"]}),
    ("an older glibc than it needs", "floor", "needs glibc 2.14, and says", {"files": {f"{SITE}{MODULE}": module(more=MEMCPY)}, "depends": [*ARCH["depends"][:2], "__glibc >=2.12"]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "words", "changes"),
    [case[1:] for case in WRONG_PACKAGES],
    ids=[case[0] for case in WRONG_PACKAGES],
)
def test_a_wrong_package_is_found(
    tmp_path: Path, check: str, words: str, changes: dict[str, Any]
) -> None:
    found = of(package(tmp_path, **changes)).findings
    assert any(words in text for text in texts(found, check)), list(map(str, found))
    assert {item.check for item in found} == {check}
    says_where_and_what_instead(found)


def test_a_package_in_the_folder_of_another_subdir(tmp_path: Path) -> None:
    [finding] = of(package(tmp_path / "noarch")).findings
    assert (finding.check, finding.expected) == ("index", "'noarch', as the folder that it lies in")
    assert of(package(tmp_path / "linux-64")).findings == []


def test_a_package_without_a_licence_file(tmp_path: Path) -> None:
    path = package(tmp_path, info={"info/licenses/LICENSE": b""})
    [warning] = of(path).findings
    assert warning.warning
    said = Project.of(config.parse({"license": "MIT"}, "x"))
    [finding] = of(path, said).findings
    assert not finding.warning
    said = Project.of(config.parse({"license": "BSD-3-Clause"}, "x"))
    assert {item.check for item in of(path, said).findings} == {"licences", "index"}


def test_glibc_that_is_not_said(tmp_path: Path) -> None:
    newer = 'void* f(void) { return 0; }\nextern int g(void) asm("pthread_getattr_default_np");\nint h(void) { return g(); }\n'  # since glibc 2.18
    path = package(tmp_path, {f"{SITE}{MODULE}": module(more=newer)}, depends=ARCH["depends"][:2])
    [warning] = of(path).findings
    assert (warning.check, warning.warning) == ("floor", True)
    assert re.search(r"needs glibc 2\.\d\d, and does not say so", str(warning))


# ------------------------------------------------------------ a project with labels


def labelled() -> Project:
    """A project of another kind: no CUDA, no torch."""
    table = {
        "package": "toy",
        "wheel-name": "toy",
        "label": {
            "build": "rocm{rocm}_jax{jax:flat}_{number}",
            "local": "rocm{rocm}jax{jax}",
            "fields": {
                "rocm": {"choices": ["60", "61"]},
                "jax": {"form": "{major:1}.{minor}", "depends": "jax"},
            },
        },
        "fold": [{"package": "libtoy", "build": "rocm{rocm}_{number}"}],
    }
    return Project.of(config.parse(table, "x"))


def of_label(folder: Path, jax: str = "2.4", **changes: Any) -> Path:
    major, minor = jax.split(".")
    depends = [f"jax {jax}.*", "libtoy 1.0 rocm60_2", *ARCH["depends"]]
    return package(
        folder,
        **{
            "build": f"rocm60_jax{major}{minor}_2",
            "build_number": 2,
            "depends": depends,
            **changes,
        },
    )


def test_labels_of_another_kind(tmp_path: Path) -> None:
    ours = labelled()
    found = of(of_label(tmp_path), ours)
    assert [str(item) for item in found.findings] == []
    assert found.label == "rocm60_jax24 1.0"
    path = good(
        tmp_path,
        version="1.0+rocm60jax2.4",
        build="2",
        metadata=[*LICENSED, "Requires-Dist: jax==2.4.*"],
    )
    found = of(path, ours)
    assert [str(item) for item in found.findings] == []
    assert found.label == "rocm60_jax24 1.0"


@pytest.mark.parametrize("jax", ["2.4", "3.0", "1.0"])
@pytest.mark.parametrize(
    "wrong", ["", "jax", "jax >={0}", "jax {0}.0", "jax 5.5.*", "jax >={below},<{0}.99"]
)
def test_a_dependency_that_is_not_the_labels(tmp_path: Path, jax: str, wrong: str) -> None:
    """Neighbours are found on both sides of the first minor of a major, too."""
    major, minor = map(int, jax.split("."))
    below = f"{major}.{minor - 1}" if minor else f"{major - 1}.7"
    text = wrong.format(jax, below=below)
    depends = [*([text] if text else []), "libtoy 1.0 rocm60_2", *ARCH["depends"]]
    path = of_label(tmp_path / "c", jax, depends=depends)
    [finding] = of(path, labelled()).findings
    assert (finding.check, finding.expected) == ("dependencies", f"jax {jax}.*")
    requirement = text.replace(f"jax {jax}", f"jax =={jax}").replace("jax 5.5.*", "jax ==5.5.*")
    lines = [*LICENSED, *([f"Requires-Dist: {requirement}"] if text else [])]
    path = good(tmp_path / "w", version=f"1.0+rocm60jax{jax}", build="2", metadata=lines)
    [finding] = of(path, labelled()).findings
    assert (finding.check, finding.expected) == ("dependencies", f"jax=={jax}.*")


@pytest.mark.parametrize(
    ("pin", "words"),
    [
        ("libtoy 1.0", "libtoy"),
        ("libtoy 1.0 rocm61_2", "rocm61_2"),
        ("", "does not depend on libtoy"),
    ],
)
def test_a_part_that_is_not_pinned(tmp_path: Path, pin: str, words: str) -> None:
    depends = ["jax 2.4.*", *([pin] if pin else []), *ARCH["depends"]]
    [finding] = of(of_label(tmp_path, depends=depends), labelled()).findings
    assert finding.expected == "libtoy ==1.0 rocm60_2"
    assert words in finding.what


@pytest.mark.parametrize(
    ("build", "words"),
    [("rocm59_jax24_2", "not a build string of this project"), ("py311_0", "not a build string")],
)
def test_a_name_that_is_not_the_projects(tmp_path: Path, build: str, words: str) -> None:
    report = verify([of_label(tmp_path, build=build)], project=labelled())
    assert words in str(report.errors[0])
    other = package(tmp_path, name="other")
    report = verify([other, good(tmp_path, name="other")], project=labelled())
    assert [
        "not a toy or libtoy package's name" in str(report.errors[0]),
        "not a toy wheel's name" in str(report.errors[1]),
    ] == [True, True]


def test_a_build_number_that_is_not_the_labels(tmp_path: Path) -> None:
    [finding] = of(of_label(tmp_path, build_number=1), labelled()).findings
    assert (finding.check, finding.expected) == ("index", "2")


@pytest.mark.parametrize("build", ["0", "2b"])
def test_a_build_tag_that_no_label_has(tmp_path: Path, build: str) -> None:
    path = good(tmp_path, version="1.0+rocm60jax2.4", build=build)
    report = verify([path], project=labelled())
    assert "not the canonical file name" in str(report.errors[0])


# ------------------------------------------------------------ pairs


def converted(folder: Path, path: Path) -> Path:
    return bridge(path, folder / "wheels").path


DIST_INFO = "toy-1.0.dist-info/METADATA"
METADATA = "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\nSummary: A toy\n"


def test_a_wheel_that_was_made_of_a_package(tmp_path: Path) -> None:
    path = package(tmp_path, {f"{SITE}{DIST_INFO}": METADATA, "share/toy/x.txt": "x"})
    report = verify([path, converted(tmp_path, path)])
    assert [str(item) for item in report.findings] == []
    pair = report.artifacts[-1]
    assert (pair.kind, pair.facts["packages"], pair.facts["files"]) == ("pair", [path.name], 3)


def test_a_library_that_was_told_where_its_libraries_are_is_the_same(tmp_path: Path) -> None:
    """The bridge moves ``lib/libtoy.so.1`` into the wheel, and gives the module another RUNPATH."""
    linked = module(needed=("libtoy.so.1",), flags=runpath("$ORIGIN/../../../.."))
    files = {
        f"{SITE}{DIST_INFO}": METADATA,
        f"{SITE}{MODULE}": linked,
        "lib/libtoy.so.1": library(),
    }
    path = package(tmp_path, files)
    made = converted(tmp_path, path)
    report = verify([path, made])
    assert [str(item) for item in report.findings] == []
    assert report.artifacts[-1].facts["runpath_changed"] == [MODULE]
    other = module(
        needed=("libtoy.so.1",),
        flags=runpath("$ORIGIN/../../../.."),
        more="int x(void) { return 7; }",
    )
    report = verify([package(tmp_path / "other", {**files, f"{SITE}{MODULE}": other}), made])
    [finding] = report.findings
    assert (finding.check, finding.member) == ("payload", MODULE)


def test_a_wheel_with_other_files_than_the_package(tmp_path: Path) -> None:
    path = package(tmp_path)
    made = good(tmp_path, {PYTHON: "x = 1\n", "toy/more.py": ""})
    found = verify([path, made]).findings
    assert [(item.check, item.member) for item in found] == [
        ("payload", PYTHON),
        ("payload", "toy/more.py"),
    ]
    made = good(tmp_path, {PYTHON: None})
    [finding] = verify([path, made]).findings
    assert f"is in {path.name}, and not in the wheel" in str(finding)


def test_each_python_is_compared_with_its_own(tmp_path: Path) -> None:
    other = "lib/python3.12/site-packages/"
    newer = package(
        tmp_path,
        {f"{SITE}{PYTHON}": None, f"{SITE}{MODULE}": None, f"{other}{PYTHON}": "# 3.12\n"},
        build="py312_0",
        depends=["python 3.12.*"],
    )
    older = package(tmp_path)
    report = verify([newer, older, good(tmp_path)])
    assert [str(item) for item in report.findings] == []
    assert report.artifacts[-1].facts["packages"] == [older.name]
    report = verify([newer, package(tmp_path / "x", name="other", version="1.0"), good(tmp_path)])
    assert report.artifacts[-1].kind == "pair", "the only package of that name and version"


def test_a_package_of_another_version_is_no_pair(tmp_path: Path) -> None:
    report = verify([package(tmp_path, version="1.1"), good(tmp_path)])
    assert [item.kind for item in report.artifacts] == ["conda", "wheel"]


def test_the_name_of_the_wheel_is_another_one(tmp_path: Path) -> None:
    path = package(tmp_path, {"share/toy/x.txt": "x"}, name="pytorch")
    made = good(tmp_path, {"{data}/data/share/toy/x.txt": "x"}, name="torch")
    report = verify([path, made])
    assert [item.kind for item in report.artifacts] == ["conda", "wheel", "pair"]
    assert [str(item) for item in report.findings] == []
    pair = report.artifacts[-1]
    assert (pair.artifact, pair.label, pair.facts["files"]) == (made.name, "torch 1.0", 3)
    made = good(tmp_path, {"{data}/data/share/toy/x.txt": "y"}, name="torch")
    [finding] = verify([path, made]).findings
    assert (finding.check, finding.member) == ("payload", ".data/data/share/toy/x.txt")
