"""Reading and writing conda packages: same bytes, and nothing hostile or damaged gets through.

What is inside is read in the same way for both forms, ``.conda`` and ``.tar.bz2``; those tests run
for each. test_tar_bz2.py has what only the older one has.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import factories
import pytest
from factories import (
    Member,
    as_tar_bz2,
    info_tar,
    raw_conda,
    raw_tar_bz2,
    tar_bytes,
    tar_file,
    tar_members,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import conda_package, conda_writer
from conda_bridge.formats.conda_package import Limits
from conda_bridge.formats.conda_writer import PackageFile, normalise, write
from conda_bridge.formats.zstd import zstd

INDEX = {"name": "toy", "version": "1.0", "build": "h_0", "subdir": "linux-64", "depends": []}
STEM = "toy-1.0-h_0"
FILE = f"{STEM}.conda"
relaxed = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

parts = st.text("abcXYZ019._-+é", min_size=1, max_size=12).filter(lambda part: part.strip("."))
paths = st.lists(parts, min_size=1, max_size=4).map("/".join).filter(lambda p: p[:5] != "info/")


def no_clashes(names: list[str]) -> bool:
    folders = {name[:at] for name in names for at in range(len(name)) if name[at] == "/"}
    return not folders & set(names)


payloads = st.dictionaries(
    paths, st.tuples(st.binary(max_size=3000), st.booleans()), max_size=8
).filter(lambda files: no_clashes(list(files)))


def files_of(payload: dict[str, tuple[bytes, bool]]) -> list[PackageFile]:
    return [
        PackageFile(path, data, 0o775 if executable else 0o600)
        for path, (data, executable) in payload.items()
    ]


def read_all(path: Path) -> dict[str, tuple[bytes, bool] | str]:
    package = conda_package.read(path)
    return {
        member.path: member.link_target or (member.read(), member.executable)
        for member in package.payload()
    }


def refused(path: Path) -> str:
    """The message with which `path` is refused; it has to name the file."""
    with pytest.raises(ArtifactError) as caught:
        read_all(path)
    assert caught.value.exit_code == 2
    assert path.name in str(caught.value)
    return str(caught.value)


def entry(path: str, data: bytes = b"", **changes: object) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    return {"_path": path, "sha256": digest, "size_in_bytes": len(data), **changes}


@pytest.fixture(params=[".conda", ".tar.bz2"])
def form(request: pytest.FixtureRequest) -> str:
    """What a conda package's name ends in."""
    return str(request.param)


def with_info(
    tmp_path: Path, form: str, info: bytes, members: Iterable[Member] = (), **more: Any
) -> Path:
    if form == ".tar.bz2":
        return raw_tar_bz2(tmp_path / (STEM + form), [*tar_members(info), *members])
    return raw_conda(tmp_path / FILE, payload=tar_bytes(members), info=info, **more)


def with_payload(
    tmp_path: Path,
    members: list[Member],
    declared: list[dict[str, object]],
    *,
    form: str = ".conda",
    **more: Any,
) -> Path:
    return with_info(tmp_path, form, info_tar(INDEX, declared), members, **more)


# ------------------------------------------------------------ writing


@given(payloads)
@relaxed
def test_what_is_written_is_read(tmp_path: Path, payload: dict[str, tuple[bytes, bool]]) -> None:
    write(tmp_path / FILE, index=INDEX, files=files_of(payload), level=1)
    assert read_all(tmp_path / FILE) == payload


@given(payloads, st.randoms(), st.integers(1, 6))
@relaxed
def test_bytes_depend_on_the_content_alone(
    tmp_path: Path, payload: dict[str, tuple[bytes, bool]], random: Any, threads: int
) -> None:
    files = files_of(payload)
    write(tmp_path / "a" / FILE, index=INDEX, files=files, level=3, threads=1)
    random.shuffle(files)
    mask = os.umask(0o077)
    try:
        write(tmp_path / "b" / FILE, index=INDEX, files=files, level=3, threads=threads)
    finally:
        os.umask(mask)
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()


def test_bytes_of_a_large_file_do_not_depend_on_threads(tmp_path: Path) -> None:
    data = bytes(range(256)) * (40 << 12)  # several zstd jobs
    made = set()
    for threads in (1, 2, 4):
        path = tmp_path / str(threads) / FILE
        write(path, index=INDEX, files=[PackageFile("x", data)], level=1, threads=threads)
        made.add(path.read_bytes())
    assert len(made) == 1


def test_many_files_leave_the_compressor_less_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conda_writer, "_VERY_MANY", 3)
    text = b"".join(b"%d " % (number * number) for number in range(20_000))
    packages = {}
    for level in (19, 15, 3):
        for count in (2, 3):
            files = [PackageFile(f"lib/{number}", text) for number in range(count)]
            path = tmp_path / f"{level}-{count}" / FILE
            path.parent.mkdir()
            write(path, index=INDEX, files=files, level=level)
            packages[level, count] = path.read_bytes()
    assert packages[19, 3] == packages[15, 3] != packages[3, 3]
    assert packages[19, 2] != packages[15, 2]


def test_bytes_do_not_depend_on_file_times_or_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = set()
    for number in (1, 2):
        source = tmp_path / f"source{number}"
        source.write_bytes(b"content")
        source.chmod(0o600 if number == 1 else 0o664)
        os.utime(source, (number * 10**8, number * 10**8))
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("TZ", f"UTC+{number * 5}")
        write(folder / FILE, index=INDEX, files=[PackageFile("x", source)], level=1)
        made.add((folder / FILE).read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize("epoch", ["1700000000", None])
def test_times_are_those_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str | None
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if epoch:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    write(tmp_path / FILE, index=INDEX, files=[PackageFile("x", b"1", 0o600)], level=1)
    moment = int(epoch or 315532800)
    assert conda_package.read(tmp_path / FILE).index["timestamp"] == moment * 1000
    with zipfile.ZipFile(tmp_path / FILE) as outer:
        assert [item.compress_type for item in outer.infolist()] == [zipfile.ZIP_STORED] * 3
        assert {item.date_time for item in outer.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        payload = zstd.decompress(outer.read(f"pkg-{STEM}.tar.zst"))
    with tarfile.open(fileobj=io.BytesIO(payload)) as tar:
        [header] = tar.getmembers()
    assert (header.mtime, header.mode, header.uid, header.gid) == (moment, 0o644, 0, 0)
    assert (header.uname, header.gname) == ("", "")


def test_paths_json_describes_files_and_links(tmp_path: Path) -> None:
    files = [
        PackageFile("lib/x.so.1", b"library", 0o755),
        PackageFile("lib/x.so", None, link_target="x.so.1"),
        PackageFile("bin/x", None, link_target="../lib/x.so"),
        PackageFile("bin/elsewhere", None, link_target="../lib/of-another-package"),
    ]
    write(tmp_path / FILE, index=INDEX, files=files, level=1)
    package = conda_package.read(tmp_path / FILE)
    digest = hashlib.sha256(b"library").hexdigest()
    assert {name: (item.is_link, item.sha256) for name, item in package.paths.items()} == {
        "lib/x.so.1": (False, digest),
        "lib/x.so": (True, digest),
        "bin/x": (True, digest),
        "bin/elsewhere": (True, hashlib.sha256(b"").hexdigest()),
    }
    assert read_all(tmp_path / FILE)["bin/x"] == "../lib/x.so"


@pytest.mark.parametrize(
    "files",
    [
        [PackageFile("../x", b"")],
        [PackageFile("/x", b"")],
        [PackageFile("info/x", b"")],
        [PackageFile("x", b""), PackageFile("x", b"")],
        [PackageFile("x", None)],
        [PackageFile("a/x", None, link_target="../../y")],
        [PackageFile("x", None, link_target="/etc/passwd")],
        [PackageFile("x", None, link_target="y"), PackageFile("x/y", b"")],
    ],
)
def test_unsafe_payload_is_not_written(tmp_path: Path, files: list[PackageFile]) -> None:
    with pytest.raises(ArtifactError):
        write(tmp_path / FILE, index=INDEX, files=files)
    assert list(tmp_path.iterdir()) == []


def test_wrong_file_name_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected: +toy-1\.0-h_0"):
        write(tmp_path / "toy-1.0-h_1.conda", index=INDEX, files=[])


def test_failure_keeps_the_old_package(tmp_path: Path) -> None:
    write(tmp_path / FILE, index=INDEX, files=[])
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(FileNotFoundError):
        write(tmp_path / FILE, index=INDEX, files=[PackageFile("x", tmp_path / "missing")])
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


# ------------------------------------------------------------ normalising


def of_a_builder(path: Path, moment: int, prefix: str) -> Path:
    """A package as a builder leaves it: unsorted, with times, owners and traces of the machine."""
    members = [
        tar_file("lib/z", b"zz", mtime=moment, uid=1000, uname="me", mode=0o664),
        tar_file("bin/a", b"aa", mtime=moment + 5, uid=1000, uname="me", mode=0o775),
        tar_file("lib/link", type=tarfile.SYMTYPE, linkname="z", mtime=moment),
    ]
    declared = [
        entry("lib/z", b"zz", file_mode="binary"),
        entry("bin/a", b"aa"),
        entry("lib/link", path_type="softlink"),
    ]
    about = {"summary": "s", "env_vars": {"HOME": prefix}, "root_pkgs": [prefix]}
    more = [
        tar_file("info/about.json", json.dumps(about).encode()),
        tar_file("info/git", prefix.encode()),
        tar_file("info/recipe/rendered_recipe.yaml", prefix.encode()),
        tar_file("info/recipe/build.log", prefix.encode()),
        tar_file("info/recipe/recipe.yaml", b"recipe"),
        tar_file("info/licenses/LICENSE", b"text"),
    ]
    index = {**INDEX, "timestamp": moment * 1000}
    return raw_conda(path, payload=tar_bytes(members), info=info_tar(index, declared, more))


def test_normalised_packages_of_two_builds_are_the_same(tmp_path: Path) -> None:
    made = []
    for number, moment in enumerate((1_700_000_000, 1_800_000_000)):
        source = of_a_builder(tmp_path / f"in{number}" / FILE, moment, f"/home/build{number}")
        target = tmp_path / f"out{number}" / FILE
        normalise(source, target, timestamp=1_600_000_000, threads=number + 1)
        made.append(target)
        assert [path.name for path in target.parent.iterdir()] == [FILE]
    assert made[0].read_bytes() == made[1].read_bytes()
    package = conda_package.read(made[0])
    assert list(package.paths) == ["bin/a", "lib/link", "lib/z"]
    assert b'"file_mode": "binary"' in package.info["info/paths.json"]
    assert package.about == {"summary": "s"}
    assert package.index["timestamp"] == 1_600_000_000_000
    assert package.licenses == {"LICENSE": b"text"}
    assert "info/recipe/recipe.yaml" in package.info
    assert not [name for name, text in package.info.items() if b"/home/build" in text]
    assert read_all(made[0]) == {"bin/a": (b"aa", True), "lib/link": "z", "lib/z": (b"zz", False)}


def test_normalised_requirements_have_one_order_and_condas_spelling(tmp_path: Path) -> None:
    depends = ["python >=3.8", "other ==1.0", "library ==0.1.6 cpu_0", "a ==1.0|==2.0 b", "b 1.* c"]
    index = {**INDEX, "depends": depends, "constrains": ["__cuda >=13", "x ==2 y_1"]}
    write(tmp_path / FILE, index=index, files=[], level=1)
    normalise(tmp_path / FILE, tmp_path / FILE)
    package = conda_package.read(tmp_path / FILE)
    assert package.index["depends"] == [
        "a ==1.0|==2.0 b",
        "b 1.* c",
        "library 0.1.6 cpu_0",
        "other ==1.0",
        "python >=3.8",
    ]
    assert package.index["constrains"] == ["__cuda >=13", "x 2 y_1"]


def test_normalise_in_place_twice_changes_nothing(tmp_path: Path) -> None:
    source = of_a_builder(tmp_path / FILE, 1_700_000_000, "/home/me")
    normalise(source, source)
    once = source.read_bytes()
    normalise(source, source)
    assert source.read_bytes() == once


def test_normalise_refuses_a_file_with_the_build_prefix(tmp_path: Path) -> None:
    declared = [entry("x", b"/build/prefix", prefix_placeholder="/build/prefix", file_mode="text")]
    source = with_payload(tmp_path, [tar_file("x", b"/build/prefix")], declared)
    before = source.read_bytes()
    with pytest.raises(ArtifactError, match="build prefix"):
        normalise(source, source)
    assert source.read_bytes() == before


# ------------------------------------------------------------ hostile payloads

HOSTILE: dict[str, tuple[list[Member], str]] = {
    "parent": ([tar_file("../x", b"1")], "leaves the package"),
    "parent inside": ([tar_file("a/../../x", b"1")], "leaves the package"),
    "absolute": ([tar_file("/etc/x", b"1")], "absolute"),
    "dot": ([tar_file("./x", b"1")], "plain form"),
    "double slash": ([tar_file("a//x", b"1")], "plain form"),
    "backslash": ([tar_file("a\\x", b"1")], "backslash"),
    "control character": ([tar_file("a\nx", b"1")], "cannot be printed"),
    "long part": ([tar_file("a" * 300, b"1")], "longer than 255"),
    "twice": ([tar_file("x", b"1"), tar_file("x", b"1")], "second member"),
    "file and folder": ([tar_file("x/y", b"1"), tar_file("x", b"1")], "both a file and a folder"),
    "folder and file": (
        [tar_file("x", b"1"), tar_file("x", type=tarfile.DIRTYPE)],
        "both a file and a folder",
    ),
    "below a file": ([tar_file("x", b"1"), tar_file("x/y", b"1")], "lies below x"),
    "below a link": (
        [tar_file("x", type=tarfile.SYMTYPE, linkname="a"), tar_file("x/y", b"1")],
        "lies below x",
    ),
    "folder outside": ([tar_file("../d", type=tarfile.DIRTYPE)], "leaves the package"),
    "link outside": ([tar_file("x", type=tarfile.SYMTYPE, linkname="../y")], "outside the package"),
    "link outside, deep": (
        [tar_file("a/b/x", type=tarfile.SYMTYPE, linkname="../../../y")],
        "outside the package",
    ),
    "absolute link": ([tar_file("x", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "points to"),
    "empty link": ([tar_file("x", type=tarfile.SYMTYPE, linkname="")], "points to"),
    "hard link": (
        [tar_file("x", b"1"), tar_file("y", type=tarfile.LNKTYPE, linkname="x")],
        "hard link",
    ),
    "character device": ([tar_file("x", type=tarfile.CHRTYPE)], "kind"),
    "block device": ([tar_file("x", type=tarfile.BLKTYPE)], "kind"),
    "pipe": ([tar_file("x", type=tarfile.FIFOTYPE)], "kind"),
    "sparse": (
        [tar_file("x", b"", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"})],
        "sparse",
    ),
    "long header": ([tar_file("x", b"1", pax_headers={"comment": "c" * 40_000})], "tar header"),
    "not declared": ([tar_file("unknown", b"1")], "not in info/paths.json"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_member_is_refused(tmp_path: Path, form: str, case: str) -> None:
    members, reason = HOSTILE[case]
    declared = {
        header.name: entry(
            header.name, data, path_type="softlink" if header.issym() else "hardlink"
        )
        for header, data in members
        if header.isreg() or header.issym()
        if re.fullmatch(r"[xy](/y)?", header.name)
    }
    path = with_payload(tmp_path, members, list(declared.values()), form=form)
    assert reason in refused(path)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_hostile_names_in_paths_json_are_refused(tmp_path: Path, form: str) -> None:
    assert "leaves the package" in refused(with_payload(tmp_path, [], [entry("../x")], form=form))


@pytest.mark.parametrize(
    "item",
    [
        "text",
        {"_path": "x"},
        {**entry("x"), "sha256": "no digest"},
        {**entry("x"), "size_in_bytes": -1},
        {**entry("x"), "size_in_bytes": "1"},
        {**entry("x"), "_path": 5},
    ],
)
def test_malformed_paths_json_is_refused(tmp_path: Path, form: str, item: Any) -> None:
    assert "paths.json" in refused(with_payload(tmp_path, [], [item], form=form))


def test_paths_json_has_no_entry_below_info(tmp_path: Path, form: str) -> None:
    member = tar_file("info/index.json", b"{}")
    declared = [entry("info/index.json", b"{}")]
    assert "info" in refused(with_payload(tmp_path, [member], declared, form=form))
    assert "below info/" in refused(with_payload(tmp_path, [], declared, form=form))


def test_paths_json_has_no_entry_twice(tmp_path: Path, form: str) -> None:
    path = with_payload(tmp_path, [tar_file("x")], [entry("x"), entry("x")], form=form)
    assert "twice" in refused(path)


# ------------------------------------------------------------ payload against paths.json


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (entry("x", b"other"), "sha256 is"),
        (entry("x", b"longer text"), "5 bytes, and 11"),
        (entry("x", b"right", path_type="softlink"), "a link in one"),
    ],
)
def test_tampered_file_is_refused(
    tmp_path: Path, form: str, declared: dict[str, object], reason: str
) -> None:
    message = refused(with_payload(tmp_path, [tar_file("x", b"right")], [declared], form=form))
    assert reason in message
    assert f"{STEM}{form}: x" in message


def test_tampering_is_found_when_the_caller_reads_nothing(tmp_path: Path, form: str) -> None:
    package = conda_package.read(
        with_payload(tmp_path, [tar_file("x", b"right")], [entry("x", b"other")], form=form)
    )
    with pytest.raises(ArtifactError, match="sha256 is"):
        list(package.payload())


def test_missing_file_is_refused(tmp_path: Path, form: str) -> None:
    path = with_payload(
        tmp_path, [tar_file("x", b"1")], [entry("x", b"1"), entry("y", b"1")], form=form
    )
    assert "'y' first" in refused(path)


# ------------------------------------------------------------ damage


def whole_package(folder: Path, form: str = ".conda") -> Path:
    rng = hashlib.sha256
    data = b"".join(rng(bytes([n % 256, n // 256])).digest() for n in range(2000))
    files = [PackageFile("lib/x.so", data, 0o755), PackageFile("y", b"text" * 1000)]
    write(folder / FILE, index=INDEX, files=files, level=1)
    return as_tar_bz2(folder / FILE) if form == ".tar.bz2" else folder / FILE


@given(st.floats(0, 1, exclude_max=True))
@relaxed
def test_truncated_package_is_refused(tmp_path: Path, form: str, share: float) -> None:
    path = whole_package(tmp_path, form)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@relaxed
def test_flipped_byte_is_found_or_harmless(
    tmp_path: Path, form: str, share: float, mask: int
) -> None:
    path = whole_package(tmp_path, form)
    expected = read_all(path)
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= mask
    path.write_bytes(data)
    try:
        found = read_all(path)
    except ArtifactError as error:
        assert path.name in str(error)
    else:
        assert found == expected


@pytest.mark.parametrize("member", ["pkg", "info"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, -1])
def test_truncated_zstd_is_refused(tmp_path: Path, member: str, keep: float) -> None:
    payload = tar_bytes([tar_file("x", os.urandom(50_000))])
    info = info_tar(INDEX, [entry("x")], [tar_file("info/random", os.urandom(50_000))])
    whole = {"pkg": zstd.compress(payload), "info": zstd.compress(info)}
    cut = int(len(whole[member]) * keep) if keep >= 0 else len(whole[member]) - 1
    whole[member] = whole[member][:cut]
    with zipfile.ZipFile(tmp_path / FILE, "w") as outer:
        outer.writestr("metadata.json", b'{"conda_pkg_format_version": 2}')
        for name, data in whole.items():
            outer.writestr(f"{name}-{STEM}.tar.zst", data)
    refused(tmp_path / FILE)


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 1536])
def test_truncated_tar_is_refused(tmp_path: Path, cut: int) -> None:
    payload = tar_bytes([tar_file("x", b"1" * 600)])
    path = raw_conda(
        tmp_path / FILE, payload=payload[:cut], info=info_tar(INDEX, [entry("x", b"1" * 600)])
    )
    assert f"pkg-{STEM}" in refused(path)


def test_damaged_header_does_not_hide_what_follows(tmp_path: Path) -> None:
    payload = bytearray(tar_bytes([tar_file("x", b"1"), tar_file("y", b"1")]))
    payload[1024 + 150] ^= 1  # the checksum of the second header
    path = raw_conda(
        tmp_path / FILE, payload=bytes(payload), info=info_tar(INDEX, [entry("x", b"1")])
    )
    assert "cut off or damaged" in refused(path)


def test_data_after_the_end_is_refused(tmp_path: Path) -> None:
    payload = tar_bytes([]) + b"hidden"
    path = raw_conda(tmp_path / FILE, payload=payload, info=info_tar(INDEX, []))
    assert "after the end" in refused(path)


# ------------------------------------------------------------ the outer zip


def test_missing_file_and_foreign_names(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / FILE)
    (tmp_path / "toy.conda").write_bytes(b"")
    assert "not that of a conda package" in refused(tmp_path / "toy.conda")
    for name in ("toy.tar.bz2", "toy-1.0-h_0.tar", "toy-1.0-h_0.bz2", "toy-1.0-h_0.zip"):
        (tmp_path / name).write_bytes(b"")
        assert "not that of a conda package" in refused(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no zip" * 100])
def test_what_is_not_a_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert "not a zip" in refused(tmp_path / FILE)


def test_renamed_package_is_refused(tmp_path: Path, form: str) -> None:
    path = whole_package(tmp_path, form).rename(tmp_path / f"toy-1.1-h_0{form}")
    assert "renamed" in refused(path)


@pytest.mark.parametrize("key", ["name", "version", "build"])
def test_package_renamed_outside_and_inside_the_zip_is_refused(
    tmp_path: Path, form: str, key: str
) -> None:
    path = with_info(tmp_path, form, info_tar({**INDEX, key: "other"}, []))
    assert f"{key} is 'other' inside" in refused(path)


@pytest.mark.parametrize("name", ["extra.txt", "../evil", "/evil", f"pkg-{STEM}.tar.bz2"])
def test_unknown_member_is_refused(tmp_path: Path, name: str) -> None:
    path = with_payload(tmp_path, [], [], more={name: b"1"})
    assert repr(name) in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["metadata.json", f"pkg-{STEM}.tar.zst"])
def test_second_member_is_refused(tmp_path: Path, name: str) -> None:
    assert "twice" in refused(with_payload(tmp_path, [], [], more={name: b"1"}))


def test_compressed_member_is_refused(tmp_path: Path) -> None:
    path = with_payload(tmp_path, [], [], compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path)


@pytest.mark.parametrize(
    "metadata",
    [b"", b"[]", b"{}", b'{"conda_pkg_format_version": 3}', b"{" * 100_000, b"[" * 60_000],
)
def test_metadata_of_another_format_is_refused(tmp_path: Path, metadata: bytes) -> None:
    assert "metadata.json" in refused(with_payload(tmp_path, [], [], metadata=metadata))


@pytest.mark.parametrize("missing", ["metadata.json", f"pkg-{STEM}", f"info-{STEM}"])
def test_missing_member_is_refused(tmp_path: Path, missing: str) -> None:
    whole = with_payload(tmp_path / "whole", [], [])
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / FILE, "w") as new:
        for name in old.namelist():
            if not name.startswith(missing):
                new.writestr(name, old.read(name))
    message = refused(tmp_path / FILE)
    assert "missing" in message
    assert missing in message


@pytest.mark.parametrize("missing", ["info/index.json", "info/paths.json"])
def test_missing_info_is_refused(tmp_path: Path, form: str, missing: str) -> None:
    both = [
        tar_file("info/index.json", json.dumps(INDEX).encode()),
        tar_file("info/paths.json", b'{"paths": []}'),
    ]
    kept = [member for member in both if member[0].name != missing]
    assert missing in refused(with_info(tmp_path, form, tar_bytes(kept)))


def test_payload_in_the_info_archive_is_refused(tmp_path: Path) -> None:
    info = info_tar(INDEX, [], [tar_file("lib/x", b"1")])
    assert "not below info/" in refused(raw_conda(tmp_path / FILE, payload=b"", info=info))


# ------------------------------------------------------------ sizes


def bomb(size: int) -> bytes:
    """A zstd frame that unpacks to `size` zeros."""
    return zstd.compress(bytes(size), 19)


def peak_of(action: Callable[[], object]) -> int:
    import tracemalloc

    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_payload_that_unpacks_to_more_than_declared_is_refused(tmp_path: Path) -> None:
    huge = tarfile.TarInfo("x")
    huge.size = 200 << 20
    with zipfile.ZipFile(tmp_path / FILE, "w") as outer:
        outer.writestr("metadata.json", b'{"conda_pkg_format_version": 2}')
        frame = zstd.compress(huge.tobuf()) + bomb(200 << 20)
        outer.writestr(f"pkg-{STEM}.tar.zst", frame)
        outer.writestr(f"info-{STEM}.tar.zst", zstd.compress(info_tar(INDEX, [entry("x", b"1")])))
    message = ""

    def attempt() -> None:
        nonlocal message
        message = refused(tmp_path / FILE)

    assert peak_of(attempt) < 16 << 20
    assert "209715200 bytes, and 1 in info/paths.json" in message


def test_zeros_after_the_end_are_bounded_too(tmp_path: Path) -> None:
    payload = tar_bytes([tar_file("x", b"1")])
    for size, words in ((2 << 20, "zeros after its end"), (40 << 20, "unpacks to more than")):
        path = raw_conda(
            tmp_path / FILE, payload=payload + bytes(size), info=info_tar(INDEX, [entry("x", b"1")])
        )
        assert words in refused(path)
        assert peak_of(lambda path=path: refused(path)) < 8 << 20  # type: ignore[misc]


def test_info_that_unpacks_to_too_much_is_refused(tmp_path: Path, form: str) -> None:
    info = info_tar(INDEX, [], [tar_file("info/zeros", bytes(80 << 20))])
    path = with_info(tmp_path, form, info)
    assert "unpacks to more than" in refused(path)


@pytest.mark.parametrize("limits", [Limits(payload=10), Limits(members=4)])
def test_declared_sizes_have_a_limit(tmp_path: Path, form: str, limits: Limits) -> None:
    path = with_payload(tmp_path, [], [entry(name, b"123456") for name in "vwxyz"], form=form)
    with pytest.raises(ArtifactError, match="at most"):
        conda_package.read(path, limits=limits)


def test_window_larger_than_any_level_uses_is_refused(tmp_path: Path) -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 30,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    frame = compressor.compress(tar_bytes([])) + compressor.flush()
    path = with_payload(tmp_path, [], [])
    with zipfile.ZipFile(tmp_path / "new", "w") as new, zipfile.ZipFile(path) as old:
        for name in old.namelist():
            new.writestr(name, frame if name.startswith("pkg-") else old.read(name))
    (tmp_path / "new").rename(path)
    assert "cannot be decompressed" in refused(path)


def test_memory_stays_small_for_a_large_payload(tmp_path: Path, form: str) -> None:
    path = tmp_path / FILE
    write(path, index=INDEX, files=[PackageFile("x", bytes(100 << 20))], level=1)
    if form == ".tar.bz2":
        path = as_tar_bz2(path)

    def read() -> None:
        for member in conda_package.read(path).payload():
            for _ in member.chunks():
                pass

    assert peak_of(read) < 8 << 20


def test_packages_of_this_project_are_read(tmp_path: Path, form: str) -> None:
    path = factories.write_pair(tmp_path)
    package = conda_package.read(as_tar_bz2(path) if form == ".tar.bz2" else path)
    assert (package.name, package.version, package.build) == (
        "flashinfer",
        "0.1.6",
        "cpu_torch213_0",
    )
    assert package.licenses == {"LICENSE": factories.LICENSE}
    sizes = {member.path: len(member.read()) for member in package.payload()}
    assert sum(sizes.values()) == package.payload_size
