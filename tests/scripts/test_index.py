"""The channel and the wheel index: what is written, what is refused, and real clients."""

# ruff: noqa: E501  (tables: a case a line)

from __future__ import annotations

import base64
import bz2
import functools
import hashlib
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import factories
import msgspec
import pytest
import toy_artifacts as toy
from hypothesis import given, settings
from hypothesis import strategies as st

from conda_bridge import config
from conda_bridge.errors import (
    ArtifactError,
    BridgeError,
    ConflictError,
    LabelError,
)
from conda_bridge.formats import conda_writer
from conda_bridge.formats.zstd import zstd
from conda_bridge.project import Project
from conda_bridge.publish import html_page, index, intake
from conda_bridge.publish import pages as index_pages
from conda_bridge.publish.intake import WheelName
from conda_bridge.publish.wheel_entry import WheelEntry
from flashinfer_build.label import Label

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Project.load(ROOT / "pyproject.toml")
publish = functools.partial(index.publish, project=PROJECT)
update = functools.partial(index.update, project=PROJECT)
update_channel = functools.partial(index.update_channel, project=PROJECT)
update_wheel_index = functools.partial(index.update_wheel_index, project=PROJECT)
CPU = factories.label_of("cpu_torch213")
CUDA = factories.label_of("cu130_torch213")
# Names that index scripts of the field fell over: flashinfer issue 694.
HISTORIC = [
    factories.label_of("cu124_torch24", public_version="0.1.6.post1"),
    factories.label_of("cu124_torch24", public_version="0.1.6.dev20261122", commit="0123456"),
    factories.label_of("cu130_torch213", public_version="0.1.6rc1"),
    factories.label_of("cu151_torch299"),  # a pair that did not exist before
    factories.label_of("cpu_torch213", build_number=3),
]


def small_wheel(folder: Path, label: Label, init: bytes = b"value = 42\n") -> Path:
    """A wheel that pip installs anywhere: no library, no dependency."""
    info = f"flashinfer-{label.wheel_version}.dist-info"
    contents = {
        "flashinfer/__init__.py": init,
        f"{info}/METADATA": toy.metadata(label, Requires_Dist="", License_File=""),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"
        + (f"Build: {label.build_number}\n".encode() if label.build_number else b"")
        + b"Tag: cp38-abi3-linux_x86_64\n",
    }
    return toy.write_wheel(folder, label, contents=contents)


def tree(root: Path) -> dict[str, bytes]:
    """Every file but the lock and what was seen, by its path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in (".lock", ".seen.msgpack.zst")
    }


def page(root: Path, label: Label) -> dict[str, Any]:
    text = (root / "index" / label.index_dir / "flashinfer" / "index.json").read_text()
    document: dict[str, Any] = json.loads(text)
    return document


class Anchors(HTMLParser):
    """The attributes of every link."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append({key: value or "" for key, value in attrs})


# ------------------------------------------------------------ the pages


@pytest.mark.parametrize("label", [CPU, CUDA, *HISTORIC], ids=str)
def test_a_page_leads_to_the_wheel(tmp_path: Path, label: Label) -> None:
    wheel = small_wheel(tmp_path / "wheels", label)
    update_wheel_index(tmp_path)
    folder = tmp_path / "index" / label.index_dir / "flashinfer"
    (link,) = Anchors((folder / "index.html").read_text()).found
    address, _, fragment = link["href"].partition("#")
    assert "+" not in address
    assert "%2B" in address
    assert (folder / urllib.parse.unquote(address)).resolve() == wheel.resolve()
    assert fragment == "sha256=" + hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert link["data-requires-python"] == ">=3.8"
    metadata = wheel.with_name(wheel.name + ".metadata").read_bytes()
    expected = "sha256=" + hashlib.sha256(metadata).hexdigest()
    assert link["data-core-metadata"] == link["data-dist-info-metadata"] == expected
    assert f"Version: {label.wheel_version}\n".encode() in metadata


def test_the_json_page(tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "wheels", CUDA)
    update_wheel_index(tmp_path)
    document = page(tmp_path, CUDA)
    assert document["meta"] == {"api-version": "1.1"}
    assert document["versions"] == ["0.1.6+cu130torch2.13"]
    (entry,) = document["files"]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    metadata = wheel.with_name(f"{wheel.name}.metadata").read_bytes()
    described = {"sha256": hashlib.sha256(metadata).hexdigest()}
    assert entry == {
        "filename": wheel.name,
        "url": f"../../../../wheels/{urllib.parse.quote(wheel.name, safe='')}",
        "hashes": {"sha256": digest},
        "requires-python": ">=3.8",
        "core-metadata": described,
        "dist-info-metadata": described,
        "size": wheel.stat().st_size,
        "yanked": False,
    }
    assert set(document) == {"meta", "name", "versions", "files"}
    assert document["name"] == "flashinfer"
    root = json.loads((tmp_path / "index" / CUDA.index_dir / "index.json").read_text())
    assert root == {"meta": {"api-version": "1.1"}, "projects": [{"name": "flashinfer"}]}


def test_pages_are_whole_documents_and_those_of_clients_say_their_version() -> None:
    for api, meta in ((True, '<meta name="pypi:repository-version" content="1.1">\n'), (False, "")):
        assert html_page.page("a <b> & c", ["<p>one</p>", "<p>two</p>"], api=api) == (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f"{meta}<title>a &lt;b&gt; &amp; c</title>\n</head>\n<body>\n"
            "<h1>a &lt;b&gt; &amp; c</h1>\n<p>one</p>\n<p>two</p>\n</body>\n</html>\n"
        )


def test_only_the_pages_that_clients_read_say_the_version(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CPU)
    own = {"index_folders": (), "index_nightly_folders": ()}
    project = Project.of(msgspec.structs.replace(PROJECT.config, hooks="", **own))
    index.update(tmp_path, project=project)
    folder = tmp_path / "index"
    texts = {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")
    }
    assert {name for name, text in texts.items() if "pypi:repository-version" in text} == {
        "cpu/torch2.13/index.html",
        "cpu/torch2.13/flashinfer/index.html",
    }
    titles = {name: re.findall("<title>(.*)</title>", text) for name, text in texts.items()}
    assert titles == {
        "index.html": ["Wheels"],
        "cpu/torch2.13/index.html": ["Simple index"],
        "cpu/torch2.13/flashinfer/index.html": ["Links for flashinfer"],
    }


def test_a_wheel_that_asks_for_no_python_gets_no_attribute(tmp_path: Path) -> None:
    foreign_wheel(tmp_path / "wheels", "toy-1.0-py3-none-any.whl")
    index.update(tmp_path)
    (link,) = Anchors((tmp_path / "index/toy/index.html").read_text()).found
    assert set(link) == {"href", "data-core-metadata", "data-dist-info-metadata"}
    (entry,) = json.loads((tmp_path / "index/toy/index.json").read_text())["files"]
    assert entry["requires-python"] is None
    assert index.consistent(tmp_path)


def test_the_root_pages_lead_down(tmp_path: Path) -> None:
    for label in (CPU, CUDA, *HISTORIC):
        small_wheel(tmp_path / "wheels", label)
    update_wheel_index(tmp_path)
    top = tmp_path / "index" / "index.html"
    folders = [link["href"] for link in Anchors(top.read_text()).found]
    assert folders == [
        "cpu/torch2.13/flashinfer/",
        "cu124/torch2.4/flashinfer/",
        "cu130/torch2.13/flashinfer/",
        "cu151/torch2.99/flashinfer/",
    ]
    for folder in folders:
        assert (top.parent / folder / "index.html").is_file()
        (link,) = Anchors((top.parent / folder / ".." / "index.html").resolve().read_text()).found
        assert link["href"] == "flashinfer/"


def test_versions_are_in_order(tmp_path: Path) -> None:
    versions = ["0.1.10", "0.1.9", "0.1.10rc1", "0.1.10.dev20261122", "0.1.9.post1"]
    for version in versions:
        small_wheel(tmp_path / "wheels", factories.label_of(public_version=version))
    update_wheel_index(tmp_path)
    found = [version.partition("+")[0] for version in page(tmp_path, CPU)["versions"]]
    assert found == ["0.1.9", "0.1.9.post1", "0.1.10.dev20261122", "0.1.10rc1", "0.1.10"]


def test_hostile_metadata_stays_text(tmp_path: Path) -> None:
    info = f"flashinfer-{CPU.wheel_version}.dist-info"
    python = '>=3.8"><script>alert(1)</script>'
    contents = {
        f"{info}/METADATA": toy.metadata(CPU, Requires_Python=python),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\n",
    }
    toy.write_wheel(tmp_path / "wheels", CPU, contents=contents)
    update_wheel_index(tmp_path)
    text = (tmp_path / "index" / CPU.index_dir / "flashinfer" / "index.html").read_text()
    assert "<script>" not in text
    (link,) = Anchors(text).found
    assert link["data-requires-python"] == python


# ------------------------------------------------------------ adding to what is there


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CUDA)
    first = update_wheel_index(tmp_path)
    assert "index/index.html" in first.written
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert update_wheel_index(tmp_path).written == ()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_order_of_adding_does_not_matter(tmp_path: Path) -> None:
    labels = [CPU, CUDA, HISTORIC[0], HISTORIC[1]]
    results = []
    for number, order in enumerate(itertools.islice(itertools.permutations(labels), 0, 24, 5)):
        folder = tmp_path / str(number)
        for label in order:
            small_wheel(folder / "wheels", label)
            update_wheel_index(folder)
        results.append({name: data for name, data in tree(folder).items() if "index" in name})
    assert all(result == results[0] for result in results)
    assert len(results) == 5


def test_adding_drops_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    label = HISTORIC[0]
    names = []
    for number in range(4):
        built = factories.label_of(label.variant.id, build_number=number)
        names.append(small_wheel(tmp_path / "wheels", built).name)
        update_wheel_index(tmp_path)
        update_wheel_index(tmp_path)
    assert [item["filename"] for item in page(tmp_path, label)["files"]] == names


def test_an_entry_whose_wheel_is_elsewhere_is_kept(tmp_path: Path) -> None:
    old = small_wheel(tmp_path / "wheels", CUDA)
    update_wheel_index(tmp_path)
    entry = page(tmp_path, CUDA)["files"][0]
    old.unlink()
    small_wheel(tmp_path / "wheels", factories.label_of("cu130_torch213", build_number=1))
    result = update_wheel_index(tmp_path)
    assert result.absent == (old.name,)
    assert page(tmp_path, CUDA)["files"][0] == entry
    assert len(page(tmp_path, CUDA)["files"]) == 2


def test_prune_drops_it(tmp_path: Path) -> None:
    gone = small_wheel(tmp_path / "wheels", CUDA)
    small_wheel(tmp_path / "wheels", CPU)
    update_wheel_index(tmp_path)
    gone.unlink()
    dry = update_wheel_index(tmp_path, prune=True, dry_run=True)
    assert dry.pruned == (gone.name,)
    assert page(tmp_path, CUDA)["files"]
    result = update_wheel_index(tmp_path, prune=True)
    assert result.pruned == (gone.name,)
    assert result.wheels == (CPU.wheel_file,)
    assert not (tmp_path / "index" / "cu130").exists()
    assert not gone.with_name(gone.name + ".metadata").exists()
    assert update_wheel_index(tmp_path).written == ()


def test_other_bytes_under_a_published_name_are_refused(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CUDA)
    update_wheel_index(tmp_path)
    before = tree(tmp_path)
    small_wheel(tmp_path / "wheels", CUDA, init=b"value = 43\n")
    small_wheel(tmp_path / "wheels", CPU)
    with pytest.raises(ConflictError, match="published with other bytes"):
        update_wheel_index(tmp_path)
    after = tree(tmp_path)
    assert {name: data for name, data in after.items() if name in before} != before  # the wheel
    assert {name for name in after if not name.endswith(".whl")} == {
        name for name in before if not name.endswith(".whl")
    }
    assert update_wheel_index(tmp_path, replace=True).wheels == (
        CPU.wheel_file,
        CUDA.wheel_file,
    )


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CUDA)
    before = tree(tmp_path)
    result = update(tmp_path, dry_run=True)
    assert "index/index.html" in result.written
    assert tree(tmp_path) == before
    assert set(update(tmp_path).written) == set(result.written)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flashinfer-0.1.6-cp38-abi3-linux_x86_64.whl", "no local part"),
        ("torch-2.13.0-cp311-cp311-linux_x86_64.whl", "not a flashinfer wheel"),
        (HISTORIC[0].wheel_file, "Version is"),
    ],
)
def test_a_misnamed_wheel_is_refused(tmp_path: Path, name: str, words: str) -> None:
    small_wheel(tmp_path / "wheels", CPU)
    update_wheel_index(tmp_path)
    before = tree(tmp_path)
    shutil.copy(tmp_path / "wheels" / CPU.wheel_file, tmp_path / "wheels" / name)
    with pytest.raises((ArtifactError, LabelError), match=words):
        update_wheel_index(tmp_path)
    (tmp_path / "wheels" / name).unlink()
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"files": [{"filename": "x"}]}', '{"files": [{"filename": "../x.whl", "hashes": {"sha256": "0"}, "size": 1, "requires-python": null, "core-metadata": {"sha256": "0"}}]}'],
)  # fmt: skip
def test_a_page_that_is_none_of_ours(tmp_path: Path, text: str) -> None:
    small_wheel(tmp_path / "wheels", CPU)
    update_wheel_index(tmp_path)
    target = tmp_path / "index" / CPU.index_dir / "flashinfer" / "index.json"
    target.write_text(text)
    target.with_suffix(".html").unlink()
    with pytest.raises(ArtifactError, match=r"cpu/torch2\.13/flashinfer/index\.json"):
        update_wheel_index(tmp_path)
    assert target.read_text() == text


def test_a_page_in_the_wrong_folder(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CPU)
    update_wheel_index(tmp_path)
    shutil.copytree(tmp_path / "index" / "cpu", tmp_path / "index" / "cu130")
    with pytest.raises(ArtifactError, match=re.escape(CPU.wheel_file)):
        update_wheel_index(tmp_path)


LABELS = st.builds(
    lambda variant, version, number, commit: factories.label_of(
        variant, public_version=version, build_number=number, commit=commit
    ),
    st.sampled_from(["cpu_torch213", "cu124_torch24", "cu130_torch210", "cu130_torch29"]),
    st.sampled_from(["0.1.6", "0.1.6rc1", "0.1.6.post1", "0.1.6.dev20261122", "0.1.10"]),
    st.integers(0, 12),
    st.none() | st.from_regex(r"[0-9a-f]{7,12}", fullmatch=True),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LABELS, unique_by=lambda label: label.wheel_file, min_size=1, max_size=12))
def test_every_label_is_on_its_page_once(labels: list[Label]) -> None:
    names = [WheelName.of(label.wheel_file, PROJECT) for label in labels]
    entries = [WheelEntry(name, "0" * 64, 1, ">=3.8", "1" * 64) for name in names]
    pages = index_pages.pages(entries, PROJECT)
    assert pages == index_pages.pages(reversed(entries), PROJECT)
    for label in labels:
        document = json.loads(pages[f"{label.index_dir}/flashinfer/index.json"])
        names = [item["filename"] for item in document["files"]]
        assert names.count(label.wheel_file) == 1
        assert set(document["versions"]) == {
            Label.parse_wheel_file(name).wheel_version for name in names
        }


# ------------------------------------------------------------ the channel


def test_repodata(tmp_path: Path) -> None:
    folder = tmp_path / "linux-64"
    package = factories.write_pair(folder, CPU)
    result = update_channel(tmp_path)
    assert set(result.packages) == {CPU.conda_file, CPU.lib_conda_file}
    document = json.loads((folder / "repodata.json").read_text())
    assert {**document, "packages.conda": {}} == {
        "info": {"subdir": "linux-64"},
        "packages": {},
        "packages.conda": {},
        "removed": [],
        "repodata_version": 1,
    }
    record = document["packages.conda"][CPU.conda_file]
    assert record["depends"] == factories.binding_index(CPU)["depends"]
    assert record["sha256"] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert record["md5"] == hashlib.md5(package.read_bytes()).hexdigest()
    assert record["size"] == package.stat().st_size
    assert (record["noarch"], record["subdir"]) == ("python", "linux-64")
    compressed = (folder / "repodata.json.zst").read_bytes()
    assert json.loads(zstd.decompress(compressed)) == document
    assert json.loads((tmp_path / "noarch" / "repodata.json").read_text())["packages.conda"] == {}
    assert update_channel(tmp_path).written == ()


def test_the_channel_keeps_refuses_and_prunes(tmp_path: Path) -> None:
    folder = tmp_path / "linux-64"
    package = factories.write_pair(folder, CPU)
    update_channel(tmp_path)
    before = (folder / "repodata.json").read_bytes()
    factories.write_binding(folder, CPU, index={"license": "MIT"})
    with pytest.raises(ConflictError, match="raise the build number"):
        update_channel(tmp_path)
    assert (folder / "repodata.json").read_bytes() == before
    package.unlink()
    assert update_channel(tmp_path).absent == (package.name,)
    assert (folder / "repodata.json").read_bytes() == before
    assert update_channel(tmp_path, prune=True).packages == (CPU.lib_conda_file,)


def test_a_package_in_the_wrong_subdir(tmp_path: Path) -> None:
    factories.write_pair(tmp_path / "noarch", CPU)
    with pytest.raises(ArtifactError, match="is a package for linux-64"):
        update_channel(tmp_path)


def test_a_package_for_another_platform(tmp_path: Path) -> None:
    factories.write_binding(tmp_path / "linux-64", CPU, index={"subdir": "osx-arm64"})
    with pytest.raises(ArtifactError, match="osx-arm64"):
        update_channel(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"packages.conda": {"x": {"sha256": "0"}}}',
        f'{{"packages": {{"x-1-0.conda": {{"sha256": "{"0" * 64}"}}}}, "packages.conda": {{}}}}',
    ],
)
def test_repodata_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "linux-64").mkdir()
    (tmp_path / "linux-64" / "repodata.json").write_text(text)
    with pytest.raises(ArtifactError, match="is not repodata of this channel"):
        update_channel(tmp_path)


def test_repodata_that_is_none_of_ours(tmp_path: Path) -> None:
    factories.write_pair(tmp_path / "linux-64", CPU)
    (tmp_path / "linux-64" / "repodata.json").write_text('{"packages.conda": {"x": {}}}')
    with pytest.raises(ArtifactError, match=r"linux-64/repodata\.json"):
        update_channel(tmp_path)


def test_either_form_is_where_clients_look_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "linux-64"
    package = factories.write_pair(folder, CPU)
    old = factories.as_tar_bz2(package.with_name(CPU.lib_conda_file))
    package.with_name(CPU.lib_conda_file).unlink()
    result = update_channel(tmp_path)
    assert result.packages == (package.name, old.name)
    document = json.loads((folder / "repodata.json").read_text())
    assert list(document["packages.conda"]) == [package.name]
    assert list(document["packages"]) == [old.name]
    record = document["packages"][old.name]
    assert record["sha256"] == hashlib.sha256(old.read_bytes()).hexdigest()
    assert record["size"] == old.stat().st_size
    assert (record["name"], record["build"]) == ("libflashinfer", "cpu_0")
    assert update_channel(tmp_path).written == ()
    # What is kept, refused and dropped does not depend on the form.
    before = (folder / "repodata.json").read_bytes()
    data = old.read_bytes()
    factories.raw_tar_bz2(old, reversed(factories.tar_members(bz2.decompress(data))))
    with pytest.raises(ConflictError, match=re.escape(old.name)):
        update_channel(tmp_path)
    old.unlink()
    assert update_channel(tmp_path).absent == (old.name,)
    assert (folder / "repodata.json").read_bytes() == before
    assert update_channel(tmp_path, prune=True).pruned == (old.name,)
    document = json.loads((folder / "repodata.json").read_text())
    assert (document["packages"], list(document["packages.conda"])) == ({}, [package.name])


@pytest.mark.parametrize("added", [False, True])
def test_two_forms_of_a_package_hold_the_same_files(tmp_path: Path, added: bool) -> None:
    package = factories.write_pair(tmp_path / "built", CPU)
    library = package.with_name(CPU.lib_conda_file)
    same = factories.as_tar_bz2(library, tmp_path / "same")
    files = {"include/flashinfer/api.h": b"other"}
    other_conda = factories.write_library(tmp_path / "b", CPU, files=files)
    other = factories.as_tar_bz2(other_conda, tmp_path / "other")
    dist = tmp_path / "dist"
    publish([package, library, same], dist)
    records = json.loads((dist / "channel/linux-64/repodata.json").read_text())
    assert {*records["packages"], *records["packages.conda"]} == {
        *(path.name for path in (package, library, same))
    }
    shutil.rmtree(dist)
    if added:
        with pytest.raises(ConflictError, match=r"include/flashinfer/api\.h differs"):
            publish([package, library, other], dist)
        assert tree(dist) == {}
        publish([package, library], dist)
        before = tree(dist)
        with pytest.raises(ConflictError, match=r"include/flashinfer/api\.h differs"):
            publish([other], dist)
        assert tree(dist) == before
    else:
        for path in (library, other):
            (dist / "channel" / "linux-64").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, dist / "channel" / "linux-64")
        before = tree(dist)
        with pytest.raises(ConflictError, match=r"include/flashinfer/api\.h differs"):
            update(dist)
        assert tree(dist) == before


CLIENT = """
import asyncio, json, os, sys
from rattler import BuildString, GenericVirtualPackage, PackageName, Version, install, solve

async def main(channel, prefix, specs, cuda):
    found = [GenericVirtualPackage(PackageName(name), Version(version), BuildString("0"))
             for name, version in (("__glibc", "2.36"), ("__linux", "6.1"), ("__unix", "0"))]
    if cuda:
        found.append(GenericVirtualPackage(PackageName("__cuda"), Version(cuda), BuildString("0")))
    records = await solve([channel], specs, platforms=["linux-64", "noarch"], virtual_packages=found)
    await install(records, target_prefix=prefix, cache_dir=prefix + "-cache", show_progress=False)
    return sorted(f"{record.name.normalized} {record.build}" for record in records)

channel, prefix, cuda, *specs = sys.argv[1:]
try:
    print(json.dumps(asyncio.run(main(channel, prefix, specs, cuda))))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
sys.stdout.flush()
os._exit(0)  # rattler's threads may crash an interpreter that ends by itself
"""


def client(channel: Path, prefix: Path, *specs: str, cuda: str = "") -> str:
    """What py-rattler installs from a channel, or the error it gives."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, channel.as_uri(), str(prefix), cuda, *specs],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "RATTLER_CACHE_DIR": str(prefix) + "-cache"},
    )
    return done.stdout.strip() or done.stderr


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """A channel with the packages of three variants, and the python and pytorch that they want."""
    folder = tmp_path / "channel"
    for label in (CPU, CUDA, factories.label_of("cu130_torch211")):
        toy.write_conda_library(folder / "linux-64", label)
        toy.write_conda(folder / "linux-64", label, index=depends_here(label))
    for name, version, build, number in (
        ("python", "3.11.7", "0", 0),
        *(("pytorch", f"{minor}.0", "cpu_0", 0) for minor in ("2.11", "2.13")),
        *(("pytorch", f"{minor}.0", "cuda130_200", 200) for minor in ("2.11", "2.13")),
    ):
        record = {"name": name, "version": version, "build": build, "build_number": number}
        extra = {"python_site_packages_path": "lib/python3.11/site-packages"}
        conda_writer.write(
            folder / "linux-64" / f"{name}-{version}-{build}.conda",
            index={
                **record,
                "subdir": "linux-64",
                "depends": ["__cuda"] if number else [],
                **(extra if name == "python" else {}),
            },
            files=factories.package_files({f"share/{name}": b"x"}),
            level=1,
        )
    index.update_channel(folder)  # not this project's alone
    return folder


def depends_here(label: Label) -> dict[str, object]:
    """The dependencies that the toy channel has."""
    listed: Any = factories.binding_index(label)["depends"]
    return {"depends": [item for item in listed if not item.startswith("libstdcxx")]}


@pytest.mark.parametrize(
    ("specs", "cuda", "expected"),
    [
        (["flashinfer", "pytorch 2.13.*"], "13.0", "flashinfer cu130_torch213_0"),
        (["flashinfer", "pytorch 2.11.*"], "13.2", "flashinfer cu130_torch211_0"),
        (["flashinfer", "pytorch 2.13.*"], "", "flashinfer cpu_torch213_0"),
        (["flashinfer", "pytorch 2.13.*"], "12.4", "flashinfer cpu_torch213_0"),
        (["flashinfer", "pytorch 2.13.* cpu*"], "13.0", "flashinfer cpu_torch213_0"),
        (["flashinfer ==0.1.6 cpu_torch213_0"], "13.0", "flashinfer cpu_torch213_0"),
    ],
)
def test_a_client_installs_the_variant_that_fits(
    channel: Path, tmp_path: Path, specs: list[str], cuda: str, expected: str
) -> None:
    prefix = tmp_path / "prefix"
    answer = client(channel, prefix, *specs, cuda=cuda)
    installed = json.loads(answer) if answer.startswith("[") else answer
    assert expected in installed
    library = expected.split()[1].split("_torch", maxsplit=1)[0] + "_0"
    assert f"libflashinfer {library}" in installed
    assert (prefix / "lib" / "libflashinfer.so").is_file()
    site = prefix / "lib/python3.11/site-packages/flashinfer"
    assert (site / "_C.abi3.so").is_file()


def test_a_client_installs_packages_of_the_older_form(channel: Path, tmp_path: Path) -> None:
    for path in (channel / "linux-64").glob("*flashinfer-*.conda"):
        factories.as_tar_bz2(path)
        path.unlink()
    (channel / "linux-64" / "repodata.json").unlink()
    (channel / "linux-64" / "repodata.json.zst").unlink()
    index.update_channel(channel)
    answer = client(channel, tmp_path / "prefix", "flashinfer", "pytorch 2.13.*", cuda="13.0")
    assert {"flashinfer cu130_torch213_0", "libflashinfer cu130_0"} <= set(json.loads(answer))
    assert (tmp_path / "prefix/lib/libflashinfer.so").is_file()
    assert (tmp_path / "prefix/lib/python3.11/site-packages/flashinfer/_C.abi3.so").is_file()


def test_a_client_finds_no_variant_for_another_torch(channel: Path, tmp_path: Path) -> None:
    text = client(channel, tmp_path / "prefix", "flashinfer", "pytorch 2.11.*", cuda="12.4")
    assert "SolverError" in text


# ------------------------------------------------------------ publishing


def test_publish_copies_and_indexes(tmp_path: Path) -> None:
    package = factories.write_pair(tmp_path / "built", CPU)
    wheel = small_wheel(tmp_path / "built", CPU)
    library = package.with_name(CPU.lib_conda_file)
    dist = tmp_path / "dist"
    lines: list[str] = []
    made = publish([package, library, wheel], dist, report=lines.append)
    assert [path.relative_to(dist).as_posix() for path in made] == [
        f"channel/linux-64/{CPU.conda_file}",
        f"channel/linux-64/{CPU.lib_conda_file}",
        f"wheels/{CPU.wheel_file}",
    ]
    for source, target in zip([package, library, wheel], made, strict=True):
        assert source.read_bytes() == target.read_bytes()
    assert page(dist, CPU)["files"]
    assert f"publish {CPU.wheel_file}" in lines
    before = tree(dist)
    lines.clear()
    publish([package, library, wheel], dist, report=lines.append)
    assert tree(dist) == before
    assert all(line.startswith("unchanged") for line in lines)


@pytest.mark.parametrize("kind", ["wheel", "package"])
@pytest.mark.parametrize("lost", [False, True])
def test_publish_refuses_other_bytes_and_copies_nothing(
    tmp_path: Path, kind: str, lost: bool
) -> None:
    """Also where the published file itself is not in the folder any more."""
    dist = tmp_path / "dist"
    first = factories.write_pair(tmp_path / "a", CPU), small_wheel(tmp_path / "a", CPU)
    published = publish(first, dist)
    if lost:
        for path in published:
            path.unlink()
    other = (
        small_wheel(tmp_path / "b", CPU, init=b"other\n")
        if kind == "wheel"
        else factories.write_binding(tmp_path / "b", CPU, index={"license": "MIT"})
    )
    fresh = small_wheel(tmp_path / "b", CUDA)
    before = tree(dist)
    with pytest.raises(ConflictError, match=re.escape(other.name)) as raised:
        publish([fresh, other], dist)
    assert raised.value.exit_code == 1
    assert tree(dist) == before
    publish([fresh, other], dist, replace=True)
    assert CUDA.wheel_file in str(tree(dist).keys())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (CPU.wheel_file, b"not a zip", "not a zip archive"),
        (CPU.conda_file, b"not a zip", "not a zip archive"),
        ("libflashinfer-0.1.6-cu130_torch213_0.conda", b"", "not a build string"),
        ("notes.txt", b"", "neither a conda package nor a wheel"),
        ("missing.whl", None, "no such file"),
    ],
)
def test_publish_refuses_what_it_cannot_read(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    fresh = small_wheel(tmp_path / "built", CUDA)
    with pytest.raises(BridgeError, match=words):
        publish([fresh, tmp_path / name], tmp_path / "dist")
    assert tree(tmp_path / "dist") == {}


def test_a_dry_run_of_publish(tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "built", CPU)
    lines: list[str] = []
    publish([wheel], tmp_path / "dist", dry_run=True, report=lines.append)
    assert lines == [f"publish {wheel.name}"]
    assert not (tmp_path / "dist").exists()


def _publish_both(tmp_path: Path) -> tuple[list[Path], Path, dict[str, bytes]]:
    package = factories.write_pair(tmp_path / "built", CPU)
    built = [package, package.with_name(CPU.lib_conda_file), small_wheel(tmp_path / "built", CPU)]
    dist = tmp_path / "dist"
    publish(built, dist)
    return built, dist, tree(dist)


def test_a_bit_flipped_in_any_published_file_is_noticed_and_mended(tmp_path: Path) -> None:
    built, dist, before = _publish_both(tmp_path)
    assert index.consistent(dist, PROJECT)
    for name in before:
        if name.endswith(".lock") or not before[name]:
            continue
        for place in (0.1, 0.5, 0.9):
            data = bytearray(before[name])
            data[int(len(data) * place)] ^= 1
            (dist / name).write_bytes(data)
            if "repodata" in name or name.startswith("index/"):
                assert not index.consistent(dist, PROJECT), (name, place)
            publish(built, dist)
            assert tree(dist) == before, (name, place)


@pytest.mark.parametrize(
    "name", ["index/cpu/torch2.13/flashinfer/index.json", "channel/linux-64/repodata.json"]
)
@pytest.mark.parametrize("old", ["0.1.6", '"sha256"', "{"])
def test_what_a_damaged_page_says_does_not_count_where_its_other_form_is_right(
    tmp_path: Path, name: str, old: str
) -> None:
    """A version that was never published, a key that is missing, a file that is no JSON."""
    built, dist, before = _publish_both(tmp_path)
    path = dist / name
    path.write_text(path.read_text().replace(old, {"0.1.6": "0.1.7"}.get(old, "?")))
    publish(built, dist)
    assert tree(dist) == before


def test_a_file_that_no_page_lists_is_somebody_elses(tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "a", CPU)
    target = tmp_path / "dist" / "wheels" / wheel.name
    target.parent.mkdir(parents=True)
    target.write_bytes(b"somebody else's")
    with pytest.raises(ConflictError, match=re.escape(wheel.name)):
        publish([wheel], tmp_path / "dist")
    assert target.read_bytes() == b"somebody else's"


def test_a_damaged_file_that_this_build_does_not_make_is_reported(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    [other] = publish([small_wheel(tmp_path / "a", CUDA)], dist)
    small_wheel(tmp_path / "b", CUDA, init=b"damaged\n").replace(other)
    damaged = other.read_bytes()
    with pytest.raises(ConflictError, match=re.escape(CUDA.wheel_file)) as raised:
        publish([small_wheel(tmp_path / "a", CPU)], dist)
    assert "delete it and publish the same build again" in raised.value.fix
    assert other.read_bytes() == damaged
    other.unlink()
    publish([tmp_path / "a" / CUDA.wheel_file], dist)
    assert index.consistent(dist, PROJECT)


def test_an_interrupted_publish_is_finished_by_the_next(tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "built", CPU)
    dist = tmp_path / "dist"
    publish([small_wheel(tmp_path / "built", CUDA)], dist)
    shutil.copy(wheel, dist / "wheels" / wheel.name)  # killed after the copy, before the page
    (dist / "wheels" / (".partial-x-" + HISTORIC[0].wheel_file)).write_bytes(b"half")
    publish([wheel], dist)
    assert page(dist, CPU)["files"][0]["filename"] == wheel.name
    assert len(list((dist / "index").glob("c*/torch2.13/flashinfer/index.json"))) == 2


def test_publishers_wait_for_one_another(tmp_path: Path) -> None:
    labels = [factories.label_of("cpu_torch213", build_number=number) for number in range(6)]
    wheels = [small_wheel(tmp_path / "built", label) for label in labels]
    threads = [
        threading.Thread(target=publish, args=([wheel], tmp_path / "dist")) for wheel in wheels
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [item["filename"] for item in page(tmp_path / "dist", CPU)["files"]]
    assert names == [wheel.name for wheel in wheels]


# ------------------------------------------------------------ anybody's packages and wheels


def foreign_wheel(folder: Path, file: str, *, metadata: str = "", init: bytes = b"x = 1\n") -> Path:
    """A wheel of another project, named as its file name says; `metadata` replaces METADATA."""
    name, version, *_ = file.split("-")
    info = f"{name}-{version}.dist-info"
    module = name.replace(".", "_").lower()
    contents = {
        f"{module}.py": init,
        f"{info}/METADATA": (
            metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        ).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [toy.record_line(path, data) for path, data in contents.items()]
    contents[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)
    return path


def foreign_package(folder: Path, stem: str, subdir: str = "noarch", *, text: bytes = b"x") -> Path:
    """A conda package of another project."""
    name, version, build = stem.rsplit("-", 2)
    path = folder / f"{stem}.conda"
    conda_writer.write(
        path,
        index={
            "name": name,
            "version": version,
            "build": build,
            "build_number": 0,
            "subdir": subdir,
            "depends": [],
        },
        files=factories.package_files({f"share/{name}": text}),
        level=1,
    )
    return path


WHEELS_OF_OTHERS = [
    "toy-1.0-py3-none-any.whl",
    "toy-1.0-1b-py3-none-any.whl",
    "toy-1.1+cu12-py3-none-any.whl",
    "Zope.Thing_x-2024.1-py3-none-any.whl",
]
PACKAGES_OF_OTHERS = [("toy-1.0-0", "noarch"), ("zope.thing-2024a-py310h1_3", "linux-aarch64"), ("two-parts-1.0-0", "win-64"), ("two-parts-1.0-0", "osx-arm64")]  # fmt: skip


def test_one_flat_index_of_several_projects(tmp_path: Path) -> None:
    wheels = [foreign_wheel(tmp_path / "built", name) for name in WHEELS_OF_OTHERS]
    dist = tmp_path / "dist"
    index.publish(wheels, dist)
    root_page = json.loads((dist / "index/index.json").read_text())
    assert root_page["projects"] == [{"name": "toy"}, {"name": "zope-thing-x"}]
    links = [link["href"] for link in Anchors((dist / "index/index.html").read_text()).found]
    assert links == ["toy/", "zope-thing-x/"]
    toys = json.loads((dist / "index/toy/index.json").read_text())
    assert (toys["name"], toys["versions"]) == ("toy", ["1.0", "1.1+cu12"])
    # The build tag orders wheels of one version.
    assert [item["filename"] for item in toys["files"]] == WHEELS_OF_OTHERS[:3]
    for link in Anchors((dist / "index/toy/index.html").read_text()).found:
        target = dist / "index/toy" / urllib.parse.unquote(link["href"].partition("#")[0])
        assert target.resolve().is_file()
    assert index.consistent(dist)
    before = tree(dist)
    index.publish(wheels, dist)
    assert index.update(dist).written == ()
    assert tree(dist) == before
    (dist / "wheels" / WHEELS_OF_OTHERS[3]).unlink()
    assert index.update(dist, prune=True).pruned == (WHEELS_OF_OTHERS[3],)
    assert [path.name for path in (dist / "index").iterdir() if path.is_dir()] == ["toy"]


def test_pip_installs_from_the_flat_index(tmp_path: Path) -> None:
    for name in WHEELS_OF_OTHERS:
        foreign_wheel(tmp_path / "wheels", name, init=f"name = {name!r}\n".encode())
    index.update(tmp_path)
    running = Server(tmp_path, json_pages=False)
    try:
        done = pip_from(
            f"{running.address}/index/",
            "install",
            "--target",
            str(tmp_path / "site"),
            "zope.thing-x",
            "toy<1.1",
        )
    finally:
        running.close()
    assert done.returncode == 0, done.stderr
    assert WHEELS_OF_OTHERS[3] in (tmp_path / "site" / "zope_thing_x.py").read_text()
    assert WHEELS_OF_OTHERS[1] in (tmp_path / "site" / "toy.py").read_text()


def test_every_subdir_that_is_there(tmp_path: Path) -> None:
    built = [
        foreign_package(tmp_path / subdir, stem, subdir) for stem, subdir in PACKAGES_OF_OTHERS
    ]
    dist = tmp_path / "dist"
    made = index.publish(built, dist)
    assert [path.parent.name for path in made] == [subdir for _, subdir in PACKAGES_OF_OTHERS]
    subdirs = {path.parent.name for path in dist.rglob("repodata.json")}
    assert subdirs == {"noarch", "linux-64", "linux-aarch64", "win-64", "osx-arm64"}
    (record,) = json.loads((dist / "channel/win-64/repodata.json").read_text())[
        "packages.conda"
    ].values()
    assert (record["name"], record["subdir"]) == ("two-parts", "win-64")
    assert index.consistent(dist)
    (dist / "channel/win-64/repodata.json").write_text("{")
    assert not index.consistent(dist)
    index.update(dist)
    assert index.consistent(dist)


LAYOUTS = [
    ("", "flashinfer"),
    ("{cuda}", "cu130/flashinfer"),
    ("{cuda}/torch{torch}", "cu130/torch2.13/flashinfer"),
    ("a/{torch:flat}/{cuda}/b", "a/213/cu130/b/flashinfer"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "place"), LAYOUTS)
def test_the_layout_is_the_projects(tmp_path: Path, layout: str, place: str) -> None:
    own = {"index_folders": (), "index_nightly_folders": ()}
    config = msgspec.structs.replace(PROJECT.config, index_layout=layout, hooks="", **own)
    project = Project.of(config)
    wheel = small_wheel(tmp_path / "wheels", CUDA)
    index.update(tmp_path, project=project)
    folder = tmp_path / "index" / place
    (link,) = Anchors((folder / "index.html").read_text()).found
    address = urllib.parse.unquote(link["href"].partition("#")[0])
    assert (folder / address).resolve() == wheel.resolve()
    # The plain overview leads there, page by page.
    page = tmp_path / "index" / "index.html"
    while page.parent != folder:
        page = page.parent / Anchors(page.read_text()).found[0]["href"] / "index.html"
    assert index.consistent(tmp_path, project)
    # Another layout would forget what these pages remember.
    for other, _ in LAYOUTS:
        if other.count("/") != layout.count("/") or (not other) != (not layout):
            changed = Project.of(msgspec.structs.replace(config, index_layout=other))
            with pytest.raises(ArtifactError, match="not where the index has such pages"):
                index.update(tmp_path, project=changed)


@pytest.mark.parametrize("publishing", [False, True])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch-2.13.0-py3-none-any.whl", "not a flashinfer wheel"),
        ("flashinfer-1.0-py3-none-any.whl", "no local part"),
        ("flashinfer-1.0+cu12torch2.4-py3-none-any.whl", "not a label of this project"),
        ("flashinfer-0.1.6+cputorch2.13-0-py3-none-any.whl", "not the canonical file name"),
        ("flashinfer-0.1.6RC1+cputorch2.13-py3-none-any.whl", "not the canonical file name"),
        ("toy-1.0-0.conda", "'toy' is not a package of this project"),
        ("flashinfer-0.1.6-0.conda", "not a build string of this project"),
        ("libflashinfer-0.1.6-cu130_torch213_0.conda", "not a build string of this project"),
        ("flashinfer-0.1.6rc1-cpu_torch213_0.conda", "not spelled so"),
    ],
)
def test_a_package_of_another_project_or_with_another_name_is_refused(
    tmp_path: Path, name: str, words: str, publishing: bool
) -> None:
    """Where the project has a configuration; without one anything is welcome, but no bad name."""
    dist = tmp_path / "dist"
    publish([small_wheel(tmp_path / "built", CPU)], dist)
    before = tree(dist)
    made = (
        foreign_wheel(tmp_path / "built", name)
        if name.endswith(".whl")
        else foreign_package(tmp_path / "built", name.removesuffix(".conda"))
    )
    target = dist / ("wheels" if name.endswith(".whl") else "channel/noarch") / name
    with pytest.raises(LabelError, match=words) as raised:
        if publishing:
            publish([made], dist)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(made, target)
            update(dist)
    assert name in raised.value.where
    target.unlink(missing_ok=True)
    assert tree(dist) == before


# ------------------------------------------------------------ what may lie in the folders


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("wheels/toy-1.0-0.tar.bz2", "is no wheel"),
        ("wheels/toy-1.0-0.conda", "is no wheel"),
        ("wheels/toy-1.0.tar.gz", "is no wheel"),
        ("wheels/toy.pyc", "is no wheel"),
        ("wheels/sub/toy-1.0-py3-none-any.whl", "no client looks into"),
        ("wheels/__pycache__/toy-1.0-py3-none-any.whl", "no client looks into"),
        ("channel/noarch/toy-1.0-py3-none-any.whl", "is no conda package"),
        ("channel/noarch/toy.pyc", "is no conda package"),
        ("channel/noarch/broken/toy-1.0-0.conda", "no client looks into"),
        ("channel/linux64/toy-1.0-0.conda", "no client looks into"),
        ("channel/toy-1.0-0.conda", "does not belong here"),
        ("channel/notes.txt", "does not belong here"),
        ("channel/linux-64/toy-1.0.conda", "not that of a conda package"),
        ("channel/linux-64/toy-1.0-0.tar.bz2", "toy-1.0-0.tar.bz2"),
        ("wheels/toy.whl", "not a wheel's name"),
        ("wheels/toy-1.0-py3-none-any.whl", "not a zip archive"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("link", [False, True])
def test_what_is_neither_is_refused_by_name(
    tmp_path: Path, place: str, words: str, link: bool
) -> None:
    """Left out in silence it would be missed by whoever wants to install it. A broken link, too."""
    foreign_wheel(tmp_path / "wheels", "fine-1.0-py3-none-any.whl")
    foreign_package(tmp_path / "channel/noarch", "fine-1.0-0")
    index.update(tmp_path)
    stray = tmp_path / place
    stray.parent.mkdir(parents=True, exist_ok=True)
    if link:
        stray.symlink_to(tmp_path / "nowhere")
    else:
        stray.write_bytes(b"something")
    before = tree(tmp_path)
    with pytest.raises(BridgeError) as raised:
        index.update(tmp_path)
    assert raised.value.exit_code == 2
    assert stray.name in str(raised.value)
    assert link or words in str(raised.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "place",
    [
        "channel/noarch/.hidden", "channel/noarch/repodata.jlap", "channel/channeldata.json",
        "channel/noarch/repodata.json.bz2", "channel/noarch/run_exports.json.bz2", "channel/index.html",
        "channel/noarch/toy-1.0-0.conda.sig", "wheels/index.html", "wheels/.hidden",
        "wheels/toy-1.0-py3-none-any.whl.asc", "channel/noarch/.cache/cache.db", "channel/shards/x",
    ],
)  # fmt: skip
def test_what_index_writers_and_signers_leave_there_is_no_offence(
    tmp_path: Path, place: str
) -> None:
    foreign_package(tmp_path / "channel/noarch", "fine-1.0-0")
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"something")
    assert index.update(tmp_path).packages == ("fine-1.0-0.conda",)
    assert path.read_bytes() == b"something"


def damaged_package(folder: Path) -> Path:
    """One byte of a file in the payload is another than info/paths.json says."""
    path = foreign_package(folder, "toy-1.0-0")
    payload, info = factories.unpacked(path)
    other = [(header, b"y" * len(data)) for header, data in payload]
    return factories.raw_conda(
        path, payload=factories.tar_bytes(other), info=factories.tar_bytes(info)
    )


def damaged_wheel(folder: Path) -> Path:
    """One byte of a file is another than RECORD says, in a sound zip archive."""
    path = foreign_wheel(folder, "toy-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["toy.py"] = b"x = 2\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("damaged", [damaged_package, damaged_wheel])
def test_an_artifact_that_nothing_else_would_read_is_not_indexed(
    tmp_path: Path, damaged: Callable[[Path], Path]
) -> None:
    bad = damaged(tmp_path / "built")
    with pytest.raises(ArtifactError, match=re.escape(bad.name)):
        index.publish([bad], tmp_path / "dist")
    assert tree(tmp_path / "dist") == {}
    folder = "wheels" if bad.suffix == ".whl" else "channel/noarch"
    (tmp_path / "dist" / folder).mkdir(parents=True)
    shutil.copy(bad, tmp_path / "dist" / folder)
    before = tree(tmp_path / "dist")
    with pytest.raises(ArtifactError, match=re.escape(bad.name)):
        index.update(tmp_path / "dist")
    assert tree(tmp_path / "dist") == before


def test_an_artifact_is_read_whole_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for name in ("check_package", "check_wheel"):
        real = getattr(index.intake, name)

        def counted(artifact: Any, real: Any = real) -> Any:
            read.append(artifact.path.name)
            return real(artifact)

        monkeypatch.setattr(index.intake, name, counted)
    built = [
        foreign_package(tmp_path / "built", "toy-1.0-0"),
        foreign_wheel(tmp_path / "built", "toy-1.0-py3-none-any.whl"),
    ]
    dist = tmp_path / "dist"
    index.publish(built, dist)
    assert read == [path.name for path in built]
    index.publish(built, dist)
    index.update(dist)
    assert len(read) == len(built)
    # What another program wrote says nothing of what was read.
    for page in [dist / "channel/noarch/repodata.json", dist / "index/toy/index.json"]:
        page.write_text(json.dumps(json.loads(page.read_text())))
    index.update(dist)
    assert sorted(read) == sorted([path.name for path in built] * 2)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "put them there"),
        (["channel/", "wheels/"], "put them there"),
        (["channel/linux-64/", "index/"], "put them there"),
        (["notes.txt"], "put them there"),
        (["toy-1.0-py3-none-any.whl"], "--add FILE puts each where it belongs"),
        (["linux-64/toy-1.0-0.conda"], "put them there"),
    ],
)
def test_a_folder_that_holds_nothing_is_no_input(
    root: Path, tmp_path: Path, names: list[str], words: str
) -> None:
    for name in names:
        path = tmp_path / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    for arguments in ([], ["--dry-run"], ["--prune"]):
        done = program(root, tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr and str(tmp_path) in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_the_channel_alone_is_not_the_folder(tmp_path: Path) -> None:
    foreign_package(tmp_path / "channel" / "noarch", "toy-1.0-0")
    with pytest.raises(ArtifactError, match="give the folder above"):
        index.update(tmp_path / "channel")
    with pytest.raises(ArtifactError, match="is a file"):
        index.update(tmp_path / "channel/noarch/toy-1.0-0.conda")
    assert index.update(tmp_path).packages == ("toy-1.0-0.conda",)
    # A folder whose last package is gone is a channel all the same.
    (tmp_path / "channel/noarch/toy-1.0-0.conda").unlink()
    index.update(tmp_path, prune=True)
    assert index.update(tmp_path).packages == ()


# ------------------------------------------------------------ what is told


FORMS = [
    *("repodata_shards.msgpack.zst", "run_exports.json", "run_exports.json.zst"),
    *("repodata_from_packages.json", "patch_instructions.json"),
    *("current_repodata.json", "current_repodata.json.zst", "repodata.json", "repodata.json.zst"),
]


def written_in_a_channel(root: Path) -> list[str]:
    """What is written where linux-64 is empty and noarch has packages of one name."""
    [shard] = (root / "channel/noarch/shards").iterdir()
    noarch = [f"shards/{shard.name}", *FORMS]
    return [
        f"channel/{subdir}/{name}"
        for subdir, names in (("linux-64", FORMS), ("noarch", noarch))
        for name in names
    ]


def test_the_result_tells_of_both_sides(tmp_path: Path) -> None:
    """Packages, wheels, what is kept without its file, what was dropped; a dry run tells the same."""
    package = foreign_package(tmp_path / "channel/noarch", "toy-1.0-0")
    wheel = foreign_wheel(tmp_path / "wheels", "toy-1.0-py3-none-any.whl")
    first = index.update(tmp_path)
    assert (first.packages, first.wheels) == ((package.name,), (wheel.name,))
    assert first.written == (
        *written_in_a_channel(tmp_path),
        f"wheels/{wheel.name}.metadata",
        *(f"index/toy/{name}" for name in ("index.html", "index.json")),
        *(f"index/{name}" for name in ("index.html", "index.json")),
        *("index.json", "index.html"),  # for people
    )
    assert (first.absent, first.pruned) == ((), ())
    package.unlink()
    wheel.unlink()
    gone = (package.name, wheel.name)
    kept = index.update(tmp_path)
    assert kept.as_dict() == {
        "packages": [package.name],
        "wheels": [wheel.name],
        "written": [],
        "absent": list(gone),
        "pruned": [],
    }
    before = tree(tmp_path)
    dry = index.update(tmp_path, prune=True, dry_run=True)
    assert tree(tmp_path) == before
    pruned = index.update(tmp_path, prune=True)
    for result in (dry, pruned):
        assert (result.packages, result.wheels, result.absent) == ((), (), ())
        assert result.pruned == gone
        changed = {name.split("/")[0] for name in result.written}
        assert changed == {"channel", "index"}
    assert not (tmp_path / "index/toy").exists()
    assert (tmp_path / "index/index.html").is_file()
    assert not (tmp_path / "index.html").exists() and not (tmp_path / "index.json").exists()
    assert list((tmp_path / "wheels").iterdir()) == []


@pytest.mark.parametrize("kind", ["channel", "wheels"])
def test_each_side_alone_is_dry_replaced_and_pruned_too(tmp_path: Path, kind: str) -> None:
    def make(text: bytes) -> Path:
        if kind == "wheels":
            return foreign_wheel(tmp_path / "wheels", "toy-1.0-py3-none-any.whl", init=text)
        return foreign_package(tmp_path / "noarch", "toy-1.0-0", text=text)

    go = index.update_wheel_index if kind == "wheels" else index.update_channel
    make(b"x = 1\n")
    before = tree(tmp_path)
    assert go(tmp_path, dry_run=True).written
    assert tree(tmp_path) == before
    go(tmp_path)
    path = make(b"x = 2\n")
    for dry_run in (True, False):
        with pytest.raises(ConflictError) as caught:
            go(tmp_path, dry_run=dry_run)
        assert caught.value.where == path.name
    assert go(tmp_path, replace=True).written
    assert go(tmp_path).written == ()
    path.unlink()
    dry = go(tmp_path, prune=True, dry_run=True)
    assert (dry.pruned, go(tmp_path).absent) == ((path.name,), (path.name,))
    assert go(tmp_path, prune=True).pruned == (path.name,)
    assert go(tmp_path).absent == ()


def test_publish_tells_a_line_of_each_thing_it_does(tmp_path: Path) -> None:
    wheel = foreign_wheel(tmp_path / "built", "toy-1.0-py3-none-any.whl")
    package = foreign_package(tmp_path / "built", "toy-1.0-0")
    dist = tmp_path / "dist"

    def told(*artifacts: Path, **options: bool) -> list[str]:
        lines: list[str] = []
        made = index.publish(artifacts, dist, report=lines.append, **options)
        assert made == [
            dist / ("wheels" if path.suffix == ".whl" else "channel/noarch") / path.name
            for path in artifacts
        ]
        return lines

    pages = [f"index/toy/{name}" for name in ("index.html", "index.json")]
    pages += [f"index/{name}" for name in ("index.html", "index.json")]
    pages += ["index.json", "index.html"]  # for people
    lines = told(wheel, package)
    written = [*written_in_a_channel(dist), f"wheels/{wheel.name}.metadata", *pages]
    assert lines == [
        *(f"publish {wheel.name}", f"publish {package.name}"),
        *(f"write {name}" for name in written),
    ]
    assert told(wheel, package) == [f"unchanged {wheel.name}", f"unchanged {package.name}"]
    # Damaged after it was published: its own bytes come back.
    damaged = dist / "wheels" / wheel.name
    damaged.write_bytes(b"damaged")
    digest = hashlib.sha256(b"damaged").hexdigest()
    assert told(wheel, dry_run=True) == [f"repair {wheel.name}: its sha256 was {digest}"]
    assert damaged.read_bytes() == b"damaged"
    assert told(wheel) == [f"repair {wheel.name}: its sha256 was {digest}"]
    assert damaged.read_bytes() == wheel.read_bytes()
    # Other bytes, by intention.
    other = foreign_wheel(tmp_path / "other", wheel.name, init=b"x = 2\n")
    assert told(other, replace=True)[0] in (
        f"publish {wheel.name}",
        f"repair {wheel.name}: its sha256 was {hashlib.sha256(wheel.read_bytes()).hexdigest()}",
    )
    assert damaged.read_bytes() == other.read_bytes()


def test_a_refusal_names_both_digests_and_the_way_out(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    first = foreign_wheel(tmp_path / "a", "toy-1.0-py3-none-any.whl")
    other = foreign_wheel(tmp_path / "b", first.name, init=b"x = 2\n")
    index.publish([first], dist)
    short = [hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in (first, other)]
    with pytest.raises(ConflictError) as caught:
        index.publish([other], dist)
    assert caught.value.where == first.name
    assert f"sha256 {short[0]}..., now {short[1]}..." in caught.value.what
    assert caught.value.fix.startswith("raise the build number, or pass --replace")
    shutil.copy(other, dist / "wheels")
    with pytest.raises(ConflictError) as caught:
        index.update(dist)
    assert caught.value.where == first.name
    assert f"sha256 {short[0]}..., the file's is now {short[1]}..." in caught.value.what
    assert "delete it and publish the same build again" in caught.value.fix


# ------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("toy-1.0-0.conda", ("1.0", 0)),
        ("toy-1.0.rc1-py310h1_3.tar.bz2", ("1.0rc1", 3)),
        ("two-parts-1.0-h_12.conda", ("1.0", 12)),
        ("toy-1.0-h_x.conda", ("1.0", 0)),
        ("toy-1.0-h_1234567890.conda", ("1.0", 0)),  # a hash of digits
    ],
)
def test_without_labels_a_package_has_a_version_and_the_number_at_its_end(
    file: str, label: tuple[str, int]
) -> None:
    name, found = intake.package_label(file, Project())
    assert name == file.split("-1.0", maxsplit=1)[0]
    assert (found.version, found.number, found.values) == (*label, ())


def test_a_projects_package_has_its_label(tmp_path: Path) -> None:
    for file, values in (
        (CUDA.conda_file, {"cuda": "13.0", "torch": "2.13", "commit": None}),
        (CUDA.lib_conda_file, {"cuda": "13.0", "commit": None}),
    ):
        name, found = intake.package_label(file, PROJECT)
        assert (name, dict(found.values)) == (file.split("-")[0], values)
    for wrong in ("toy-1.0-0.conda", "flashinfer-0.1.6-0.conda", "flashinfer.conda", "x.whl"):
        with pytest.raises(LabelError) as caught:
            intake.package_label(wrong, PROJECT)
        assert caught.value.where == wrong
    # A package to be folded in that has no template of its own may have any build.
    anyhow = Project.of(config.parse({"package": "a", "fold": [{"package": "toy"}]}, "x"))
    assert intake.package_label("toy-1.0-h1_4.conda", anyhow)[1].number == 4
    assert intake.read_package(foreign_package(tmp_path, "toy-1.0-h1_4"), anyhow)


@pytest.mark.parametrize(
    ("file", "order"),
    [
        ("Toy_Kit-1.0-py3-none-any.whl", (0, "")),
        ("Toy_Kit-1.0-2b-py3-none-any.whl", (2, "b")),
    ],
)
def test_a_wheels_name_is_read_as_installers_do(file: str, order: tuple[int, str]) -> None:
    named = WheelName.of(file, Project())
    assert (named.file, named.project, named.version, named.folder) == (file, "toy-kit", "1.0", "")
    assert named.order[1:] == (order, file)
    assert (named.label.version, named.label.number, named.label.values) == ("1.0", order[0], ())


@pytest.mark.parametrize(
    ("layout", "file", "folder"),
    [
        ("{cuda}", "toy-1.0+k.cu12-py3-none-any.whl", "cu12"),
        ("a[/{cuda}]", "toy-1.0+k.cu12-py3-none-any.whl", "a/cu12"),
        ("n{number}", "toy-1.0+k.cu12-3-py3-none-any.whl", "n3"),
        ("n{number}", "toy-1.0+k.cu12-py3-none-any.whl", "n0"),
        ("{cuda}", "toy-1.0+k-py3-none-any.whl", "cuda has no value"),
        ("a[/{cuda}]", "toy-1.0+k-py3-none-any.whl", "but 'a'"),
        ("[{cuda}]", "toy-1.0+k-py3-none-any.whl", "but ''"),
        ("{word}", "toy-1.0+ka.ak-py3-none-any.whl", "a.a"),
        ("{word}", "toy-1.0+k.k-py3-none-any.whl", "but '.'"),
        ("x/{word}", "toy-1.0+k.k-py3-none-any.whl", "but 'x/.'"),
    ],
)
def test_a_wheel_without_a_folder_of_its_own_is_refused(
    layout: str, file: str, folder: str
) -> None:
    """No value for the layout, or one that leads elsewhere or less deep."""
    fields = {"cuda": {"form": "cu{n}"}, "word": {"characters": "a."}}
    build, local = ("h_{word}", "k{word}k") if "word" in layout else ("h[_{cuda}]", "k[.{cuda}]")
    label = {"build": f"{build}_{{number}}", "local": local, "fields": fields}
    project = Project.of(config.parse({"label": label, "index-layout": layout}, "x"))
    if not folder.startswith(("but ", "cuda has")):
        assert WheelName.of(file, project).folder == folder
        return
    with pytest.raises(LabelError, match="has no folder of the index") as caught:
        WheelName.of(file, project)
    assert (caught.value.where, caught.value.what.endswith(folder)) == (file, True)


@pytest.mark.parametrize("file", ["toy.whl", "toy-1.0-py3.whl", "toy-one-py3-none-any.whl", "toy"])
def test_what_is_no_wheels_name_is_told_how_one_is_made_up(file: str) -> None:
    with pytest.raises(LabelError, match=r"not a wheel's name: .+") as caught:
        WheelName.of(file, Project())
    assert caught.value.where == file
    assert caught.value.expected == "<name>-<version>[-<build>]-<python>-<abi>-<platform>.whl"


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("Name: toy\nVersion: 1.1\n", "Version is '1.1'"),
        ("Name: toy\nVersion: 1.0\nVersion: 1.0\n", "Version is '1.0, 1.0'"),
        ("Name: toy\n", "Version is ''"),
        ("Name: toy\nVersion: one\n", "Version is 'one'"),
        ("Name: other\nVersion: 1.0\n", "Name is 'other'"),
        ("Name: toy\nName: toy\nVersion: 1.0\n", "Name is 'toy, toy'"),
        ("Version: 1.0\n", "Name is ''"),
        ("Name: TOY\nVersion: 1.0.0\n", ""),  # the same to an installer
    ],
)
def test_a_wheel_is_what_its_file_name_says(tmp_path: Path, metadata: str, words: str) -> None:
    wheel = foreign_wheel(
        tmp_path, "toy-1.0-py3-none-any.whl", metadata=f"Metadata-Version: 2.1\n{metadata}"
    )
    if not words:
        assert intake.read_wheel(wheel, Project())[0].file == wheel.name
        return
    with pytest.raises(ArtifactError) as caught:
        intake.read_wheel(wheel, Project())
    assert caught.value.what == words
    assert caught.value.where == f"{wheel.name}: toy-1.0.dist-info/METADATA"
    expected = "'1.0'" if words.startswith("Version") else "'toy'"
    assert caught.value.expected == f"{expected}, as the file name has it"


@pytest.mark.parametrize(
    ("info", "right"),
    [
        ("other-1.0", False),
        ("toy-2.0", False),
        ("toy", False),  # and the tag after it
        ("Toy-1.0.0", True),
    ],
)
def test_a_wheels_metadata_lies_where_installers_look(
    tmp_path: Path, info: str, right: bool
) -> None:
    metadata = "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n"
    path = foreign_wheel(tmp_path, f"{info}-py3-none-any.whl", metadata=metadata)
    wheel = path.rename(tmp_path / "toy-1.0-py3-none-any.whl")
    if right:
        assert intake.read_wheel(wheel, Project())[0].project == "toy"
        return
    with pytest.raises(ArtifactError, match="no installer takes it") as caught:
        intake.read_wheel(wheel, Project())
    assert caught.value.expected == "toy-1.0.dist-info"


def test_the_projects_wheel_has_its_name_to_the_letter(tmp_path: Path) -> None:
    own = Project.of(config.parse({"wheel-name": "toy"}, "x"))
    metadata = "Metadata-Version: 2.1\nName: Toy\nVersion: 1.0\n"
    wheel = foreign_wheel(tmp_path, "toy-1.0-py3-none-any.whl", metadata=metadata)
    assert intake.read_wheel(wheel, Project())
    with pytest.raises(ArtifactError, match="Name is 'Toy'"):
        intake.read_wheel(wheel, own)


@pytest.mark.parametrize(
    ("recorded", "fine"),
    [
        ("{path},sha256={hash},{size}", True),
        ("{path},sha256={hash},", True),
        ("{path},,", True),  # for verify to judge
        ("", True),
        ("{path},sha256={hash},{wrong_size}", False),
        ("{path},sha256={wrong_hash},{size}", False),
    ],
)
def test_a_wheels_files_are_what_record_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, fine: bool
) -> None:
    monkeypatch.setattr(intake, "_CHUNK", 4)  # the sum over a file's pieces counts
    wheel = foreign_wheel(tmp_path, "toy-1.0-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = members["toy.py"]

    def digest(of: bytes) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(of).digest()).rstrip(b"=").decode()

    line = recorded.format(
        path="toy.py",
        hash=digest(data),
        wrong_hash=digest(b"other"),
        size=len(data),
        wrong_size=len(data) + 1,
    )
    record = "toy-1.0.dist-info/RECORD"
    others = [text for text in members[record].decode().splitlines() if "toy.py" not in text]
    members[record] = "\n".join([*others, *([line] if line else []), ""]).encode()
    # What RECORD leaves out does not hide what follows it.
    members = {"toy_none.py": b"", **members}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    _, read = intake.read_wheel(wheel, Project())
    if fine:
        intake.check_wheel(read)
        return
    with pytest.raises(ArtifactError, match="as RECORD has it") as caught:
        intake.check_wheel(read)
    assert caught.value.where == f"{wheel.name}: toy.py"


@pytest.mark.parametrize("subdir", ["", "Linux-64", "linux", "linux-64/x", "../x", "linux-64 "])
def test_a_package_for_no_subdir_is_refused(tmp_path: Path, subdir: str) -> None:
    package = foreign_package(tmp_path, "toy-1.0-0", subdir)
    with pytest.raises(ArtifactError) as caught:
        intake.read_package(package, Project())
    assert caught.value.where == f"{package.name}: info/index.json"
    assert "subdir" in str(caught.value)


def test_an_artifact_deeper_down_is_found_unless_it_is_still_being_written(tmp_path: Path) -> None:
    foreign_wheel(tmp_path / "wheels", "fine-1.0-py3-none-any.whl")
    deep = tmp_path / "wheels" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / ".partial-x-toy-1.0-py3-none-any.whl").touch()
    (deep / "notes.txt").touch()
    assert index.update(tmp_path).wheels == ("fine-1.0-py3-none-any.whl",)
    for side, name, expected in (
        ("wheels", "toy-1.0-py3-none-any.whl", "the wheels of one folder"),
        ("channel/noarch", "toy-1.0-0.conda", "the conda packages of one folder"),
        ("channel", "toy-1.0-0.tar.bz2", "a subdir, such as linux-64 or noarch"),
    ):
        stray = tmp_path / side / "Other" / "b" / name
        stray.parent.mkdir(parents=True)
        stray.touch()
        with pytest.raises(ArtifactError, match="no client looks into") as caught:
            index.update(tmp_path)
        assert (caught.value.where, caught.value.expected) == (str(stray), expected)
        stray.unlink()
    for side, name, what, expected in (
        ("wheels", "toy.pyc", "is no wheel", "files that end in .whl"),
        ("channel/noarch", "x", "is no conda package", "files that end in .conda or .tar.bz2"),
    ):
        stray = tmp_path / side / name
        stray.touch()
        with pytest.raises(ArtifactError) as caught:
            index.update(tmp_path)
        assert (caught.value.what, caught.value.where) == (what, str(stray))
        assert caught.value.expected == expected
        stray.unlink()


def test_what_is_empty_and_what_agrees(tmp_path: Path) -> None:
    assert index.is_empty(tmp_path)
    for name, empty in (
        ("channel/noarch/.hidden", True),
        ("index/other/readme", True),
        ("wheels/notes.txt", True),
        ("channel/noarch/repodata.json", False),
        ("channel/noarch/toy-1.0-0.tar.bz2", False),
        ("wheels/toy-1.0-py3-none-any.whl", False),
        ("index/toy/index.html", False),
    ):
        folder = tmp_path / name.replace("/", "_")
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        assert index.is_empty(folder) is empty, name
    dist = tmp_path / "dist"
    foreign_package(dist / "channel/noarch", "toy-1.0-0")
    foreign_wheel(dist / "wheels", "toy-1.0-py3-none-any.whl")
    index.update(dist)
    whole = {path: path.read_bytes() for path in dist.rglob("*") if path.is_file()}
    pages = [
        path
        for path in whole
        if "index" in path.parts or ("channel" in path.parts and path.suffix != ".conda")
    ]
    assert len(pages) == 4 + 2 * len(FORMS) + 1
    for page in pages:
        page.unlink()
        assert not index.consistent(dist), page
        page.write_bytes(whole[page])
        assert index.consistent(dist)
    (dist / "channel" / "notes.txt").write_text("a file that does not belong here")
    assert not index.consistent(dist)


# ------------------------------------------------------------ pip, over http

HTML_AND_JSON = pytest.mark.parametrize(
    "server", [False, True], ids=["html", "json"], indirect=True
)


class Handler(http.server.SimpleHTTPRequestHandler):
    """A static server that knows PEP 691: asked for JSON, it sends index.json of a folder."""

    json_pages = False
    requests: list[str] = []  # noqa: RUF012  (one list for the server of a test)

    def send_head(self) -> Any:
        self.requests.append(self.path)
        kind = "application/vnd.pypi.simple.v1+json"
        if self.json_pages and self.path.endswith("/") and kind in self.headers.get("Accept", ""):
            body = (Path(self.translate_path(self.path)) / "index.json").read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None
        return super().send_head()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server:
    """A folder over http on 127.0.0.1, and what was asked of it."""

    def __init__(self, folder: Path, json_pages: bool) -> None:
        self.requests: list[str] = []
        attributes = {"json_pages": json_pages, "requests": self.requests}
        handler = functools.partial(type("Bound", (Handler,), attributes), directory=str(folder))
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def asked(self, ending: str) -> list[str]:
        return [path for path in self.requests if path.endswith(ending)]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    dist = tmp_path / "dist"
    for label in (CPU, CUDA, *HISTORIC, factories.label_of("cu130_torch213", build_number=1)):
        small_wheel(
            dist / "wheels", label, init=f'label = "{label}-{label.build_number}"\n'.encode()
        )
    update(dist)
    running = Server(dist, getattr(request, "param", False))
    yield running
    running.close()


def pip(server: Server, label: Label, *arguments: str) -> subprocess.CompletedProcess[str]:
    return pip_from(f"{server.address}/index/{label.index_dir}/", *arguments)


def pip_from(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check"),
            *arguments,
            *("--no-cache-dir", "--index-url", address),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**environ, "PIP_CONFIG_FILE": os.devnull},
    )


@pytest.mark.parametrize(
    ("label", "wanted", "expected"),
    [
        (CPU, "flashinfer", "0.1.6+cputorch2.13-3"),  # the higher build tag
        (CUDA, "flashinfer==0.1.6", "0.1.6+cu130torch2.13-1"),
        (CUDA, "flashinfer==0.1.6+cu130torch2.13", "0.1.6+cu130torch2.13-1"),
        (CUDA, "flashinfer==0.1.6rc1", "0.1.6rc1+cu130torch2.13-0"),
        (HISTORIC[0], "flashinfer", "0.1.6.post1+cu124torch2.4-0"),
        (
            HISTORIC[1],
            "flashinfer==0.1.6.dev20261122",
            "0.1.6.dev20261122+cu124torch2.4.g0123456-0",
        ),
        (HISTORIC[3], "flashinfer", "0.1.6+cu151torch2.99-0"),
    ],
)
def test_pip_installs_from_the_index(
    server: Server, tmp_path: Path, label: Label, wanted: str, expected: str
) -> None:
    target = tmp_path / "site"
    done = pip(server, label, "install", "--target", str(target), wanted)
    assert done.returncode == 0, done.stderr
    assert (target / "flashinfer" / "__init__.py").read_text() == f'label = "{expected}"\n'
    page_path = f"/index/{label.index_dir}/flashinfer/"
    assert server.asked(page_path)
    # PEP 658: the metadata was fetched by itself, before one wheel.
    assert len(server.asked(".whl.metadata")) == 1
    assert len(server.asked(".whl")) == 1


@HTML_AND_JSON
def test_pip_resolves_from_metadata_alone(server: Server, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = pip(
        server,
        CUDA,
        *("install", "--dry-run", "--ignore-installed", "--target", str(tmp_path / "site")),
        *("--report", str(report), "flashinfer"),
    )
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(report.read_text())["install"]
    assert item["metadata"]["version"] == "0.1.6+cu130torch2.13"
    assert len(server.asked(".whl.metadata")) == 1


def test_pip_refuses_a_wheel_that_was_changed_on_the_server(server: Server, tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "dist" / "wheels", HISTORIC[3], init=b"evil = True\n")
    done = pip(server, HISTORIC[3], "install", "--target", str(tmp_path / "site"), "flashinfer")
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in done.stderr


@HTML_AND_JSON
def test_the_server_of_these_tests_speaks_json(server: Server) -> None:
    request = urllib.request.Request(
        f"{server.address}/index/{CUDA.index_dir}/flashinfer/",
        headers={"Accept": "application/vnd.pypi.simple.v1+json"},
    )
    with urllib.request.urlopen(request) as answer:
        kind = answer.headers["Content-Type"]
    assert ("json" in kind) is server.http.RequestHandlerClass.func.json_pages  # type: ignore[attr-defined]


# ------------------------------------------------------------ the program


def program(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "index.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"},
    )


def test_the_program(root: Path, tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "built", CUDA)
    dist = tmp_path / "dist"
    done = program(root, dist, "--add", wheel, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"publish {wheel.name}" in done.stdout
    assert not dist.exists()
    done = program(root, dist, "--add", wheel)
    assert done.returncode == 0, done.stderr
    assert "1 wheels" in done.stdout
    done = program(root, dist, "--json")
    assert json.loads(done.stdout)["written"] == []
    assert json.loads(done.stdout)["wheels"] == [wheel.name]
    done = program(root, dist)
    assert "nothing has changed" in done.stdout


def test_the_program_says_what_is_wrong(root: Path, tmp_path: Path) -> None:
    done = program(root, tmp_path / "missing")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path / 'missing'}: there is no such folder\n  expected: a folder" in done.stderr
    done = program(root, tmp_path, "--add", tmp_path / "missing.conda")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path / 'missing.conda'}: there is no such file" in done.stderr
    assert "expected: .conda, .tar.bz2 or .whl" in done.stderr
    small_wheel(tmp_path / "wheels", CUDA)
    update(tmp_path)
    small_wheel(tmp_path / "wheels", CUDA, init=b"other\n")
    done = program(root, tmp_path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "ConflictError"
