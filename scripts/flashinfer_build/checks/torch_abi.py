"""Which of libstdc++'s two ``std::string`` types torch was built with: the one rule of that.

``flashinfer/_compat.py`` states it too, in the words that a user sees, since it runs where this
package is not; tests/package/test_compat.py holds the two together.
"""

from __future__ import annotations

__all__ = ["OLD_UNTIL", "names", "pypi_has_new"]

# The last minor that PyPI had with _GLIBCXX_USE_CXX11_ABI=0; measured on 2.0.1, 2.4.0 and 2.6.0.
# conda-forge's have the new one, whatever their version.
OLD_UNTIL = (2, 6)


def pypi_has_new(torch: tuple[int, int]) -> bool:
    """Whether PyPI's builds of this torch minor have the new type."""
    return torch > OLD_UNTIL


def names(new: bool) -> str:
    """``new`` or ``old``."""
    return "new" if new else "old"
