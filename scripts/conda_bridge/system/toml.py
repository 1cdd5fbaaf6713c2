"""The standard library's reader of TOML, or its twin for Pythons that have none."""

import sys
from typing import Any, Dict, List

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["loads"]

_DEEPEST = 64  # tables and lists in one another; messages and comparisons recurse
_INTEGERS = range(-(1 << 63), 1 << 63)  # as TOML has them


def loads(text: str) -> Dict[str, Any]:
    """The table that a text is.

    Raises:
        ValueError: it is not TOML, goes too deep, or has a number that TOML does not have.
    """
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError("tables and lists in one another without end") from None
    level: List[object] = [document]
    for _ in range(_DEEPEST):
        below: List[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, int) and value not in _INTEGERS:
                raise ValueError("a whole number of more than 64 bits")
        level = below
    if level:
        raise ValueError(f"more than {_DEEPEST} tables and lists in one another")
    return document
