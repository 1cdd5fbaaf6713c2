"""What was already made, so that a second run does nothing and an interrupted one continues.

A stage is done when its key (a digest of everything that goes in) is the recorded one and every
output still has the recorded digest. Entries are written after the outputs stand under their final
names; a kill in between only means that the stage runs again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.system import atomic
from conda_bridge.system.usage import Cost

__all__ = ["Entry", "Ledger", "digest", "file_digest", "tree_digest"]

_SKIPPED = {"__pycache__", "_build_info.py"}


def digest(values: Mapping[str, object]) -> str:
    """The sha256 of named values, in hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_digest(root: Path, names: Iterable[str]) -> str:
    """The sha256 over names, modes and bytes of the files `names` below `root`, folders whole."""
    total = hashlib.sha256()
    for name in sorted(names):
        top = root / name
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in files:
            relative = path.relative_to(root)
            skipped = _SKIPPED.intersection(relative.parts) or path.suffix in (".pyc", ".so")
            if path.is_file() and not skipped:
                total.update(f"{relative}\0{path.stat().st_mode & 0o111}\0".encode())
                total.update(file_digest(path).encode())
    return total.hexdigest()


@dataclass(frozen=True)
class Entry:
    """A finished stage.

    Attributes:
        key: the digest of what went in.
        outputs: the files it made, with their sha256; relative to the folder that holds
            the ledger where they lie in it, so that it may be moved as a whole.
        cost: what it took.
        facts: for the summary.
    """

    key: str
    outputs: dict[str, str]
    cost: Cost
    facts: dict[str, object]


class Ledger:
    """The entries of one output folder, one JSON file a stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _base(self) -> Path:
        return self.folder.parent.absolute()

    def _name(self, path: Path) -> str:
        whole = path.absolute()
        inside = whole.is_relative_to(self._base)
        return str(whole.relative_to(self._base) if inside else whole)

    def _file(self, stage: str) -> Path:
        return self.folder / f"{stage}.json"

    def lookup(self, stage: str, key: str) -> Entry | None:
        """The entry of `stage` if it was made from `key` and its outputs are untouched."""
        try:
            raw = json.loads(self._file(stage).read_text())
            entry = Entry(raw["key"], raw["outputs"], Cost(**raw["cost"]), raw["facts"])
            sound = raw["sha256"] == digest(_written(entry))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # never made, damaged, or of another version of this file: make it again
        if not sound:
            return None
        if entry.key != key:
            return None
        for name, recorded in entry.outputs.items():
            path = self._base / name
            if not path.is_file() or file_digest(path) != recorded:
                return None
        return entry

    def record(
        self,
        stage: str,
        key: str,
        outputs: Iterable[Path],
        cost: Cost,
        facts: Mapping[str, object] | None = None,
    ) -> Entry:
        """Writes that `stage` made `outputs` from `key` at this `cost`."""
        made = {self._name(path): file_digest(path) for path in outputs}
        entry = Entry(key, made, cost, dict(facts or {}))
        written = _written(entry)
        # Its own digest: a damaged entry must not pass on what it says.
        written["sha256"] = digest(written)
        atomic.write_text(self._file(stage), json.dumps(written, indent=1, sort_keys=True))
        return entry

    def forget(self, stage: str) -> None:
        """Makes `stage` run again."""
        self._file(stage).unlink(missing_ok=True)


def _written(entry: Entry) -> dict[str, object]:
    """An entry as it is in its file."""
    return {**vars(entry), "cost": entry.cost.as_dict()}
