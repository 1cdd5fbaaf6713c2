"""Reads JSON so that every other reader would have read the same, or not at all.

JSON leaves open what a key that is there twice means, Python reads NaN, UTF-16 and numbers of any
length besides, and other readers (rattler's among them) do not. What two readers take differently
is refused here, and so is what is too large or too deep for one of them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ArtifactError
from . import limits

__all__ = ["Field", "check_fields", "parse", "parse_object", "read_object"]

_INTEGERS = range(-(1 << 63), 1 << 63)  # other readers have 64 bits for a number
_END = object()
_PLAIN = "JSON in UTF-8 that every reader reads alike"

# The name of a type, and whether a value is of it.
Field = tuple[str, Callable[[object], bool]]


def parse(text: bytes, where: str, *, max_bytes: int = limits.JSON_SIZE) -> object:
    """The value that `text` is.

    Args:
        text: the whole document.
        where: its file and member, for messages.
        max_bytes: how long it may be.

    Raises:
        ArtifactError: it is not JSON, is too long or too deep, begins with a byte order mark, is
            not UTF-8, has a key twice, a number that is none or needs more than 64 bits, or a half
            of a surrogate pair.
    """
    if len(text) > max_bytes:
        raise ArtifactError(
            f"{len(text)} bytes of JSON", where=where, expected=f"at most {max_bytes} bytes"
        )
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if values > limits.JSON_VALUES:
        raise ArtifactError(
            f"{values} values", where=where, expected=f"at most {limits.JSON_VALUES}"
        )
    if text.startswith(b"\xef\xbb\xbf"):
        raise ArtifactError(
            "begins with a byte order mark at offset 0, which some readers skip and others refuse",
            where=where,
            expected=_PLAIN,
        )
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"not UTF-8 at offset {error.start} ({text[error.start : error.start + 4].hex()})",
            where=where,
            expected=_PLAIN,
        ) from error
    reader = _Reader(where)
    try:
        value = json.loads(
            decoded,
            object_pairs_hook=reader.object,
            parse_constant=reader.constant,
            parse_float=reader.float,
            parse_int=reader.int,
        )
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        raise ArtifactError(f"not JSON: {error}", where=where, expected=_PLAIN) from error
    _check(value, where)
    return value


def parse_object(text: bytes, where: str, *, max_bytes: int = limits.JSON_SIZE) -> dict[str, Any]:
    """The JSON object that `text` is.

    Raises:
        ArtifactError: as :func:`parse`; or it is something else than an object.
    """
    value = parse(text, where, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise ArtifactError(f"a JSON {type(value).__name__}", where=where, expected="an object")
    return value


def read_object(path: Path, where: str, *, max_bytes: int = limits.JSON_SIZE) -> dict[str, Any]:
    """The JSON object in a file, of which no more is read than it may have.

    Raises:
        ArtifactError: as :func:`parse_object`.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return parse_object(stream.read(max_bytes + 1), where, max_bytes=max_bytes)


def check_fields(document: Mapping[str, Any], fields: Mapping[str, Field], where: str) -> None:
    """Raises ArtifactError where a field of `document` is not of the type that it has for others.

    Args:
        document: an object.
        fields: by key, its type; a key that is not there is not checked.
        where: its file and member, for messages.
    """
    for key, (name, fits) in fields.items():
        if key in document and not fits(document[key]):
            raise ArtifactError(
                f"{key} is {document[key]!r:.80}", where=where, expected=f"{key} is {name}"
            )


class _Reader:
    """What :mod:`json` calls for the forms that readers differ on."""

    def __init__(self, where: str) -> None:
        self._where = where

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise ArtifactError(
                        f"the key {key[:80]!r} is there twice: one reader takes the first value,"
                        " another the last",
                        where=self._where,
                        expected=_PLAIN,
                    )
                seen.add(key)
        return made

    def constant(self, text: str) -> NoReturn:
        raise ArtifactError(f"{text} is no JSON number", where=self._where, expected=_PLAIN)

    def float(self, text: str) -> float:
        value = float(text) if len(text) <= limits.JSON_DIGITS else math.inf
        if math.isinf(value):
            raise self._too_large(text)
        return value

    def int(self, text: str) -> int:
        value = int(text) if len(text) <= limits.JSON_DIGITS else None
        if value is None or value not in _INTEGERS:
            raise self._too_large(text)
        return value

    def _too_large(self, text: str) -> ArtifactError:
        return ArtifactError(
            f"a number of {len(text)} characters, {text[:24]}...: some readers round it, others"
            " refuse it",
            where=self._where,
            expected="numbers of 64 bits",
        )


def _too_deep(where: str) -> ArtifactError:
    return ArtifactError(
        f"more than {limits.JSON_DEPTH} levels of objects and lists in one another",
        where=where,
        expected=f"at most {limits.JSON_DEPTH}",
    )


def _check(value: object, where: str) -> None:
    """Depth and texts of a whole document, without recursion."""
    open_values: list[Iterator[object]] = [iter((value,))]
    while open_values:
        item = next(open_values[-1], _END)
        if item is _END:
            open_values.pop()
        elif isinstance(item, str):
            if not item.isascii():
                _check_text(item, where)
        elif isinstance(item, dict | list):
            if len(open_values) > limits.JSON_DEPTH:
                raise _too_deep(where)
            open_values.append(iter(item))
            if isinstance(item, dict):
                open_values[-1] = itertools.chain(item, item.values())


def _check_text(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArtifactError(
            f"a text with half a surrogate pair, {text[error.start]!r}, which is no character",
            where=where,
            expected=_PLAIN,
        ) from error
