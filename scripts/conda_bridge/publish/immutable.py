"""A name that is published keeps its bytes: installers cache by name, and locks hold digests."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import ConflictError

__all__ = ["refuse_damaged", "refuse_other_bytes"]


def refuse_damaged(name: str, published: Collection[str], now: str) -> None:
    """Compares the digest of a file that lies in the output folder with what the pages say of it.

    Args:
        name: the file's name.
        published: the sha256 that pages and repodata have; empty where the name is new to them.
        now: the sha256 of the file.

    Raises:
        ConflictError: it is another.
    """
    if published and now not in published:
        raise ConflictError(
            f"is published with other bytes (sha256 {min(published)[:12]}..., the file's is now "
            f"{now[:12]}...)",
            where=name,
            expected="the bytes that were published",
            fix="if it was damaged, delete it and publish the same build again: the same bytes "
            "come back; if it is a new build, raise the build number, or "
            "pass --replace if it was never published",
        )


def refuse_other_bytes(name: str, published: Collection[str], new: str) -> None:
    """Compares the digest of what is to be published with that of what is.

    Args:
        name: the file's name.
        published: the sha256 that it has, in hexadecimal; empty where the name is new.
        new: the sha256 now.

    Raises:
        ConflictError: they differ.
    """
    if published and new not in published:
        raise ConflictError(
            f"is published with other bytes (sha256 {min(published)[:12]}..., now {new[:12]}...)",
            where=name,
            expected="the same bytes, or a new name",
            fix="raise the build number, or pass --replace if it was never published",
        )
