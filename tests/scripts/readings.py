"""What is in an artifact, by this reader and by those of others: paths, kinds and bytes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import conda_package_streaming.extract as conda_extract
from installer.sources import WheelFile
from rattler import package_streaming as rattler_streaming

from conda_bridge.formats import conda_package, wheel_reader

__all__ = [
    "Reading",
    "by_conda",
    "by_installer",
    "by_rattler",
    "by_zipfile",
    "file_of",
    "on_disk",
    "ours",
    "ours_of_wheel",
]

# path -> ("file", sha256) or ("link", target)
Reading = dict[str, tuple[str, str]]


def file_of(data: bytes) -> tuple[str, str]:
    return "file", hashlib.sha256(data).hexdigest()


def on_disk(folder: Path) -> Reading:
    """What lies in a folder; folders count by what is in them."""
    found: Reading = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            key = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found[key] = "link", str(path.readlink())
            elif path.is_file():
                found[key] = file_of(path.read_bytes())
    return found


def ours(path: Path) -> Reading:
    package = conda_package.read(path)
    found = {name: file_of(data) for name, data in package.info.items()}
    for member in package.payload():
        link = member.link_target
        found[member.path] = ("link", link) if link is not None else file_of(member.read())
    return found


def by_rattler(path: Path, folder: Path) -> Reading:
    rattler_streaming.extract(str(path), str(folder))
    return on_disk(folder)


def by_conda(path: Path, folder: Path) -> Reading:
    folder.mkdir()
    conda_extract.extract(str(path), folder)
    return on_disk(folder)


def ours_of_wheel(path: Path) -> Reading:
    wheel = wheel_reader.read(path)
    return {member.path: file_of(stream.read()) for member, stream in wheel.stream()}


def by_installer(path: Path) -> Reading:
    with WheelFile.open(path) as wheel:
        return {
            str(record[0]): file_of(stream.read()) for record, stream, _ in wheel.get_contents()
        }


def by_zipfile(path: Path) -> Reading:
    """As Python's library reads it, from the end; pip goes by that."""
    with zipfile.ZipFile(path) as archive:
        return {
            name: file_of(archive.read(name))
            for name in archive.namelist()
            if not name.endswith("/")
        }
