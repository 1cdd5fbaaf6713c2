"""Conda packages of both forms, through zip, zstd or bzip2, and tar, to the documents in them."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import replace

from archive_mutations import ZipEntry, zip_entries, zip_of

from conda_bridge.formats.zstd import zstd

from . import tar
from .chance import Chance, Mutate
from .json import document
from .packed import bzip2, zstd_frame
from .zip import archive as zip_archive

__all__ = ["package", "tar_bz2"]

_DOCUMENT = document()


def _member(name: str, data: bytes, chance: Chance) -> bytes:
    """A file of the package: JSON by its values, others by their bytes."""
    return _DOCUMENT(data, chance) if name.endswith(".json") else chance.bytes_near(data)


_INFO = zstd_frame(tar.archive(_member))
_CHANGE_TAR = tar.archive(lambda _name, data, chance: chance.bytes_near(data))
_PAYLOAD = zstd_frame(_CHANGE_TAR)


def _part(name: str, data: bytes, chance: Chance) -> bytes:
    if name.endswith(".json"):
        return _DOCUMENT(data, chance)
    return (_INFO if name.startswith("info-") else _PAYLOAD)(data, chance)


_ZIP = zip_archive(_part, stored=True)
_TAR = tar.archive(_member)


def package(data: bytes, chance: Chance) -> bytes:
    """Changes a ``.conda``; half of the time its payload, with a paths.json that is true of it."""
    if chance.one_in(2):
        return _ZIP(data, chance)
    try:
        entries = zip_entries(data)
        _, pkg, info = entries
        payload = _CHANGE_TAR(_unpacked(pkg.body), chance)
        told = _told(_unpacked(info.body), paths_of(payload))
    except (ValueError, struct.error, zstd.ZstdError):
        return _ZIP(data, chance)
    made = [_refilled(pkg, zstd.compress(payload, 1)), _refilled(info, zstd.compress(told, 1))]
    return zip_of([entries[0], *made])


def _unpacked(frame: bytes) -> bytes:
    return zstd.ZstdDecompressor().decompress(frame, 1 << 20)


def _refilled(entry: ZipEntry, body: bytes) -> ZipEntry:
    return replace(entry, body=body, size=len(body), crc=zlib.crc32(body))


def paths_of(archive: bytes) -> bytes:
    """An ``info/paths.json`` that is true of an archive."""
    paths: list[dict[str, object]] = []
    for header, body in tar.parts_of(archive)[0]:
        name, kind = tar.name_of(header), header[156:157]
        if kind in (b"0", b"\0") and not name.startswith("info/"):
            digest = hashlib.sha256(body).hexdigest()
            paths.append({"_path": name, "sha256": digest, "size_in_bytes": len(body)})
        elif kind == b"2":
            paths.append({"_path": name, "path_type": "softlink"})
    return json.dumps({"paths": paths, "paths_version": 1}).encode()


def _told(archive: bytes, paths: bytes) -> bytes:
    """The archive with these paths in its ``info/paths.json``."""
    parts, end = tar.parts_of(archive)
    return tar.joined(
        [
            tar.sized(header, paths) if tar.name_of(header) == "info/paths.json" else (header, body)
            for header, body in parts
        ],
        end,
    )


def _true(inner: Mutate) -> Mutate:
    """A changed archive, most of the time with a paths.json that is true of it."""

    def mutate(data: bytes, chance: Chance) -> bytes:
        made = inner(data, chance)
        return made if chance.one_in(4) else _told(made, paths_of(made))

    return mutate


tar_bz2 = bzip2(_true(_TAR))
