"""The channel and the wheel index: what is written, what is refused, and real clients."""

# ruff: noqa: E501  (tables: a case a line)

from __future__ import annotations

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
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import factories
import pytest
import toy_artifacts as toy
from hypothesis import given, settings
from hypothesis import strategies as st

from conda_bridge.errors import ArtifactError, BridgeError, ConflictError, LabelError
from conda_bridge.formats import conda_writer
from conda_bridge.formats.zstd import zstd
from conda_bridge.label import Label
from conda_bridge.publish import index
from conda_bridge.publish import wheels as wheel_index
from conda_bridge.publish.wheels import WheelEntry

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
    """Every file but the lock, by its path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
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
    index.update_wheel_index(tmp_path)
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
    index.update_wheel_index(tmp_path)
    document = page(tmp_path, CUDA)
    assert document["meta"] == {"api-version": "1.1"}
    assert document["versions"] == ["0.1.6+cu130torch2.13"]
    (entry,) = document["files"]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert entry["hashes"] == {"sha256": digest}
    assert entry["size"] == wheel.stat().st_size
    assert entry["core-metadata"] == entry["dist-info-metadata"]
    assert "upload-time" not in entry
    root = json.loads((tmp_path / "index" / CUDA.index_dir / "index.json").read_text())
    assert root == {"meta": {"api-version": "1.1"}, "projects": [{"name": "flashinfer"}]}


def test_the_root_pages_lead_down(tmp_path: Path) -> None:
    for label in (CPU, CUDA, *HISTORIC):
        small_wheel(tmp_path / "wheels", label)
    index.update_wheel_index(tmp_path)
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
    index.update_wheel_index(tmp_path)
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
    index.update_wheel_index(tmp_path)
    text = (tmp_path / "index" / CPU.index_dir / "flashinfer" / "index.html").read_text()
    assert "<script>" not in text
    (link,) = Anchors(text).found
    assert link["data-requires-python"] == python


# ------------------------------------------------------------ adding to what is there


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CUDA)
    first = index.update_wheel_index(tmp_path)
    assert "index/index.html" in first.written
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert index.update_wheel_index(tmp_path).written == ()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_order_of_adding_does_not_matter(tmp_path: Path) -> None:
    labels = [CPU, CUDA, HISTORIC[0], HISTORIC[1]]
    results = []
    for number, order in enumerate(itertools.islice(itertools.permutations(labels), 0, 24, 5)):
        folder = tmp_path / str(number)
        for label in order:
            small_wheel(folder / "wheels", label)
            index.update_wheel_index(folder)
        results.append({name: data for name, data in tree(folder).items() if "index" in name})
    assert all(result == results[0] for result in results)
    assert len(results) == 5


def test_adding_drops_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    label = HISTORIC[0]
    names = []
    for number in range(4):
        built = factories.label_of(label.variant.id, build_number=number)
        names.append(small_wheel(tmp_path / "wheels", built).name)
        index.update_wheel_index(tmp_path)
        index.update_wheel_index(tmp_path)
    assert [item["filename"] for item in page(tmp_path, label)["files"]] == names


def test_an_entry_whose_wheel_is_elsewhere_is_kept(tmp_path: Path) -> None:
    old = small_wheel(tmp_path / "wheels", CUDA)
    index.update_wheel_index(tmp_path)
    entry = page(tmp_path, CUDA)["files"][0]
    old.unlink()
    small_wheel(tmp_path / "wheels", factories.label_of("cu130_torch213", build_number=1))
    result = index.update_wheel_index(tmp_path)
    assert result.absent == (old.name,)
    assert page(tmp_path, CUDA)["files"][0] == entry
    assert len(page(tmp_path, CUDA)["files"]) == 2


def test_prune_drops_it(tmp_path: Path) -> None:
    gone = small_wheel(tmp_path / "wheels", CUDA)
    small_wheel(tmp_path / "wheels", CPU)
    index.update_wheel_index(tmp_path)
    gone.unlink()
    dry = index.update_wheel_index(tmp_path, prune=True, dry_run=True)
    assert dry.pruned == (gone.name,)
    assert page(tmp_path, CUDA)["files"]
    result = index.update_wheel_index(tmp_path, prune=True)
    assert result.pruned == (gone.name,)
    assert result.wheels == (CPU.wheel_file,)
    assert not (tmp_path / "index" / "cu130").exists()
    assert not gone.with_name(gone.name + ".metadata").exists()
    assert index.update_wheel_index(tmp_path).written == ()


def test_other_bytes_under_a_published_name_are_refused(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CUDA)
    index.update_wheel_index(tmp_path)
    before = tree(tmp_path)
    small_wheel(tmp_path / "wheels", CUDA, init=b"value = 43\n")
    small_wheel(tmp_path / "wheels", CPU)
    with pytest.raises(ConflictError, match="published with other bytes"):
        index.update_wheel_index(tmp_path)
    after = tree(tmp_path)
    assert {name: data for name, data in after.items() if name in before} != before  # the wheel
    assert {name for name in after if not name.endswith(".whl")} == {
        name for name in before if not name.endswith(".whl")
    }
    assert index.update_wheel_index(tmp_path, replace=True).wheels == (
        CPU.wheel_file,
        CUDA.wheel_file,
    )


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CUDA)
    before = tree(tmp_path)
    result = index.update(tmp_path, dry_run=True)
    assert "index/index.html" in result.written
    assert tree(tmp_path) == before
    assert set(index.update(tmp_path).written) == set(result.written)


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
    index.update_wheel_index(tmp_path)
    before = tree(tmp_path)
    shutil.copy(tmp_path / "wheels" / CPU.wheel_file, tmp_path / "wheels" / name)
    with pytest.raises((ArtifactError, LabelError), match=words):
        index.update_wheel_index(tmp_path)
    (tmp_path / "wheels" / name).unlink()
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"files": [{"filename": "x"}]}', '{"files": [{"filename": "../x.whl", "hashes": {"sha256": "0"}, "size": 1, "requires-python": null, "core-metadata": {"sha256": "0"}}]}'],
)  # fmt: skip
def test_a_page_that_is_none_of_ours(tmp_path: Path, text: str) -> None:
    small_wheel(tmp_path / "wheels", CPU)
    index.update_wheel_index(tmp_path)
    target = tmp_path / "index" / CPU.index_dir / "flashinfer" / "index.json"
    target.write_text(text)
    target.with_suffix(".html").unlink()
    with pytest.raises(ArtifactError, match=r"cpu/torch2\.13/flashinfer/index\.json"):
        index.update_wheel_index(tmp_path)
    assert target.read_text() == text


def test_a_page_in_the_wrong_folder(tmp_path: Path) -> None:
    small_wheel(tmp_path / "wheels", CPU)
    index.update_wheel_index(tmp_path)
    shutil.copytree(tmp_path / "index" / "cpu", tmp_path / "index" / "cu130")
    with pytest.raises(ArtifactError, match=re.escape(CPU.wheel_file)):
        index.update_wheel_index(tmp_path)


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
    entries = [WheelEntry(label.wheel_file, "0" * 64, 1, ">=3.8", "1" * 64) for label in labels]
    pages = wheel_index.pages(entries)
    assert pages == wheel_index.pages(reversed(entries))
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
    result = index.update_channel(tmp_path)
    assert set(result.packages) == {CPU.conda_file, CPU.lib_conda_file}
    document = json.loads((folder / "repodata.json").read_text())
    record = document["packages.conda"][CPU.conda_file]
    assert record["depends"] == factories.binding_index(CPU)["depends"]
    assert record["sha256"] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert record["md5"] == hashlib.md5(package.read_bytes()).hexdigest()
    assert record["size"] == package.stat().st_size
    assert (record["noarch"], record["subdir"]) == ("python", "linux-64")
    compressed = (folder / "repodata.json.zst").read_bytes()
    assert json.loads(zstd.decompress(compressed)) == document
    assert json.loads((tmp_path / "noarch" / "repodata.json").read_text())["packages.conda"] == {}
    assert index.update_channel(tmp_path).written == ()


def test_the_channel_keeps_refuses_and_prunes(tmp_path: Path) -> None:
    folder = tmp_path / "linux-64"
    package = factories.write_pair(folder, CPU)
    index.update_channel(tmp_path)
    before = (folder / "repodata.json").read_bytes()
    factories.write_binding(folder, CPU, index={"license": "MIT"})
    with pytest.raises(ConflictError, match="raise the build number"):
        index.update_channel(tmp_path)
    assert (folder / "repodata.json").read_bytes() == before
    package.unlink()
    assert index.update_channel(tmp_path).absent == (package.name,)
    assert (folder / "repodata.json").read_bytes() == before
    assert index.update_channel(tmp_path, prune=True).packages == (CPU.lib_conda_file,)


def test_a_package_in_the_wrong_subdir(tmp_path: Path) -> None:
    factories.write_pair(tmp_path / "noarch", CPU)
    with pytest.raises(ArtifactError, match="is a package for linux-64"):
        index.update_channel(tmp_path)


def test_a_package_for_another_platform(tmp_path: Path) -> None:
    factories.write_binding(tmp_path / "linux-64", CPU, index={"subdir": "osx-arm64"})
    with pytest.raises(ArtifactError, match="osx-arm64"):
        index.update_channel(tmp_path)


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
        index.update_channel(tmp_path)


def test_repodata_that_is_none_of_ours(tmp_path: Path) -> None:
    factories.write_pair(tmp_path / "linux-64", CPU)
    (tmp_path / "linux-64" / "repodata.json").write_text('{"packages.conda": {"x": {}}}')
    with pytest.raises(ArtifactError, match=r"linux-64/repodata\.json"):
        index.update_channel(tmp_path)


def test_either_form_is_where_clients_look_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "linux-64"
    package = factories.write_pair(folder, CPU)
    old = factories.as_tar_bz2(package.with_name(CPU.lib_conda_file))
    package.with_name(CPU.lib_conda_file).unlink()
    result = index.update_channel(tmp_path)
    assert result.packages == (package.name, old.name)
    document = json.loads((folder / "repodata.json").read_text())
    assert list(document["packages.conda"]) == [package.name]
    assert list(document["packages"]) == [old.name]
    record = document["packages"][old.name]
    assert record["sha256"] == hashlib.sha256(old.read_bytes()).hexdigest()
    assert record["size"] == old.stat().st_size
    assert (record["name"], record["build"]) == ("libflashinfer", "cpu_0")
    assert index.update_channel(tmp_path).written == ()
    # What is kept, refused and dropped does not depend on the form.
    before = (folder / "repodata.json").read_bytes()
    data = old.read_bytes()
    factories.raw_tar_bz2(old, reversed(factories.tar_members(bz2.decompress(data))))
    with pytest.raises(ConflictError, match=re.escape(old.name)):
        index.update_channel(tmp_path)
    old.unlink()
    assert index.update_channel(tmp_path).absent == (old.name,)
    assert (folder / "repodata.json").read_bytes() == before
    assert index.update_channel(tmp_path, prune=True).pruned == (old.name,)
    document = json.loads((folder / "repodata.json").read_text())
    assert (document["packages"], list(document["packages.conda"])) == ({}, [package.name])


@pytest.mark.parametrize("publish", [False, True])
def test_two_forms_of_a_package_hold_the_same_files(tmp_path: Path, publish: bool) -> None:
    package = factories.write_pair(tmp_path / "built", CPU)
    library = package.with_name(CPU.lib_conda_file)
    same = factories.as_tar_bz2(library, tmp_path / "same")
    files = {"include/flashinfer/api.h": b"other"}
    other_conda = factories.write_library(tmp_path / "b", CPU, files=files)
    other = factories.as_tar_bz2(other_conda, tmp_path / "other")
    dist = tmp_path / "dist"
    index.publish([package, library, same], dist)
    records = json.loads((dist / "channel/linux-64/repodata.json").read_text())
    assert {*records["packages"], *records["packages.conda"]} == {
        *(path.name for path in (package, library, same))
    }
    shutil.rmtree(dist)
    if publish:
        with pytest.raises(ConflictError, match=r"include/flashinfer/api\.h differs"):
            index.publish([package, library, other], dist)
        assert tree(dist) == {}
        index.publish([package, library], dist)
        before = tree(dist)
        with pytest.raises(ConflictError, match=r"include/flashinfer/api\.h differs"):
            index.publish([other], dist)
        assert tree(dist) == before
    else:
        for path in (library, other):
            (dist / "channel" / "linux-64").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, dist / "channel" / "linux-64")
        before = tree(dist)
        with pytest.raises(ConflictError, match=r"include/flashinfer/api\.h differs"):
            index.update(dist)
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
    index.update_channel(folder)
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
    made = index.publish([package, library, wheel], dist, report=lines.append)
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
    index.publish([package, library, wheel], dist, report=lines.append)
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
    published = index.publish(first, dist)
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
        index.publish([fresh, other], dist)
    assert raised.value.exit_code == 1
    assert tree(dist) == before
    index.publish([fresh, other], dist, replace=True)
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
        index.publish([fresh, tmp_path / name], tmp_path / "dist")
    assert tree(tmp_path / "dist") == {}


def test_a_dry_run_of_publish(tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "built", CPU)
    lines: list[str] = []
    index.publish([wheel], tmp_path / "dist", dry_run=True, report=lines.append)
    assert lines == [f"publish {wheel.name}"]
    assert not (tmp_path / "dist").exists()


def _publish_both(tmp_path: Path) -> tuple[list[Path], Path, dict[str, bytes]]:
    package = factories.write_pair(tmp_path / "built", CPU)
    built = [package, package.with_name(CPU.lib_conda_file), small_wheel(tmp_path / "built", CPU)]
    dist = tmp_path / "dist"
    index.publish(built, dist)
    return built, dist, tree(dist)


def test_a_bit_flipped_in_any_published_file_is_noticed_and_mended(tmp_path: Path) -> None:
    built, dist, before = _publish_both(tmp_path)
    assert index.consistent(dist)
    for name in before:
        if name.endswith(".lock") or not before[name]:
            continue
        for place in (0.1, 0.5, 0.9):
            data = bytearray(before[name])
            data[int(len(data) * place)] ^= 1
            (dist / name).write_bytes(data)
            if "repodata" in name or name.startswith("index/"):
                assert not index.consistent(dist), (name, place)
            index.publish(built, dist)
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
    index.publish(built, dist)
    assert tree(dist) == before


def test_a_file_that_no_page_lists_is_somebody_elses(tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "a", CPU)
    target = tmp_path / "dist" / "wheels" / wheel.name
    target.parent.mkdir(parents=True)
    target.write_bytes(b"somebody else's")
    with pytest.raises(ConflictError, match=re.escape(wheel.name)):
        index.publish([wheel], tmp_path / "dist")
    assert target.read_bytes() == b"somebody else's"


def test_a_damaged_file_that_this_build_does_not_make_is_reported(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    [other] = index.publish([small_wheel(tmp_path / "a", CUDA)], dist)
    small_wheel(tmp_path / "b", CUDA, init=b"damaged\n").replace(other)
    damaged = other.read_bytes()
    with pytest.raises(ConflictError, match=re.escape(CUDA.wheel_file)) as raised:
        index.publish([small_wheel(tmp_path / "a", CPU)], dist)
    assert "delete it and publish the same build again" in raised.value.fix
    assert other.read_bytes() == damaged
    other.unlink()
    index.publish([tmp_path / "a" / CUDA.wheel_file], dist)
    assert index.consistent(dist)


def test_an_interrupted_publish_is_finished_by_the_next(tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path / "built", CPU)
    dist = tmp_path / "dist"
    index.publish([small_wheel(tmp_path / "built", CUDA)], dist)
    shutil.copy(wheel, dist / "wheels" / wheel.name)  # killed after the copy, before the page
    (dist / "wheels" / (".partial-x-" + HISTORIC[0].wheel_file)).write_bytes(b"half")
    index.publish([wheel], dist)
    assert page(dist, CPU)["files"][0]["filename"] == wheel.name
    assert len(list((dist / "index").glob("*/*/flashinfer/index.json"))) == 2


def test_publishers_wait_for_one_another(tmp_path: Path) -> None:
    labels = [factories.label_of("cpu_torch213", build_number=number) for number in range(6)]
    wheels = [small_wheel(tmp_path / "built", label) for label in labels]
    threads = [
        threading.Thread(target=index.publish, args=([wheel], tmp_path / "dist"))
        for wheel in wheels
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [item["filename"] for item in page(tmp_path / "dist", CPU)["files"]]
    assert names == [wheel.name for wheel in wheels]


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
    index.update(dist)
    running = Server(dist, getattr(request, "param", False))
    yield running
    running.close()


def pip(server: Server, label: Label, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check"),
            *arguments,
            *("--no-cache-dir", "--index-url", f"{server.address}/index/{label.index_dir}/"),
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
    index.update(tmp_path)
    small_wheel(tmp_path / "wheels", CUDA, init=b"other\n")
    done = program(root, tmp_path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "ConflictError"
