"""What the packages made here are made of: ``info/origins.json``, which the build's SBOM reads.

The names and digests are those of the lock; :mod:`..compile.origins` looks files up in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from conda_bridge.formats.headers import read_headers

from ..compile.origins import RECORD, deb_url, machine_readable, pypi_url, with_common
from .lock import LockedDeb, LockedWheel
from .unpacked import SITE

__all__ = ["Source", "of_deb", "of_wheel", "record", "with_record"]


@dataclass(frozen=True)
class Source:
    """One archive that a package's files are of.

    Attributes:
        facts: name, version, URL, archive, digest and licence.
        texts: the licence files, by their name.
    """

    facts: Mapping[str, str]
    texts: Mapping[str, bytes]


def of_wheel(wheel: LockedWheel, tree: Path) -> Source:
    """A wheel of the lock, unpacked in `tree`."""
    [info] = (tree / SITE).glob(f"{wheel.name.replace('-', '_')}-*.dist-info")
    metadata = read_headers((info / "METADATA").read_bytes(), str(info / "METADATA"))
    licence = metadata.get("License-Expression") or metadata.get("License") or ""
    facts = {
        "name": wheel.name,
        "version": wheel.version,
        "purl": pypi_url(wheel.name, wheel.version),
        "archive": wheel.filename,
        "sha256": wheel.sha256,
        "licence": " ".join(str(licence).split())[:200],
    }
    folder = info / "licenses"
    texts = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Source(facts, texts)


def of_deb(deb: LockedDeb, tree: Path, base: Mapping[LockedDeb, Path] | None = None) -> Source:
    """A Debian package of the lock, unpacked in `tree`.

    Args:
        deb: the package.
        tree: where it is.
        base: packages that have the copyright of others of their version, as ``gcc-11-base`` has
            that of ``libstdc++-11-dev``, whose folder of documents is a link.
    """
    name, version, arch = unquote(deb.filename.removesuffix(".deb")).split("_")
    text = tree / f"usr/share/doc/{deb.package}/copyright"
    own = {deb.package: text.read_bytes()} if text.is_file() else {}
    for other, place in (base or {}).items():
        shared = place / f"usr/share/doc/{other.package}/copyright"
        if not own and other.filename.split("_")[1] == deb.filename.split("_")[1]:
            own = {other.package: shared.read_bytes()}
    texts = with_common(own)
    facts = {
        "name": name,
        "version": version,
        "purl": deb_url(name, version, arch),
        "archive": deb.filename,
        "sha256": deb.sha256,
        "licence": machine_readable(b"".join(own.values())),
    }
    return Source(facts, texts)


def record(sources: Iterable[tuple[Source, Sequence[str] | None]]) -> bytes:
    """The record of a package's sources, each with its files; None for all others."""
    entries = [
        {
            **source.facts,
            "texts": {name: name for name in sorted(source.texts)},
            "files": None if files is None else sorted(files),
        }
        for source, files in sources
    ]
    return json.dumps({"origins": entries}, indent=1).encode()


def with_record(sources: Sequence[tuple[Source, Sequence[str] | None]]) -> dict[str, bytes]:
    """The members below ``info/`` of a package that is made of `sources`: record and licences."""
    texts = {
        f"info/licenses/{name}": text
        for source, _ in sources
        for name, text in source.texts.items()
    }
    return {**texts, f"info/{RECORD}": record(sources)}
