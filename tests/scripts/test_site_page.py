"""The page and the listing beside the index, where they are written, and what they are made of."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import elf_factory
import factories
import msgspec
import pytest
from wheel_factory import make_wheel

from conda_bridge import config
from conda_bridge.errors import ArtifactError
from conda_bridge.project import Project
from conda_bridge.publish import index, intake, record, site_page
from conda_bridge.publish.facts import Facts, Look, arch_list
from conda_bridge.publish.listing import Item, read_listing

OURS = factories.FLASHINFER
CUDA = factories.label_of("cu130_torch213")


def item(name: str, **more: Any) -> Item:
    folder = "wheels" if name.endswith(".whl") else "channel/linux-64"
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Item(**{"name": name, "folder": folder, "sha256": digest, "size": 7, **more})


def data_of(page: bytes) -> dict[str, Any]:
    [text] = re.findall(r'id="data">(.*?)</script>', page.decode())
    document: dict[str, Any] = json.loads(text)
    return document


# ---------------------------------------------------------------- facts


def test_facts_are_those_of_all_libraries() -> None:
    look = Look()
    assert look.facts == Facts()
    for glibc in ("2.9", "2.28", "2.17"):
        strings = f"\0libc.so.6\0GLIBC_{glibc}\0".encode()
        made = elf_factory.shared_object(
            strings=strings,
            sections={".gnu.version_r": elf_factory.needs([(1, [11])])},
            counts={".gnu.version_r": 1},
        )
        look.take("lib/one.so", iter([made[:50], made[50:]]))
    images = elf_factory.image(arch=80) + elf_factory.image(kind=1, arch=80)
    fatbin = elf_factory.fat_binary(images + elf_factory.image(arch=90, flags=1 << 20))
    look.take("two.so", iter([elf_factory.shared_object(sections={".nv_fatbin": fatbin})]))
    # What is no library, or none that can be read, says nothing, and is read to its end.
    rest = iter([b"\x7fELF", b"damaged", b"x"])
    look.take("three.so", rest)
    look.take("empty.txt", iter(()))
    assert next(rest, None) is None
    assert look.facts == Facts(("compute_80", "sm_80", "sm_90a"), "2.28")


@pytest.mark.parametrize(
    ("codes", "listed"),
    [
        ((), []),
        (("sm_100", "sm_80", "sm_90"), ["8.0", "9.0", "10.0"]),
        (("compute_90", "sm_80"), ["8.0", "9.0+PTX"]),
        (("lto_80", "sm_120f", "compute_120f"), ["12.0f+PTX"]),
    ],
)
def test_code_in_torchs_notation(codes: tuple[str, ...], listed: list[str]) -> None:
    assert arch_list(codes) == listed


def test_an_entry_that_says_nothing_of_facts_is_read() -> None:
    """Of a record that was written before there were any."""
    old = {
        "name": CUDA.wheel_file, "folder": "wheels", "sha256": "0" * 64, "size": 1,
        "version": "0.1.6", "metadata_sha256": "0" * 64,
    }  # fmt: skip
    assert msgspec.convert(old, record.File).facts == Facts()
    new = record.File(**old, facts=Facts(("sm_80",), "2.28"))
    assert msgspec.json.decode(msgspec.json.encode(new), type=record.File) == new


# ---------------------------------------------------------------- a folder


def test_the_folder_remembers_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Facts(("sm_80",), "2.28")
    seen: list[str] = []

    def measure(artifact: Any) -> Facts:
        seen.append(artifact.path.name)
        return measured

    monkeypatch.setattr(intake, "check_package", measure)
    monkeypatch.setattr(intake, "check_wheel", measure)
    package = factories.write_pair(tmp_path / "made", CUDA)
    wheel = factories.bridge(package, tmp_path / "made").path
    index.publish([package, wheel], tmp_path / "dist", project=OURS)
    listing = tmp_path / "dist" / "index.json"
    items = read_listing(listing)
    assert items is not None and {one.facts for one in items} == {measured}
    assert index.update(tmp_path / "dist", project=OURS).written == ()
    assert sorted(seen) == sorted([package.name, wheel.name])
    # A listing that is not what the page was made of is not believed.
    listing.write_text(listing.read_text().replace("sm_80", "sm_90"))
    assert index.update(tmp_path / "dist", project=OURS).written == ("index.json",)
    assert sorted(seen) == sorted([package.name, wheel.name] * 2)
    for damaged in ("index.json", "index.html"):
        (tmp_path / "dist" / damaged).unlink()
        assert index.update(tmp_path / "dist", project=OURS).written == (damaged,)


def test_a_page_of_somebody_elses_stays(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "toy", "1.0")
    page = tmp_path / "index.html"
    page.write_text("<h1>mine</h1>")
    with pytest.raises(ArtifactError, match="did not write") as caught:
        index.update(tmp_path)
    assert "move it" in caught.value.fix
    assert page.read_text() == "<h1>mine</h1>" and not (tmp_path / "index").exists()


def test_pages_of_versions_that_are_gone_go(tmp_path: Path) -> None:
    made = []
    for version in ("0.1.5", "0.1.6"):
        label = factories.label_of(public_version=version)
        made.append(factories.bridge(factories.write_pair(tmp_path / "made", label),
                                     tmp_path / "made").path)  # fmt: skip
    index.publish(made, tmp_path / "dist", project=OURS)
    old = tmp_path / "dist/versions/0.1.5.html"
    assert old.is_file()
    (tmp_path / "dist/wheels" / made[0].name).unlink()
    index.update(tmp_path / "dist", project=OURS)
    assert old.is_file()
    index.update(tmp_path / "dist", project=OURS, prune=True)
    assert not old.exists() and (tmp_path / "dist/index.html").is_file()


# ---------------------------------------------------------------- which page, which build


def test_the_newest_release_that_can_be_had_is_the_page(tmp_path: Path) -> None:
    def pages(*versions: tuple[str, str | None]) -> dict[str, bytes]:
        return site_page.documents(
            [
                item(factories.label_of(public_version=version).wheel_file, yanked=yanked)
                for version, yanked in versions
            ],
            OURS,
        )

    def shown(made: dict[str, bytes]) -> str:
        [version] = re.findall(rb'<span class="version">(.*?)</span>', made["index.html"])
        return bytes(version).decode()

    assert shown(pages(("0.1.9", None), ("0.1.10", None), ("0.2.0rc1", None))) == "0.1.10"
    assert shown(pages(("0.1.9", None), ("0.1.10", "wrong"))) == "0.1.9"
    assert shown(pages(("0.2.0rc1", None), ("0.2.0.dev1", None))) == "0.2.0rc1"
    gone = pages(("0.1.6", ""))
    assert shown(gone) == "0.1.6" and b'id="choose"' not in gone["index.html"]
    assert site_page.documents([], OURS) == {}


def test_a_project_without_labels_names_its_wheels_by_address() -> None:
    """Others can have the version: the address and the digest nobody else has."""
    names = ["toy-1.0-py3-none-any.whl", "other_toy-2.0-py3-none-any.whl", "toy-1.0-py_0.conda"]
    items = [item(name) for name in names] + [item("zope.thing-2024a-py_0.conda")]
    made = site_page.documents(items, Project())
    assert set(made) == {"index.html", "index.json"}
    data = data_of(made["index.html"])
    assert [field["id"] for field in data["fields"]] == ["package"]
    words = {build["values"]["package"]: build["words"] for build in data["builds"]}
    assert words["toy"]["wheel"] == (
        f"toy @ <address>/wheels/toy-1.0-py3-none-any.whl#sha256={items[0].sha256}"
    )
    assert words["toy"]["conda"] == "toy=1.0=py_0"
    assert words["zope.thing"] == {"conda": "zope.thing=2024a=py_0"}


def test_of_wheels_for_several_platforms_none_is_taken_for_the_other() -> None:
    names = [f"toy-1.0-cp310-abi3-{tag}.whl" for tag in ("linux_x86_64", "linux_aarch64")]
    [build] = data_of(site_page.documents(map(item, names), Project())["index.html"])["builds"]
    assert build["words"] == {} and len(build["wheels"]) == 2


def test_texts_are_the_projects(tmp_path: Path) -> None:
    table = {
        "package": "toy",
        "page": {
            "title": "<Toys>",
            "summary": "For you & me",
            "none": {"cuda": "no GPU"},
            "channels": ["x"],
        },
        "label": {
            "build": "{cuda}_{number}",
            "local": "{cuda}",
            "fields": {"cuda": {"form": "cu{major:2}{minor}", "none": "cpu"}},
        },
    }
    project = Project.of(config.parse(table, "x"))
    made = site_page.documents(
        [item("toy-1.0-cpu_0.conda"), item("toy-1.0-cu130_1.conda")], project
    )
    text = made["index.html"].decode()
    assert "&lt;Toys&gt;" in text and "For you &amp; me" in text and "<Toys>" not in text
    data = data_of(made["index.html"])
    assert data["fields"][0]["values"] == {"": "no GPU", "13.0": "13.0"}
    assert data["patterns"]["conda"] == 'conda install -c <address>/channel -c x "{conda}"'


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (5_770_000, "5.77 MB")],
)
def test_sizes_for_people(number: int, text: str) -> None:
    assert site_page.size(number) == text
