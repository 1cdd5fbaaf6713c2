"""METADATA and WHEEL by their lines, RECORD by its cells."""

from __future__ import annotations

from .chance import Chance, Mutate
from .listed import change_list
from .text import Grammar, plain

__all__ = ["headers", "record"]


def headers(value: Grammar | None = None) -> Mutate:
    """Changes headers: lines more, fewer, twice, folded; names and values apart.

    Args:
        value: what values look like.
    """
    inner: Mutate = value or plain

    def line(text: bytes, chance: Chance) -> bytes:
        name, colon, rest = text.partition(b":")
        kind = chance.randrange(8)
        if kind == 0:
            return inner(name, chance) + colon + rest
        if kind == 1:
            return chance.choice((b" ", b"\t", b"        |", b"From ", b"\r", b"\n")) + text
        if kind == 2:
            return text + chance.choice((b"\r", b"\n ", b"\n", b"\r\n", b"\x0b", b"\x1c"))
        if kind == 3 and chance.words:
            return chance.choice(chance.words) + b":" + rest
        if kind == 4:
            return chance.bytes_near(text)
        return name + colon + b" " + inner(rest.strip(), chance)

    def mutate(data: bytes, chance: Chance) -> bytes:
        if chance.one_in(12):
            return chance.bytes_near(data)
        parts = data.split(b"\n")
        for _ in range(chance.choice((1, 1, 2, 3))):
            change_list(
                parts,
                chance,
                lambda text: line(text, chance),
                lambda: (chance.choice(chance.words) if chance.words else b"X") + b": x",
            )
        return b"\n".join(parts)

    return mutate


def record(data: bytes, chance: Chance) -> bytes:
    """Changes a RECORD: rows, cells, quotes."""
    if chance.one_in(10):
        return chance.bytes_near(data)
    rows = [row.split(b",") for row in data.split(b"\n")]

    def cell(text: bytes) -> bytes:
        kind = chance.randrange(6)
        if kind == 0:
            return b'"' + text.replace(b'"', b'""') + b'"'
        if kind == 1:
            return chance.choice((b"sha256=", b"md5=", b"sha512=", b"")) + text.rpartition(b"=")[2]
        if kind == 2:
            return str(chance.number()).encode()
        return chance.bytes_near(text)

    def change(row: list[bytes]) -> list[bytes]:
        changed = list(row)
        change_list(changed, chance, cell, lambda: b"")
        return changed

    for _ in range(chance.choice((1, 1, 2))):
        change_list(rows, chance, change, lambda: [b"a", b"", b""])
    return b"\n".join(b",".join(row) for row in rows)
