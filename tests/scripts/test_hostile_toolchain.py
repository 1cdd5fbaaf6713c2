"""What the toolchain reads of others, made to fill memory or disk, or to be read forever."""

from __future__ import annotations

import copy
import io
import json
import lzma
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from deb_factory import ar, make_deb, tar_of

from conda_bridge.errors import ArtifactError, BridgeError, ConfigError, ToolchainError
from conda_bridge.formats import limits
from conda_bridge.formats.lenient_tar import TarHeader
from conda_bridge.formats.zstd import zstd
from flashinfer_build.forge import staged
from flashinfer_build.toolchain.debian import apt
from flashinfer_build.toolchain.debian.deb import unpack
from flashinfer_build.toolchain.lock import LOCK_FILE, Lock

DATA: dict[str, Any] = json.loads(LOCK_FILE.read_text())
FEWER = ".".join("abcdefghijklmno")
MANY = ".".join(f"a{n}" for n in range(300))


def said(error: BridgeError) -> str:
    return f"{error.what} {error.expected}"


# ---------------------------------------------------------------- locks


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"x-1-{MANY}-{MANY}-{MANY}.whl", "wheel 'x-1-.*: 4177 characters, and at most 255"),
        (f"x-1-{FEWER}-{FEWER}-{FEWER}.whl", "wheel 'x-1-a.*: sets of 3375 tags, and at most 1024"),
        ("x" * 300 + "-1-py3-none-any.whl", "wheel 'xxx.*: 319 characters, and at most 255"),
    ],
)
def test_a_lock_with_a_name_for_millions_of_tags(name: str, message: str) -> None:
    data = copy.deepcopy(DATA)
    data["wheels"][name] = "0" * 64
    with pytest.raises(ConfigError, match=message):
        Lock(data, "lock.json")


@pytest.mark.parametrize("size", [-1, "1", 1.5, True, None])
def test_a_lock_with_a_size_that_is_none(size: object) -> None:
    data = copy.deepcopy(DATA)
    next(iter(data["debs"].values()))["size"] = size
    with pytest.raises(ConfigError, match="damaged"):
        Lock(data, "lock.json")


# ---------------------------------------------------------------- Debian's packages


def unpacked(folder: Path, data: bytes, name: str = "data.tar") -> None:
    path = folder / "toy.deb"
    path.write_bytes(ar({"debian-binary": b"2.0\n", name: data}))
    (folder / "tree").mkdir()
    unpack(path, folder / "tree")


def header(kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"L", b"K"])
def test_a_header_that_says_that_more_of_it_has_gigabytes(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ArtifactError) as caught:
        unpacked(tmp_path, header(kind, 4 << 30) + bytes(1024))
    assert "4294967296 bytes" in said(caught.value)
    assert f"at most {limits.TAR_HEADER} bytes" in said(caught.value)


@pytest.mark.parametrize("records", [{"GNU.sparse.map": "0,1"}, {"GNU.sparse.major": "1"}])
def test_a_map_of_a_sparse_file(tmp_path: Path, records: dict[str, str]) -> None:
    buffer = io.BytesIO()
    more = {"GNU.sparse.size": "1", "GNU.sparse.minor": "0", **records}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("file")
        entry.pax_headers = more
        entry.size = 2048
        tar.addfile(entry, io.BytesIO(b"9" * 2048))
    with pytest.raises(ArtifactError, match="a sparse file"):
        unpacked(tmp_path, buffer.getvalue())


def test_a_sparse_file_of_gnus_own_form(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a sparse file"):
        unpacked(tmp_path, header(b"S", 0) + bytes(1024))


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
def test_a_deb_that_unpacks_to_more_than_it_may(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNPACKED", 1 << 20)
    deb = make_deb(tmp_path, "toy", files={"zeros": bytes(4 << 20)}, compression=compression)
    (tmp_path / "tree").mkdir()
    with pytest.raises(ArtifactError) as caught:
        unpack(tmp_path / deb.path, tmp_path / "tree")
    assert "at most 1048576 bytes" in said(caught.value)


def test_a_deb_with_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMBERS", 3)
    with pytest.raises(ArtifactError, match="more than 3 members"):
        unpacked(tmp_path, tar_of({f"./{number}": "" for number in range(4)}))


def test_xz_that_asks_for_a_gigabyte(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(tar_of({"./a": "b"})))
    end = 12 + 4 * (packed[12] + 1)  # of the first block's header, with its checksum
    assert packed[14:16] == b"\x21\x01"
    packed[16] = 36  # the size of the dictionary: 2**30
    packed[end - 4 : end] = zlib.crc32(packed[12 : end - 4]).to_bytes(4, "little")
    with pytest.raises(ArtifactError, match="cannot be unpacked: Memory usage limit exceeded"):
        unpacked(tmp_path, bytes(packed), "data.tar.xz")


def test_zstd_that_asks_for_a_gigabyte(tmp_path: Path) -> None:
    # Magic, a descriptor without a content size, a window of 2**30, one empty last block.
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([20 << 3]) + b"\x01\x00\x00"
    assert zstd.get_frame_info(frame).decompressed_size is None
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        unpacked(tmp_path, frame, "data.tar.zst")


@pytest.mark.parametrize("size", [b"9" * 10, b"-1", b"1_0", b"\xb2", b""])
def test_the_size_of_an_ar_member(tmp_path: Path, size: bytes) -> None:
    body = b"!<arch>\n" + b"debian-binary".ljust(48) + size.ljust(10) + b"`\n"
    (tmp_path / "toy.deb").write_bytes(body)
    with pytest.raises(ArtifactError, match=r"damaged ar header \(at byte 8\)|no data.tar"):
        unpack(tmp_path / "toy.deb", tmp_path)


def test_an_ar_archive_of_many_members(tmp_path: Path) -> None:
    (tmp_path / "toy.deb").write_bytes(ar({f"m{n}": b"" for n in range(1000)}))
    with pytest.raises(ArtifactError, match=r"no data\.tar"):
        unpack(tmp_path / "toy.deb", tmp_path)


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "1e3", "", "²"])
def test_a_size_of_packages_that_is_none(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"Package: x\nVersion: 1\nFilename: pool/x.deb\nSize: {size}\nSHA256: {'0' * 64}\n"

    class Suite(apt.Suite):
        def __init__(self) -> None:
            self.name = "trixie"

        def _apt(self, *command: str) -> Any:
            return apt.subprocess.CompletedProcess(command, 0, text, "")

    with pytest.raises(ToolchainError, match="the suite trixie has no x"):
        Suite().record("x")


# ---------------------------------------------------------------- an archive of sources


def sources(folder: Path, members: int) -> Path:
    path = folder / "flashinfer-1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for number in range(members):
            tar.addfile(tarfile.TarInfo(f"flashinfer-1/{number}"))
    return path


def test_a_source_archive_of_too_many_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staged, "_MEMBERS", 10)
    with pytest.raises(ArtifactError, match="11 members of 0 bytes and more"):
        staged.source_of(sources(tmp_path, 12), None, Path(__file__).parents[2])


def test_a_source_archive_that_says_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "flashinfer-1.tar"
    path.write_bytes(header(b"0", 8 << 30) + bytes(1024))
    with pytest.raises(ArtifactError, match="1 members of 8589934592 bytes"):
        staged.source_of(path, None, Path(__file__).parents[2])


def test_the_bounds_of_headers_hold_for_any_tar_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(header(b"x", 1 << 30) + bytes(1024))
    with (
        pytest.raises(ArtifactError, match="a tar header of kind"),
        tarfile.open(path, tarinfo=TarHeader) as opened,
    ):
        opened.getnames()
