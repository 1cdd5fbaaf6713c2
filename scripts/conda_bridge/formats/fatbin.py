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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import ArtifactError
from .cuda_archs import gencode_flags
from .zstd import zstd

__all__ = ["SECTIONS", "Container", "Image", "expected_codes", "parse"]

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
_MAX_IMAGES = 1 << 20

_PEEK = 1024  # PTX opens with a comment of about 300 bytes before its .target
_PTX_TARGET = re.compile(rb"^\.target\s+sm_(\d+[af]?)\b", re.MULTILINE)
_EM_CUDA = 190


@dataclass(frozen=True)
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
    """

    kind: Kind
    arch: str
    compression: Compression
    packed_size: int
    size: int
    measured: str

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


@dataclass(frozen=True)
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


def parse(data: bytes | bytearray | memoryview, *, where: str = "") -> tuple[Container, ...]:
    """Reads every container of a section.

    Args:
        data: the section's bytes.
        where: names the file and the section in errors.

    Raises:
        ArtifactError: bytes that are no fat binary, or one that runs past its end.
    """
    view = memoryview(data)
    containers = []
    position = 0
    while position < len(view):
        if not any(view[position : position + 8]):
            position += 8  # the linker's padding between containers
            continue
        if position + _CONTAINER.size > len(view):
            raise _broken("ends inside a header", where, position)
        magic, version, header_size, size = _CONTAINER.unpack_from(view, position)
        if magic != _MAGIC or version != 1 or header_size < _CONTAINER.size:
            raise _broken(
                f"is no fat binary (magic {magic:#x}, version {version})", where, position
            )
        start = position + header_size
        if size > len(view) - start:
            raise _broken(f"says {size} bytes where {len(view) - start} are left", where, position)
        payload = view[start : start + size]
        images = tuple(_entries(payload, where, start))
        containers.append(Container(position, images))
        position = start + size
    return tuple(containers)


def _broken(what: str, where: str, offset: int) -> ArtifactError:
    return ArtifactError(f"GPU code at offset {offset} {what}", where=where)


def _entries(payload: memoryview, where: str, base: int) -> Iterator[Image]:
    position = 0
    for _ in range(_MAX_IMAGES):
        if position == len(payload):
            return
        if position + _ENTRY.size > len(payload):
            raise _broken("ends inside an entry's header", where, base + position)
        kind, _version, header_size, padded, packed, arch, flags, unpacked = _ENTRY.unpack_from(
            payload, position
        )
        if kind not in _KINDS:
            raise _broken(f"is of the unknown kind {kind}", where, base + position)
        if header_size < _ENTRY.size or padded > len(payload) - position - header_size:
            raise _broken("runs past the end of its container", where, base + position)
        compression: Compression = (
            "zstd" if flags & _FLAG_ZSTD else "lz4" if flags & _FLAG_LZ4 else "none"
        )
        stored = padded if compression == "none" else packed
        if stored > padded:
            raise _broken("is larger than the room it has", where, base + position)
        start = position + header_size
        image = payload[start : start + stored]
        suffix = (
            "a" if flags & _FLAG_ARCH_SPECIFIC else "f" if flags & _FLAG_FAMILY_SPECIFIC else ""
        )
        yield Image(
            _KINDS[kind],
            f"{arch}{suffix}",
            compression,
            stored,
            stored if compression == "none" else unpacked,
            _measure(_KINDS[kind], _start_of(image, compression)),
        )
        position = start + padded
    raise _broken(f"has more than {_MAX_IMAGES} images", where, base)


def _start_of(image: memoryview, compression: Compression) -> bytes:
    """The first bytes of an image, unpacked; empty where they cannot be unpacked."""
    if compression == "none":
        return bytes(image[:_PEEK])
    if compression == "lz4":
        return _lz4_start(image, _PEEK)
    try:
        return zstd.ZstdDecompressor().decompress(image[: 1 << 20], max_length=_PEEK)
    except zstd.ZstdError:
        return b""


def _lz4_start(block: memoryview, limit: int) -> bytes:
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
