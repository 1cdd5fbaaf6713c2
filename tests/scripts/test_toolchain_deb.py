"""Unpacking a .deb: what is wanted of it, links that stay inside, hostile archives refused."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from deb_factory import ar, make_deb, tar_of

from conda_bridge.errors import ArtifactError
from flashinfer_build.toolchain.debian.deb import unpack


def unpacked(tmp_path: Path, wanted: str = "", **content: Any) -> Path:
    deb = make_deb(tmp_path / "archive", "toy", **content)
    tree = tmp_path / "tree"
    tree.mkdir()
    unpack(tmp_path / "archive" / deb.path, tree, wanted)
    return tree


def names(tree: Path) -> list[str]:
    found = [path for path in tree.rglob("*") if path.is_symlink() or path.is_file()]
    return sorted(path.relative_to(tree).as_posix() for path in found)


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
def test_files_with_their_content_and_modes(tmp_path: Path, compression: str) -> None:
    body = os.urandom(3_000_001)
    tree = unpacked(
        tmp_path,
        files={"usr/bin/tool": "#!/bin/sh\n", "usr/lib/data": body},
        programs=["usr/bin/tool"],
        compression=compression,
    )
    assert (tree / "usr/lib/data").read_bytes() == body
    assert os.access(tree / "usr/bin/tool", os.X_OK)
    assert not os.access(tree / "usr/lib/data", os.X_OK)


def test_only_what_is_wanted(tmp_path: Path) -> None:
    tree = unpacked(
        tmp_path,
        r"usr/include/|usr/lib/lib\w+\.a$",
        files={
            "usr/include/a/b.h": "",
            "usr/lib/libx.a": "",
            "usr/lib/libx.a.old": "",
            "etc/x": "",
        },
    )
    assert names(tree) == ["usr/include/a/b.h", "usr/lib/libx.a"]


def test_links_keep_their_meaning_inside_the_tree(tmp_path: Path) -> None:
    tree = unpacked(
        tmp_path,
        files={"lib/x86/libm.so.6": "m", "usr/lib/x86/real": ""},
        links={
            "usr/lib/x86/libm.so": "/lib/x86/libm.so.6",
            "lib64/ld.so": "/lib/x86/libm.so.6",
            "usr/lib/x86/near": "real",
            "top": "/../lib/x86/libm.so.6",
            "a/root": "/../..",
        },
    )
    assert str((tree / "usr/lib/x86/libm.so").readlink()) == "../../../lib/x86/libm.so.6"
    assert str((tree / "lib64/ld.so").readlink()) == "../lib/x86/libm.so.6"
    assert str((tree / "top").readlink()) == "lib/x86/libm.so.6"
    assert str((tree / "a/root").readlink()) == ".."
    assert str((tree / "usr/lib/x86/near").readlink()) == "real"
    assert (tree / "usr/lib/x86/libm.so").read_text() == "m"


def test_hard_links(tmp_path: Path) -> None:
    data = tar_of({"./a/one": "same"}, hard_links={"./a/two": "./a/one"})
    tree = unpacked(tmp_path, data=data)
    assert (tree / "a/two").samefile(tree / "a/one")


def device(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.CHRTYPE
    return entry


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tar_of({"./../outside": ""}), "leaves the package"),
        (tar_of({"./a/../../outside": ""}), "leaves the package"),
        (tar_of({"/outside": ""}), "absolute"),
        (tar_of({}, links={"./link": "../outside"}), "points outside"),
        (tar_of({}, links={"./a/link": "../../outside"}), "points outside"),
        (tar_of({}, hard_links={"./link": "/etc/passwd"}), "absolute"),
        (tar_of({}, hard_links={"./link": "../outside"}), "leaves the package"),
        (tar_of({}, hard_links={"./link": "./nothing"}), "which is not there"),
        (tar_of({}, more=[device("./null")]), "a member of kind"),
        (tar_of({"./one": "", "./one/two": ""}), "no folder"),
    ],
)
def test_what_leads_out_of_the_tree_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(ArtifactError, match=reason):
        unpacked(tmp_path, data=data)
    assert (tmp_path / "outside").read_text() == "mine"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """The link itself stays inside; what comes after it would still go somewhere else."""
    linked = tarfile.TarInfo("./here")
    linked.type, linked.linkname = tarfile.SYMTYPE, "there"
    for below in ("./here/file", "./here"):
        data = tar_of({"./there/x": ""}, more=[linked, tarfile.TarInfo(below)])
        with pytest.raises(ArtifactError, match=r"no folder|second member"):
            unpacked(tmp_path / below.replace("/", "-"), data=data)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no ar archive"),
        (b"PK\x03\x04 a zip", "no ar archive"),
        (b"!<arch>\n" + b"x" * 60, "damaged ar header"),
        (b"!<arch>\n" + b"x" * 20, "damaged ar header"),
        (ar({"debian-binary": b"2.0\n"}), "no data.tar"),
        (ar({"data.tar.lzma": b"x"}), "unknown way"),
        (ar({"data.tar.xz": b"no xz"}), "cannot be unpacked"),
    ],
)
def test_what_is_no_deb_is_refused(tmp_path: Path, body: bytes, reason: str) -> None:
    path = tmp_path / "toy.deb"
    path.write_bytes(body)
    with pytest.raises(ArtifactError, match=reason) as caught:
        unpack(path, tmp_path)
    assert caught.value.where.startswith("toy.deb")


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
def test_a_cut_off_deb_is_refused(tmp_path: Path, compression: str) -> None:
    deb = make_deb(tmp_path, "toy", files={"data": os.urandom(100_000)}, compression=compression)
    path = tmp_path / deb.path
    path.write_bytes(path.read_bytes()[:-60_000])
    (tmp_path / "tree").mkdir()
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        unpack(path, tmp_path / "tree")
