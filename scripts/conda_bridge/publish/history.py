"""What was published when, from which commit, by which digest: the record as rows."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from .record import Record

__all__ = ["rows"]


def rows(record: Record, names: Sequence[str] = ()) -> list[dict[str, str | int]]:
    """A row for each file and each thing that was done with it, the oldest first.

    Args:
        record: of a store.
        names: which files; ``*`` and ``?`` stand for any characters. All of them for none.
    """
    found: list[dict[str, str | int]] = []
    for entry in record.entries:
        for name in [file.name for file in entry.files] or entry.names:
            if names and not any(fnmatchcase(name, pattern) for pattern in names):
                continue
            published = record.files[name]
            found.append(
                {
                    "number": entry.number,
                    "time": entry.time,
                    "action": entry.action,
                    "file": published.file.path,
                    "version": published.file.version,
                    "commit": published.commit or published.file.commit,
                    "sha256": published.file.sha256,
                    "size": published.file.size,
                    "reason": entry.reason,
                    "promotes": entry.promotes,
                }
            )
    return found
