"""A conda channel of packages from the store: a folder per content, never changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from .. import atomic
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
    if channel.is_dir():
        return channel
    with atomic.directory(channel) as fresh:
        for subdir in ("linux-64", "noarch"):
            folder = fresh / subdir
            folder.mkdir()
            records: dict[str, dict[str, dict[str, object]]] = {".conda": {}, ".bz2": {}}
            for built in wanted:
                if built.record["subdir"] == subdir:
                    _link(built.path, folder / built.path.name)
                    records[built.path.suffix][built.path.name] = dict(built.record)
            repodata = {
                "info": {"subdir": subdir},
                "packages": records[".bz2"],
                "packages.conda": records[".conda"],
                "removed": [],
                "repodata_version": 1,
            }
            atomic.write_text(folder / "repodata.json", json.dumps(repodata, indent=1) + "\n")
    return channel


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
