"""Lists of parts changed as lists: a part more, less, twice, elsewhere, or another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .chance import Chance

__all__ = ["change_list"]

_T = TypeVar("_T")


def change_list(
    parts: list[_T], chance: Chance, change: Callable[[_T], _T], more: Callable[[], _T]
) -> None:
    """Changes `parts` in place.

    Args:
        parts: of an input.
        chance: for all choices.
        change: makes another part of one.
        more: makes a new one.
    """
    kind = chance.randrange(10) if parts else 9
    at = chance.randrange(len(parts)) if parts else 0
    if kind < 6:
        parts[at] = change(parts[at])
    elif kind == 6:
        del parts[at]
    elif kind == 7:
        parts.insert(chance.randrange(len(parts) + 1), parts[at])
    elif kind == 8:
        parts.insert(chance.randrange(len(parts)), parts.pop(at))
    else:
        parts.insert(chance.randrange(len(parts) + 1), more())
