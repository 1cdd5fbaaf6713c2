"""There and back: a wheel and a conda package of one project hold the same files."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import toy_artifacts
from foreign_wheels import wheel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from conda_bridge.bridge.convert import bridge
from conda_bridge.bridge.to_conda import to_conda
from conda_bridge.formats import conda_package, conda_writer, wheel_reader
from conda_bridge.project import Project

LINUX = "manylinux_2_17_x86_64"
REQUIREMENTS = (
    *("numpy", "numpy>=1.21,<3", "torch==2.8.*", "tomli>=1.1; python_version < '3.11'"),
    *("scipy>1.0", "msgpack~=1.0.4", "PyYAML!=6.0.0", "attrs>=22.2.0; extra == 'all'"),
    *("pandas>=2.0rc1", "rich!=10.0.*", "packaging===24.1", "h5py[mpi]>=3"),
)
LINES = [
    *("Summary: A toy", "License-Expression: MIT", "Requires-Python: >=3.9", "Keywords: toy,small"),
    "Project-URL: Source, https://toy.example/code",
]


@cache
def _shared_object() -> bytes:
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work, "toy.c"), Path(work, "toy.so")
        source.write_text("int toy(void) { return 1; }\n")
        compiler = shutil.which("gcc") or "cc"
        subprocess.run([compiler, "-shared", "-fPIC", "-s", "-o", target, source], check=True)
        return target.read_bytes()


@cache
def _extension() -> bytes:
    return toy_artifacts.binding(symbols=(), needed=(), runpath="")


words = st.text(st.sampled_from("abcxyz_"), min_size=1, max_size=6)
# Some of it begins as a shared object does, and is none.
contents = st.binary(max_size=80) | st.sampled_from(
    [b"\x7fELF", b"\x7fELF\2\1" + bytes(10) + b"\3"]
)
folders = st.sampled_from(
    [
        *("toy/", "toy/sub/", "toy_more/", "", "{data}/purelib/", "{data}/platlib/toy/"),
        *("{data}/data/share/toy/", "{data}/data/etc/", "{data}/scripts/"),
    ]
)


@st.composite
def projects(draw: st.DrawFn) -> dict[str, object]:
    """What :func:`foreign_wheels.wheel` is called with, for a project of any kind."""
    kind = draw(st.sampled_from(["pure", "ctypes", "abi3", "cp312"]))
    files: dict[str, bytes] = {"toy/__init__.py": draw(contents)}
    # Two folders of a wheel become one, so no two files have one name.
    for number, (folder, name) in enumerate(draw(st.lists(st.tuples(folders, words), max_size=6))):
        if "scripts" in folder:
            first = draw(st.sampled_from([b"#!python\n", b"#!/bin/sh\n", b"\x00"]))
            files[f"{folder}s{number}{name}"] = first + draw(contents)
        else:
            files[f"{folder}f{number}{name}.py"] = draw(contents)
    tag = "py3-none-any"
    if kind != "pure":
        files["toy.libs/libtoy-1a2b.so.1"] = _shared_object()
        tag = f"py3-none-{LINUX}"
    if kind == "abi3":
        files["toy/_c.abi3.so"] = _extension()
        tag = f"cp39-abi3-{LINUX}"
    if kind == "cp312":
        files["toy/_c.cpython-312-x86_64-linux-gnu.so"] = _extension()
        files["{data}/headers/toy.h"] = draw(contents)
        tag = f"cp312-cp312-{LINUX}"
    commands = draw(st.sets(words, max_size=2))
    return {
        "files": files,
        "tag": tag,
        "name": draw(st.sampled_from(["toy", "toy-more", "Toy.Most"])),
        "version": draw(st.sampled_from(["1.0", "2.1rc3", "0.4.post1", "1!2.0", "1.0+cu12torch2"])),
        "build": draw(st.sampled_from(["", "1", "12"])),
        "executables": [path for path in files if "scripts" in path],
        "metadata": [
            *draw(st.sets(st.sampled_from(LINES))),
            *[f"Requires-Dist: {one}" for one in draw(st.sets(st.sampled_from(REQUIREMENTS)))],
        ],
        "entry_points": "".join(
            ["[console_scripts]\n", *[f"c{name} = toy:{name}\n" for name in sorted(commands)]]
        )
        if commands
        else "",
    }


def _of_wheel(path: Path) -> dict[str, bytes]:
    """The files that a wheel installs, by where: two folders of its ``.data`` are site-packages."""
    found = {}
    read = wheel_reader.read(path)
    data = read.dist_info.removesuffix(".dist-info") + ".data/"
    for member, stream in read.stream():
        name = member.path.removeprefix(data)
        if name != member.path:
            kind, _, inner = name.partition("/")
            name = inner if kind in ("purelib", "platlib") else f".data/{kind}/{inner}"
        folder, _, inner = name.partition("/")
        if folder == read.dist_info:
            if inner in ("METADATA", "RECORD", "WHEEL"):
                continue
            name = f".dist-info/{inner}"
        found[name] = stream.read()
    return found


# What is written anew on the way, or means nothing to anybody.
_ANEW = tuple(f".dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "top_level.txt"))


def _of_conda(path: Path) -> dict[str, bytes]:
    package = conda_package.read(path)
    return {
        member.path: data
        for member in package.payload()
        for data in [member.read()]
        if not member.path.endswith(_ANEW)
    }


def _headers(path: Path) -> dict[str, list[str]]:
    metadata = wheel_reader.read(path).metadata
    requires = [str(Requirement(text)) for text in metadata.get_all("Requires-Dist", [])]
    keys = ("Version", "Summary", "License-Expression", "Project-URL", "Keywords")
    return {
        "Requires-Dist": sorted(requires),
        **{key: sorted(map(str, metadata.get_all(key, []))) for key in keys},
    }


SMALL = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@SMALL
@given(projects())
def test_wheel_to_conda_to_wheel_to_conda(project: Mapping[str, object]) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        first = wheel(folder / "one", **project)  # type: ignore[arg-type]
        package = to_conda(first, folder / "two", level=1, threads=1).path
        second = bridge(package, folder / "three").path
        assert _of_wheel(second) == _of_wheel(first)
        assert _headers(second) == _headers(first)
        again = to_conda(second, folder / "four", level=1, threads=1).path
        assert again.name == package.name
        assert _of_conda(again) == _of_conda(package)
        before, after = (conda_package.read(path) for path in (package, again))
        assert after.index == before.index
        assert after.entry_points == before.entry_points


@st.composite
def packages(draw: st.DrawFn) -> dict[str, object]:
    """Index, files, placeholders and entry points of a conda package as a recipe makes them."""
    noarch = draw(st.booleans())
    site = "site-packages/" if noarch else "lib/python3.12/site-packages/"
    scripts = "python-scripts/" if noarch else "bin/"
    files: dict[str, tuple[bytes, str]] = {f"{site}toy/__init__.py": (draw(contents), "")}
    places = [f"{site}toy/", f"{site}toy_more/", "share/toy/", "etc/toy/", scripts]
    if not noarch:
        files[f"{site}toy/_c.cpython-312-x86_64-linux-gnu.so"] = (_extension(), "")
        places.append("include/python3.12/toy/")
    drawn = draw(st.lists(st.tuples(st.sampled_from(places), words), max_size=6))
    for number, (folder, name) in enumerate(drawn):
        prefix = draw(st.sampled_from(["", "/build/prefix_place"])) if folder == scripts else ""
        first = f"#!{prefix}/bin/python\n".encode() if prefix else b""
        if folder == scripts and not prefix:
            first = b"#!/bin/sh\n"
        files[f"{folder}f{number}{name}"] = (first + draw(contents), prefix)
    commands = draw(st.sets(words, max_size=2))
    listed = [f"c{name} = toy:{name}" for name in sorted(commands)]
    if not noarch:
        for item in listed:
            text = b"#!/build/prefix_place/bin/python\nimport toy\n"
            files[f"bin/{item.split()[0]}"] = (text, "/build/prefix_place")
    info = f"{site}toy-1.0.dist-info"
    requires = draw(st.sets(st.sampled_from(["numpy >=1.21,<3.0a0", "pytorch 2.8.*", "six"])))
    pip = {"numpy >=1.21,<3.0a0": "numpy<3,>=1.21", "pytorch 2.8.*": "torch==2.8.*"}
    metadata = ["Metadata-Version: 2.1", "Name: toy", "Version: 1.0", "Requires-Python: >=3.9"]
    metadata += [f"Requires-Dist: {pip.get(one, one)}" for one in sorted(requires)]
    files[f"{info}/METADATA"] = ("\n".join(metadata).encode() + b"\n", "")
    if listed:
        text = "[console_scripts]\n" + "\n".join(listed) + "\n"
        files[f"{info}/entry_points.txt"] = (text.encode(), "")
    python = (
        ["python >=3.9"] if noarch else ["python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312"]
    )
    return {
        "index": {
            **{"name": "toy", "version": "1.0", "build": "h1_3", "build_number": 3},
            **({"noarch": "python", "subdir": "noarch"} if noarch else {"subdir": "linux-64"}),
            "depends": [*python, *sorted(requires)],
            "license": "MIT",
        },
        "files": files,
        "entry_points": listed if noarch else [],
    }


@SMALL
@given(packages())
def test_conda_to_wheel_to_conda(project: Mapping[str, dict[str, tuple[bytes, str]]]) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        info = {"info/licenses/LICENSE": b"MIT\n"}
        link = {"noarch": {"type": "python", "entry_points": project["entry_points"]}}
        if project["index"].get("noarch"):
            info["info/link.json"] = conda_writer.json_bytes(link)
        package = folder / "toy-1.0-h1_3.conda"
        conda_writer.write(
            package,
            index=project["index"],
            files=[
                conda_writer.PackageFile(path, data, 0o755, prefix_placeholder=placeholder)
                for path, (data, placeholder) in project["files"].items()
            ],
            info_files=info,
            level=1,
            threads=1,
        )
        back = to_conda(bridge(package, folder / "wheel").path, folder / "conda", level=1).path
        assert _payload(back) == _payload(package)
        before, after = conda_package.read(package), conda_package.read(back)
        names = [{one.split()[0] for one in found.index["depends"]} for found in (before, after)]
        assert names[0] == {name for name in names[1] if not name.startswith("__")}
        assert after.entry_points == before.entry_points
        assert after.index["build_number"] == 3 and after.licenses == before.licenses


def _payload(path: Path) -> dict[str, bytes]:
    """What is installed beside the ``.dist-info``; programs of entry points by their name alone."""
    package = conda_package.read(path)
    found = {}
    for member in package.payload():
        entry, data = package.paths[member.path], member.read()
        if ".dist-info/" in member.path:
            continue
        if entry.prefix_placeholder:
            data = data.replace(entry.prefix_placeholder.encode(), b"PREFIX")
        if member.path.startswith("bin/c"):
            data = b""
        found[member.path] = data
    return found


@pytest.mark.artifacts
def test_our_own_wheels(dist: Path, root: Path, tmp_path: Path) -> None:
    """What is folded into the wheel comes out of it again, as the package that it was."""
    project = Project.load(root / "pyproject.toml")
    wheels = sorted(dist.glob("wheels/*.whl"))
    assert wheels
    for path in wheels:
        done = to_conda(path, tmp_path, project=project, level=1)
        assert len(done.packages) == 2
        for made in done.packages:
            original = dist / "channel/linux-64" / made.path.name
            assert _of_conda(made.path) == _of_conda(original)
        second = bridge(done.path, tmp_path / "wheels", project=project).path
        assert (second.name, second.read_bytes()) == (path.name, path.read_bytes())
