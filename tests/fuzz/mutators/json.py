"""JSON documents by their values, and what is nearly JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import archive_mutations

from .chance import Chance, Mutate
from .listed import change_list
from .text import plain

__all__ = ["document", "toml"]


@dataclass
class _Raw:
    """A value as it is written."""

    text: str


@dataclass
class _Object:
    """An object, which may have a key twice."""

    pairs: list[tuple[str, Any]]


_VALUES = (
    *("null", "true", "false", "0", "-0", "1", "-1", "1.0", "1e5", "0.1", "NaN", "-Infinity"),
    *("1e999", str(1 << 63), str(-(1 << 63) - 1), str(1 << 64), "9" * 64, "9" * 5000),
    *('""', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u001b[2J"', '"é"', "[]", "{}"),
    *("[[]]", *("[" * depth + "]" * depth for depth in (31, 33, 2000)), '"' + "x" * 300 + '"'),
)
_WHOLE = tuple(archive_mutations.JSON.values())


def document(text: Mutate = plain) -> Mutate:
    """Changes a JSON document.

    Args:
        text: changes the texts in it.
    """

    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(10):
            return chance.bytes_near(data)
        try:
            if chance.one_in(20):
                return chance.choice(_WHOLE)(data)
            value = json.loads(data, object_pairs_hook=_Object, parse_float=_Raw, parse_int=_Raw)
        except (ValueError, RecursionError, StopIteration, TypeError, AttributeError):
            return chance.bytes_near(data)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            value = _changed(value, value, chance, text)
        try:
            made = _written(value, chance.choice((", ", ",", ",\n ")), chance.one_in(2))
        except RecursionError:
            return data
        return made.encode("utf-8", "surrogatepass")

    return mutate


def toml(read: Callable[[str], dict[str, Any]], text: Mutate = plain) -> Mutate:
    """Changes a TOML document by its values.

    Args:
        read: reads one.
        text: changes the texts in it.
    """
    inner = document(text)

    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(5):
            return chance.bytes_near(data)
        try:
            table = read(data.decode())
            changed = json.loads(inner(json.dumps(table).encode(), chance))
            return "".join(
                f"{json.dumps(key)} = {_inline(value)}\n" for key, value in changed.items()
            ).encode("utf-8", "replace")
        except (ValueError, TypeError, AttributeError, RecursionError):
            return chance.bytes_near(data)

    return mutate


def _inline(value: object) -> str:
    if isinstance(value, dict):
        inside = (f"{json.dumps(key)} = {_inline(item)}" for key, item in value.items())
        return "{ " + ", ".join(inside) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return '""' if value is None else json.dumps(value, ensure_ascii=False)


def _places(value: object) -> int:
    """How many values there are, itself among them."""
    total, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        total += 1
        if isinstance(item, _Object):
            waiting += [inside for _, inside in item.pairs]
        elif isinstance(item, list):
            waiting += item
    return total


def _changed(value: Any, whole: Any, chance: Chance, text: Mutate) -> Any:
    """`value` with one of its values another; where, is left to chance, all alike likely."""
    inside = [item for _, item in value.pairs] if isinstance(value, _Object) else value
    if isinstance(inside, list) and inside and not chance.one_in(3):
        counts = [_places(item) for item in inside]
        at = chance.choices(range(len(inside)), counts)[0]
        if isinstance(value, _Object):
            key, item = value.pairs[at]
            value.pairs[at] = (key, _changed(item, whole, chance, text))
        else:
            value[at] = _changed(inside[at], whole, chance, text)
        return value
    if isinstance(value, _Object):
        change_list(
            value.pairs,
            chance,
            lambda pair: (
                (_text(pair[0], chance, text), pair[1])
                if chance.one_in(2)
                else (pair[0], _other(pair[1], whole, chance, text))
            ),
            lambda: (_key(whole, chance), _other(None, whole, chance, text)),
        )
        return value
    if isinstance(value, list) and chance.one_in(2):
        change_list(
            value,
            chance,
            lambda item: _other(item, whole, chance, text),
            lambda: _other(None, whole, chance, text),
        )
        return value
    return _other(value, whole, chance, text)


def _other(value: Any, whole: Any, chance: Chance, text: Mutate) -> Any:
    if isinstance(value, str) and not chance.one_in(3):
        return _text(value, chance, text)
    kind = chance.randrange(4)
    if kind == 0:
        return _piece(whole, chance)
    if kind == 1:
        return [value, _piece(whole, chance)] if chance.one_in(2) else _Object([("a", value)])
    if kind == 2 and isinstance(value, _Raw):
        return _Raw(str(chance.number()))
    return _Raw(chance.choice(_VALUES))


def _text(value: str, chance: Chance, text: Mutate) -> str:
    made = text(value.encode("utf-8", "surrogatepass"), chance)
    return made.decode("utf-8", "replace")


def _key(whole: Any, chance: Chance) -> str:
    if chance.words and chance.one_in(2):
        return chance.choice(chance.words).decode("utf-8", "replace")
    piece = _piece(whole, chance)
    return piece if isinstance(piece, str) else "key"


def _piece(value: Any, chance: Chance) -> Any:
    """A copy of some value of the document."""
    while isinstance(value, list | _Object) and not chance.one_in(3):
        inside = [item for _, item in value.pairs] if isinstance(value, _Object) else value
        if not inside:
            break
        value = chance.choice(inside)
    return _copied(value)


def _copied(value: Any) -> Any:
    if isinstance(value, _Object):
        return _Object([(key, _copied(item)) for key, item in value.pairs])
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _written(value: Any, comma: str, ascii_only: bool) -> str:
    if isinstance(value, _Raw):
        return value.text
    if isinstance(value, _Object):
        pairs = (
            f"{json.dumps(key, ensure_ascii=ascii_only)}: {_written(item, comma, ascii_only)}"
            for key, item in value.pairs
        )
        return "{" + comma.join(pairs) + "}"
    if isinstance(value, list):
        return "[" + comma.join(_written(item, comma, ascii_only) for item in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)
