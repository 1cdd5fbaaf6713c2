"""Conda packages made on this machine for this machine, each made once and kept by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conda_bridge.formats import conda_writer
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.system import atomic

__all__ = ["Built", "PackageSpec", "link_out", "make"]

# Part of every key: raise it when what is written for the same input changes.
_CONVERTER = 3
# Steps up that reach the root from any prefix; above the root there is the root.
_TO_THE_ROOT = "../" * 40
# zstd: on files that are read once from this machine's disk a higher level only costs time.
_LEVEL = 1
# Local packages carry no date; a fixed one keeps their bytes the same.
_TIMESTAMP = conda_writer.DEFAULT_TIMESTAMP


def link_out(path: str, target: Path) -> PackageFile:
    """A link in a package to a file or folder of this machine.

    Relative, up to the root and down again: conda keeps such a link, but copies the file that an
    absolute one leads to, and stops where that is a folder.

    Args:
        path: in the package.
        target: an absolute path.
    """
    return PackageFile(path, None, 0o777, _TO_THE_ROOT + str(target).lstrip("/"))


def _nothing() -> Iterable[PackageFile]:
    return ()


@dataclass(frozen=True)
class PackageSpec:
    """What a package is, before its files are read.

    Attributes:
        name: conda's name, e.g. ``typing_extensions``.
        version: conda's version.
        identity: what its bytes depend on: digests of wheels, paths that are linked to.
        files: makes the list of its files when they are needed.
        depends: match specs.
        constrains: match specs of packages that need not be there.
        noarch: ``python`` or ``generic`` for packages of the subdir ``noarch``.
        flavour: how the build string begins.
        info_files: further members below ``info/``.
        extra: further keys of ``index.json``.
    """

    name: str
    version: str
    identity: Sequence[str] = ()
    files: Callable[[], Iterable[PackageFile]] = _nothing
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: str | None = None
    flavour: str = "local"
    info_files: Mapping[str, bytes] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The sha256 of everything that decides the package's bytes, in hexadecimal."""
        facts = [
            _CONVERTER,
            self.name,
            self.version,
            list(self.identity),
            self.depends,
            self.constrains,
            self.noarch,
            self.flavour,
            {name: data.decode("latin-1") for name, data in self.info_files.items()},
            dict(self.extra),
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def build(self) -> str:
        """The build string; it holds the key, so two contents never share a file name."""
        return f"{self.flavour}_{self.key[:10]}_0"

    @property
    def subdir(self) -> str:
        """The channel's folder that it belongs to."""
        return "noarch" if self.noarch else "linux-64"

    def index(self) -> dict[str, Any]:
        """``index.json``."""
        index: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": 0,
            "depends": list(self.depends),
            "constrains": list(self.constrains),
            "subdir": self.subdir,
            "arch": None if self.noarch else "x86_64",
            "platform": None if self.noarch else "linux",
            **self.extra,
        }
        if self.noarch:
            index["noarch"] = self.noarch
        return index


@dataclass(frozen=True)
class Built:
    """A package in the store.

    Attributes:
        path: the ``.conda`` file.
        record: its entry for ``repodata.json``.
    """

    path: Path
    record: Mapping[str, Any]


def make(spec: PackageSpec, cache: Path) -> Built:
    """The package of `spec`, made on first use; safe in several processes at once.

    It is read on every use: one that was damaged is made again.
    """
    folder = cache / "packages" / spec.key
    path = folder / f"{spec.name}-{spec.version}-{spec.build}.conda"
    record_file = folder / "record.json"
    built = _stored(spec, path, record_file)
    if built is None:
        with atomic.lock(folder.with_name(folder.name + ".lock")):
            built = _stored(spec, path, record_file)
            if built is None:
                atomic.remove(folder)  # damaged
                with atomic.directory(folder) as fresh:
                    _write(spec, fresh / path.name, fresh / record_file.name)
                built = Built(path, json.loads(record_file.read_text()))
    return built


def _stored(spec: PackageSpec, path: Path, record_file: Path) -> Built | None:
    """What is in the store; None where it is not there, or not as it was written."""
    try:
        found = record_file.read_text()
        if found != _record(spec, path):
            return None
    except (OSError, ValueError):
        return None
    return Built(path, json.loads(found))


def _record(spec: PackageSpec, path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return json.dumps({**spec.index(), "sha256": digest, "size": path.stat().st_size}, indent=1)


def _write(spec: PackageSpec, path: Path, record_file: Path) -> None:
    conda_writer.write(
        path,
        index=spec.index(),
        files=spec.files(),
        info_files=spec.info_files,
        level=_LEVEL,
        timestamp=_TIMESTAMP,
        outside_links=True,
    )
    atomic.write_text(record_file, _record(spec, path))
