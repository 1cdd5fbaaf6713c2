"""Whether an extension module keeps to CPython's stable ABI, by abi3audit's table of symbols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from abi3info.models import PyVersion, Symbol

    from .elf import SharedObject

__all__ = ["Audit", "audit"]


@dataclass(frozen=True)
class Audit:
    """What the symbols of an extension module ask of Python.

    Attributes:
        python: the oldest Python that has them all, e.g. ``(3, 8)``.
        strangers: symbols that are not in the stable ABI, sorted.
        newer: symbols, each with the Python that it came with.
        libpython: libraries of one Python that it needs.
    """

    python: tuple[int, int]
    strangers: tuple[str, ...]
    newer: tuple[tuple[str, tuple[int, int]], ...]
    libpython: tuple[str, ...]

    def since(self, python: tuple[int, int]) -> tuple[str, ...]:
        """The symbols that came after a Python, sorted."""
        return tuple(name for name, added in self.newer if added > python)


class _DynamicSymbols:
    """A shared object as abi3audit wants to see it: our dynamic symbols, our tag."""

    def __init__(self, library: SharedObject, lowest: PyVersion) -> None:
        self._library = library
        self._lowest = lowest

    def abi3_version(self, assume_lowest: PyVersion) -> PyVersion:
        return self._lowest

    def __iter__(self) -> Iterator[Symbol]:
        from abi3info.models import Symbol

        for symbol in chain(self._library.undefined, self._library.exported):
            yield Symbol(symbol.name, visibility="weak" if symbol.weak else "global")

    def __str__(self) -> str:
        return self._library.name


def audit(module: SharedObject) -> Audit:
    """What `module` asks of Python."""
    from abi3audit._audit import audit as run
    from abi3info.models import PyVersion

    lowest = PyVersion(3, 2)
    # Its shared object reads a file by path; this one is read already, within bounds.
    found = run(cast("Any", _DynamicSymbols(module, lowest)), assume_minimum_abi3=lowest)
    newer = {
        (item.symbol.name, (item.added.major, item.added.minor))
        for item in found.future_abi3_objects
    }
    return Audit(
        python=(found.computed.major, found.computed.minor),
        strangers=tuple(sorted(symbol.name for symbol in found.non_abi3_symbols)),
        newer=tuple(sorted(newer)),
        libpython=tuple(name for name in module.needed if name.startswith("libpython")),
    )
