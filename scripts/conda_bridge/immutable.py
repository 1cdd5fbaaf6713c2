"""A name that is published keeps its bytes: installers cache by name, and locks hold digests."""

from __future__ import annotations

from .errors import ConflictError

__all__ = ["refuse_other_bytes"]


def refuse_other_bytes(name: str, published: str | None, new: str) -> None:
    """Compares the digest of what is to be published with that of what is.

    Args:
        name: the file's name.
        published: its sha256 in hexadecimal; None where the name is new.
        new: the sha256 now.

    Raises:
        ConflictError: they differ.
    """
    if published is not None and published != new:
        raise ConflictError(
            f"is published with other bytes (sha256 {published[:12]}..., now {new[:12]}...)",
            where=name,
            expected="the same bytes, or a new name",
            fix="raise the build number (--build-number 1), or where nobody has it yet --replace",
        )
