"""Writing wheels: a valid zip and RECORD, whatever the content; the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from installer.sources import WheelFile as InstalledWheel
from packaging.metadata import Metadata as ValidMetadata

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import wheel
from conda_bridge.formats.deflate_zip import PIECE, ZipWriter
from conda_bridge.formats.wheel import Metadata, Tag, WheelWriter, abi3_tag

TAG = Tag("cp38", "abi3", "linux_x86_64")
EPOCH = 315532800
relaxed = settings(deadline=None, max_examples=30)


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def zipped(members: dict[str, bytes], *, threads: int = 2, timestamp: int = EPOCH) -> bytes:
    stream = io.BytesIO()
    with ZipWriter(stream, timestamp=timestamp, threads=threads) as archive:
        for name, data in members.items():
            archive.add(name, pieces(data), size=len(data), executable=name.endswith(".so"))
    return stream.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


# ------------------------------------------------------------ the zip


@given(st.dictionaries(st.text("abc/éü", min_size=1, max_size=9), st.binary(max_size=5000)))
@relaxed
def test_what_is_zipped_is_unzipped(members: dict[str, bytes]) -> None:
    assert unzipped(zipped(members)) == members


@pytest.mark.parametrize(
    "size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 7 * PIECE + 12345], ids=str
)
@pytest.mark.parametrize("random", [True, False], ids=["random", "repetitive"])
def test_pieces_join_to_one_stream(size: int, random: bool) -> None:
    data = os.urandom(size) if random else (b"flashinfer " * (size // 11 + 1))[:size]
    members = {"a": b"before", "x.so": data, "z": b"after"}
    assert unzipped(zipped(members)) == members


def test_bytes_do_not_depend_on_threads() -> None:
    members = {f"{n}.so": bytes(range(256)) * (n * 3001) for n in range(12)}
    assert len({zipped(members, threads=threads) for threads in (1, 2, 3, 8)}) == 1


def test_members_have_fixed_time_permissions_and_no_extra_field() -> None:
    with zipfile.ZipFile(
        io.BytesIO(zipped({"x.so": b"1", "y": b"2"}, timestamp=1_700_000_001))
    ) as z:
        items = z.infolist()
    assert [item.date_time for item in items] == [(2023, 11, 14, 22, 13, 20)] * 2
    assert [item.external_attr >> 16 for item in items] == [0o100755, 0o100644]
    assert [(item.extra, item.flag_bits, item.create_system) for item in items] == [(b"", 0, 3)] * 2


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [(0, (1980, 1, 1, 0, 0, 0)), (10**10, (2107, 12, 31, 23, 59, 58))],
)
def test_times_that_a_zip_cannot_hold_become_the_nearest(
    timestamp: int, expected: tuple[int, ...]
) -> None:
    with zipfile.ZipFile(io.BytesIO(zipped({"x": b""}, timestamp=timestamp))) as archive:
        assert archive.infolist()[0].date_time == expected


class Sparse(io.RawIOBase):
    """A seekable stream that keeps what is not zero: room for sizes no test can store."""

    def __init__(self) -> None:
        self.blocks: dict[int, bytes] = {}
        self.position = 0
        self.end = 0

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + (0, self.position, self.end)[whence]
        return self.position

    def write(self, data: Any) -> int:
        data = bytes(data)
        self.blocks[self.position] = data
        self.position += len(data)
        self.end = max(self.end, self.position)
        return len(data)

    def skip(self, size: int) -> None:
        self.position += size
        self.end = max(self.end, self.position)

    def read(self, size: int = -1) -> bytes:
        size = self.end - self.position if size < 0 else min(size, self.end - self.position)
        out = bytearray(size)
        for start, data in sorted(self.blocks.items(), key=lambda item: len(item[1]), reverse=True):
            low, high = max(start, self.position), min(start + len(data), self.position + size)
            if low < high:
                out[low - self.position : high - self.position] = data[low - start : high - start]
        self.position += size
        return bytes(out)


def test_large_members_and_offsets_have_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of 5 GiB, then one that begins behind 4 GiB, read back by zipfile."""
    stream = Sparse()
    real = ZipWriter._write_piece

    def with_a_hole(self: ZipWriter, piece: Any) -> None:
        if piece.entry.name == b"large" and piece.last:
            stream.skip(5 << 30)  # stands for deflated bytes that are already out
            self._position += 5 << 30
            piece.entry.size += 5 << 30
            piece.entry.compressed += 5 << 30
        real(self, piece)

    monkeypatch.setattr(ZipWriter, "_write_piece", with_a_hole)
    with ZipWriter(cast("Any", stream), timestamp=EPOCH, threads=1) as archive:
        archive.add("large", [b"a", b"b"], size=5 << 30)
        archive.add("small", [b"content"], size=7)
    with zipfile.ZipFile(cast("Any", stream)) as found:
        large, small = found.infolist()
        assert large.file_size == (5 << 30) + 2
        assert large.compress_size > 5 << 30
        assert small.header_offset > 5 << 30
        assert found.read("small") == b"content"
    stream.seek(0)
    header = stream.read(200)
    assert struct.unpack_from("<2I", header, 18) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert struct.unpack_from("<2H2Q", header, 35) == (1, 16, large.file_size, large.compress_size)


def test_more_members_than_16_bits_count() -> None:
    members = {str(number): b"" for number in range(66_000)}
    data = zipped(members)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == list(members)
    # zipfile does not look at the count; other readers do.
    end64 = data.rindex(b"PK\x06\x06")
    assert struct.unpack_from("<2Q", data, end64 + 24) == (66_000, 66_000)
    assert struct.unpack_from("<2H", data, len(data) - 14) == (0xFFFF, 0xFFFF)


def test_an_error_in_the_content_reaches_the_caller() -> None:
    def content() -> Iterator[bytes]:
        yield b"1" * PIECE
        raise OSError("the disk is gone")

    with (
        pytest.raises(OSError, match="gone"),
        ZipWriter(io.BytesIO(), timestamp=EPOCH, threads=2) as archive,
    ):
        archive.add("x", content(), size=PIECE)


def test_bytes_are_the_same_on_every_machine() -> None:
    """A digest kept here: another processor or another ISA-L that deflates differently shows."""
    text = b"".join(b"%d %d\n" % (n, n * n) for n in range(100_000))
    digest = hashlib.sha256(zipped({"text": text})).hexdigest()
    assert digest == "3594d260f822ebfb3b12d986061023c190dfb28ed7e46806631c2276a21040bf"


# ------------------------------------------------------------ tags


@pytest.mark.parametrize(
    ("requires", "expected"),
    [(">=3.8", "cp38"), (">=3.10", "cp310"), (">=3.8,<4", "cp38"), (">=3.9.0", "cp39")],
)
def test_python_tag_is_the_lower_bound(requires: str, expected: str) -> None:
    tag = abi3_tag(requires, ["flashinfer/_C.abi3.so"], "linux_x86_64", "toy")
    assert str(tag) == f"{expected}-abi3-linux_x86_64"


@pytest.mark.parametrize(
    ("requires", "modules", "reason"),
    [
        ("", ["x.abi3.so"], "one lower bound"),
        ("<4", ["x.abi3.so"], "one lower bound"),
        (">=2.7", ["x.abi3.so"], "one lower bound"),
        (">=3.8.1", ["x.abi3.so"], "one lower bound"),
        ("nonsense", ["x.abi3.so"], "nonsense"),
        (">=3.8", ["x.abi3.so", "y.cpython-311-x86_64-linux-gnu.so"], "y.cpython-311"),
        (">=3.8", ["x.so"], "stable ABI"),
        (">=3.8", [], "no extension module"),
    ],
)
def test_tags_that_cannot_be_kept_are_refused(
    requires: str, modules: list[str], reason: str
) -> None:
    with pytest.raises(ArtifactError, match=reason):
        abi3_tag(requires, modules, "linux_x86_64", "toy")


@pytest.mark.parametrize("platform", ["", "linux-x86_64", "linux x86_64", "any\nTag: evil", "../x"])
def test_platform_tags_are_checked(platform: str) -> None:
    with pytest.raises(ArtifactError, match="platform tag"):
        Tag("cp38", "abi3", platform)


def test_compressed_tags_have_one_line_each() -> None:
    tag = Tag("cp38", "abi3", "manylinux_2_28_x86_64.linux_x86_64")
    assert tag.lines() == ["cp38-abi3-linux_x86_64", "cp38-abi3-manylinux_2_28_x86_64"]


# ------------------------------------------------------------ metadata


METADATA = Metadata(
    name="flashinfer",
    version="0.1.6+cu124torch2.4",
    requires_python=">=3.8",
    requires_dist=("torch==2.4.*",),
    license_expression="Apache-2.0",
    license_files=("LICENSE", "third_party/LICENSE"),
    summary="Attention kernels",
    description="# FlashInfer\n\nText: with a colon.\n",
    keywords=("attention", "CUDA"),
    classifiers=("License :: OSI Approved", "Programming Language :: C++"),
    urls={"Homepage": "https://example.org"},
)


def test_metadata_is_valid_2_4() -> None:
    found = ValidMetadata.from_email(METADATA.render(), validate=True)
    assert found.metadata_version == "2.4"
    assert str(found.version) == "0.1.6+cu124torch2.4"
    assert [str(item) for item in found.requires_dist or []] == ["torch==2.4.*"]
    assert str(found.requires_python) == ">=3.8"
    assert found.license_expression == "Apache-2.0"
    assert found.license_files == ["LICENSE", "third_party/LICENSE"]
    assert found.classifiers == ["Programming Language :: C++"]
    assert found.description == METADATA.description
    assert found.description_content_type == "text/markdown"
    assert found.project_urls == {"Homepage": "https://example.org"}


def test_metadata_survives_being_read() -> None:
    read = Metadata.parse(METADATA.render().encode(), "toy")
    assert read.render() == METADATA.render()


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": "two\nlines"},
        {"summary": "x\r\nRequires-Dist: evil"},
        {"license_expression": "no licence"},
        {"requires_dist": ("torch = 2",)},
        {"urls": {"Home\npage": "x"}},
    ],
)
def test_metadata_that_is_not_valid_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError):
        Metadata(**{**METADATA.__dict__, **changes}).render()


@pytest.mark.parametrize("text", [b"", b"Name: x\n", b"Name: \xff\nVersion: 1\n"])
def test_source_metadata_without_name_or_text_is_refused(text: bytes) -> None:
    with pytest.raises(ArtifactError):
        Metadata.parse(text, "toy")


# ------------------------------------------------------------ the wheel


def write_wheel(path: Path, payload: dict[str, bytes], build_number: int = 0) -> None:
    with (
        path.open("w+b") as stream,
        WheelWriter(stream, "flashinfer-0.1.6+cu124torch2.4", timestamp=EPOCH) as writer,
    ):
        for name, data in payload.items():
            writer.add(name, data, executable=name.endswith(".so"))
        licenses = {"LICENSE": b"text", "third_party/LICENSE": b"text"}
        writer.finish(METADATA, TAG, licenses, build_number=build_number)


@given(
    st.dictionaries(
        st.text('ab,"é ', min_size=1, max_size=9).map(lambda name: f"flashinfer/{name}"),
        st.binary(max_size=200),
    )
)
@relaxed
def test_record_is_valid(
    tmp_path_factory: pytest.TempPathFactory, payload: dict[str, bytes]
) -> None:
    """`installer` reads the wheel back and compares every file with RECORD."""
    path = (
        tmp_path_factory.mktemp("wheel")
        / "flashinfer-0.1.6+cu124torch2.4-cp38-abi3-linux_x86_64.whl"
    )
    write_wheel(path, payload)
    with InstalledWheel.open(path) as source:
        source.validate_record()
        contents = {str(record[0]): stream.read() for record, stream, _ in source.get_contents()}
    assert {name: contents[name] for name in payload} == payload
    assert zipfile.ZipFile(path).namelist()[-1].endswith(".dist-info/RECORD")


@pytest.mark.parametrize("build_number", [0, 3])
def test_wheel_file_has_generator_purelib_tags_and_build(tmp_path: Path, build_number: int) -> None:
    build = f"{build_number}-" if build_number else ""
    path = tmp_path / f"flashinfer-0.1.6+cu124torch2.4-{build}cp38-abi3-linux_x86_64.whl"
    write_wheel(path, {"flashinfer/__init__.py": b""}, build_number)
    with zipfile.ZipFile(path) as archive:
        text = archive.read("flashinfer-0.1.6+cu124torch2.4.dist-info/WHEEL").decode()
    expected = [
        "Wheel-Version: 1.0",
        f"Generator: {wheel.GENERATOR}",
        "Root-Is-Purelib: false",
        "Tag: cp38-abi3-linux_x86_64",
    ]
    assert text.splitlines() == expected + ([f"Build: {build_number}"] if build_number else [])


@pytest.mark.parametrize("name", ["../x", "/x", "x\ny", "a//b", "flashinfer/__init__.py/x"])
def test_unsafe_names_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError):
        write_wheel(tmp_path / "x.whl", {"flashinfer/__init__.py": b"", name: b""})
