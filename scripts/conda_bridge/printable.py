r"""Texts of somebody else's in a form that a terminal shows, and does not obey.

A file name or a field of an artifact may hold what moves the cursor, sets a title, turns the
direction of writing around or begins a line of its own. Each such character is shown as Python
writes it: ``\x1b``, ``\u202e``, ``\n``.

Runs on Python 3.8 with the standard library alone.
"""

from __future__ import annotations

import json
import re

__all__ = ["as_json", "printable", "printable_lines", "shortened"]

_LONGEST = 2000  # characters of a field in a message; nobody reads more


def printable(text: str) -> str:
    r"""One line of text with nothing in it that is not shown as itself.

    >>> printable("a\x1b[31m b\nc")
    'a\\x1b[31m b\\nc'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def printable_lines(text: str) -> str:
    """The same of text whose line feeds and tabs are meant."""
    if text.isprintable():
        return text
    return re.sub(r"[^\n\t]+", lambda found: printable(found[0]), text)


def shortened(text: str, longest: int = _LONGEST) -> str:
    """The text, or the beginning of a long one, and how long it is.

    >>> shortened("abcdef", 4)
    'abcd... (6 characters)'
    """
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def as_json(value: object, *, indent: int = 2) -> str:
    """JSON in printable ASCII; ``json`` itself leaves DEL as it is.

    Raises:
        TypeError: a value that JSON does not have.
        ValueError: a number that JSON does not have, or that is too long to be written.
    """
    return json.dumps(value, indent=indent, allow_nan=False).replace("\x7f", "\\u007f")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
