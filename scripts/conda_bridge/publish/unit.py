"""Documents that are made together, and what they follow from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Unit", "key_of"]


@dataclass(frozen=True)
class Unit:
    """A few documents, not yet made.

    Attributes:
        name: of the unit, in its place.
        key: a digest of all that the documents follow from, beside the program.
        make: makes them: their bytes by path. What another names comes before it.
    """

    name: str
    key: str
    make: Callable[[], Mapping[str, bytes]]


def key_of(parts: Iterable[str]) -> str:
    """The key of documents that follow from these texts, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
