"""Where the files of packages and wheels go, what becomes of them, and which are refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import foreign
import pytest
from foreign import PREFIX, SITE, library, package, project
from foreign_wheels import wheel

from conda_bridge.bridge import (
    conda_layout,
    convert,
    existing,
    layout,
    plan,
    survey,
    to_conda,
)
from conda_bridge.bridge.conda_binaries import read_object
from conda_bridge.bridge.conda_target import target
from conda_bridge.bridge.survey import Survey
from conda_bridge.errors import ArtifactError, ConflictError, LabelError
from conda_bridge.formats import conda_package, wheel_reader
from conda_bridge.formats.conda_package import PathEntry
from conda_bridge.project import Project

LONG = "X" * 100


# ---------------------------------------------------------------- places


def test_where_the_files_of_a_conda_package_go() -> None:
    rules = layout.Layout("x.conda", False, "toy-1.0", {"lib/own/": "toy/", "share/no/": "drop"})
    for path, kind, wanted in (
        ("etc/conda/test-files/toy/a.py", layout.DROP, ""),
        ("lib/python3.12/site-packages/toy/__pycache__/a.pyc", layout.DROP, ""),
        ("lib/python3.12/site-packages/__pycache__", "site", "__pycache__"),
        ("share/no/x", layout.DROP, ""),
        ("lib/own/a.py", "site", "toy/a.py"),
        ("lib/own/liba.so.1", "library", "toy/liba.so.1"),
        ("lib/a/liba.so.1", "library", "toy.libs/liba.so.1"),
        ("lib/a.so.d/x", "data", "toy-1.0.data/data/lib/a.so.d/x"),
        ("bin/toy", "script", "toy-1.0.data/scripts/toy"),
        ("include/python3.12/toy/a.h", "headers", "toy-1.0.data/headers/a.h"),
        ("include/a.h", "data", "toy-1.0.data/data/include/a.h"),
        ("lib/python3.12/site-packages/toy-1.0.dist-info/WHEEL", "info", "toy-1.0.dist-info/WHEEL"),
    ):
        found = rules.place(path)
        assert (found.kind, found.path) == (kind, wanted), path
    kept = layout.Layout("x.conda", False, "toy-1.0", {}, keeps_lib=True)
    assert kept.place("lib/a/liba.so.1").path == "toy-1.0.data/data/lib/liba.so.1"


def test_a_file_without_a_place_says_which_and_what_has_one() -> None:
    rules = {"lib/b/": "toy/", "lib/a/": "toy/a/", "lib/c/": "drop"}
    closed = layout.Layout("x.conda", False, "toy-1.0", rules, closed=True)
    plain = layout.Layout("x.conda", False, "toy-1.0", {})
    for found, path, expected in (
        (closed, "lib/d.so", "files below lib/a/ and lib/b/"),
        (plain, "var/x", "site-packages, bin, share/, etc/"),
        (plain, "bin/a/x", "programs directly below bin/"),
    ):
        with pytest.raises(ArtifactError, match="cannot go into a wheel") as caught:
            found.place(path)
        assert caught.value.where == f"x.conda: {path}"
        assert caught.value.expected.startswith(expected)
        assert path.rpartition("/")[0] in caught.value.fix


def test_a_package_with_the_files_of_two_pythons_is_for_none() -> None:
    sites = ("lib/python3.12/site-packages/a.py", "lib/python3.11/site-packages/a.py")
    package: Any = SimpleNamespace(path=Path("x.conda"), paths=dict.fromkeys(sites), index={})
    with pytest.raises(ArtifactError, match=r"files for Python 3\.11 and 3\.12") as caught:
        layout.python_of(package)
    assert (caught.value.where, caught.value.expected) == ("x.conda", "one site-packages")


def test_where_the_files_of_a_wheel_go() -> None:
    one = target(("cp312", "cp312", "linux_x86_64"), "", "x.whl")
    every = target(("py3", "none", "any"), "", "x.whl")
    for wanted, site, scripts, headers in (
        (one, "lib/python3.12/site-packages/", "bin/", "include/python3.12/toy/"),
        (every, "site-packages/", "python-scripts/", "include/toy/"),
    ):
        rules = conda_layout.Layout("toy", "toy-1.0.dist-info", wanted, "x.whl")
        for path, place in (
            ("toy/a.py", f"{site}toy/a.py"),
            ("toy/__pycache__/a.pyc", None),
            ("toy-1.0.dist-info/RECORD.jws", None),
            ("toy-1.0.data/purelib/a.py", f"{site}a.py"),
            ("toy-1.0.data/platlib/a/b.py", f"{site}a/b.py"),
            ("toy-1.0.data/scripts/toy", f"{scripts}toy"),
            ("toy-1.0.data/headers/a/b.h", f"{headers}a/b.h"),
            ("toy-1.0.data/data/share/x", "share/x"),
        ):
            found = rules.place(path)
            assert found.path == place
            assert found.script is ("/scripts/" in path)
        for path, what, expected in (
            ("toy-1.0.data/other/x", "is of no kind", "purelib, platlib, scripts, headers or data"),
            ("toy-1.0.data/data/conda-meta/x", "where conda keeps its own files", ""),
        ):
            with pytest.raises(ArtifactError, match=what) as caught:
                rules.place(path)
            assert caught.value.where == f"x.whl: {path}"
            assert caught.value.expected.startswith(expected)


@pytest.mark.parametrize(
    ("script", "first"),
    [
        (b"#!python\nx\n", b"/bin/python\nx\n"),
        (b"#!pythonw\r\nx", b"/bin/python\nx"),
        (b"#!python -I", b"/bin/python -I"),
        (b"#!python3\n", None),
        (b"#!PYTHON\n", None),
        (b"x = 1\n", None),
    ],
)
def test_the_first_line_of_a_script(script: bytes, first: bytes | None) -> None:
    made, placeholder = conda_layout.with_placeholder(script)
    if first is None:
        assert (made, placeholder) == (script, "")
        return
    assert made == b"#!" + placeholder.encode() + first
    assert placeholder == conda_layout.PLACEHOLDER


# ---------------------------------------------------------------- what is seen, what becomes of it


def test_what_was_seen_of_a_file() -> None:
    heads = {"a": b"\x7fELF\x02", "b": b"#!/bin/sh", "c": b"import x", "d": b""}
    seen = Survey(heads=heads)
    assert [path for path in (*heads, "e") if seen.is_program(path)] == ["a", "b"]
    assert [path for path in (*heads, "e") if seen.is_binary(path)] == ["a"]


def test_a_package_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"lib/liba.so.1": library("liba.so.1"), "a.txt": "x" * 10, "share/x": b"\x7fELF?"}
    path = package(tmp_path, files=files, links={"lib/liba.so": "liba.so.1"})
    read = conda_package.read(path)
    monkeypatch.setattr(survey, "SMALL", 10)

    def look(text: str = "a.txt", binary: str = "lib/liba.so.1") -> Survey:
        return survey.survey(read, text.__eq__, binary.__eq__, whole=True)

    found = look()
    assert found.texts == {"a.txt": b"x" * 10} and found.links == {"lib/liba.so": "lib/liba.so.1"}
    assert found.objects["lib/liba.so.1"].soname == "liba.so.1" and set(found.heads) == set(files)
    assert found.objects["lib/liba.so.1"].data.size == 0
    for_conda = read_object(library("liba.so.1"), "lib/liba.so.1", "x.whl")
    assert for_conda is not None and for_conda.soname == "liba.so.1"
    with pytest.raises(ArtifactError, match="and is no ELF file") as caught:
        look(binary="a.txt")
    assert caught.value.where == f"{path.name}: a.txt"
    assert caught.value.expected == "a library for Linux" and '"a.txt" = "drop"' in caught.value.fix
    monkeypatch.setattr(survey, "SMALL", 9)
    with pytest.raises(ArtifactError, match="is larger than 9 bytes") as caught:
        look()
    assert caught.value.where == f"{path.name}: a.txt"
    [member] = [one for one in read.payload() if one.path == "a.txt"]
    with pytest.raises(ArtifactError, match="is larger than 9 bytes"):
        survey.read_small(member, "x", 9)


def test_a_small_file_may_have_all_the_bytes_that_are_allowed() -> None:
    member: Any = SimpleNamespace(size=9, read=lambda: b"x" * 9)
    assert survey.read_small(member, "x", 9) == b"x" * 9


def placed(files: dict[str, Any], scripts: Mapping[str, str] | None = None, **rules: str) -> Any:
    """The part that these files make, placed, and the notes: text, or facts of a binary."""
    texts = {path: value for path, value in files.items() if isinstance(value, bytes)}
    objects = {path: value for path, value in files.items() if not isinstance(value, bytes)}
    heads = {**texts, **dict.fromkeys(objects, b"\x7fELF")}
    prefixed = {path for path in files if PREFIX.encode() in texts.get(path, b"")}
    prefixed |= {path for path, value in objects.items() if value.rpath}
    entries = {
        path: PathEntry(path, "", 0, False, PREFIX if path in prefixed else "", path in objects)
        for path in files
    }
    one: Any = SimpleNamespace(path=Path("x.conda"), paths=entries)
    places = layout.Layout("x.conda", False, "toy-1.0", rules)
    part = plan.Part(one, places, Survey(texts=texts, heads=heads, objects=objects))
    notes: list[str] = []
    plan.place_files([part], scripts or {}, notes)
    return part, notes


def facts(*needed: str, soname: str = "", rpath: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(needed=needed, soname=soname, rpath=rpath, runpath=())


def test_a_binary_behind_one_that_is_left_out_finds_its_library() -> None:
    files = {"lib/a.so": facts("libb.so"), "lib/libb.so": facts(), f"{SITE}c.so": facts("libb.so")}
    part, notes = placed(files, **{"lib/a.so": "drop"})
    assert "lib/a.so" not in part.targets
    assert part.targets[f"{SITE}c.so"].runpath == "$ORIGIN/toy.libs"
    assert part.targets["lib/libb.so"].runpath is None
    assert notes == ["c.so: RUNPATH is $ORIGIN/toy.libs now"]
    assert plan.libraries_of([part]) == {"libb.so": "toy.libs/libb.so", "c.so": "c.so"}


def test_a_library_that_nothing_asks_for_is_noted() -> None:
    _, notes = placed({"lib/liba.so": facts(), "lib/libb.so": facts("liba.so")})
    [note] = [one for one in notes if "RUNPATH" not in one]
    assert note.startswith("toy.libs/libb.so: nothing in the wheel is linked with it")
    assert "opens lib/libb.so in the prefix" in note


def test_what_becomes_of_programs() -> None:
    files = {
        "bin/a": f"#!{PREFIX}/bin/python\nx\n".encode(),
        "bin/b": facts(),
        "bin/c": b"#!/bin/sh\n",
        "bin/d": b"#!/usr/bin/python3.12\n",
        "share/e": f"#!{PREFIX}/bin/python3\n".encode(),
    }
    part, notes = placed(files, {"d": "m:d"})
    scripts = "toy-1.0.data/scripts/"
    assert part.targets == {
        "bin/a": plan.Target(f"{scripts}a", True, b"#!python\nx\n"),
        "bin/b": plan.Target(f"{scripts}b", True),
        "bin/c": plan.Target(f"{scripts}c", True),
        "share/e": plan.Target("toy-1.0.data/data/share/e", False, b"#!/usr/bin/env python3\n"),
    }
    assert notes == [
        f"{scripts}a: its first line names the environment's Python",
        "toy-1.0.data/data/share/e: its first line names the environment's Python",
    ]


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("bin/a", facts(rpath=("/x",)), "paths that start at the file itself, or none"),
        ("bin/b", f"#!/bin/sh\n{PREFIX}".encode(), "the prefix in the first line of a Python"),
        ("share/c", PREFIX.encode(), "the prefix in the first line of a Python"),
    ],
)
def test_the_build_prefix_in_a_file_says_what_to_do(path: str, content: Any, expected: str) -> None:
    with pytest.raises(ArtifactError, match="holds the build prefix") as caught:
        placed({path: content})
    assert caught.value.where == f"x.conda: {path}"
    assert caught.value.expected.startswith(expected)
    assert f'[tool.conda-bridge.files]: "{path}" = "drop"' in caught.value.fix


# ---------------------------------------------------------------- one package's wheel


PURE = {f"{SITE}demo.py": "x = 1\n"}


def test_a_wheel_that_is_there_is_named(tmp_path: Path) -> None:
    there = tmp_path / "x.whl"
    there.write_bytes(b"x")
    with pytest.raises(ConflictError, match="is there with other bytes") as caught:
        existing.is_unchanged(there, "0" * 64, overwrite=False)
    assert caught.value.where == str(there)
    assert not existing.is_unchanged(there, "0" * 64, overwrite=True)
    assert existing.is_unchanged(there, hashlib.sha256(b"x").hexdigest(), overwrite=False)


def test_what_is_done_is_counted(tmp_path: Path) -> None:
    path = package(tmp_path, files={**PURE, "share/x": "y" * 100})
    seen: list[tuple[int, int]] = []
    done = convert.bridge(path, tmp_path, report=lambda *counts: seen.append(counts))
    assert done.payload_size == 106 == sum(map(len, ["x = 1\n", "y" * 100]))
    assert seen[-1] == (106, 106) and seen == sorted(seen)


def test_what_is_no_package_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a-1-0.conda").mkdir()
    for name, what in (("a-1-0.conda", "is a folder"), ("b-1-0.conda", "there is no such file")):
        with pytest.raises(ArtifactError, match=what) as caught:
            convert.bridge(tmp_path / name, tmp_path)
        assert caught.value.where == str(tmp_path / name)
        assert caught.value.expected == "a conda package (.conda, .tar.bz2)"


def test_a_library_that_was_left_out_is_proposed(tmp_path: Path) -> None:
    needs = (("libzz.so.1", library("libzz.so.1")),)
    made = {**PURE, f"{SITE}demo.abi3.so": foreign.module("demo", calls="answer", needs=needs)}
    path = package(tmp_path, files=made, depends=("python >=3.8", "libzz"))
    own = project(dependencies={})
    with pytest.raises(ArtifactError, match=r"needs libzz\.so\.1") as caught:
        convert.bridge(path, tmp_path, project=own)
    assert "(perhaps one of libzz)" in caught.value.expected


def test_a_package_that_is_folded_in_is_the_one_beside_it(tmp_path: Path) -> None:
    own = project(fold=[{"package": "part"}])
    main = {"files": PURE, "depends": ("python >=3.8", "part 1.*")}
    path = package(tmp_path, **main)  # type: ignore[arg-type]
    other = {"files": {f"{SITE}part.py": "y = 1\n"}}
    with pytest.raises(ArtifactError, match="its part is not there") as caught:
        convert.bridge(path, tmp_path, project=own)
    assert caught.value.where == path.name
    package(tmp_path, "part", "1.0", **other)  # type: ignore[arg-type]
    package(tmp_path, "part", "1.0", ending=".tar.bz2", **other)  # type: ignore[arg-type]
    package(tmp_path, "part", "2.0", **other)  # type: ignore[arg-type]
    done = convert.bridge(path, tmp_path, project=own)
    assert [item.name for item in done.folded] == ["part-1.0-h_0.conda"]
    changed = {"files": {f"{SITE}part.py": "y = 2\n"}}
    package(tmp_path, "part", "1.0", ending=".tar.bz2", **changed)  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match=r"files of part-1\.0-h_0\.conda beside it"):
        convert.bridge(path, tmp_path, project=own)
    path = package(tmp_path, files=PURE)
    with pytest.raises(ArtifactError, match="depends on no part") as caught:
        convert.bridge(path, tmp_path, project=own)
    assert caught.value.expected.startswith("part, which [[tool.conda-bridge.fold]] folds in")
    assert caught.value.fix.startswith("leave the entry out")


# ---------------------------------------------------------------- one wheel's packages


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT", "License: free"], "MIT"),
        (["License: free"], "free"),
        ([f"License: {LONG}X", "Classifier: License :: OSI Approved :: MIT License"],
         "MIT License"),
        (["Classifier: License :: OSI Approved :: A", "Classifier: License :: B"], "A AND B"),
        (["Classifier: Topic :: X"], None),
    ],
)  # fmt: skip
def test_what_a_wheel_says_of_itself(lines: list[str], licence: str | None, tmp_path: Path) -> None:
    path = wheel(tmp_path, {"toy.py": ""}, metadata=["Summary: A toy", *lines])
    plan = to_conda._Plan(wheel_reader.read(path), Project(), None)
    plan.take(None, None)
    [part] = plan.parts()
    assert part.about["summary"] == "A toy"
    assert part.about.get("license") == part.index.get("license") == licence


def test_builds_are_told_apart_by_the_local_version(tmp_path: Path) -> None:
    named = [
        ("1.0+cu12_x_y", "py_cu12.x.y_0"),
        ("1.0+Ab.1", "py_Ab.1_0"),
    ]
    for version, build in named:
        path = wheel(tmp_path, {"toy.py": ""}, file_version=version)
        done = to_conda.to_conda(path, tmp_path, dry_run=True)
        assert done.path.name == f"toy-1.0-{build}.conda"
        assert done.as_dict()["remarks"] == list(done.remarks)
        assert done.remarks[0].startswith("the local version ")
    path = wheel(tmp_path, {"toy.py": ""}, file_version="1.0+" + "a" * 60)
    with pytest.raises(LabelError, match="is longer than 64 characters") as caught:
        to_conda.to_conda(path, tmp_path, dry_run=True)
    assert caught.value.where == path.name
    assert "[tool.conda-bridge.label]" in caught.value.fix


def test_a_wheel_that_is_refused_says_which_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wheel(tmp_path, {"{info}/licenses/LICENSE": "x" * 101})
    monkeypatch.setattr(to_conda, "_SMALL", 100)
    with pytest.raises(ArtifactError, match="is larger than 100 bytes") as caught:
        to_conda.to_conda(path, tmp_path, dry_run=True)
    assert caught.value.where == f"{path.name}: toy-1.0.dist-info/licenses/LICENSE"
    member: Any = SimpleNamespace(size=3)
    content = to_conda._Content(member, io.BytesIO(b"four"), "x.whl: a")  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="unpacks to more than 3 bytes") as caught:
        content.whole(10)
    assert caught.value.where == "x.whl: a"
    path = wheel(tmp_path, {"toy.py": ""}, version="1.x")
    with pytest.raises(ArtifactError, match=r"1\.x") as caught:
        to_conda.to_conda(path, tmp_path, dry_run=True)
    assert (caught.value.where, caught.value.expected) == (path.name, "a version as in PEP 440")


def test_libraries_that_a_program_needs_stay_where_it_looks() -> None:
    """Beside the program of the environment, unless the configuration has another place."""
    files = {"bin/demo": facts("liba.so.1"), "lib/liba.so.1": facts(soname="liba.so.1")}
    for rules, wanted in (
        ({}, "own-1.1.data/data/lib/liba.so.1"),
        ({"lib/liba.so.1": "demo/liba.so.1"}, "demo/liba.so.1"),
        ({"bin/demo": "drop"}, "own.libs/liba.so.1"),
    ):
        part, notes = placed(files, **rules)
        part.package.name, part.package.version, part.package.index = "demo", "1.0", {}
        part.targets.clear()
        convert._place([part], project(files=rules), "own-1.1", {}, notes)
        assert part.targets["lib/liba.so.1"].path == wanted


def test_packages_that_come_out_of_a_wheel_have_its_label(tmp_path: Path) -> None:
    own = project(
        package="toy",
        fold=[{"package": "libtoy", "build": "{cuda}_{number}", "files": {"lib/": "toy/lib/"}}],
        label={
            **{"build": "{cuda}_py_{number}", "local": "{cuda}", "rank": "cuda"},
            "fields": {"cuda": {"form": "cu{major:2}{minor}", "none": "cpu"}},
        },
    )
    files = {"toy/a.py": "", "toy/lib/a.txt": ""}
    path = wheel(tmp_path, files, version="1.0+cu124", build="2")
    done = to_conda.to_conda(path, tmp_path, project=own, dry_run=True)
    assert [item.path.name for item in done.packages] == [
        "toy-1.0-cu124_py_2.conda",
        "libtoy-1.0-cu124_2.conda",
    ]
    assert "libtoy 1.0 cu124_2" in done.packages[0].depends
    assert done.packages[1].payload == ("lib/a.txt",)


def test_a_part_of_another_build_is_refused(tmp_path: Path) -> None:
    own = project(
        package="toy",
        fold=[{"package": "libtoy", "build": "{cuda}_{number}"}],
        label={
            **{"build": "{cuda}_py_{number}", "local": "{cuda}", "rank": "cuda"},
            "fields": {"cuda": {"form": "cu{major:2}{minor}", "none": "cpu"}},
        },
        rebuild="make it again",
    )
    for depends, said in (((), "no libtoy"), (("libtoy ==1.0 cu126_2",), "libtoy ==1.0 cu126_2")):
        files = {f"{SITE}toy.py": ""}
        path = package(tmp_path, "toy", "1.0", "cu124_py_2", files=files, depends=depends)
        with pytest.raises(ArtifactError) as caught:
            convert.bridge(path, tmp_path, project=own)
        assert caught.value.what == f"depends on {said}"
        assert caught.value.where == f"{path.name}: info/index.json: depends"
        assert (caught.value.expected, caught.value.fix) == ("libtoy 1.0 cu124_2", "make it again")


def test_the_longest_prefix_has_the_place() -> None:
    rules = {"lib/": "a/", "lib/x/": "b/", "m/": "drop"}
    found = layout.Layout("x.conda", False, "toy-1.0", rules)
    assert [found.place(path).path for path in ("lib/c", "lib/x/c", "m/c")] == ["a/c", "b/c", ""]


def test_a_binary_under_the_name_of_an_entry_point_says_where() -> None:
    with pytest.raises(ArtifactError, match="has the name of an entry point") as caught:
        placed({"bin/demo": facts()}, {"demo": "m:demo"})
    assert caught.value.where == "x.conda: bin/demo"
    assert caught.value.expected.startswith("a script that starts it")
