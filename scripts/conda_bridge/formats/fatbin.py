"""Which GPU code a library really holds, read from the fat binaries that nvcc put into it.

nvcc's ``fatbinary`` packs the images of one translation unit into a container: a 16-byte header
(magic, version, header size, payload size), then one entry an image. An entry's header says the
kind of the image, the architecture it was compiled for and how it is packed; the layout below was
found by compiling small kernels with known flags and comparing with ``cuobjdump``. The headers are
a table of contents, so the start of every image is unpacked too and asked for its own architecture.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import ArtifactError
from . import limits
from .content import PIECE, Content, as_content
from .cuda_archs import gencode_flags
from .zstd import zstd

__all__ = ["SECTIONS", "Container", "Image", "expected_codes", "parse", "producer"]

# __nv_relfatbin holds relocatable device code, .nv_fatbin what a kernel launch loads.
SECTIONS = (".nv_fatbin", "__nv_relfatbin")

Kind = Literal["cubin", "ptx", "lto"]
Compression = Literal["none", "lz4", "zstd"]

_MAGIC = 0xBA55ED50
_CONTAINER = struct.Struct("<IHHQ")  # magic, version, header size, payload size
# kind, version, header size, padded payload size, packed size, (2 words), architecture,
# (2 words), flags, (8 bytes), unpacked size
_ENTRY = struct.Struct("<HHIQI8xI8xQ8xQ")
_KINDS: dict[int, Kind] = {1: "ptx", 2: "cubin", 8: "lto"}
_FLAG_LZ4 = 1 << 13
_FLAG_ZSTD = 1 << 15
_FLAG_ARCH_SPECIFIC = 1 << 20  # the "a" of sm_90a
_FLAG_FAMILY_SPECIFIC = 1 << 21  # the "f" of sm_120f
_PEEK = 1024  # PTX opens with a comment of about 300 bytes before its .target
_FIRST_BLOCK = (1 << 17) + 64  # bytes of a zstd frame that hold its first block, packed
_LZ4_START = 1 << 14  # bytes of an LZ4 block that unpack to more than what is looked at
_PTX_TARGET = re.compile(rb"^\.target\s+sm_(\d+[af]?)\b", re.MULTILINE)
_EM_CUDA = 190
_TOOLS = re.compile(rb"Cuda compilation tools, release \d+\.\d+, V(\d+\.\d+\.\d+)\0")
_LONGEST_CUBIN = 64 << 20  # bytes that are looked at
_LONGEST_NOTE = 80
_STEP = 1 << 16


@dataclass(frozen=True, slots=True)
class Image:
    """One compiled form of a translation unit's kernels.

    Attributes:
        kind: ``cubin`` (machine code), ``ptx`` or ``lto`` (nvcc's intermediate code).
        arch: as nvcc spells it, without a prefix: ``80``, ``90a``, ``120f``.
        compression: how it is packed.
        packed_size: bytes in the file.
        size: bytes when unpacked.
        measured: the architecture that the image itself names, without its suffix for a cubin
            (the suffix is in the table of contents only); empty where it cannot be read (``lto``).
        offset: of its packed bytes in the section.
    """

    kind: Kind
    arch: str
    compression: Compression
    packed_size: int
    size: int
    measured: str
    offset: int = 0

    @property
    def code(self) -> str:
        """The name in ``nvcc -gencode ...,code=``: ``sm_90a``, ``compute_80`` or ``lto_80``."""
        return {"cubin": "sm_", "ptx": "compute_", "lto": "lto_"}[self.kind] + self.arch

    @property
    def consistent(self) -> bool:
        """Whether the image names the architecture that the table of contents gives it."""
        if not self.measured:
            return self.kind == "lto"
        stated = self.arch if self.kind == "ptx" else self.arch.rstrip("af")
        return self.measured == stated


@dataclass(frozen=True, slots=True)
class Container:
    """The fat binary of one translation unit: the same kernels for several architectures."""

    offset: int
    images: tuple[Image, ...]

    @property
    def codes(self) -> frozenset[str]:
        """What it was compiled for, e.g. ``{"sm_80", "compute_80", "sm_90a"}``."""
        return frozenset(image.code for image in self.images)


def expected_codes(arch_list: str, where: str = "") -> frozenset[str]:
    """The images that a build for `arch_list` (``8.0+PTX;9.0a``) must have.

    Args:
        arch_list: the list.
        where: who gave it, for messages.

    Raises:
        ConfigError: an entry that is not an architecture.
    """
    if not arch_list:
        return frozenset()
    return frozenset(flag.rpartition("code=")[2] for flag in gencode_flags(arch_list, where))


def parse(
    data: bytes | bytearray | memoryview | Content, *, where: str = ""
) -> tuple[Container, ...]:
    """Reads every container of a section.

    Args:
        data: the section.
        where: names the file and the section in errors.

    Raises:
        ArtifactError: bytes that are no fat binary, one that runs past its end, or more images
            than :data:`.limits.GPU_IMAGES`.
    """
    return _Reader(as_content(data), where).read()


def producer(section: Content, image: Image) -> str:
    """The release of the CUDA tools that made a cubin, such as ``13.0.88``, by its own note.

    Args:
        section: that was parsed.
        image: of it.

    Returns:
        Empty where the image has no such note (CUDA 12 writes none), is no cubin, or is packed by
        LZ4.
    """
    if image.kind != "cubin" or image.compression == "lz4":
        return ""
    packed = section.part(image.offset, image.packed_size)
    data = packed.at(0, min(image.packed_size, _LONGEST_CUBIN))
    if image.compression == "none":
        found = _TOOLS.search(data)
        return found[1].decode() if found else ""
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: limits.ZSTD_WINDOW_LOG}
    unpacker = zstd.ZstdDecompressor(options=options)
    before = b""
    # Piece by piece: the note is among the first sections.
    for _ in range(0, _LONGEST_CUBIN, _STEP):
        try:
            piece = before + unpacker.decompress(data, _STEP)
        except zstd.ZstdError:
            return ""
        found = _TOOLS.search(piece)
        if found:
            return found[1].decode()
        if unpacker.eof or unpacker.needs_input:
            return ""
        data, before = b"", piece[-_LONGEST_NOTE:]
    return ""


def _broken(what: str, where: str, offset: int, expected: str = "") -> ArtifactError:
    return ArtifactError(f"GPU code at offset {offset} {what}", where=where, expected=expected)


class _Reader:
    """Goes through a section from its start to its end, each header once."""

    def __init__(self, content: Content, where: str) -> None:
        self._content = content
        self._where = where
        self._left = limits.GPU_IMAGES

    def read(self) -> tuple[Container, ...]:
        content = self._content
        containers = []
        position = self._past_padding(0)
        while position < content.size:
            header = content.at(position, _CONTAINER.size)
            if len(header) < _CONTAINER.size:
                raise _broken("ends inside a header", self._where, position)
            magic, version, header_size, size = _CONTAINER.unpack(header)
            if magic != _MAGIC or version != 1 or header_size < _CONTAINER.size:
                raise _broken(
                    f"is no fat binary (magic {magic:#x}, version {version})", self._where, position
                )
            start = position + header_size
            if size > content.size - start:
                raise _broken(
                    f"says {size} bytes where {content.size - start} are left",
                    self._where,
                    position,
                )
            self._count(position)
            containers.append(Container(position, tuple(self._entries(start, start + size))))
            position = self._past_padding(start + size)
        return tuple(containers)

    def _past_padding(self, position: int) -> int:
        """Where the next container is: the linker pads with zeros, eight by eight."""
        size = 8
        while piece := self._content.at(position, size):
            if piece != bytes(len(piece)):
                return position + (len(piece) - len(piece.lstrip(b"\0"))) // 8 * 8
            position += len(piece)
            size = min(4 * size, PIECE)
        return position

    def _count(self, offset: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise _broken(
                f"is more than {limits.GPU_IMAGES} fat binaries and images",
                self._where,
                offset,
                "fewer in a section",
            )

    def _entries(self, position: int, end: int) -> Iterator[Image]:
        where = self._where
        while position < end:
            self._count(position)
            if position + _ENTRY.size > end:
                raise _broken("ends inside an entry's header", where, position)
            kind, _version, header_size, padded, packed, arch, flags, unpacked = _ENTRY.unpack(
                self._content.at(position, _ENTRY.size)
            )
            if kind not in _KINDS:
                raise _broken(f"is of the unknown kind {kind}", where, position)
            if header_size < _ENTRY.size or padded > end - position - header_size:
                raise _broken(
                    f"runs past the end of its container ({header_size} and {padded} bytes)",
                    where,
                    position,
                    f"at most {end - position}",
                )
            compression: Compression = (
                "zstd" if flags & _FLAG_ZSTD else "lz4" if flags & _FLAG_LZ4 else "none"
            )
            stored = padded if compression == "none" else packed
            if stored > padded:
                raise _broken(
                    f"is larger than the room it has ({stored} bytes)",
                    where,
                    position,
                    f"at most {padded}",
                )
            image = self._content.part(position + header_size, stored)
            suffix = (
                "a" if flags & _FLAG_ARCH_SPECIFIC else "f" if flags & _FLAG_FAMILY_SPECIFIC else ""
            )
            yield Image(
                _KINDS[kind],
                sys.intern(f"{arch}{suffix}"),
                compression,
                stored,
                stored if compression == "none" else unpacked,
                sys.intern(_measure(_KINDS[kind], _start_of(image, compression))),
                position + header_size,
            )
            position += header_size + padded


def _start_of(image: Content, compression: Compression) -> bytes:
    """The first bytes of an image, unpacked; empty where they cannot be unpacked."""
    if compression == "none":
        return image.at(0, _PEEK)
    if compression == "lz4":
        return _lz4_start(image.at(0, _LZ4_START), _PEEK)
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: limits.ZSTD_WINDOW_LOG}
    try:
        unpacker = zstd.ZstdDecompressor(options=options)
        return unpacker.decompress(image.at(0, _FIRST_BLOCK), max_length=_PEEK)
    except zstd.ZstdError:
        return b""


def _lz4_start(block: bytes, limit: int) -> bytes:
    """The first `limit` bytes of an LZ4 block: runs of literals, each with a match behind it."""
    out = bytearray()
    position = 0

    def length(nibble: int) -> int:
        nonlocal position
        total = nibble
        more = nibble == 15
        while more:
            byte = block[position]
            position += 1
            total += byte
            more = byte == 255
        return total

    try:
        while position < len(block) and len(out) < limit:
            token = block[position]
            position += 1
            literals = length(token >> 4)
            out += block[position : position + min(literals, limit)]
            position += literals
            if position >= len(block):
                break
            distance = block[position] | block[position + 1] << 8
            position += 2
            matched = min(length(token & 15) + 4, limit)
            if not 0 < distance <= len(out):
                return b""
            for _ in range(matched):
                out.append(out[-distance])
    except IndexError:
        return b""
    return bytes(out[:limit])


def _measure(kind: Kind, start: bytes) -> str:
    if kind == "ptx":
        target = _PTX_TARGET.search(start)
        return target[1].decode() if target else ""
    if kind == "cubin" and len(start) >= 64 and start[:4] == b"\x7fELF":
        machine = int.from_bytes(start[18:20], "little")
        flags = int.from_bytes(start[48:52], "little")
        # The architecture moved within e_flags with version 8 of the cubin's ABI (CUDA 13).
        arch = flags >> 8 & 0xFFFF if start[8] >= 8 else flags & 0xFF
        return str(arch) if machine == _EM_CUDA else ""
    return ""
