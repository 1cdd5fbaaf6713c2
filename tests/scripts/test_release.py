"""Publishing: all or nothing, for good, whoever else is at it and wherever it is cut off."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import factories
import publishing
import pytest
import s3_server
import s3fs
import toy_artifacts as toy

from conda_bridge.errors import ArtifactError, BridgeError, ConfigError, ConflictError, TargetError
from conda_bridge.project import Project
from conda_bridge.publish import folder_store, history, index, release
from conda_bridge.publish.object_store import ObjectStore
from conda_bridge.publish.record import HISTORY, Record
from conda_bridge.publish.store import Documents, Store, open_store
from conda_bridge.verify import gate
from flashinfer_build.label import Label
from flashinfer_build.matrix import release_gate
from flashinfer_build.matrix.promises import Promise

OURS = publishing.project()
CPU = factories.label_of("cpu_torch213")
CUDA = factories.label_of("cu130_torch213")
NIGHTLY = factories.label_of("cpu_torch213", public_version="0.1.7.dev20261130", commit="1a2b3c4")
PAGE = "index/cpu/torch2.13/flashinfer/index"


def artifacts(folder: Path, label: Label, init: bytes = b"value = 42\n") -> list[Path]:
    """The packages and the wheel of a label, without any library."""
    info = f"flashinfer-{label.wheel_version}.dist-info"
    contents = {
        "flashinfer/__init__.py": init,
        f"{info}/METADATA": toy.metadata(label, Requires_Dist="", License_File=""),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"
        b"Tag: cp38-abi3-linux_x86_64\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [
        factories.write_pair(folder, label),
        folder / label.lib_conda_file,
        toy.write_wheel(folder, label, contents=contents),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[Label, list[Path]]:
    """Of each label its artifacts."""
    folder = tmp_path_factory.mktemp("artifacts")
    return {label: artifacts(folder / str(label), label) for label in (CPU, CUDA, NIGHTLY)}


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    server = s3_server.Server()
    environ = {**s3_server.ENVIRON, "AWS_ENDPOINT_URL": server.url}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture(scope="module")
def nursery(server: s3_server.Server) -> Iterator[publishing.Nursery]:
    nursery = publishing.Nursery({**s3_server.ENVIRON, "AWS_ENDPOINT_URL": server.url})
    yield nursery
    nursery.stop()


@pytest.fixture(autouse=True)
def _one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "now", lambda: publishing.TIME)


_BUCKETS = itertools.count()


class Target:
    """A place to publish to, and what is seen there."""

    def __init__(self, url: str, server: s3_server.Server | None = None) -> None:
        self.url = url
        self.server = server

    @classmethod
    def on(cls, server: s3_server.Server, bucket: str = "") -> Target:
        bucket = bucket or f"bucket-{next(_BUCKETS)}"
        request = urllib.request.Request(f"{server.url}/{bucket}", method="PUT")
        urllib.request.urlopen(request).close()
        return cls(f"s3://{bucket}/some/where", server)

    @property
    def store(self) -> Store:
        return open_store(self.url)

    def read(self, path: str) -> bytes | None:
        """What a client gets for an address."""
        if self.server is None:
            file = Path(self.url) / path
            return file.read_bytes() if file.is_file() else None
        address = f"{self.server.url}/{self.url.removeprefix('s3://')}/{path}"
        request = urllib.request.Request(
            address.replace("+", "%2B"), headers={"Authorization": "AWS somebody:anything"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def publish(self, paths: Sequence[Path], **options: Any) -> release.Outcome:
        sources = release.read_sources(paths, OURS, lambda _line: None)
        return release.publish(sources, self.store, OURS, **options)

    def everything(self) -> dict[str, bytes]:
        """All that is there, as clients see it."""
        if self.server is None:
            root = Path(self.url)
            walked = [
                Path(folder) / name
                for folder, _, names in os.walk(root, followlinks=True)
                if ".site" not in folder and ".partial-" not in folder
                for name in names
            ]
            found = {path.relative_to(root).as_posix() for path in walked if path.is_file()}
            names = sorted(found - {".lock"})
        else:
            store = self.store
            assert isinstance(store, ObjectStore)
            names = sorted(name for name in store._listed("") if not name.startswith(".site/"))
        return {name: data for name in names if (data := self.read(name)) is not None}

    def seen(self) -> set[str]:
        """The artifacts that clients are told of; each is there, with the bytes it should have."""
        found = set()
        plain, packed = (
            self.read(f"channel/linux-64/repodata.json{ending}") for ending in ("", ".zst")
        )
        assert (plain is None) <= (packed is None)
        document = json.loads(plain or b'{"packages": {}, "packages.conda": {}}')
        for name, record in (document["packages"] | document["packages.conda"]).items():
            data = self.read(f"channel/linux-64/{name}")
            assert data is not None, name
            assert hashlib.sha256(data).hexdigest() == record["sha256"]
            found.add(name)
        for folder in ("cpu/torch2.13", "cu130/torch2.13"):
            page = self.read(f"index/{folder}/flashinfer/index.json")
            for item in json.loads(page)["files"] if page else ():
                data = self.read(f"wheels/{item['filename']}")
                assert data is not None, item
                assert hashlib.sha256(data).hexdigest() == item["hashes"]["sha256"]
                metadata = self.read(f"wheels/{item['filename']}.metadata")
                digest = hashlib.sha256(metadata or b"").hexdigest()
                assert digest == item["core-metadata"]["sha256"]
                found.add(item["filename"])
        return found


@pytest.fixture(params=["folder", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "folder":
        return Target(str(tmp_path / "site"))
    return Target.on(request.getfixturevalue("server"))


def names(paths: Sequence[Path]) -> set[str]:
    return {path.name for path in paths}


# ---------------------------------------------------------------- what is published


def test_clients_see_what_the_folder_of_a_build_has(
    target: Target, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    paths = [*made[CPU], *made[CUDA]]
    outcome = target.publish(paths)
    assert (set(outcome.published), outcome.unchanged, outcome.number) == (names(paths), [], 1)
    assert target.seen() == names(paths)
    index.publish(paths, tmp_path / "dist", project=OURS)
    for file in sorted((tmp_path / "dist").rglob("*")):
        if file.is_file() and file.name[0] != ".":
            name = file.relative_to(tmp_path / "dist").as_posix()
            expected = file.read_bytes()
            if name.endswith("flashinfer/index.json"):  # when, a record alone knows
                document = json.loads(expected)
                for item in document["files"]:
                    item["upload-time"] = publishing.TIME
                assert json.loads(target.read(name) or b"") == document
            elif name == "index.json":
                document = json.loads(expected)
                document["files"] = [
                    {**item, "uploaded": publishing.TIME} for item in document["files"]
                ]
                assert json.loads(target.read(name) or b"") == document
            elif name == "index.html":
                day = publishing.TIME[:10]
                text = (target.read(name) or b"").decode().replace(f"<time>{day}</time>", "")
                assert text.replace(f", the newest of {day}", "").encode() == expected
            else:
                assert target.read(name) == expected, name


def test_the_same_again_changes_nothing(target: Target, made: dict[Label, list[Path]]) -> None:
    target.publish(made[CPU])
    before = target.everything()
    if target.server:
        target.server.reset()
    outcome = target.publish(made[CPU])
    assert (outcome.published, outcome.documents, outcome.restored) == ([], [], [])
    assert set(outcome.unchanged) == names(made[CPU])
    if target.server:
        assert target.server.changes == 0
    assert target.everything() == before


def test_what_is_added_leaves_the_rest(target: Target, made: dict[Label, list[Path]]) -> None:
    target.publish(made[CPU])
    before = target.everything()
    target.publish([*made[CPU], *made[NIGHTLY]])
    assert target.seen() == names([*made[CPU], *made[NIGHTLY]])
    after = target.everything()
    # The artifacts, the record so far, and the shards: a client may have read where they are.
    kept = [name for name in before if name.endswith((".whl", ".metadata", ".conda"))]
    kept += [name for name in before if name.startswith("history/") or "/shards/" in name]
    assert len(kept) == 7
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_nothing_published_gets_other_bytes(
    target: Target, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    target.publish(made[CPU])
    before = target.everything()
    [*_, other] = artifacts(tmp_path / "other", CPU, b"value = 43\n")
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match="published with other bytes") as caught:
            target.publish([*made[CUDA], other], dry_run=dry_run)
        assert "build number" in caught.value.fix
    assert target.everything() == before


def test_a_dry_run_writes_nothing(target: Target, made: dict[Label, list[Path]]) -> None:
    assert set(target.publish(made[CPU], dry_run=True).published) == names(made[CPU])
    assert target.everything() == {}


def test_what_nobody_completed_is_neither_replaced_nor_believed(
    target: Target, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    [*_, other] = artifacts(tmp_path / "other", CPU, b"value = 43\n")
    path = f"wheels/{other.name}"
    assert target.store.upload(path, other)
    before = target.everything()
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match="lies there with other bytes"):
            target.publish(made[CPU], dry_run=dry_run)
        assert target.everything() == before
    target.store.remove(path)
    target.publish(made[CPU])
    assert target.seen() == names(made[CPU])


def test_a_package_is_published_in_one_form(target: Target, made: dict[Label, list[Path]]) -> None:
    target.publish(made[CPU])
    older = factories.as_tar_bz2(made[CPU][0])
    with pytest.raises(ConflictError, match=r"is there as .*\.conda too"):
        target.publish([older])
    with pytest.raises(ConflictError, match="is there as"):
        release.read_sources([made[CPU][0], older], OURS, lambda _line: None)
    older.unlink()


def test_what_was_lost_gets_its_own_bytes_back(
    target: Target, made: dict[Label, list[Path]]
) -> None:
    target.publish(made[CPU])
    before = target.everything()
    for path in (made[CPU][0], made[CPU][2]):
        folder = "wheels" if path.suffix == ".whl" else "channel/linux-64"
        target.store.remove(f"{folder}/{path.name}")
    target.store.remove(f"wheels/{made[CPU][2].name}.metadata")
    outcome = target.publish(made[CPU])
    assert set(outcome.restored) == {made[CPU][0].name, made[CPU][2].name}
    assert target.everything() == before


def test_documents_follow_from_the_record_whatever_became_of_them(
    target: Target, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    target.publish(made[CPU])
    before = target.everything()
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"rubbish")
    if target.server:
        target.store.restore("channel/linux-64/repodata.json", rubbish)
        target.store.restore("index/cu999/index.html", rubbish)
        target.store.remove(f"{PAGE}.html")
    else:
        site = Path(target.url) / ".site" / "current"
        (site / "channel/linux-64/repodata.json").write_bytes(b"rubbish")
        (site / "index/cu999").mkdir()
        (site / "index/cu999/index.html").write_bytes(b"rubbish")
        (site / f"{PAGE}.html").unlink()
        (Path(target.url) / "channel/noarch/repodata.json").unlink()
    outcome = target.publish(made[CPU])
    assert set(outcome.documents) == set()  # put right before anything else
    assert target.everything() == before


@pytest.mark.parametrize("commit", ["1a2b3c4d5e6f", ""])
def test_the_commit_is_that_of_the_label(
    made: dict[Label, list[Path]], tmp_path: Path, commit: str
) -> None:
    site = Target(str(tmp_path / "site"))
    with pytest.raises(ConfigError, match="of the commit 1a2b3c4"):
        site.publish(made[NIGHTLY], commit="fffffff")
    site.publish(made[NIGHTLY], commit=commit)
    rows = history.rows(Record(site.store), ["*.whl"])
    assert [row["commit"] for row in rows] == [commit or "1a2b3c4"]


@pytest.mark.parametrize("which", ["upload", "create"])
def test_what_the_target_made_of_it_is_read_before_it_is_published(
    target: Target, made: dict[Label, list[Path]], monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    store = target.store
    call = getattr(type(store), which)

    def flipped(self: Store, path: str, what: Any) -> Any:
        if not path.startswith("wheels/"):
            return call(self, path, what)
        data = bytearray(what if isinstance(what, bytes) else what.read_bytes())
        data[len(data) // 2] ^= 1
        return (
            type(store).create(self, path, bytes(data))
            if which == "upload"
            else call(self, path, bytes(data))
        )

    monkeypatch.setattr(type(store), which, flipped)
    with pytest.raises(ConflictError, match="after it was written") as caught:
        target.publish(made[CPU])
    assert "wheels/" in caught.value.where
    assert (target.seen(), Record(store).number) == (set(), 0)


# ---------------------------------------------------------------- cut off


def moments() -> Iterator[int]:
    """Every call up to the documents; of these, which are many and alike, every third."""
    return itertools.chain(range(1, 16), itertools.count(16, 3))


def _check_after(target: Target, old: set[str], new: set[str]) -> None:
    """After a publisher was cut off: a whole state of each document, and nothing that is not there.

    The repodata has its packages together, and so has a page its wheels.
    """
    seen = target.seen()
    assert old <= seen <= new
    packages = {name for name in seen if name.endswith(".conda")}
    assert packages in [{name for name in state if name.endswith(".conda")} for state in (old, new)]


def test_a_folder_whose_publisher_is_killed_at_any_call(
    nursery: publishing.Nursery, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    first, second = made[CPU][2:], made[NIGHTLY][1:]
    undisturbed = Target(str(tmp_path / "undisturbed"))
    undisturbed.publish(first)
    shutil.copytree(undisturbed.url, tmp_path / "before", symlinks=True)
    undisturbed.publish(second)
    expected = undisturbed.everything()
    old, new = names(first), names([*first, *second])
    states = set()
    for number in moments():
        target = Target(str(tmp_path / f"site-{number}"))
        shutil.copytree(tmp_path / "before", target.url, symlinks=True)
        [status] = nursery.run([(second, target.url)], kill_at=number)
        # A folder has one switch: all documents are the old ones, or all are the new ones.
        assert target.seen() in (old, new), number
        states.add(frozenset(target.seen()))
        assert nursery.run([(second, target.url)]) == [0], number
        assert target.everything() == expected, number
        left = [path for path in Path(target.url).rglob(".partial-*") if "before" not in str(path)]
        assert len(left) <= 1, left  # of what is not written to again
        if status == 0:
            break
        assert status == -9, number
        shutil.rmtree(target.url)
    assert number > 20
    assert states == {frozenset(old), frozenset(new)}


def test_a_store_whose_publisher_is_killed_at_any_request(
    server: s3_server.Server, nursery: publishing.Nursery, made: dict[Label, list[Path]]
) -> None:
    first, second = made[CPU][2:], made[NIGHTLY][1:]
    undisturbed = Target.on(server)
    undisturbed.publish(first)
    undisturbed.publish(second)
    expected = undisturbed.everything()
    old, new = names(first), names([*first, *second])
    for number in moments():
        target = Target.on(server)
        target.publish(first)
        server.reset()
        server.kill_after = number

        def started(process: int) -> None:
            server.victim = process

        [status] = nursery.run([(second, target.url)], started=started)
        server.reset()
        _check_after(target, old, new)
        assert nursery.run([(second, target.url)]) == [0], number
        assert target.everything() == expected, number
        if status == 0:
            break
        assert status == -9, number
    assert number > 9


@pytest.mark.parametrize(
    ("once", "after"),
    [(False, False), (True, True)],
    ids=["refused from then on", "done once and not said"],
)
def test_a_store_that_fails_at_any_request(
    server: s3_server.Server, made: dict[Label, list[Path]], once: bool, after: bool
) -> None:
    paths = made[CPU][1:]
    undisturbed = Target.on(server)
    undisturbed.publish(paths)
    expected = undisturbed.everything()
    for number in moments():
        target = Target.on(server)
        failed = False
        with server.failing(number, once=once, after=after):
            try:
                target.publish(paths)
            except TargetError as error:
                assert "run the same command again" in error.fix
                failed = True
        _check_after(target, set(), names(paths))
        target.publish(paths)
        assert target.everything() == expected, number
        if not failed:
            break
    assert number > 9


def test_a_large_file_is_made_once_as_well(server: s3_server.Server, tmp_path: Path) -> None:
    store = Target.on(server).store
    assert isinstance(store, ObjectStore)
    store.part_size = 5 << 20  # S3 takes no smaller part
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(os.urandom(11 << 20))
    second.write_bytes(b"\0" * (11 << 20))
    assert store.upload("large", first)
    assert [method for method, _ in server.log[-6:]].count("POST") == 2  # in parts
    assert not store.upload("large", second)
    assert store.size("large") == 11 << 20
    assert store.digest("large") == hashlib.sha256(first.read_bytes()).hexdigest()


# ---------------------------------------------------------------- many at once


def test_publishers_at_once(
    target: Target, nursery: publishing.Nursery, made: dict[Label, list[Path]]
) -> None:
    jobs = [(made[label], target.url) for label in (CPU, CUDA, NIGHTLY, CPU)]
    assert nursery.run(jobs) == [0, 0, 0, 0]
    everything = {path.name for paths in made.values() for path in paths}
    assert target.seen() == everything
    record = Record(target.store)
    assert set(record.files) == everything
    assert [entry.number for entry in record.entries] == [1, 2, 3]
    assert target.publish(made[CPU]).documents == []


def test_only_one_of_two_builds_of_a_name_is_published(
    target: Target, nursery: publishing.Nursery, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    [*_, other] = artifacts(tmp_path / "other", CPU, b"value = 43\n")
    ended = nursery.run([([made[CPU][2]], target.url), ([other], target.url)])
    assert sorted(ended) in ([0, 3], [3, 3])  # each may have been in the way of the other
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (made[CPU][2], other)}
    data = target.read(f"wheels/{other.name}")
    assert hashlib.sha256(data or b"").hexdigest() in digests
    assert target.seen() == ({other.name} if 0 in ended else set())


def test_a_slow_publisher_takes_nothing_back(
    server: s3_server.Server, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    """Another publishes, whole, before each thing that the slow one asks for or writes."""
    sources = release.read_sources(made[NIGHTLY][2:], OURS, lambda _line: None)
    # On the same page.
    others = artifacts(tmp_path, factories.label_of("cpu_torch213", public_version="0.1.7rc1"))[2:]
    everything = names([made[CPU][2], made[NIGHTLY][2], *others])
    for moment in moments():
        target = Target.on(server)
        target.publish(made[CPU][2:])
        store = Interrupted(target, moment, others)
        release.publish(sources, store, OURS)
        if store.calls < moment:
            break
        assert target.seen() == everything, moment
    assert moment > 15


class Interrupted(ObjectStore):
    """A store at which others publish a wheel before a listing or an object with this number."""

    def __init__(self, target: Target, moment: int, others: Sequence[Path]) -> None:
        super().__init__(target.url)
        self.calls = 0
        self._target, self._moment, self._others = target, moment, others

    def _interrupt(self) -> None:
        self.calls += 1
        if self.calls == self._moment:
            self._target.publish(self._others)

    def _put(self, path: str, data: bytes, **how: str) -> str | None:
        self._interrupt()
        made = super()._put(path, data, **how)
        if self.calls >= self._moment:  # what others have shown is never hidden again
            page = self._target.read(f"{PAGE}.json") or b""
            assert self._others[0].name in page.decode(), (self._moment, path)
        return made

    def _listed(self, start: str, after: str = "") -> dict[str, str]:
        self._interrupt()
        return super()._listed(start, after)


class Overtaken(folder_store.FolderStore):
    """A folder where somebody else does something between two calls, once."""

    def __init__(self, root: Path, moment: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self.calls = 0
        self.somebody = threading.Thread(target=meanwhile)
        self._moment = moment
        self._showing = False

    def __getattribute__(self, name: str) -> Any:
        if name in Store.__abstractmethods__:
            self.calls += 1
            if self.calls == self._moment:
                self.somebody.start()
                # Who shows documents has the lock, for which the other waits.
                self.somebody.join(0.02 if self._showing else None)
        return super().__getattribute__(name)

    def show(self, documents: Documents) -> list[str]:
        self._showing = True
        shown = super().show(documents)
        self._showing = False
        return shown


@pytest.mark.parametrize("meanwhile", ["publish", "yank", "unyank", "prune", "remove"])
@pytest.mark.parametrize("change", ["publish", "yank", "unyank", "prune", "remove"])
def test_who_does_the_same_or_the_opposite_between_two_calls(
    made: dict[Label, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    meanwhile: str,
) -> None:
    """Whatever others do between any two calls, the record stays one that can be read."""
    older = factories.label_of("cpu_torch213", public_version="0.1.7.dev20261129", commit="1a2b3c4")
    wheel = artifacts(tmp_path / "older", older)[2]
    new = release.read_sources(made[NIGHTLY][2:], OURS, lambda _line: None)
    pattern = ["*dev20261129*"]
    if "remove" in (change, meanwhile):
        monkeypatch.setattr(release, "now", lambda: "2027-01-01T00:00:00Z")
    calls: dict[str, Callable[[Store], object]] = {
        "publish": lambda store: release.publish(new, store, OURS),
        "yank": lambda store: release.yank(pattern, store, OURS, reason="wrong"),
        "unyank": lambda store: release.yank(pattern, store, OURS, undo=True),
        "prune": lambda store: release.prune_nightlies(store, OURS, keep=1),
        "remove": lambda store: release.prune_nightlies(store, OURS, keep=1, grace=timedelta(0)),
    }

    def do(what: str, store: Store) -> None:
        with contextlib.suppress(ConfigError):  # what is to be yanked was pruned
            calls[what](store)

    first = Target(str(tmp_path / "first"))
    first.publish([made[CPU][2], wheel])
    if "unyank" in (change, meanwhile):
        release.yank(pattern, first.store, OURS, reason="another")
    if "publish" not in (change, meanwhile):  # there is something to prune
        first.publish(made[NIGHTLY][2:])
    for moment in itertools.count(1):
        site = tmp_path / str(moment)
        shutil.copytree(first.url, site, symlinks=True)
        others = folder_store.FolderStore(site)
        store = Overtaken(site, moment, functools.partial(do, meanwhile, others))
        do(change, store)
        if store.somebody.ident:
            store.somebody.join()
        record = Record(others)
        assert len({entry.number for entry in record.entries}) == record.number
        seen = Target(str(site)).seen()
        assert seen == {name for name, item in record.files.items() if not item.pruned}, moment
        if store.calls < moment:
            break
        if "publish" in (change, meanwhile):
            assert new[0].file.name in seen, moment
    assert moment > 3


def test_no_entry_is_added_that_nobody_could_read(
    made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    target = Target(str(tmp_path / "site"))
    target.publish(made[CPU])
    record = Record(target.store)
    for what in (
        {"action": "publish", "files": (next(iter(record.files.values())).file,)},
        {"action": "yank", "names": ("nobody-1.0-py3-none-any.whl",)},
    ):
        with pytest.raises(ArtifactError, match="published"):
            record.add(time=publishing.TIME, **what)
    assert Record(target.store).number == 1


def test_who_reads_a_folder_meanwhile_sees_whole_states(
    made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    target = Target(str(tmp_path / "site"))
    target.publish(made[CPU])
    states, errors, stop = set(), [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                states.add(frozenset(target.seen() & names(made[CPU])))
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    for label in (CUDA, NIGHTLY):
        target.publish(made[label])
    for number in range(6):
        release.yank(["*dev2026*"], target.store, OURS, reason="x", undo=number % 2 == 1)
    stop.set()
    thread.join()
    assert errors == []
    assert states == {frozenset(names(made[CPU]))}
    kept = [path.name for path in (tmp_path / "site" / ".site").glob("0*")]
    assert len(kept) == folder_store._KEPT


# ---------------------------------------------------------------- the record


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: b"{", "damaged"),
        (lambda text: text.replace(b'"schema": 1', b'"schema": 2'), "form 2"),
        (lambda text: text.replace(b"wheels", b"../wheels"), "no place"),
        (lambda text: text.replace(b'"number": 1', b'"number": 2'), "number"),
        (lambda text: text.replace(b"0.1.6+cpu", b"0.1.5+cpu"), "other bytes than when"),
        (None, "000001.json is not there"),
    ],
)
def test_a_record_that_was_changed_is_no_ground_to_publish_on(
    made: dict[Label, list[Path]],
    tmp_path: Path,
    change: Callable[[bytes], bytes] | None,
    words: str,
) -> None:
    target = Target(str(tmp_path / "site"))
    target.publish(made[CPU])
    target.publish(made[NIGHTLY])
    path = Path(target.url) / HISTORY / "000001.json"
    text = path.read_bytes()
    if change is None:
        path.unlink()
    else:
        assert change(text.replace(b'"number"', b'"schema": 1, "number"')) != text
        path.write_bytes(change(text.replace(b'"number"', b'"schema": 1, "number"', 1)))
    before = target.everything()
    with pytest.raises(ArtifactError, match="record") as caught:
        target.publish(made[CUDA])
    assert words in str(caught.value)
    assert "000001.json" in caught.value.where or "000002.json" in caught.value.where
    assert target.everything() == before


def test_a_place_with_an_index_of_somebody_elses_is_left_alone(
    target: Target, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    if target.server:
        page = tmp_path / "page"
        page.write_text("theirs")
        target.store.upload("index/index.html", page)
    else:
        index.publish(made[CPU], Path(target.url), project=OURS)
    before = target.everything()
    with pytest.raises(ArtifactError, match="no record of what was published"):
        target.publish(made[CUDA])
    assert target.everything() == before


def test_a_place_with_a_record_is_not_indexed_again(
    made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    target = Target(str(tmp_path / "site"))
    target.publish(made[CPU])
    before = target.everything()
    for call in (
        lambda: index.update(tmp_path / "site", project=OURS, prune=True),
        lambda: index.publish(made[CUDA], tmp_path / "site", project=OURS),
    ):
        with pytest.raises(ArtifactError, match="keeps a record"):
            call()
    assert target.everything() == before


def test_what_is_published_is_known_to_the_gate(
    target: Target, made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    assert release.digests_at(target.store, OURS) == {}
    target.publish(made[CPU])
    expected = {path.name: {hashlib.sha256(path.read_bytes()).hexdigest()} for path in made[CPU]}
    assert release.digests_at(target.store, OURS) == expected
    index.publish(made[CPU], tmp_path / "dist", project=OURS)
    assert release.digests_at(open_store(str(tmp_path / "dist")), OURS) == expected


# ---------------------------------------------------------------- yanked


def _pip(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    return subprocess.run(
        [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environ, "PIP_CONFIG_FILE": os.devnull},
    )


def test_what_is_yanked_is_for_those_who_pinned_it(
    made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    target = Target(str(tmp_path / "site"))
    target.publish([*made[CPU], *made[NIGHTLY]])
    page = (tmp_path / "site/index/cpu/torch2.13").as_uri() + "/"
    download = ("download", "--no-deps", "--index-url", page)
    newest, wheel = made[NIGHTLY][2].name, made[CPU][2].name
    done = _pip(*download, "--pre", "flashinfer", "-d", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "1" / newest).is_file()
    outcome = release.yank(["*dev2026*"], target.store, OURS, reason="wrong  <results>")
    assert set(outcome.changed) == names(made[NIGHTLY])
    done = _pip(*download, "--pre", "flashinfer", "-d", "2", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "2").iterdir()] == [wheel]
    pinned = f"flashinfer=={NIGHTLY.wheel_version}"
    done = _pip(*download, pinned, "-d", "3", cwd=tmp_path)
    assert (tmp_path / "3" / newest).is_file()
    assert "wrong <results>" in done.stdout + done.stderr
    document = json.loads(target.read("channel/linux-64/repodata.json") or b"")
    gone = sorted({made[NIGHTLY][0].name, made[NIGHTLY][1].name})
    assert document["removed"] == gone
    assert set(document["packages.conda"]) == {made[CPU][0].name, made[CPU][1].name}
    assert target.read(f"channel/linux-64/{gone[0]}")  # a lock file has its address
    assert release.yank(["*dev2026*"], target.store, OURS, reason="wrong <results>").changed == []
    release.yank(["*dev2026*"], target.store, OURS, undo=True)
    assert target.seen() == names([*made[CPU], *made[NIGHTLY]])
    rows = history.rows(Record(target.store), [newest])
    assert [(row["action"], row["reason"]) for row in rows] == [
        ("publish", ""),
        ("yank", "wrong <results>"),
        ("unyank", ""),
    ]


def test_what_cannot_be_yanked(made: dict[Label, list[Path]], tmp_path: Path) -> None:
    target = Target(str(tmp_path / "site"))
    target.publish(made[CPU])
    before = target.everything()
    with pytest.raises(ConfigError, match="no reason"):
        release.yank(["*"], target.store, OURS, reason="  ")
    with pytest.raises(ConfigError, match="no file 'other"):
        release.yank(["*", "other*"], target.store, OURS, reason="x")
    assert release.yank(["*"], target.store, OURS, reason="x", dry_run=True).changed
    assert target.everything() == before


# ---------------------------------------------------------------- pruned


def test_old_nightlies_are_listed_no_more_and_then_removed(
    target: Target,
    made: dict[Label, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    days = [
        factories.label_of(
            "cpu_torch213", public_version=f"0.1.7.dev202611{day:02}", commit="fffffff"
        )
        for day in (9, 10, 28)
    ]
    nightlies = [artifacts(tmp_path / str(day), day) for day in days]
    target.publish([*made[CPU], *nightlies[0], *nightlies[1]])
    target.publish([*nightlies[2], *made[NIGHTLY]])
    kept = names([*made[CPU], *nightlies[2], *made[NIGHTLY]])
    old = names([*nightlies[0], *nightlies[1]])
    prune = functools.partial(release.prune_nightlies, target.store, OURS, keep=2)
    before = target.everything()
    assert set(prune(dry_run=True).changed) == old
    assert target.everything() == before
    outcome = prune()
    assert (set(outcome.changed), outcome.removed) == (old, [])
    assert target.seen() == kept
    for path in nightlies[0]:  # for who was told of it a moment ago
        folder = "wheels" if path.suffix == ".whl" else "channel/linux-64"
        assert target.read(f"{folder}/{path.name}") == path.read_bytes()
    monkeypatch.setattr(release, "now", lambda: "2026-12-01T02:59:59Z")
    assert prune().removed == []
    monkeypatch.setattr(release, "now", lambda: "2026-12-01T03:00:00Z")
    outcome = prune()
    assert (outcome.changed, set(outcome.removed)) == ([], old)
    there = target.everything()
    assert not [name for name in there if "dev20261109" in name or "dev20261110" in name]
    assert target.seen() == kept
    assert (prune().removed, target.everything()) == ([], there)
    for again in (nightlies[0], artifacts(tmp_path / "other", days[0], b"value = 43\n")):
        with pytest.raises(ConflictError, match=r"pruned since|other bytes"):
            target.publish(again)
    actions = [entry.action for entry in Record(target.store).entries]
    assert actions == ["publish", "publish", "prune", "remove"]


def test_where_nothing_was_published_nothing_is_pruned(
    made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    """Least of all the documents of somebody else's channel."""
    target = Target(str(tmp_path / "new"))
    assert release.prune_nightlies(target.store, OURS, keep=2) == release.Outcome()
    target.publish(made[CPU])
    index.publish(made[CPU], tmp_path / "dist", project=OURS)
    theirs = Target(str(tmp_path / "dist"))
    before = theirs.everything()
    assert release.prune_nightlies(theirs.store, OURS, keep=2) == release.Outcome()
    assert theirs.everything() == before


def test_a_nightly_is_always_left(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are none"):
        release.prune_nightlies(open_store(str(tmp_path)), OURS, keep=0)


# ---------------------------------------------------------------- promoted


def test_a_release_is_what_was_tried_as_a_nightly(
    made: dict[Label, list[Path]], tmp_path: Path
) -> None:
    target = Target(str(tmp_path / "site"))
    target.publish(made[NIGHTLY])
    cuda = factories.label_of("cu130_torch213", public_version="0.1.7")
    paths = artifacts(tmp_path / "dist", factories.label_of("cpu_torch213", public_version="0.1.7"))
    before = target.everything()
    good = {"promotes": "0.1.7.dev20261130", "commit": "1a2b3c4d5e6f"}
    for change, files, words in (
        ({"promotes": "0.1.7.dev20261129"}, paths, "no nightly"),
        ({"promotes": "0.1.7"}, paths, "no nightly"),
        ({"promotes": "x"}, paths, "no nightly"),
        ({"commit": ""}, paths, "not said which commit"),
        ({"commit": "1a2b3c5"}, paths, "built from 1a2b3c5, and the nightly from 1a2b3c4"),
        ({}, paths[:2], "not in the release"),
        ({}, [*paths, *artifacts(tmp_path / "more", cuda)], "not in the nightly"),
        ({}, made[CPU], "has the version 0.1.6"),
    ):
        with pytest.raises((ConfigError, ConflictError), match=re.escape(words)) as caught:
            target.publish(files, **{**good, **change})
        assert caught.value.expected or caught.value.fix
        assert target.everything() == before
    release.yank(["*"], target.store, OURS, reason="slow")
    with pytest.raises(ConflictError, match="was yanked: slow"):
        target.publish(paths, **good)
    release.yank(["*"], target.store, OURS, undo=True)
    assert target.publish(paths, **good).number == 4
    rows = history.rows(Record(target.store), ["*-0.1.7-*"])
    assert {(row["promotes"], row["commit"]) for row in rows} == {tuple(good.values())}


# ---------------------------------------------------------------- refusals and the program


@pytest.mark.parametrize("target", ["", "https://example.org/x", "gs://bucket", "s3://", "s3:///x"])
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(target)
    assert caught.value.expected


def test_a_store_that_does_not_answer(
    server: s3_server.Server, made: dict[Label, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TargetError, match="bucket-of-nobody"):
        Target("s3://bucket-of-nobody/x", server).publish(made[CPU])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(TargetError, match="run the same command again"):
        Target("s3://bucket/x", server).publish(made[CPU])
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("change", ["publish", "yank", "prune"])
def test_whom_others_outrun_every_time_is_told(
    made: dict[Label, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    target = Target(str(tmp_path / "site"))
    older = factories.label_of("cpu_torch213", public_version="0.1.7.dev20261129", commit="1a2b3c4")
    target.publish([*artifacts(tmp_path / "older", older), *made[NIGHTLY]])
    before = target.everything()
    monkeypatch.setattr(Record, "add", lambda *_, **__: False)
    calls: dict[str, Callable[[], object]] = {
        "publish": lambda: target.publish(made[CPU]),
        "yank": lambda: release.yank(["*.whl"], target.store, OURS, reason="wrong"),
        "prune": lambda: release.prune_nightlies(target.store, OURS, keep=1),
    }
    with pytest.raises(ConflictError, match="other publishers came first") as caught:
        calls[change]()
    assert caught.value.fix == "try again"
    shown = {name: data for name, data in target.everything().items() if name in before}
    assert shown == before


def test_a_folder_that_cannot_be_written(made: dict[Label, list[Path]], tmp_path: Path) -> None:
    (tmp_path / "site").write_text("a file")
    with pytest.raises(BridgeError) as caught:
        Target(str(tmp_path / "site")).publish(made[CPU])
    assert caught.value.exit_code == 2
    assert caught.value.fix


@pytest.mark.parametrize("change", ["cut", "twice", "none", "text"])
def test_what_cannot_be_published(
    made: dict[Label, list[Path]], tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "dist"
    folder.mkdir()
    if change != "none":
        shutil.copy(made[CPU][2], folder)
    if change == "cut":
        (folder / made[CPU][2].name).write_bytes(made[CPU][2].read_bytes()[:-100])
    if change == "twice":
        artifacts(folder / "other", CPU, b"value = 43\n")
    given = [folder / "readme.txt"] if change == "text" else [folder]
    (folder / "readme.txt").write_text("no artifact")
    with pytest.raises((ArtifactError, ConflictError)) as caught:
        release.read_sources(gate.collect(given), OURS, lambda _line: None)
    assert caught.value.expected or caught.value.fix


def test_anybodys_project_is_published_too(tmp_path: Path) -> None:
    import wheel_factory

    path, _ = wheel_factory.make_wheel(tmp_path / "dist", "toy")
    store = open_store(str(tmp_path / "site"))
    project = Project()
    release.publish(release.read_sources([path], project, lambda _line: None), store, project)
    assert path.name in (tmp_path / "site/index/toy/index.html").read_text()


class Program:
    """``scripts/release.py``, in this process: starting it takes a second."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, capsys: Any) -> None:
        self._patch, self._capsys = patch, capsys
        patch.setenv("FLASHINFER_NO_BOOTSTRAP", "1")
        patch.setattr(sys, "excepthook", sys.excepthook)  # which the program replaces
        spec = importlib.util.spec_from_file_location("program", root / "scripts/release.py")
        assert spec
        assert spec.loader
        self._module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._module)
        self.commands: Sequence[str] = [*self._module._COMMANDS]

    def __call__(self, *words: object) -> tuple[int, str, str]:
        """Its exit status, standard output and standard error."""
        self._patch.setattr(sys, "argv", ["release.py", *map(str, words)])
        try:
            status = self._module.main()
        except SystemExit as error:
            status = error.code
        said = self._capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Program:
    return Program(root, monkeypatch, capsys)


def test_the_program(
    run: Program,
    made: dict[Label, list[Path]],
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = made[CPU][0].parent
    status, out, err = run("publish", folder, "--to", target.url, "--dry-run")
    assert status == 0, err
    assert f"would publish {made[CPU][0].name}" in out
    status, out, _ = run("publish", folder, "--to", target.url, "--event", "release")
    assert (status, "must not be published" in out) == (1, True), out
    assert target.everything() == {}
    monkeypatch.setenv("GITHUB_SHA", "abcdef0123")
    status, out, err = run("publish", folder, "--to", target.url, "--json")
    assert status == 0, err
    assert set(json.loads(out)["published"]) == names(made[CPU])
    status, out, _ = run("publish", folder, "--to", target.url)
    assert f"{target.url}: 0 published, 3 were there" in out
    _, out, _ = run("yank", "*.whl", "--to", target.url, "--reason", "wrong results")
    assert out.startswith("yanked: flashinfer-0.1.6")
    _, out, _ = run("history", "--to", target.url, "*.whl")
    assert out.count("abcdef0123") == 2
    assert "wrong results" in out
    _, out, _ = run("history", "--to", target.url, "--json")
    rows = json.loads(out)["files"]
    assert [row["action"] for row in rows] == ["publish"] * 3 + ["yank"]


def test_every_command_has_an_example(run: Program) -> None:
    for command in run.commands:
        status, out, _ = run(command, "--help")
        assert status == 0
        assert f"python scripts/release.py {command} " in out


@pytest.mark.parametrize(
    "words",
    [
        ["publish", "none", "--to", "site"],
        ["publish", ".", "--to", "ftp://example.org"],
        ["yank", "x", "--to", "site", "--reason", "y"],
        ["history", "--to", "gs://bucket"],
    ],
)
def test_the_program_says_what_is_wrong(
    run: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*words)
    assert status == 2
    assert err.startswith("error: ")
    assert "to do: " in err or "expected: " in err
    assert list(tmp_path.iterdir()) == []


def test_the_commands_of_the_documentation(
    run: Program,
    server: s3_server.Server,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (root / "docs/publishing.md").read_text()
    commands = [
        shlex.split(line, comments=True)[2:]
        for line in text.splitlines()
        if line.startswith("    python scripts/release.py ")
    ]
    assert {words[0] for words in commands} == {*run.commands}
    variants = {CPU.variant: "None", CUDA.variant: "8.0+PTX;9.0a"}
    promises = [Promise(variant, archs) for variant, archs in variants.items()]
    monkeypatch.setattr(release_gate, "promised", lambda _pipeline, _event: promises)
    monkeypatch.chdir(tmp_path)
    Target.on(server, "bucket")

    def build(folder: str, version: str, commit: str | None = None) -> None:
        for variant in variants:
            toy.write_release(tmp_path / folder, Label(variant, version, 0, commit))

    build("dist", "0.1.6")
    for words in commands:
        if words[0] == "promote":
            build("nightly", "0.1.7.dev20261130", "1a2b3c4")
            assert run("publish", "nightly", "--to", "site/", "--event", "nightly")[0] == 1
            monkeypatch.setenv("FLASHINFER_BUILD_VERSION", "0.1.7")  # as version.txt will say
            assert run("publish", "nightly", "--to", "site/", "--event", "nightly")[0] == 0
            shutil.rmtree("dist")
            build("dist", "0.1.7")
        status, out, err = run(*words)
        assert status == (1 if "nightly" in words else 0), (words, out, err)
    there = {name for name in Target("site").seen() if name.endswith(".whl")}
    assert {name.partition("+")[0] for name in there} == {
        "flashinfer-0.1.6",
        "flashinfer-0.1.7",
        "flashinfer-0.1.7.dev20261130",
    }
