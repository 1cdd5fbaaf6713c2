"""What every reader here reads from."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Readable"]


class Readable(Protocol):
    """A stream of bytes that can be read front to back."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
