"""One reading of every archive: what is approved here is what an installer unpacks.

Each mutation makes an archive that some reader takes for another one: all of them are refused. What
is accepted is read alike by every tool that installs it; that is in test_same_reading.py.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import json
import re
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import archive_mutations as mutations
import pytest
from archive_mutations import Block, ZipEntry, tar_of, zip_entries, zip_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conda_bridge.bridge.convert import bridge
from conda_bridge.bridge.to_conda import to_conda
from conda_bridge.errors import ArtifactError, BridgeError
from conda_bridge.formats import conda_package, json_reader, limits, tar_stream, wheel_reader
from conda_bridge.formats.headers import read_headers
from conda_bridge.formats.index_json import check_record
from conda_bridge.formats.zstd import zstd
from conda_bridge.formats.zstd_frame import ZstdFrame, decompressed
from conda_bridge.project import Project
from conda_bridge.publish import channel, channel_forms
from conda_bridge.publish.index import publish
from conda_bridge.verify.compare import compare_all
from conda_bridge.verify.gate import verify

WHEEL = "toy-1.0-py3-none-any.whl"
STEM = "toy-1.0-h_0"
INDEX = {
    "name": "toy",
    "version": "1.0",
    "build": "h_0",
    "build_number": 0,
    "depends": ["python"],
    "subdir": "noarch",
}
SHA = "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53"  # of b"content\n"
PATHS = {
    "paths": [
        {"_path": "lib/file", "path_type": "hardlink", "sha256": SHA, "size_in_bytes": 8},
    ],
    "paths_version": 1,
}
FILE = Block(b"lib/file", b"content\n")


def wheel_bytes() -> bytes:
    """A small wheel as zipfile writes it."""
    files = {
        "pkg/__init__.py": "value = 1\n" * 20,
        "toy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        "toy-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files["toy-1.0.dist-info/RECORD"] = "".join(
        f"{name},,\n" for name in [*files, "toy-1.0.dist-info/RECORD"]
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    return made.getvalue()


def info_blocks(documents: Mapping[str, bytes] | None = None) -> list[Block]:
    texts = {
        "index.json": json.dumps(INDEX).encode(),
        "about.json": b'{"summary": "toy"}',
        "paths.json": json.dumps(PATHS).encode(),
        **(documents or {}),
    }
    return [Block(f"info/{name}".encode(), text) for name, text in texts.items()]


def conda_bytes(
    *,
    payload: bytes | None = None,
    documents: Mapping[str, bytes] | None = None,
    metadata: bytes = b'{"conda_pkg_format_version": 2}',
) -> bytes:
    """A small ``.conda`` whose payload is `payload`, compressed already."""
    pkg = zstd.compress(tar_of([FILE])) if payload is None else payload
    return zip_of(
        [
            ZipEntry.of("metadata.json", metadata),
            ZipEntry.of(f"pkg-{STEM}.tar.zst", pkg),
            ZipEntry.of(f"info-{STEM}.tar.zst", zstd.compress(tar_of(info_blocks(documents)))),
        ]
    )


def read_wheel(path: Path) -> dict[str, bytes]:
    return {member.path: stream.read() for member, stream in wheel_reader.read(path).stream()}


def read_package(path: Path) -> dict[str, bytes | str]:
    package = conda_package.read(path)
    files: dict[str, bytes | str] = dict(package.info)
    for member in package.payload():
        files[member.path] = member.link_target or member.read()
    return files


def refused(read: Callable[[Path], object], path: Path, data: bytes) -> str:
    """The message with which the archive is refused; it names the file, in a few lines."""
    path.write_bytes(data)
    with pytest.raises(ArtifactError) as caught:
        read(path)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert path.name in message
    assert len(message) < 2000
    return message


# ------------------------------------------------------------ the forms that are right


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    """Without this every refusal below would prove nothing."""
    data = wheel_bytes()
    assert zip_of(zip_entries(data)) == data
    (tmp_path / WHEEL).write_bytes(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert read_wheel(tmp_path / WHEEL) == {
            name: archive.read(name) for name in archive.namelist()
        }
    path = tmp_path / f"{STEM}.conda"
    path.write_bytes(zip_of(zip_entries(conda_bytes())))
    assert read_package(path)["lib/file"] == b"content\n"
    old = tmp_path / f"{STEM}.tar.bz2"
    old.write_bytes(bz2.compress(tar_of([*info_blocks(), FILE])))
    assert read_package(old)["lib/file"] == b"content\n"


LONG = "folder/" * 20 + "n" * 90


@pytest.mark.parametrize(
    "blocks",
    [
        [mutations.pax((b"path", LONG.encode())), Block(b"short", b"1")],
        [mutations.long_name(LONG.encode() + b"\0"), Block(b"short", b"1", magic=b"ustar  \0")],
        [mutations.long_name(LONG.encode()), Block(b"short", b"1", magic=b"ustar  \0")],
        [Block(b"n" * 90, b"1", prefix=LONG[:-91].encode())],
    ],
    ids=["pax", "GNU", "GNU without a zero", "ustar"],
)
def test_every_form_of_a_long_name_is_read(blocks: list[Block | bytes]) -> None:
    assert [member.path for member in tar_members(tar_of(blocks))] == [LONG]


@pytest.mark.parametrize(
    "block",
    [
        Block(b"d/", b"", b"5"),
        Block(b"d", b"", b"5"),
        mutations.pax((b"mtime", b"1.5"), (b"uname", "é".encode()), (b"size", b"8")),
        mutations.pax((b"atime", b"-1"), (b"LIBARCHIVE.creationtime", b"0")),
        Block(b"l", b"", b"2", link=b"lib/file"),
        Block(b"lib/l", b"", b"2", link=b"file"),
        Block(b"a/b/l", b"", b"2", link=b"../../lib/other-package"),
        Block(b"x", b"1", b"\0"),
        Block(b"x", b"1", size=b"          1 "),
        Block(b"x", b"1", size=b"0000000001 \0"),
    ],
)
def test_other_forms_that_builders_write(block: Block) -> None:
    assert "lib/file" in [member.path for member in tar_members(tar_of([block, FILE]))]


def test_a_binary_size_of_more_than_octal_digits_say() -> None:
    """Only the header: nobody wants eight gigabytes in a test."""
    huge = Block(b"x", b"", size=b"\x80" + (8**11).to_bytes(11, "big"))
    member = next(iter(tar_stream.members(io.BytesIO(huge.pack()), "x", **BOUNDS)))
    assert member.size == 8**11


BOUNDS: dict[str, int] = {"max_bytes": 1 << 40, "max_members": 1000}


def tar_members(data: bytes) -> list[tar_stream.TarMember]:
    return list(tar_stream.members(io.BytesIO(data), "test", **BOUNDS))


# ------------------------------------------------------------ the forms that are not


@pytest.mark.parametrize("name", [*mutations.ZIP, *mutations.WHEEL_ZIP])
def test_a_wheel_that_is_two(tmp_path: Path, name: str) -> None:
    change = {**mutations.ZIP, **mutations.WHEEL_ZIP}[name]
    refused(read_wheel, tmp_path / WHEEL, change(wheel_bytes()))


@pytest.mark.parametrize("name", [*mutations.ZIP, *mutations.CONDA_ZIP])
def test_a_conda_that_is_two(tmp_path: Path, name: str) -> None:
    change = {**mutations.ZIP, **mutations.CONDA_ZIP}[name]
    refused(read_package, tmp_path / f"{STEM}.conda", change(conda_bytes()))


def test_the_refusal_says_where_and_what_the_readings_are(tmp_path: Path) -> None:
    change = mutations.ZIP["a member before the directory that it does not name"]
    message = refused(read_package, tmp_path / f"{STEM}.conda", change(conda_bytes()))
    assert "at byte" in message
    assert "reads from the front" in message
    assert "to do:" in message


@pytest.mark.parametrize("name", mutations.TAR)
def test_a_tar_archive_that_is_two(tmp_path: Path, name: str) -> None:
    blocks = mutations.TAR[name]
    if name != "a link where info is":  # for a tar archive alone that is a name as any other
        with pytest.raises(ArtifactError):
            tar_members(tar_of(blocks))
    payload = tar_of([*blocks] if b"lib/file" in tar_of(blocks) else [*blocks, FILE])
    refused(
        read_package,
        tmp_path / f"{STEM}.conda",
        conda_bytes(payload=zstd.compress(payload), documents=declared(tmp_path)),
    )
    old = bz2.compress(tar_of([*info_blocks(), *blocks]))
    refused(read_package, tmp_path / f"{STEM}.tar.bz2", old)


def declared(tmp_path: Path) -> dict[str, bytes]:
    """A paths.json that names also what the archives hide, as a careful attacker would."""
    more = [
        {"_path": name, "path_type": kind, "sha256": SHA, "size_in_bytes": 8}
        for name, kind in (("evil.pth", "hardlink"), ("x", "hardlink"), ("info", "softlink"))
    ]
    return {"paths.json": json.dumps({**PATHS, "paths": [*PATHS["paths"], *more]}).encode()}  # type: ignore[misc]


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1000), bytes(1025), bytes(1024) + b"x"])
def test_an_archive_without_its_end(end: bytes) -> None:
    with pytest.raises(ArtifactError):
        tar_members(tar_of([FILE], end=end))
    assert len(tar_members(tar_of([FILE], end=bytes(10240)))) == 1


@pytest.mark.parametrize("name", mutations.ZSTD)
def test_a_frame_that_is_two(tmp_path: Path, name: str) -> None:
    whole = zstd.compress(tar_of([FILE]))
    broken = mutations.ZSTD[name](whole)
    refused(read_package, tmp_path / f"{STEM}.conda", conda_bytes(payload=broken))
    with pytest.raises(ArtifactError):
        decompressed(io.BytesIO(broken), "test", max_bytes=1 << 20)
    assert decompressed(io.BytesIO(whole), "test", max_bytes=1 << 20) == tar_of([FILE])


def test_a_frame_is_read_in_pieces_of_any_size() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1 if size else 0)

    data = bytes(range(256)) * 1000
    frame = ZstdFrame(Dripping(zstd.compress(data)), "test")
    assert b"".join(iter(lambda: frame.read(777), b"")) == data


@pytest.mark.parametrize(
    ("member", "line"),
    [
        ("WHEEL", "Root-Is-Purelib: false"),
        ("WHEEL", "Wheel-Version: 9.0"),
        ("METADATA", "Name: evil"),
        ("METADATA", "Version: 2.0"),
    ],
)
def test_a_wheel_that_says_twice_what_it_is(tmp_path: Path, member: str, line: str) -> None:
    changed = []
    for entry in zip_entries(wheel_bytes()):
        name = entry.name.decode()
        text = zlib.decompress(entry.body, -15)
        if name.endswith(member):
            text += line.encode() + b"\n"
        changed.append(ZipEntry.of(name, text))
    path = tmp_path / WHEEL
    path.write_bytes(zip_of(changed))
    with pytest.raises(ArtifactError, match=line.partition(":")[0]):
        publish([path], tmp_path / "index", project=Project())
    assert verify([path], project=Project()).exit_code != 0


# ------------------------------------------------------------ JSON


@pytest.mark.parametrize("name", mutations.JSON)
@pytest.mark.parametrize("document", ["index.json", "about.json", "paths.json", "metadata.json"])
def test_json_that_readers_differ_on(tmp_path: Path, document: str, name: str) -> None:
    originals = {
        "index.json": json.dumps(INDEX).encode(),
        "about.json": b'{"summary": "toy"}',
        "paths.json": json.dumps(PATHS).encode(),
        "metadata.json": b'{"conda_pkg_format_version": 2}',
    }
    broken = mutations.JSON[name](originals[document])
    if document == "metadata.json":
        data = conda_bytes(metadata=broken)
    else:
        data = conda_bytes(documents={document: broken})
    assert document in refused(read_package, tmp_path / f"{STEM}.conda", data)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 63) - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("aé\0\n"), inner),
        max_leaves=20,
    ),
    st.booleans(),
)
@settings(deadline=None, max_examples=25)
def test_plain_json_is_read(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert json_reader.parse(text, "test") == value


@given(st.binary(max_size=60) | st.text('[]{}",:\\u0dN1e', max_size=40).map(str.encode))
@settings(deadline=None, max_examples=100)
def test_no_bytes_make_the_json_reader_fail_otherwise(text: bytes) -> None:
    with contextlib.suppress(ArtifactError):
        json_reader.parse(text, "test")


@pytest.mark.parametrize("depth", [limits.JSON_DEPTH, limits.JSON_DEPTH + 1, 900, 100_000])
@pytest.mark.parametrize("pair", ["[]", '{"a":}'])
def test_the_depth_has_one_limit(depth: int, pair: str) -> None:
    text = (pair[:-1] * depth + "1" + pair[-1] * depth).encode()
    if depth > limits.JSON_DEPTH:
        with pytest.raises(ArtifactError, match="levels"):
            json_reader.parse(text, "test")
    else:
        json_reader.parse(text, "test")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 1),
        ("version", 1.0),
        ("build", None),
        ("build_number", "0"),
        ("build_number", -1),
        ("build_number", True),
        ("build_number", 1.5),
        ("depends", "python"),
        ("depends", ["python", 3]),
        ("depends", [["python"]]),
        ("constrains", {}),
        ("license", 1),
        ("subdir", ["noarch"]),
        ("timestamp", "now"),
        ("timestamp", 253_402_300_799),  # seconds to rattler, and past its last
        ("timestamp", 253_402_207_201_000),
        ("version", "1.0d\0"),
        ("version", "9" * 30),
        ("version", ""),
        ("track_features", None),
        ("noarch", "java"),
        ("noarch", 1),
        ("track_features", 1),
        ("features", []),
        ("extra_depends", {"a": "b"}),
        ("python_site_packages_path", 1),
    ],
)
def test_index_json_has_the_types_of_everybody(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / f"{STEM}.conda"
    path.write_bytes(
        conda_bytes(documents={"index.json": json.dumps({**INDEX, key: value}).encode()})
    )
    with pytest.raises(ArtifactError, match=key):
        publish([path], tmp_path / "index", project=Project())
    assert not list((tmp_path / "index").rglob("*.conda"))
    with pytest.raises(ArtifactError, match=key):
        check_record({**INDEX, key: value}, "test")


@pytest.mark.parametrize(
    "change",
    [
        {"path_type": "symlink"},
        {"path_type": 1},
        {"file_mode": "ascii"},
        {"size_in_bytes": True},
        {"size_in_bytes": 8.0},
        {"size_in_bytes": "8"},
        {"_path": ["lib/file"]},
        {"_path": "info"},
        {"sha256": SHA.upper()},
    ],
)
def test_paths_json_has_the_types_of_everybody(tmp_path: Path, change: dict[str, Any]) -> None:
    paths = {"paths": [{**PATHS["paths"][0], **change}]}  # type: ignore[index]
    data = conda_bytes(documents={"paths.json": json.dumps(paths).encode()})
    assert "paths.json" in refused(read_package, tmp_path / f"{STEM}.conda", data)


# ------------------------------------------------------------ every program, one reader


@pytest.mark.parametrize(
    "name",
    [
        "a member before the directory that it does not name",
        "a name in an extra field",
        "another name before",
        "a descriptor",
    ],
)
def test_verify_and_index_refuse_the_same(tmp_path: Path, name: str) -> None:
    files = {
        WHEEL: mutations.ZIP[name](wheel_bytes()),
        f"{STEM}.conda": mutations.ZIP[name](conda_bytes()),
    }
    for file, data in files.items():
        path = tmp_path / file
        path.write_bytes(data)
        [error] = verify([path], project=Project()).errors
        with pytest.raises(ArtifactError) as caught:
            publish([path], tmp_path / "index", project=Project())
        assert str(caught.value) == str(error)
        assert not list((tmp_path / "index").rglob(file))


@pytest.mark.parametrize("declared", [True, False])
def test_a_channel_with_a_bomb_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: bool
) -> None:
    """A repodata.json.zst of kilobytes that is a hundred megabytes, whether it says so or not."""
    monkeypatch.setattr(limits, "REPODATA_SIZE", 4 << 20)
    folder = tmp_path / "noarch"
    folder.mkdir()
    options: dict[int, int] = {zstd.CompressionParameter.content_size_flag: declared}
    bomb = zstd.compress(bytes(100 << 20), options=options)
    (folder / "repodata.json.zst").write_bytes(bomb)
    tracemalloc.start()
    try:
        assert channel.published(tmp_path, "noarch") == {}
        assert not channel.consistent(tmp_path, "noarch")
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a key twice", "NaN", "a byte order mark", "deep lists"])
def test_repodata_is_read_by_the_same_reader(tmp_path: Path, name: str) -> None:
    (tmp_path / "noarch").mkdir()
    data = channel_forms.repodata("noarch", {})
    (tmp_path / "noarch/repodata.json").write_bytes(mutations.JSON[name](data))
    with pytest.raises(ArtifactError, match="is not repodata of this channel"):
        channel.published(tmp_path, "noarch")


# ------------------------------------------------------------ bounds


def test_a_message_in_a_message_in_a_message(tmp_path: Path) -> None:
    """A description is text, whatever it looks like."""
    nested = b"Content-Type: message/rfc822\n\n" * 1500
    head = b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n"
    message = read_headers(head + nested + b"end", "test")
    assert message["Name"] == "toy"
    assert not message.is_multipart()
    assert str(message.get_payload()).endswith("\n\nend")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"Name: toy\nno header\nVersion: 1.0\n", "no header"),
        (b" folded: first\n", "no header"),
        (b"Name: toy\rVersion: 2.0\n", "carriage return"),
        (b"Name: \xff\n", "not UTF-8"),
        (b"A: b\n" * 30_000, "larger than"),
        (b"A: " + b"b" * (2 << 20) + b"\n", "larger than"),
        (b"From toy\nName: toy\n", "no header"),
    ],
)
def test_headers_that_readers_differ_on(text: bytes, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        read_headers(text, "test")


@pytest.mark.parametrize("read", [wheel_reader.read, conda_package.read])
@pytest.mark.parametrize(
    "name",
    [
        f"{'n' * 300}-1.0-py3-none-any.whl",
        f"{'n' * 300}-1.0-0.conda",
        f"toy-{'9' * 5000}-0.conda",
        f"toy-{'9' * 5000}-py3-none-any.whl",
        "a\0b-1.0-0.conda",
        "\ud800-1.0-0.conda",
        "\ud800-1.0-py3-none-any.whl",
    ],
)
def test_a_file_name_that_no_file_has(
    tmp_path: Path, read: Callable[[Path], object], name: str
) -> None:
    with pytest.raises(BridgeError):
        read(tmp_path / name)


@pytest.mark.parametrize("ending", ["-1.0-py3-none-any.whl", "-1.0-0.conda"])
def test_no_program_asks_the_system_for_such_a_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / ("n" * 300 + ending)

    for run in (
        lambda: verify([path], project=Project()),
        lambda: publish([path], tmp_path / "index", project=Project()),
        lambda: compare_all(path, path),
        lambda: bridge(path, tmp_path),
        lambda: to_conda(path, tmp_path),
    ):
        with pytest.raises(BridgeError):
            run()


def test_pages_and_repodata_name_files_that_may_be(tmp_path: Path) -> None:
    for name in ("n" * 300 + "-1-0.conda", "../../evil-1-0.conda", "a\0-1-0.conda"):
        record = {**INDEX, "sha256": SHA, "md5": "0" * 32, "size": 1}
        (tmp_path / "noarch").mkdir(exist_ok=True)
        data = channel_forms.repodata("noarch", {name: record})
        (tmp_path / "noarch/repodata.json").write_bytes(data)
        with pytest.raises(ArtifactError, match="is not repodata"):
            channel.published(tmp_path, "noarch")


def test_more_members_than_there_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ZIP_DIRECTORY", 200)
    message = refused(read_wheel, tmp_path / WHEEL, wheel_bytes())
    assert "a directory of 4 members" in message


def test_one_folder_may_not_come_for_ever() -> None:
    """Gigabytes of the same header are kilobytes in a frame."""
    folders = [Block(b"d/", b"", b"5")] * 1000
    assert [member.path for member in tar_members(tar_of([*folders, FILE]))] == ["lib/file"]
    with pytest.raises(ArtifactError, match="more than 1000 folders"):
        tar_members(tar_of([*folders, *folders[:1]]))


def test_names_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NAMES", 1000)
    many = [Block(f"{'d/' * 20}{number}".encode(), b"") for number in range(30)]
    with pytest.raises(ArtifactError, match="names of more than 1000"):
        tar_members(tar_of(many))


def test_the_documented_limits_are_those_of_the_code(root: Path) -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", (root / "docs/security.md").read_text(), re.M)
    assert {name: int(value) for name, value in rows} == {
        name: getattr(limits, name) for name in limits.__all__
    }


RELAXED = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3))
@RELAXED
def test_changed_bytes_are_found_or_harmless(
    tmp_path: Path, changes: list[tuple[float, int]]
) -> None:
    """No other exception than the project's own, and nothing else than what was put in."""
    for name, whole, read in (
        (WHEEL, wheel_bytes(), read_wheel),
        (f"{STEM}.conda", conda_bytes(), read_package),
    ):
        path = tmp_path / name
        path.write_bytes(whole)
        expected: object = read(path)
        data = bytearray(whole)
        for share, value in changes:
            data[int(len(data) * share)] = value
        path.write_bytes(data)
        try:
            found: object = read(path)
        except ArtifactError:
            continue
        assert found == expected
