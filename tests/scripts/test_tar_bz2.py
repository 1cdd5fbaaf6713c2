"""conda-build's older form, ``.tar.bz2``: one archive with everything, and one bz2 stream alone."""

from __future__ import annotations

import bz2
import hashlib
import json
import os
import tarfile
import tracemalloc
from pathlib import Path

import conda_package_streaming.package_streaming as conda_streaming
import factories
import pytest
from factories import Member, raw_tar_bz2, tar_bytes, tar_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rattler import package_streaming as rattler_streaming

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import conda_package
from conda_bridge.formats.conda_package import CondaPackage, Limits
from conda_bridge.formats.conda_writer import normalise

FILE = "toy-1.0-h_0.tar.bz2"
INDEX = {"name": "toy", "version": "1.0", "build": "h_0", "subdir": "linux-64", "depends": []}
CONTENTS = {"lib/x.so": os.urandom(70_000), "share/y": b"y" * 5000, "z": b""}
relaxed = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def entries(contents: dict[str, bytes]) -> list[dict[str, object]]:
    return [
        {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_in_bytes": len(data),
        }
        for path, data in contents.items()
    ]


def members(contents: dict[str, bytes] = CONTENTS) -> list[Member]:
    """What is in the package, in conda-build's order."""
    paths = {"paths": entries(contents), "paths_version": 1}
    return [
        tar_file("info/files", "\n".join(contents).encode()),
        tar_file("info/index.json", json.dumps(INDEX).encode()),
        tar_file("info/paths.json", json.dumps(paths).encode()),
        tar_file("info/licenses/LICENSE", b"text"),
        *(tar_file(path, data, mode=0o664, uname="me") for path, data in contents.items()),
    ]


def content(package: CondaPackage) -> dict[str, bytes]:
    return {member.path: member.read() for member in package.payload()}


def refused(path: Path, limits: Limits | None = None) -> str:
    """The message with which `path` is refused, before or while its payload is read."""
    with pytest.raises(ArtifactError) as caught:
        content(conda_package.read(path, limits=limits))
    assert caught.value.exit_code == 2
    assert path.name in str(caught.value)
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    return str(caught.value)


def peak_of_refusal(path: Path, words: str, limits: Limits | None = None) -> int:
    """The memory that it takes to refuse `path`."""
    tracemalloc.start()
    try:
        assert words in refused(path, limits)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------ what is read


@given(st.permutations(members()))
@relaxed
def test_info_may_be_anywhere(tmp_path: Path, order: list[Member]) -> None:
    package = conda_package.read(raw_tar_bz2(tmp_path / FILE, order))
    assert (package.name, package.version, package.build) == ("toy", "1.0", "h_0")
    assert package.licenses == {"LICENSE": b"text"}
    assert package.index == INDEX
    assert content(package) == content(package) == CONTENTS


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_is_read(tmp_path: Path, format: int) -> None:
    contents = {f"{'long-folder/' * 9}{'n' * 60}": b"1", **CONTENTS}
    path = raw_tar_bz2(tmp_path / FILE, members(contents), format=format)
    assert content(conda_package.read(path)) == contents


def test_conda_and_rattler_read_the_same(tmp_path: Path) -> None:
    path = raw_tar_bz2(tmp_path / "in" / FILE, members()[::-1])
    package = conda_package.read(path)
    rattler_streaming.extract(str(path), str(tmp_path / "rattler"))
    files = {**package.info, **content(package)}
    for name, data in files.items():
        assert (tmp_path / "rattler" / name).read_bytes() == data
    streamed = {
        header.name: archive.extractfile(header).read()  # type: ignore[union-attr]
        for archive, header in conda_streaming.stream_conda_component(str(path))
    }
    assert streamed == files


def test_the_same_package_comes_out_as_a_conda(tmp_path: Path) -> None:
    whole = factories.write_pair(tmp_path / "conda")
    old = factories.as_tar_bz2(whole, tmp_path / "old")
    normalise(whole, tmp_path / "a" / whole.name)
    normalise(old, tmp_path / "b" / whole.name)
    assert (tmp_path / "a" / whole.name).read_bytes() == (tmp_path / "b" / whole.name).read_bytes()


# ------------------------------------------------------------ one stream, and nothing else

WHOLE = tar_bytes(members())


@pytest.mark.parametrize("at", [512, 2048, 10_000, len(WHOLE) - 512])
def test_an_archive_in_two_streams_is_refused(tmp_path: Path, at: int) -> None:
    """Conda reads both; rattler reads the first, and installs less without a word."""
    (tmp_path / FILE).write_bytes(bz2.compress(WHOLE[:at]) + bz2.compress(WHOLE[at:]))
    assert "after the end of the bz2 stream" in refused(tmp_path / FILE)


@pytest.mark.parametrize(
    "more",
    [b"\0", b"x", b"\n" * 600, bz2.compress(b""), bz2.compress(bytes(10240)), bz2.compress(WHOLE)],
    ids=["a zero", "a byte", "blanks", "nothing", "zeros", "another"],
)
def test_what_follows_the_stream_is_refused(tmp_path: Path, more: bytes) -> None:
    (tmp_path / FILE).write_bytes(bz2.compress(WHOLE) + more)
    assert "after the end of the bz2 stream" in refused(tmp_path / FILE)


def test_trailing_bytes_far_behind_are_refused(tmp_path: Path) -> None:
    """The end of the stream and what follows it are read in different pieces."""
    data = bz2.compress(tar_bytes(members({"x": os.urandom((1 << 20) + 5)})))
    for length in {len(data), 1 << 20, 2 << 20}:
        (tmp_path / FILE).write_bytes(data + bytes(max(1, length - len(data))))
        assert "after the end of the bz2 stream" in refused(tmp_path / FILE)


def test_data_after_the_end_of_the_archive_is_refused(tmp_path: Path) -> None:
    for more in (b"hidden", tar_bytes([tar_file("hidden", b"1")])):
        (tmp_path / FILE).write_bytes(bz2.compress(WHOLE + more))
        assert "after the end of the tar archive" in refused(tmp_path / FILE)


@pytest.mark.parametrize("cut", [1, 4, 5, 100])
def test_a_stream_without_its_end_is_refused(tmp_path: Path, cut: int) -> None:
    """tarfile would not notice: the archive is whole, the checksum of the stream is not there."""
    (tmp_path / FILE).write_bytes(bz2.compress(WHOLE)[:-cut])
    assert "cannot be decompressed" in refused(tmp_path / FILE)


def test_a_stream_that_ends_within_the_archive_is_refused(tmp_path: Path) -> None:
    for end in (512, 1000, 2048, len(WHOLE.rstrip(b"\0")) - 1):
        (tmp_path / FILE).write_bytes(bz2.compress(WHOLE[:end]))
        refused(tmp_path / FILE)


@pytest.mark.parametrize(
    "data", [b"", b"BZh9", b"PK\x03\x04" + bytes(100), b"\x1f\x8b" * 99, WHOLE]
)
def test_what_is_no_bz2_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    assert "cannot be decompressed" in refused(tmp_path / FILE)


# ------------------------------------------------------------ names of both parts together


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([tar_file("info/index.json", b"{}")], "second member"),
        ([tar_file("info", b"1")], "both a file and a folder"),
        ([tar_file("info", type=tarfile.SYMTYPE, linkname="share")], "both a file and a folder"),
        ([tar_file("info/../x", b"1")], "leaves the package"),
        ([tar_file("./info/more", b"1")], "plain form"),
        ([tar_file("info/x", type=tarfile.SYMTYPE, linkname="../../x")], "outside the package"),
        ([tar_file("info/x", type=tarfile.LNKTYPE, linkname="z")], "hard link"),
        ([tar_file("INFO/x", b"1")], "not in info/paths.json"),
        ([tar_file("information", b"1")], "not in info/paths.json"),
    ],
)
def test_hostile_members_of_info(tmp_path: Path, more: list[Member], words: str) -> None:
    assert words in refused(raw_tar_bz2(tmp_path / FILE, [*members(), *more]))


def test_a_file_of_the_payload_does_not_stand_in_for_one_of_info(tmp_path: Path) -> None:
    """A link below info/ is not followed."""
    link = tar_file("info/index.json", type=tarfile.SYMTYPE, linkname="../z")
    others = [member for member in members() if member[0].name != "info/index.json"]
    path = raw_tar_bz2(tmp_path / FILE, [*others, link])
    assert "info/index.json: the member is missing" in refused(path)


# ------------------------------------------------------------ sizes


def header(name: str, size: int) -> bytes:
    made = tarfile.TarInfo(name)
    made.size = size
    return made.tobuf()


def bomb(tmp_path: Path, before: bytes, size: int) -> Path:
    """A file of kilobytes with `size` zeros behind the members `before`."""
    compressor = bz2.BZ2Compressor(1)
    data = compressor.compress(before)
    for _ in range(size >> 20):
        data += compressor.compress(bytes(1 << 20))
    (tmp_path / FILE).write_bytes(data + compressor.flush())
    assert (tmp_path / FILE).stat().st_size < 200_000
    return tmp_path / FILE


def test_a_file_that_is_larger_than_it_may_be_is_not_unpacked(tmp_path: Path) -> None:
    path = bomb(tmp_path, header("x", 300 << 20), 300 << 20)
    limits = Limits(payload=1 << 20)
    assert peak_of_refusal(path, "the files to install unpacks to more", limits) < 16 << 20
    # Before one byte of it: a file that has nothing behind the header is refused as well.
    (tmp_path / FILE).write_bytes(bz2.compress(header("x", 20 << 30)))
    assert "more than the 17179869184 bytes" in refused(path)


@pytest.mark.parametrize("name", ["x", "info/x"])
def test_many_files_are_larger_together_than_they_may_be(tmp_path: Path, name: str) -> None:
    many = [tar_file(f"{name}{number}", bytes(1 << 20)) for number in range(20)]
    path = raw_tar_bz2(tmp_path / FILE, [*members(), *many])
    limits = Limits(payload=16 << 20, info=16 << 20)
    assert peak_of_refusal(path, "unpacks to more than the 16777216 bytes", limits) < 24 << 20


def test_a_file_that_is_larger_than_declared_is_not_unpacked_twice(tmp_path: Path) -> None:
    """paths.json is known by then."""
    listed = json.dumps({"paths": entries({"x": b"1"})}).encode()
    info = tar_bytes([members()[1], tar_file("info/paths.json", listed)]).rstrip(b"\0")
    info += bytes(-len(info) % 512)
    path = bomb(tmp_path, info + header("x", 64 << 20), 65 << 20)
    assert peak_of_refusal(path, "67108864 bytes, and 1 in info/paths.json") < 16 << 20


def test_zeros_after_the_end_are_bounded(tmp_path: Path) -> None:
    path = bomb(tmp_path, WHOLE, 300 << 20)
    assert peak_of_refusal(path, "unpacks to more than 1048576 zeros") < 16 << 20


def test_a_large_record_is_no_bomb(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(bz2.compress(WHOLE + bytes(512 << 10)))
    assert content(conda_package.read(tmp_path / FILE)) == CONTENTS


def test_more_members_than_there_may_be(tmp_path: Path) -> None:
    many = [tar_file(f"{number}") for number in range(30)]
    path = raw_tar_bz2(tmp_path / FILE, [*members(), *many])
    assert "more than 20 members" in refused(path, Limits(members=10))


def test_a_long_header_is_refused(tmp_path: Path) -> None:
    long = tar_file("x", b"1", pax_headers={"comment": "c" * 40_000})
    assert "tar header" in refused(raw_tar_bz2(tmp_path / FILE, [*members(), long]))
