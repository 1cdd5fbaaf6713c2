"""Which of libstdc++'s two ``std::string`` types torch was built with: the one rule of that.

``flashinfer/_compat.py`` states it too, in the words that a user sees, since it runs where this
package is not; tests/package/test_compat.py holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conda_bridge.formats.elf import SharedObject

__all__ = ["OLD_UNTIL", "measured", "names", "pypi_has_new"]

# The last minor that PyPI had with _GLIBCXX_USE_CXX11_ABI=0; measured on 2.0.1, 2.4.0 and 2.6.0.
# conda-forge's have the new one, whatever their version.
OLD_UNTIL = (2, 6)


def pypi_has_new(torch: tuple[int, int]) -> bool:
    """Whether PyPI's builds of this torch minor have the new type."""
    return torch > OLD_UNTIL


def names(new: bool) -> str:
    """``new`` or ``old``."""
    return "new" if new else "old"


def measured(library: SharedObject) -> str:
    """The type in the symbols that `library` wants from torch: ``old``, ``new`` or ``mixed``.

    ``new`` is ``std::__cxx11::basic_string``, ``old`` is ``Ss``; empty where no symbol of torch has
    a string in its signature.
    """
    from conda_bridge.formats import elf  # only here: it takes its time to import

    return elf.string_abi(symbol.name for symbol in library.undefined if _is_torchs(symbol.name))


def _is_torchs(name: str) -> bool:
    from conda_bridge.formats import elf

    return any(space in name for space in ("2at", "3c10", "5torch")) and any(
        part in ("at", "c10", "torch") for part in elf.mangled_names(name)
    )
