"""What is there already under a name that is to be written."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConflictError
from ..formats.wheel_reader import file_sha256

__all__ = ["is_unchanged"]


def is_unchanged(target: Path, digest: str, *, overwrite: bool) -> bool:
    """Whether the file at `target` has these bytes already.

    Args:
        target: a file that is there.
        digest: the sha256 of what is to be written.
        overwrite: whether other bytes may be replaced.

    Raises:
        ConflictError: it has other bytes, which may not.
    """
    existing = file_sha256(target)
    if existing != digest and not overwrite:
        raise ConflictError(
            f"is there with other bytes (sha256 {existing[:12]}..., now {digest[:12]}...)",
            where=str(target),
            fix="raise the build number, or pass --overwrite if the old one was never published",
        )
    return existing == digest
