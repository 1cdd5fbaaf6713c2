"""A conda channel of packages from the store: a folder per content, mended where it was damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from conda_bridge.system import atomic

from .packages import Built

__all__ = ["make_channel"]


def make_channel(packages: Iterable[Built], cache: Path) -> Path:
    """The channel that holds exactly `packages`, made on first use.

    Returns:
        Its folder, with ``linux-64/`` and ``noarch/`` and their ``repodata.json``.
    """
    wanted = sorted(packages, key=lambda built: built.path.name)
    names = "\n".join(f"{built.path.name} {built.record['sha256']}" for built in wanted)
    channel = cache / "channels" / hashlib.sha256(names.encode()).hexdigest()[:16]
    if not channel.is_dir():
        with atomic.directory(channel) as fresh:
            _fill(fresh, wanted)
    else:
        _fill(channel, wanted)
    return channel


def _fill(channel: Path, wanted: Sequence[Built]) -> None:
    """Puts into `channel` what is not there, or not as it should be."""
    for subdir in ("linux-64", "noarch"):
        folder = channel / subdir
        folder.mkdir(exist_ok=True)
        records: dict[str, dict[str, dict[str, object]]] = {".conda": {}, ".bz2": {}}
        for built in wanted:
            if built.record["subdir"] == subdir:
                _place(built, folder / built.path.name)
                records[built.path.suffix][built.path.name] = dict(built.record)
        document = {
            "info": {"subdir": subdir},
            "packages": records[".bz2"],
            "packages.conda": records[".conda"],
            "removed": [],
            "repodata_version": 1,
        }
        repodata = (json.dumps(document, indent=1) + "\n").encode()
        path = folder / "repodata.json"
        if not path.is_file() or path.read_bytes() != repodata:
            atomic.write_bytes(path, repodata)


def _place(built: Built, target: Path) -> None:
    if target.is_file():
        if target.samefile(built.path):  # which was read just now
            return
        with target.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == built.record["sha256"]:
                return
    with atomic.scratch(target.parent) as scratch:
        fresh = scratch / target.name
        try:
            os.link(built.path, fresh)
        except OSError:
            shutil.copyfile(built.path, fresh)
        os.replace(fresh, target)
