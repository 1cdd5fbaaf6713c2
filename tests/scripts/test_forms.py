"""Every form of the channel and the index, what an addition makes anew, and the archive."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import factories
import installers
import msgspec
import publishing
import pytest
import rattler
from test_index import Anchors, foreign_package, foreign_wheel
from test_release import artifacts

from conda_bridge.errors import ArtifactError, BridgeError, ConfigError
from conda_bridge.formats import conda_package
from conda_bridge.formats.zstd import zstd
from conda_bridge.publish import (
    channel,
    channel_forms,
    export,
    folder_store,
    index,
    intake,
    memory,
    pages,
    release,
)
from conda_bridge.publish.channel_forms import Listed
from conda_bridge.publish.record import Record
from conda_bridge.publish.store import MEMORY, open_store
from flashinfer_build.label import Label

OURS = factories.FLASHINFER  # with all the folders that the index really has
CPU = factories.label_of("cpu_torch213")
CUDA = factories.label_of("cu130_torch213")
OLDER = factories.label_of("cu130_torch212")
NIGHTLY = factories.label_of("cu130_torch213", public_version="0.1.7.dev20261130", commit="1a2b3c4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[Label, list[Path]]:
    folder = tmp_path_factory.mktemp("artifacts")
    return {label: artifacts(folder / str(label), label) for label in (CPU, CUDA, OLDER, NIGHTLY)}


@pytest.fixture(scope="module")
def site(made: dict[Label, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place with all of them, in which the older variant was yanked."""
    root = tmp_path_factory.mktemp("site") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "now", lambda: publishing.TIME)
        put(root, *made.values())
        release.yank(
            ["*cu130_torch212*", "*cu130torch2.12*"], open_store(str(root)), OURS, reason="x"
        )
    yield root


def put(root: Path, *paths: list[Path]) -> release.Outcome:
    sources = release.read_sources([path for some in paths for path in some], OURS, lambda _: None)
    return release.publish(sources, open_store(str(root)), OURS)


class Server:
    """A folder over http on 127.0.0.1, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *words: Any) -> None:
                super().__init__(*words, directory=str(folder))

            def send_head(self) -> Any:
                asked.append(self.path)
                kind = "application/vnd.pypi.simple.v1+json"
                if self.path.endswith("/") and kind in self.headers.get("Accept", ""):
                    self.path += "index.json"
                    self.extensions_map = {**self.extensions_map, ".json": kind}
                return super().send_head()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(site: Path) -> Iterator[Server]:
    running = Server(site)
    yield running
    running.http.shutdown()
    running.http.server_close()


# ---------------------------------------------------------------- the channel


def record(name: str, version: str, build: str = "0", number: int = 0, *depends: str) -> Any:
    sha256 = hashlib.sha256(f"{name}-{version}-{build}".encode()).hexdigest()
    return {
        **{"name": name, "version": version, "build": build, "build_number": number},
        **{"depends": list(depends), "sha256": sha256, "md5": sha256[:32], "size": 1},
        "subdir": "linux-64",
    }


def listed(*records: Any, yanked: str = "") -> dict[str, Listed]:
    return {
        f"{item['name']}-{item['version']}-{item['build']}.conda": Listed(
            item, {"weak": [item["name"]]}, item["version"] == yanked
        )
        for item in records
    }


def shards_of(made: dict[str, bytes]) -> dict[str, Any]:
    """Of each name its shard, found as a client finds it."""
    found = msgspec.msgpack.decode(zstd.decompress(made["repodata_shards.msgpack.zst"]))
    assert found["info"] == {"base_url": "./", "shards_base_url": "./shards/", "subdir": "linux-64"}
    shards = {}
    for name, digest in found["shards"].items():
        data = made[f"shards/{digest.hex()}.msgpack.zst"]
        assert hashlib.sha256(data).digest() == digest
        shards[name] = msgspec.msgpack.decode(zstd.decompress(data))
    return shards


def test_all_forms_say_the_same() -> None:
    packages = listed(record("a", "1"), record("a", "2"), record("b", "1"), yanked="2")
    made = channel_forms.documents("linux-64", packages)
    for name in ("repodata.json", "current_repodata.json", "run_exports.json"):
        assert zstd.decompress(made[f"{name}.zst"]) == made[name]
    whole = json.loads(made["repodata.json"])
    assert (set(whole["packages.conda"]), whole["removed"]) == (
        {"a-1-0.conda", "b-1-0.conda"},
        ["a-2-0.conda"],
    )
    every = json.loads(made["repodata_from_packages.json"])
    assert {name: item.record for name, item in packages.items()} == every["packages.conda"]
    patch = json.loads(made["patch_instructions.json"])
    assert (patch["remove"], patch["revoke"], patch["packages"]) == (["a-2-0.conda"], [], {})
    exports = json.loads(made["run_exports.json"])["packages.conda"]
    assert exports == {name: {"run_exports": item.run_exports} for name, item in packages.items()}
    shards = shards_of(made)
    assert set(shards) == {"a", "b"}
    assert shards["a"]["removed"] == ["a-2-0.conda"]
    for shard in shards.values():
        for name, found in shard["packages.conda"].items():
            assert found.pop("run_exports") == packages[name].run_exports
            for key in ("md5", "sha256"):
                found[key] = found[key].hex()
            assert found == whole["packages.conda"][name]
    # A client reads the index of shards before them, so they are there before it.
    order = list(made)
    assert all(order.index(name) < order.index("repodata_shards.msgpack.zst") for name in order[:2])


def test_a_shard_of_another_name_stays_as_it_is() -> None:
    before = channel_forms.documents("linux-64", listed(record("a", "1"), record("b", "1")))
    after = channel_forms.documents(
        "linux-64", listed(record("a", "1"), record("b", "1"), record("b", "2"))
    )
    assert len({name for name in before if name.startswith("shards/")} & set(after)) == 1


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        # The newest release, and what is newer and none; builds of both, of each its last number.
        ([record("a", "1"), record("a", "2"), record("a", "3.dev1")], {"a-2-0", "a-3.dev1-0"}),
        ([record("a", "1.9"), record("a", "1.10")], {"a-1.10-0"}),
        (
            [record("a", "1", "x_0"), record("a", "1", "x_1", 1), record("a", "1", "y_0")],
            {"a-1-x_1", "a-1-y_0"},
        ),
        # What these need, and what that needs.
        (
            [
                record("a", "2", "0", 0, "b ==1", "python >=3.8", "c"),
                record("b", "1", "0", 0, "c <2"),
                *(record("b", "2"), record("c", "1.5"), record("c", "1"), record("c", "3")),
            ],
            {"a-2-0", "b-2-0", "b-1-0", "c-3-0", "c-1.5-0"},
        ),
        ([record("a", "2", "0", 0, "b ==7", "b[x", "a <1")], {"a-2-0"}),
        ([], set()),
    ],
)
def test_the_current_repodata(records: list[Any], expected: set[str]) -> None:
    made = channel_forms.documents("linux-64", listed(*records))
    found = json.loads(made["current_repodata.json"])["packages.conda"]
    assert {name.removesuffix(".conda") for name in found} == expected


def gateway(folder: Path, **options: bool) -> rattler.Gateway:
    return rattler.Gateway(folder, default_config=rattler.SourceConfig(**options))


@pytest.mark.parametrize("form", ["shards", "zst", "plain", "file"])
def test_rattler_reads_every_form(
    server: Server, site: Path, made: dict[Label, list[Path]], tmp_path: Path, form: str
) -> None:
    options = {"sharded_enabled": form == "shards", "zstd_enabled": form == "zst"}
    place = (site / "channel").as_uri() if form == "file" else f"{server.address}/channel"
    found = asyncio.run(
        gateway(tmp_path, **options, bz2_enabled=False).query(
            [rattler.Channel(place)], ["linux-64", "noarch"], ["flashinfer"], recursive=True
        )
    )
    records = {item.file_name: item for some in found for item in some}
    expected = {p.name: p for label in (CPU, CUDA, NIGHTLY) for p in made[label][:2]}
    assert set(records) == set(expected)  # recursive: the library is there; the yanked is not
    for name, item in records.items():
        assert item.sha256.hex() == hashlib.sha256(expected[name].read_bytes()).hexdigest()
        assert item.url == f"{place}/linux-64/{name}"
    ending = {"shards": "repodata_shards.msgpack.zst", "zst": "repodata.json.zst"}
    if form != "file":
        wanted = f"/channel/linux-64/{ending.get(form, 'repodata.json')}"
        assert wanted in server.asked
        assert len([path for path in server.asked if "/shards/" in path]) == (form == "shards") * 2


def test_what_a_package_exports_is_told(tmp_path: Path) -> None:
    package = foreign_package(tmp_path / "channel/noarch", "toy-1.0-0")
    payload, info = factories.unpacked(package)

    def with_exports(text: bytes) -> conda_package.CondaPackage:
        header = tarfile.TarInfo("info/run_exports.json")
        header.size = len(text)
        path = factories.raw_conda(
            package,
            payload=factories.tar_bytes(payload),
            info=factories.tar_bytes([*info, (header, text)]),
        )
        return conda_package.read(path)

    for text in (b"[1]", b'"toy"', b'{"weak": "toy"}', b'{"weak": [1]}'):
        with pytest.raises(ArtifactError, match="not what a package exports"):
            channel.run_exports_of(with_exports(text))
    assert channel.run_exports_of(with_exports(b'["toy"]')) == {"weak": ["toy"]}
    with_exports(b'{"strong": ["toy >=1"], "weak": [], "other": 1}')
    for _ in range(2):  # from the package, and, where that is elsewhere, from what was written
        index.update(tmp_path)
        document = json.loads((tmp_path / "channel/noarch/run_exports.json").read_text())
        assert document["packages.conda"] == {
            package.name: {"run_exports": {"strong": ["toy >=1"]}}
        }
        package.unlink(missing_ok=True)
    assert index.consistent(tmp_path)


def test_old_shards_of_a_builds_folder_go(tmp_path: Path) -> None:
    shards = tmp_path / "channel/noarch/shards"
    for version in ("1.0", "2.0"):
        foreign_package(tmp_path / "channel/noarch", f"toy-{version}-0")
        index.update(tmp_path)
        assert len(list(shards.iterdir())) == 1


def test_shards_that_a_client_may_still_ask_for_stay_a_day(
    made: dict[Label, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, made[CPU])
    shards = tmp_path / "channel/linux-64/shards"
    first = {path.name for path in shards.iterdir()}
    put(tmp_path, made[CUDA])
    both = {path.name for path in shards.iterdir()}
    assert (len(first), len(both)) == (2, 4)
    assert first < both
    put(tmp_path, made[CPU])
    assert {path.name for path in shards.iterdir()} == both
    monkeypatch.setattr(folder_store, "LINGER", timedelta(0))
    put(tmp_path, made[CPU])
    assert {path.name for path in shards.iterdir()} == both - first


# ---------------------------------------------------------------- the index


def test_folders_that_a_person_would_guess_answer(
    site: Path, made: dict[Label, list[Path]]
) -> None:
    wheel = {label: paths[2].name for label, paths in made.items()}
    cuda = {wheel[CUDA], wheel[NIGHTLY]}
    expected = {
        **dict.fromkeys(("cu130/torch2.13", "torch2.13/cu130", "cu130/torch213"), cuda),
        **dict.fromkeys(("cu130torch2.13", "cu130_torch213"), cuda),
        "simple": set(wheel.values()),
        "cu130": {*cuda, wheel[OLDER]},
        "torch2.13": {*cuda, wheel[CPU]},
        "torch213": {*cuda, wheel[CPU]},
        "nightly": {wheel[NIGHTLY]},
        "nightly/cu130": {wheel[NIGHTLY]},
        "nightly/cu130/torch2.13": {wheel[NIGHTLY]},
        "cpu": {wheel[CPU]},
    }
    for folder, names in expected.items():
        place = site / "index" / folder / "flashinfer"
        found = Anchors((place / "index.html").read_text()).found
        for link in found:
            address = urllib.parse.unquote(link["href"].partition("#")[0])
            # As clients do it, by the address: the folder itself is a link.
            wheels, name = os.path.split(os.path.normpath(place / address))
            assert (wheels, (site / "wheels" / name).is_file()) == (str(site / "wheels"), True)
        assert {link["href"].rpartition("/")[2].partition("#")[0] for link in found} == {
            urllib.parse.quote(name, safe="") for name in names
        }
        document = json.loads((place / "index.json").read_text())
        assert {item["filename"] for item in document["files"]} == names
        assert [item["url"] for item in document["files"]] == [
            link["href"].partition("#")[0] for link in found
        ]
        [link] = Anchors((place.parent / "index.html").read_text()).found
        assert link == {"href": "flashinfer/"}
    text = (site / "index/cu130/index.html").read_text()
    assert "<li>cu130/torch2.12/</li>\n<li>cu130/torch2.13/</li>" in text
    assert (
        "The same wheels as in cu130/torch2.13/"
        in (site / "index/cu130_torch213/index.html").read_text()
    )
    assert "<p>" not in (site / "index/cu130/torch2.13/index.html").read_text()
    assert not (site / "index/nightly/cpu").exists()


def test_a_flat_index_may_have_other_folders_too(tmp_path: Path) -> None:
    project = OURS.of(msgspec.convert({"index-folders": ["simple"]}, type(OURS.config)))
    foreign_wheel(tmp_path / "wheels", "toy-1.0-py3-none-any.whl")
    for _ in range(2):
        index.update(tmp_path, project=project)
        assert (tmp_path / "index/simple/toy/index.html").is_file()
        assert (tmp_path / "index/toy/index.html").is_file()
    assert index.consistent(tmp_path, project)
    (tmp_path / "wheels/toy-1.0-py3-none-any.whl").unlink()
    index.update(tmp_path, project=project, prune=True)
    assert not (tmp_path / "index/simple").exists()


# ---------------------------------------------------------------- what an addition costs


def test_an_addition_makes_and_writes_what_it_is_on(
    made: dict[Label, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, made[CPU], made[OLDER])
    there = (tmp_path / ".site/current").rglob("*.*")
    before = {path: path.stat().st_mtime_ns for path in there if path.is_file()}
    rendered: list[str] = []
    render = pages._project
    monkeypatch.setattr(
        pages, "_project", lambda place, *more: rendered.append(place) or render(place, *more)
    )
    reads: list[str] = []
    read = folder_store.FolderStore.files
    monkeypatch.setattr(
        folder_store.FolderStore,
        "files",
        lambda self, folder, after="": reads.append(after) or read(self, folder, after),
    )
    outcome = put(tmp_path, made[CUDA])
    assert "" not in reads  # no entry of the record was read again
    assert not [place for place in rendered if place.startswith("cpu") or "2.12" in place]
    assert {f"{place}/flashinfer" for place in ("cu130/torch2.13", "cu130", "simple")} < {*rendered}
    documents = set(outcome.documents)
    assert "index/cpu/torch2.13/flashinfer/index.html" not in documents
    assert not [name for name in documents if name.startswith("channel/noarch/")]
    for path, time in before.items():
        name = path.relative_to(tmp_path / ".site/current").as_posix()
        now = (tmp_path / ".site/current" / name).stat().st_mtime_ns
        assert (now == time) == (name not in documents), name


def test_what_is_remembered_is_no_ground_of_anything(
    made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    place = tmp_path / MEMORY
    put(tmp_path, made[CPU])
    whole, first = place.read_bytes(), (tmp_path / "channel/linux-64/repodata.json").read_bytes()
    put(tmp_path, made[CUDA])
    second = (tmp_path / "channel/linux-64/repodata.json").read_bytes()
    assert first != second
    # Damaged, of an older state, or of another program: read and made anew, and the same.
    for other in (b"", b"rubbish", whole[:-5], whole, zstd.compress(b"\x91\xa1x")):
        place.write_bytes(other)
        assert put(tmp_path, made[CPU]).documents == []
        assert (tmp_path / "channel/linux-64/repodata.json").read_bytes() == second
        found = memory.Memory.read(place.read_bytes(), OURS)
        assert len(found.entries) == 2
    project = publishing.project()  # with other folders
    assert memory.Memory.read(place.read_bytes(), project).entries == {}
    assert len(Record(open_store(str(tmp_path)), found).files) == 6


@pytest.mark.parametrize("changed", ["pages.py", "templates/page.css"])
def test_what_another_program_would_make_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    package = tmp_path / "maker_of_pages"
    (package / "templates").mkdir(parents=True)
    for name in ("__init__.py", "pages.py", "templates/page.css"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    importlib.import_module(package.name)
    sources = memory._sources.__wrapped__
    before = sources(package.name)
    assert sources(package.name) == before
    (package / changed).write_text("/* another */" if "css" in changed else "x = 1\n")
    assert sources(package.name) != before


def test_an_artifact_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign_wheel(tmp_path / "wheels", "toy-1.0-py3-none-any.whl")
    foreign_package(tmp_path / "channel/noarch", "toy-1.0-0")
    index.update(tmp_path)
    read: list[str] = []
    for kind in ("read_wheel", "read_package"):
        call = getattr(intake, kind)
        monkeypatch.setattr(
            intake,
            kind,
            lambda path, project, call=call: read.append(path.name) or call(path, project),
        )
    assert index.update(tmp_path).written == ()
    assert read == []
    wheel = foreign_wheel(tmp_path / "wheels", "other-1.0-py3-none-any.whl")
    assert index.update(tmp_path).wheels == (wheel.name, "toy-1.0-py3-none-any.whl")
    assert set(read) == {wheel.name}
    (tmp_path / "wheels" / f"{wheel.name}.metadata").write_bytes(b"damaged")
    os.utime(tmp_path / "channel/noarch/toy-1.0-0.conda")
    assert index.update(tmp_path).written == (f"wheels/{wheel.name}.metadata",)
    assert set(read) == {wheel.name, "toy-1.0-0.conda"}
    (tmp_path / ".seen.msgpack.zst").write_bytes(b"damaged")
    assert index.update(tmp_path).written == ()


# ---------------------------------------------------------------- the archive


def unpacked(archive: Path, into: Path) -> Path:
    if archive.suffix == ".tar":
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    else:
        with zipfile.ZipFile(archive) as zipped:
            assert zipped.testzip() is None
            zipped.extractall(into)
    return into / archive.stem


@pytest.mark.parametrize("ending", [".tar", ".zip"])
@pytest.mark.parametrize("source", ["site", "dist"])
def test_an_archive_is_a_channel_and_an_index(
    site: Path, made: dict[Label, list[Path]], tmp_path: Path, ending: str, source: str
) -> None:
    if source == "dist":
        site = tmp_path / "dist"
        index.publish([path for paths in made.values() for path in paths], site, project=OURS)
    chosen = export.select(open_store(str(site)), OURS, variants=["cu130_torch213"])
    assert {item.file.name for item in chosen.files} == {path.name for path in made[CUDA]}
    digests = {
        export.write(chosen, tmp_path / folder / f"toy{ending}") for folder in ("one", "two")
    }
    archive = tmp_path / "one" / f"toy{ending}"
    assert digests == {hashlib.sha256(archive.read_bytes()).hexdigest()}
    root = unpacked(archive, tmp_path / "unpacked")
    sums = dict(
        reversed(line.split("  ")) for line in (root / "SHA256SUMS").read_text().splitlines()
    )
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert set(sums) == files - {"README.txt", "SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
    # Indexed again it is the same: what is in it is all that it says.
    assert index.consistent(root, OURS)
    readme = (root / "README.txt").read_text()
    assert "What it depends on is not in it (" in readme
    [command] = [line.strip() for line in readme.splitlines() if line.startswith("    pip")]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    pip = f'"{sys.executable}" -m pip --isolated --disable-pip-version-check'
    done = subprocess.run(
        ["sh", "-c", f"{command.replace('pip', pip, 1)} --no-cache-dir --target site"],
        **{"cwd": root, "env": environ, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr
    assert (root / "site/flashinfer/__init__.py").is_file()
    [line] = [line for line in readme.splitlines() if line.startswith("    conda")]
    assert line.endswith('-c "file://$PWD/channel" "flashinfer=0.1.6=cu130_torch213_0"')


def test_what_an_archive_holds(site: Path, made: dict[Label, list[Path]]) -> None:
    def names(**options: Any) -> set[str]:
        return {
            item.file.name for item in export.select(open_store(str(site)), OURS, **options).files
        }

    cuda, cpu = ({path.name for path in made[label]} for label in (CUDA, CPU))
    assert names() == cuda | cpu  # of the newest release; what was yanked is not in it
    assert names(variants=["cpu/"]) == cpu
    assert names(variants=["cpu", "torch2.13/cu130"]) == cuda | cpu
    assert names(variants=["nightly"]) == {path.name for path in made[NIGHTLY]}
    nightly = names(versions=["0.1.7.dev20261130"])
    assert nightly == {path.name for path in made[NIGHTLY]}
    assert names(versions=["0.1.6", "0.1.7.dev20261130"]) == cuda | cpu | nightly


def test_what_cannot_be_exported(site: Path, tmp_path: Path) -> None:
    store = open_store(str(site))
    with pytest.raises(ConfigError, match="there is no variant 'cu131'") as caught:
        export.select(store, OURS, variants=["cu131"])
    assert caught.value.expected == "cpu/torch2.13, cu130/torch2.13"
    for version in ("0.1.5", "x"):
        with pytest.raises(ConfigError, match="is not published for that") as caught:
            export.select(store, OURS, versions=[version])
        assert caught.value.expected == "0.1.6, 0.1.7.dev20261130"
    with pytest.raises(ConfigError, match="nothing is published"):
        export.select(open_store(str(tmp_path)), OURS)
    chosen = export.select(store, OURS)
    (tmp_path / "there.tar").write_bytes(b"mine")
    for name in ("there.tar", "toy.tar.gz", "toy", ".tar"):
        with pytest.raises(ConfigError):
            export.write(chosen, tmp_path / name)
    assert (tmp_path / "there.tar").read_bytes() == b"mine"
    copy = tmp_path / "site"
    shutil.copytree(site, copy, symlinks=True)
    wheel = next(copy.glob("wheels/*0.1.6+cpu*.whl"))
    whole = wheel.read_bytes()
    chosen = export.select(open_store(str(copy)), OURS)
    for damaged in (whole[:-1], whole + b"x", whole[:-1] + b"?", None):
        if damaged is None:
            wheel.unlink()
        else:
            wheel.write_bytes(damaged)
        for name in ("toy.tar", "toy.zip"):
            with pytest.raises(BridgeError) as raised:
                export.write(chosen, tmp_path / "out" / name)
            assert wheel.name in raised.value.where
    assert list((tmp_path / "out").iterdir()) == []


def test_the_program_exports(root: Path, site: Path, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "scripts/release.py", "export", "--from", str(site), *words],
            **{"cwd": root, "capture_output": True, "text": True},
            env={**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"},
        )

    archive = tmp_path / "toy.tar"
    done = run(str(archive), "--dry-run")
    assert (done.returncode, archive.exists()) == (0, False), done.stderr
    assert f"would add wheels/{CUDA.wheel_file}" in done.stdout
    done = run(str(archive), "--variant", "cpu", "--json")
    told = json.loads(done.stdout)
    assert told["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (told["size"], told["versions"]) == (archive.stat().st_size, ["0.1.6"])
    assert len(told["files"]) == 3
    done = run(str(archive))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{archive}: is there already" in done.stderr


# ---------------------------------------------------------------- uv


def test_uv_locks_and_syncs(server: Server, tmp_path: Path) -> None:
    """The second lock changes nothing, and what is locked is what is installed, by its hash."""
    address = f"{server.address}/index/cu130/torch2.13"
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "toy"\nversion = "1"\nrequires-python = ">=3.10"\n'
        'dependencies = ["flashinfer==0.1.6"]\n'
        f'[[tool.uv.index]]\nurl = "{address}/"\ndefault = true\n'
    )
    uv = installers.UV
    environ = {key: value for key, value in os.environ.items() if not key.startswith("UV_")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(uv), *words, "--cache-dir", str(tmp_path / "cache"), "--python", sys.executable],
            **{"cwd": tmp_path, "env": environ, "capture_output": True, "text": True},
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("lock")
    lock = (tmp_path / "uv.lock").read_bytes()
    assert CUDA.wheel_file.replace("+", "%2B").encode() in lock
    assert publishing.TIME.encode() in lock  # PEP 700
    run("lock", "--check")
    assert "Installed 1 package" in run("sync")
    assert "Installed" not in run("sync", "--locked")
    assert (tmp_path / "uv.lock").read_bytes() == lock
    assert [path for path in server.asked if path.endswith(".metadata")]
