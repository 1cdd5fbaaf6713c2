"""Small real .debs for tests, and an archive of them as a mirror has it."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from conda_bridge.formats.zstd import zstd
from flashinfer_build.toolchain.lock import LockedDeb

__all__ = ["ar", "make_deb", "tar_of"]

_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}


def tar_of(
    files: Mapping[str, str | bytes],
    *,
    links: Mapping[str, str] | None = None,
    hard_links: Mapping[str, str] | None = None,
    programs: Sequence[str] = (),
    more: Sequence[tarfile.TarInfo] = (),
) -> bytes:
    """A tar archive with names as they are given, whatever they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755 if name in programs else 0o644
            tar.addfile(entry, io.BytesIO(data))
        for kind, named in ((tarfile.SYMTYPE, links), (tarfile.LNKTYPE, hard_links)):
            for name, target in (named or {}).items():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = kind, target
                tar.addfile(entry)
        for entry in more:
            tar.addfile(entry)
    return buffer.getvalue()


def ar(members: Mapping[str, bytes]) -> bytes:
    """An ``ar`` archive, as a .deb is one."""
    parts = [b"!<arch>\n"]
    for name, data in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
        parts += [header.encode(), data, b"\n" * (len(data) % 2)]
    return b"".join(parts)


def make_deb(
    archive: Path,
    package: str,
    version: str = "1.0-1",
    *,
    data: bytes | None = None,
    files: Mapping[str, str | bytes] | None = None,
    links: Mapping[str, str] | None = None,
    programs: Sequence[str] = (),
    compression: str = ".xz",
) -> LockedDeb:
    """Writes ``pool/main/<package>_<version>_amd64.deb`` below `archive`.

    Args:
        archive: the folder that stands for a mirror.
        data: the whole ``data.tar`` in place of one of the rest.
        files: path without ``./`` -> content.
        links: path -> target.
        programs: which of `files` are executable.
        compression: the suffix of ``data.tar``.
    """
    tar = (
        data
        if data is not None
        else tar_of(
            {f"./{name}": content for name, content in (files or {}).items()},
            links={f"./{name}": target for name, target in (links or {}).items()},
            programs=[f"./{name}" for name in programs],
        )
    )
    body = ar(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": lzma.compress(tar_of({"./control": f"Package: {package}\n"})),
            f"data.tar{compression}": _COMPRESS[compression](tar),
        }
    )
    path = f"pool/main/{package}_{version}_amd64.deb"
    (archive / path).parent.mkdir(parents=True, exist_ok=True)
    (archive / path).write_bytes(body)
    return LockedDeb(Path(path).name, hashlib.sha256(body).hexdigest(), path, len(body))
