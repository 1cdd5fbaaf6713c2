"""Texts: by their lines, and by a grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .chance import Chance, Mutate
from .listed import change_list

__all__ = ["Grammar", "lines", "plain"]

_TOKEN = re.compile(r"\s+|[A-Za-z_]+|\d+|[^\sA-Za-z_\d]")
_REFERENCE = re.compile(r"<([a-z-]+)>")
# What texts of people and programs do not have, and files that were made for it do.
_STRANGE = (
    *("\0", "\r", "\n", "\t", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\u0661"),
    *("é", "e\u0301", "\U0001f600", "\udc80", "İ", "ß", "ﬁ", "²"),
    *("9" * 30, "9" * 5000, "x" * 300, "(" * 3000, "../", "//", "%", "\\", '"', "'"),
)


def plain(data: bytes, chance: Chance) -> bytes:
    """Bytes without a form."""
    return chance.bytes_near(data)


def lines(inner: Mutate = plain) -> Mutate:
    """Changes a text by its lines, and within one by `inner`."""

    def mutate(data: bytes, chance: Chance) -> bytes:
        parts = data.split(b"\n")
        for _ in range(chance.choice((1, 1, 2, 3))):
            change_list(
                parts,
                chance,
                lambda line: inner(line, chance),
                lambda: chance.choice(chance.words) if chance.words else b"",
            )
        return b"\n".join(parts)

    return mutate


class Grammar:
    """Texts by rules, and texts that nearly keep to them.

    Args:
        rules: name -> alternatives, in which ``<name>`` stands for a text of that rule.
        start: the rule of a whole text.
    """

    def __init__(self, rules: Mapping[str, Sequence[str]], start: str) -> None:
        self.rules = rules
        self.start = start

    def text(self, chance: Chance, rule: str = "", depth: int = 0) -> str:
        """A text by the rules; deep in itself the first alternatives, which have to end."""
        alternatives = self.rules[rule or self.start]
        chosen = alternatives[0] if depth > 8 else chance.choice(alternatives)
        return _REFERENCE.sub(lambda found: self.text(chance, found[1], depth + 1), chosen)

    def change(self, text: str, chance: Chance) -> str:
        """Another text near this one."""
        if not text or chance.one_in(6):
            return self.text(chance)
        tokens = _TOKEN.findall(text)
        for _ in range(chance.choice((1, 1, 2))):
            change_list(
                tokens,
                chance,
                lambda token: self._other(token, chance),
                lambda: self._other("", chance),
            )
        return "".join(tokens)

    def _other(self, token: str, chance: Chance) -> str:
        kind = chance.randrange(8)
        if kind < 4:
            return self.text(chance, chance.choice(tuple(self.rules)), 4)
        if kind == 4:
            return chance.choice(_STRANGE)
        if kind == 5:
            return str(chance.number())
        if kind == 6:
            return token * chance.choice((2, 3, 50))
        return chance.bytes_near(token.encode("utf-8", "surrogateescape")).decode(
            "utf-8", "surrogateescape"
        )

    def __call__(self, data: bytes, chance: Chance) -> bytes:
        """As a mutator of bytes."""
        if chance.one_in(8):
            return chance.bytes_near(data)
        text = self.change(data.decode("utf-8", "surrogateescape"), chance)
        return text.encode("utf-8", "surrogatepass" if chance.one_in(50) else "replace")
