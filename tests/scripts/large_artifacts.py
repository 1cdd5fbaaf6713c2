"""Wheels and packages that are small on the disk and large in memory, if anything holds them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import elf_factory

from conda_bridge.formats import conda_writer
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.formats.deflate_zip import PIECE, ZipWriter

__all__ = ["Zeros", "conda", "library", "wheel"]

METADATA = b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\nRequires-Python: >=3.9\n"
INDEX: dict[str, object] = {
    "name": "toy",
    "version": "1.0",
    "build": "h0_0",
    "build_number": 0,
    "subdir": "linux-64",
    "depends": ["python >=3.9"],
    "license": "MIT",
}


@dataclass(frozen=True)
class Zeros:
    """A file: some bytes, and zeros up to a size."""

    start: bytes
    size: int

    def pieces(self) -> Iterable[bytes]:
        """Its content, in pieces of `PIECE` bytes."""
        whole, rest = divmod(self.size, PIECE)
        zeros = bytes(PIECE)
        first = (self.start + zeros)[: min(PIECE, self.size)]
        yield first
        if whole > 1:
            yield from itertools.repeat(zeros, whole - 1)
        if whole and rest:
            yield zeros[:rest]


File = bytes | Zeros


def library(size: int = 0, **tables: object) -> File:
    """A shared object, filled up with zeros."""
    made = elf_factory.shared_object(**tables)  # type: ignore[arg-type]
    return Zeros(made, size) if size else made


def _pieces(data: File) -> Iterable[bytes]:
    if isinstance(data, Zeros):
        return data.pieces()
    return (data[at : at + PIECE] for at in range(0, max(len(data), 1), PIECE))


def _size(data: File) -> int:
    return data.size if isinstance(data, Zeros) else len(data)


def _line(path: str, data: File) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(data):
        digest.update(piece)
    encoded = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    return f"{path},sha256={encoded},{_size(data)}\n"


def wheel(
    folder: Path,
    files: Mapping[str, File],
    *,
    info: Mapping[str, bytes] | None = None,
    record: bytes | None = None,
    tag: str = "py3-none-manylinux_2_28_x86_64",
) -> Path:
    """Writes ``toy-1.0`` with these files.

    Args:
        folder: where to.
        files: by path.
        info: further or other files of the ``.dist-info``.
        record: in place of the right one.
        tag: of the file name.
    """
    told = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {tag}\n"
    inside = {"METADATA": METADATA, "WHEEL": told.encode(), **(info or {})}
    members: dict[str, File] = {
        **files,
        **{f"toy-1.0.dist-info/{name}": data for name, data in inside.items()},
    }
    own = "toy-1.0.dist-info/RECORD"
    if record is None:
        lines = [_line(path, data) for path, data in members.items()]
        record = "".join([*lines, f"{own},,\n"]).encode()
    members[own] = record
    path = folder / f"toy-1.0-{tag}.whl"
    with path.open("w+b") as stream, ZipWriter(stream, timestamp=0, threads=1) as archive:
        for name, data in members.items():
            archive.add(name, _pieces(data), size=_size(data))
    return path


def conda(
    folder: Path,
    files: Mapping[str, File],
    *,
    index: Mapping[str, object] | None = None,
    info: Mapping[str, bytes] | None = None,
    about: Mapping[str, object] | None = None,
) -> Path:
    """Writes ``toy-1.0-h0_0.conda`` with these files."""
    listed = []
    for number, (path, data) in enumerate(files.items()):
        source: bytes | Path
        if isinstance(data, Zeros):
            source = folder / f".file-{number}"
            with source.open("wb") as stream:
                stream.write(data.start)
                os.truncate(stream.fileno(), data.size)
        else:
            source = data
        listed.append(PackageFile(path, source, 0o644))
    path = folder / "toy-1.0-h0_0.conda"
    conda_writer.write(
        path,
        index={**INDEX, **(index or {})},
        files=listed,
        about=about or {},
        info_files={"info/licenses/LICENSE": b"MIT\n", **(info or {})},
        level=1,
        threads=1,
    )
    for left in folder.glob(".file-*"):
        left.unlink()
    return path


def many_values(count: int) -> bytes:
    """A JSON object of `count` keys."""
    return json.dumps({f"k{number}": number for number in range(count)}).encode()
