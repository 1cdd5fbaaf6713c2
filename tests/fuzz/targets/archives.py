"""Archives: what is in a package or a wheel, down to the bytes of each member."""

from __future__ import annotations

import ensurepip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import deb_factory
import factories
import foreign
import foreign_wheels

from conda_bridge.formats import conda_package, tar_stream, wheel_reader
from conda_bridge.formats.zip_directory import ZipArchive
from conda_bridge.formats.zstd import zstd
from conda_bridge.formats.zstd_frame import decompressed
from flashinfer_build.toolchain.debian import deb as debian

from ..mutators import conda, headers, packed, tar, zip
from ..mutators.chance import Chance
from ..target import Target
from ._places import from_file, made, scratch

__all__ = ["PACKAGE", "TARGETS", "WHEEL", "conda_seeds", "of_wheel", "tar_bz2_seeds", "wheel_seeds"]

PACKAGE = "demo-1.2.0-h_0"
WHEEL = "toy-1.0-py3-none-any.whl"
_BYTES = 1 << 24  # that an archive of one input may unpack to

_LONG = "folder/" * 20 + "n" * 90
_FILES = {"lib/a": b"a" * 600, "lib/b": b"", "share/é": b"2", "bin/x": b"#!/bin/sh\n"}


def _members(*, links: bool = True, long: bool = True) -> list[factories.Member]:
    names = {**_FILES, **({_LONG: b"1"} if long else {})}
    members = [factories.tar_file(name, data, mode=0o755) for name, data in names.items()]
    members.append(factories.tar_file("share/folder/", type=tarfile.DIRTYPE))
    if links:
        members.append(factories.tar_file("bin/y", type=tarfile.SYMTYPE, linkname="../lib/a"))
    return members


def tar_seeds() -> Iterable[bytes]:
    """Archives in each of tarfile's formats."""
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        yield factories.tar_bytes(_members(long=format != tarfile.USTAR_FORMAT), format=format)


def zip_seeds() -> Iterable[bytes]:
    """Archives as zipfile writes them."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, data in {**_FILES, "folder/": b""}.items():
                archive.writestr(zipfile.ZipInfo(name), data, method)
        yield stream.getvalue()


def _shortened(path: Path, most: int = 12_000) -> bytes:
    """What a small wheel of somebody else's would be: the first files of a large one."""
    stream = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(stream, "w") as made:
        for item in source.infolist():
            if (stream.tell() < most and item.file_size < most) or ".dist-info/" in item.filename:
                content = source.read(item)
                whole_lines = content[: content.rfind(b"\n", 0, most) + 1]
                made.writestr(item, content if len(content) <= most else whole_lines)
    return stream.getvalue()


def wheel_seeds() -> Mapping[str, bytes]:
    """Wheels of this project's tests, and cuts of those that Python brings."""
    files = {
        "toy/__init__.py": "value = 1\n",
        "toy/data.txt": "x" * 300,
        "{data}/scripts/toy": "#!python\n",
        "{info}/licenses/LICENSE": "MIT\n",
    }
    lines = ("Requires-Dist: numpy>=1.2; python_version > '3'", "Requires-Python: >=3.8")
    points = "[console_scripts]\ntoy = toy:main\n"
    bundled = Path(ensurepip.__file__).parent / "_bundled"
    return {
        "ours": made(
            "wheel",
            lambda folder: foreign_wheels.wheel(
                folder, files, metadata=lines, entry_points=points, executables=("toy/data.txt",)
            ),
        ),
        **{path.name: _shortened(path) for path in sorted(bundled.glob("*.whl"))[:2]},
    }


def conda_seeds() -> Iterable[bytes]:
    """Packages as this project writes them, and as conda-build does."""
    yield made("conda", lambda folder: _written(folder, ".conda"))
    yield made("conda", _with_entry_points)


def _with_entry_points(folder: Path) -> Path:
    link = b'{"noarch": {"type": "python", "entry_points": ["x = y:z"]}}'
    return foreign.package(
        folder,
        files={"site-packages/demo.py": b"x = 1\n"},
        info={"info/link.json": link, "info/licenses/LICENSE": b"MIT\n"},
        noarch="python",
    )


def tar_bz2_seeds() -> Iterable[bytes]:
    """Packages in the older form."""
    yield made("conda", lambda folder: _written(folder, ".tar.bz2"))


def _written(folder: Path, ending: str) -> Path:
    return foreign.package(
        folder,
        files=_FILES,
        links={"bin/y": "../lib/a"},
        prefixes={"bin/x": "text"},
        executable=("bin/x",),
        ending=ending,
    )


def deb_seeds() -> Iterable[bytes]:
    """Debian packages, compressed in each way."""
    for compression in ("", ".gz", ".xz", ".zst"):

        def write(folder: Path, compression: str = compression) -> Path:
            locked = deb_factory.make_deb(
                folder,
                "toy",
                files={"usr/lib/a": "a", "usr/share/doc/toy/copyright": "MIT"},
                links={"usr/lib/b": "/usr/lib/a", "usr/c": "lib/a"},
                compression=compression,
            )
            return folder / locked.path

        yield made("deb", write)


# ------------------------------------------------------------ readers


def read_tar(data: bytes) -> None:
    """Every member of an unpacked archive."""
    bounds = {"max_bytes": _BYTES, "max_members": 1000}
    for member in tar_stream.members(io.BytesIO(data), "input", **bounds):
        member.digest()


def read_zip(path: Path) -> None:
    """Every file of a zip archive."""
    with ZipArchive(path) as archive:
        for member in archive.files:
            with archive.open(member.name) as stream:
                while stream.read(1 << 16):
                    pass


def read_wheel(path: Path) -> None:
    """Every file of a wheel."""
    for _, stream in wheel_reader.read(path).stream():
        stream.read()


def read_package(path: Path) -> None:
    """Every file of a conda package, and what it says of itself."""
    package = conda_package.read(path)
    assert package.stem == PACKAGE
    assert package.licenses.keys() <= {name.removeprefix("info/licenses/") for name in package.info}
    _ = package.entry_points
    found = sum(member.size for member in package.payload())
    assert found == package.payload_size


def read_deb(path: Path) -> None:
    """All of a Debian package, unpacked; nothing may come to lie outside."""
    with scratch("tree") as tree:
        (tree / "inside").mkdir()
        try:
            debian.unpack(path, tree / "inside")
        finally:
            assert [item.name for item in tree.iterdir()] == ["inside"]


def read_ar(data: bytes) -> None:
    """The member of a Debian package that has its files, as it lies in the archive."""
    _, member = debian._data_member(io.BytesIO(data), "input")
    member.read()


def _bytes_of(_name: str, data: bytes, chance: Chance) -> bytes:
    return chance.bytes_near(data)


_METADATA = headers.headers()


def of_wheel(name: str, data: bytes, chance: Chance) -> bytes:
    """What is in a wheel, each file by its own format."""
    if name.endswith("/RECORD"):
        return headers.record(data, chance)
    return _METADATA(data, chance) if ".dist-info/" in name else chance.bytes_near(data)


_FORMATS = "conda_bridge.formats."
_NAMES = _FORMATS + "member_names:check_name check_link Names _fault"
_DEB = "flashinfer_build.toolchain.debian.deb"
TARGETS = (
    Target(
        "zstd",
        lambda data: decompressed(io.BytesIO(data), "input", max_bytes=1 << 20),
        (_FORMATS + "zstd_frame",),
        lambda: [
            zstd.compress(b"content\n" * 50),
            zstd.compress(bytes(100_000)),
            zstd.compress(b""),
        ],
        packed.zstd_frame(),
    ),
    Target(
        "tar",
        read_tar,
        (_FORMATS + "tar_stream", _FORMATS + "tar_header", _NAMES),
        tar_seeds,
        tar.archive(_bytes_of),
        ("ustar", "path", "linkpath", "size", "GNU.sparse.", "SCHILY.", "././@LongLink"),
    ),
    Target(
        "zip",
        from_file("input.zip", read_zip),
        (_FORMATS + "zip_directory", _FORMATS + "member_names:check_name Names _fault"),
        zip_seeds,
        zip.archive(_bytes_of),
    ),
    Target(
        "wheel",
        from_file(WHEEL, read_wheel),
        (
            _FORMATS + "wheel_reader:read Wheel _record _rows _hex_digest",
            _FORMATS + "zip_directory",
            _FORMATS + "headers",
        ),
        wheel_seeds,
        zip.archive(of_wheel),
        ("Metadata-Version", "Root-Is-Purelib", "Wheel-Version", "Tag", "sha256=", ".dist-info/"),
    ),
    Target(
        "conda",
        from_file(f"{PACKAGE}.conda", read_package),
        (_FORMATS + "conda_package", _FORMATS + "conda_container:_Zip", _FORMATS + "tar_stream"),
        conda_seeds,
        conda.package,
        ("_path", "path_type", "softlink", "sha256", "size_in_bytes", "info/", "noarch"),
    ),
    Target(
        "tar-bz2",
        from_file(f"{PACKAGE}.tar.bz2", read_package),
        (_FORMATS + "conda_package", _FORMATS + "conda_container:_TarBz2", _FORMATS + "tar_stream"),
        tar_bz2_seeds,
        conda.tar_bz2,
        ("_path", "path_type", "softlink", "sha256", "size_in_bytes", "info/", "noarch"),
    ),
    Target(
        "deb",
        from_file("input.deb", read_deb),
        (f"{_DEB}:_data_member _Member _relative_link _members _place _extract unpack",),
        deb_seeds,
        packed.deb(tar.archive(_bytes_of)),
    ),
    Target(
        "ar",
        read_ar,
        (f"{_DEB}:_data_member _Member",),
        lambda: [deb_factory.ar({"debian-binary": b"2.0\n", "data.tar.xz": b"abc", "x": b""})],
        packed.deb(lambda data, chance: chance.bytes_near(data)),
    ),
)
