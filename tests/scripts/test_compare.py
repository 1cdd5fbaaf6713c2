"""Packages of two builders: what makes them differ, and what does not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from factories import as_tar_bz2, info_tar, raw_conda, tar_bytes, tar_file

from conda_bridge.errors import ArtifactError
from conda_bridge.formats.conda_writer import PackageFile, write
from conda_bridge.verify.compare import Comparison, compare, compare_all

INDEX = {
    "name": "toy",
    "version": "1.0",
    "build": "h_0",
    "subdir": "linux-64",
    "depends": ["python >=3.8", "library 1.0 h_0"],
}
ABOUT = {"summary": "a toy", "license": "Apache-2.0"}
INFO = {
    "info/licenses/LICENSE": b"text",
    "info/link.json": b'{"noarch": {"type": "python"}, "package_metadata_version": 1}',
}
FILES = {
    "lib/toy.so": PackageFile("lib/toy.so", b"code", 0o755),
    "lib/toy.so.1": PackageFile("lib/toy.so.1", None, link_target="toy.so"),
    "share/toy": PackageFile("share/toy", b"data"),
}


def package(
    folder: Path,
    *,
    index: Mapping[str, object] | None = None,
    about: Mapping[str, object] | None = None,
    info: Mapping[str, bytes] | None = None,
    files: Mapping[str, PackageFile | None] | None = None,
    **settings: Any,
) -> Path:
    """Writes the toy package with these changes; None takes a file away."""
    whole = {**INDEX, **(index or {})}
    path = folder / f"{whole['name']}-{whole['version']}-{whole['build']}.conda"
    write(
        path,
        index=whole,
        files=[file for file in {**FILES, **(files or {})}.values() if file],
        about={**ABOUT, **(about or {})},
        info_files={**INFO, **(info or {})},
        **{"level": 1, **settings},
    )
    return path


def of_two(tmp_path: Path, **changes: Any) -> Comparison:
    return compare(package(tmp_path / "left"), package(tmp_path / "right", **changes))


def test_what_tells_of_the_builder_and_the_moment_does_not_count(tmp_path: Path) -> None:
    found = of_two(
        tmp_path,
        timestamp=1_700_000_000,
        level=9,
        index={"depends": ["library 1.0 h_0", "python >=3.8"]},
        about={"conda_build_version": "26.7.1"},
        info={
            "info/link.json": json.dumps(json.loads(INFO["info/link.json"]), indent=4).encode(),
            "info/recipe/meta.yaml": b"package:",
            "info/files": b"lib/toy.so",
        },
    )
    left, right = (next((tmp_path / name).iterdir()) for name in ("left", "right"))
    assert left.read_bytes() != right.read_bytes()
    assert (found.same, found.differences, found.files) == (True, (), 3)
    assert found.of_the_builder == ("about.json: conda_build_version", "info/recipe/meta.yaml")


@pytest.mark.parametrize(
    ("changes", "part", "item"),
    [
        ({"index": {"depends": ["python >=3.8"]}}, "index", "depends"),
        ({"index": {"constrains": ["__cuda >=13"]}}, "index", "constrains"),
        ({"index": {"noarch": "python"}}, "index", "noarch"),
        ({"index": {"depends": []}}, "index", "depends"),
        ({"about": {"summary": "another"}}, "about", "summary"),
        ({"info": {"info/licenses/LICENSE": b"other"}}, "info", "info/licenses/LICENSE"),
        ({"info": {"info/licenses/NOTICE": b"more"}}, "info", "info/licenses/NOTICE"),
        ({"info": {"info/link.json": b"{}"}}, "info", "info/link.json"),
        ({"info": {"info/link.json": b"no JSON"}}, "info", "info/link.json"),
        ({"info": {"info/run_exports.json": b"{}"}}, "info", "info/run_exports.json"),
        ({"files": {"share/toy": PackageFile("share/toy", b"Data")}}, "payload", "share/toy"),
        ({"files": {"share/toy": None}}, "payload", "share/toy"),
        ({"files": {"new": PackageFile("new", b"")}}, "payload", "new"),
        (
            {"files": {"lib/toy.so": PackageFile("lib/toy.so", b"code", 0o644)}},
            "payload",
            "lib/toy.so",
        ),
        (
            {
                "files": {
                    "lib/toy.so.1": PackageFile("lib/toy.so.1", None, link_target="../lib/toy.so")
                }
            },
            "payload",
            "lib/toy.so.1",
        ),
    ],
)
def test_each_thing_that_counts(
    tmp_path: Path, changes: dict[str, Any], part: str, item: str
) -> None:
    found = of_two(tmp_path, **changes)
    [difference] = found.differences
    assert (difference.part, difference.item, found.same) == (part, item, False)
    assert difference.left != difference.right
    assert str(difference) == f"{part}: {item}: {difference.left} | {difference.right}"


def test_a_file_into_which_the_prefix_is_written_is_another_file(tmp_path: Path) -> None:
    name = "toy-1.0-h_0.conda"
    for side, prefix in (("left", {}), ("right", {"prefix_placeholder": "/long/prefix"})):
        entry = {"_path": "bin/x", "sha256": hashlib.sha256(b"x").hexdigest(), "size_in_bytes": 1}
        info = info_tar(INDEX, [{**entry, "path_type": "hardlink", **prefix}])
        raw_conda(tmp_path / side / name, payload=tar_bytes([tar_file("bin/x", b"x")]), info=info)
    [difference] = compare(tmp_path / "left" / name, tmp_path / "right" / name).differences
    assert (difference.part, difference.item) == ("payload", "bin/x")
    assert difference.right.endswith("prefix replaced")


def test_the_form_does_not_count(tmp_path: Path) -> None:
    left = package(tmp_path / "left")
    old = as_tar_bz2(left, tmp_path / "old")
    for pair in ((left, old), (old, left)):
        found = compare(*pair)
        assert (found.same, found.differences, found.files) == (True, (), 3)
    assert found.of_the_builder == ("form: .tar.bz2 | .conda",)
    other = package(tmp_path / "other", files={"share/toy": PackageFile("share/toy", b"Data")})
    [difference] = compare(old, other).differences
    assert (difference.part, difference.item) == ("payload", "share/toy")
    [difference] = compare(left, as_tar_bz2(other)).differences
    assert (difference.part, difference.item) == ("payload", "share/toy")


def test_folders_are_compared_across_forms(tmp_path: Path) -> None:
    new, old, both = (tmp_path / name for name in ("new", "old", "both"))
    as_tar_bz2(package(new), old)
    as_tar_bz2(package(both))
    as_tar_bz2(package(tmp_path / "x", index={"name": "only"}), old)
    (old / ".partial-toy-1.0-h_0.tar.bz2").write_bytes(b"unfinished")
    found = compare_all(new, old)
    assert [(item.name, item.same) for item in found] == [
        ("only-1.0-h_0.tar.bz2", False),
        ("toy-1.0-h_0.conda", True),
    ]
    assert [item.name for item in compare_all(new, both)] == ["toy-1.0-h_0.conda"] * 2
    found = compare_all(both, both)
    assert [item.name for item in found] == ["toy-1.0-h_0.conda", "toy-1.0-h_0.tar.bz2"]
    assert all(item.same and not item.of_the_builder for item in found)


def test_two_files_may_have_two_names(tmp_path: Path) -> None:
    found = of_two(tmp_path, index={"build": "h_1"})
    assert [(item.part, item.item) for item in found.differences] == [
        ("name", "file name"),
        ("index", "build"),
    ]


def test_folders_are_compared_by_names(tmp_path: Path) -> None:
    for name in ("left", "right"):
        package(tmp_path / name)
    package(tmp_path / "left", index={"name": "only-left"})
    package(tmp_path / "right", index={"name": "only-right"})
    (tmp_path / "right" / "repodata.json").write_text("{}")
    found = compare_all(tmp_path / "left", tmp_path / "right")
    assert {item.name: item.same for item in found} == {
        "only-left-1.0-h_0.conda": False,
        "only-right-1.0-h_0.conda": False,
        "toy-1.0-h_0.conda": True,
    }
    sides = {item.name: item.differences[0] for item in found if not item.same}
    assert sides["only-left-1.0-h_0.conda"].right == "-"
    assert sides["only-right-1.0-h_0.conda"].left == "-"


def program(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts/compare.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"},
    )


def test_program(root: Path, tmp_path: Path) -> None:
    left = package(tmp_path / "left")
    package(tmp_path / "right", about={"conda_version": "26"})
    done = program(root, tmp_path / "left", tmp_path / "right", "--builders")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "toy-1.0-h_0.conda: the same, 3 files equal",
        "  of the builder: about.json: conda_version",
    ]
    other = package(tmp_path / "other", files={"share/toy": None})
    done = program(root, left, other)
    assert done.returncode == 1
    assert "toy-1.0-h_0.conda: 1 difference, 2 files equal\n  payload: share/toy: " in done.stdout
    done = program(root, left, other, "--json")
    assert done.returncode == 1
    [found] = json.loads(done.stdout)["comparisons"]
    assert (found["same"], found["files"], found["differences"][0]["right"]) == (False, 2, "-")


def test_unusable_input(root: Path, tmp_path: Path) -> None:
    left = package(tmp_path / "left")
    damaged = tmp_path / "damaged" / left.name
    damaged.parent.mkdir()
    damaged.write_bytes(left.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    for one, other, words in (
        (left, damaged, "cut off"),
        (left, tmp_path / "left", "a folder and a file"),
        (tmp_path / "left", tmp_path / "empty", "no .conda"),
        (left, tmp_path / "nowhere.conda", "no such file"),
        (tmp_path / "nowhere", tmp_path / "left", "nowhere: there is no such file"),
        (tmp_path / "left", tmp_path / "nowhere", "nowhere: there is no such file"),
        (tmp_path / "nowhere.tar.bz2", left, "no such file"),
    ):
        with pytest.raises(ArtifactError, match=words):
            compare_all(one, other)
    done = program(root, left, damaged)
    assert (done.returncode, done.stdout) == (2, "")
    assert damaged.name in done.stderr
    for pair in ((left, tmp_path / "nowhere"), (tmp_path / "nowhere", tmp_path / "left")):
        done = program(root, *pair)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"error: {tmp_path / 'nowhere'}: there is no such file or folder\n" in done.stderr
        assert "expected: a conda package (.conda or .tar.bz2), or a folder of them" in done.stderr
