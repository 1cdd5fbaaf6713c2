"""Templates of build strings and local versions, each proved to be reversible when it is read.

A template such as ``{cuda}_torch{torch:flat}[_g{commit}]_{number}`` is text with fields in it. What
stands in brackets is there when its field has a value. A field is spelled by its form:

``cu{major:2}{minor}``
    numbers without leading zeros; ``:2`` is a number of exactly two digits. The value is the
    numbers joined by dots, ``12.4``. ``{cuda:flat}`` leaves out the dots and dashes of the form.
choices
    one of a few words.
pattern
    letters and digits of one class, e.g. a commit.

Without widths a template can be read in two ways: ``{major}{minor}`` makes ``210`` of 2.10 and of
21.0. :func:`ambiguity` finds such a text if there is one. It looks for two different runs of the
Glushkov automaton over the same text in the product of the automaton with itself, so that nothing
found means that there is none (Book, Even, Greibach, Ott: "Ambiguity in graphs and expressions",
1971).

Runs on Python 3.8 with the standard library alone.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from .errors import ConfigError

__all__ = ["Choices", "Field", "Form", "Template", "Word", "ambiguity", "rewritten_by_pep440"]

_DIGITS = frozenset("0123456789")
_LEADING = frozenset("123456789")
_MAX_DIGITS = 18  # conda's tools keep numbers in 64 bits
_NAME = r"[a-z][a-z0-9_]*"
_State = TypeVar("_State")
_REFERENCE = re.compile(rf"\{{(?P<name>{_NAME})(?::(?P<style>[a-z0-9]+))?\}}")


# ---------------------------------------------------------------- what a text may look like


@dataclass(frozen=True)
class _Node:
    """A regular expression: ``chars``, or a ``seq``, ``alt``, ``opt`` or ``star`` of others."""

    kind: str
    chars: frozenset[str] = frozenset()
    parts: tuple[_Node, ...] = ()


def _chars(characters: frozenset[str]) -> _Node:
    return _Node("chars", characters)


def _seq(parts: Sequence[_Node]) -> _Node:
    return _Node("seq", parts=tuple(parts))


def _alt(parts: Sequence[_Node]) -> _Node:
    return _Node("alt", parts=tuple(parts))


def _text(text: str) -> _Node:
    return _seq([_chars(frozenset(character)) for character in text])


def _number(width: int) -> _Node:
    if width:
        return _seq([_chars(_LEADING), *[_chars(_DIGITS)] * (width - 1)])
    more = _Node("star", parts=(_chars(_DIGITS),))
    return _alt([_chars(frozenset("0")), _seq([_chars(_LEADING), more])])


# ---------------------------------------------------------------- fields


@dataclass(frozen=True)
class Field:
    """How the values of one field are spelled.

    Attributes:
        name: in templates.
        none: how no value is spelled, e.g. ``cpu``; None where a field has to have one, or stands
            in brackets.
    """

    name: str
    none: str | None = None

    def spell(self, value: str | None, style: str = "") -> str:
        """A value as it is written.

        Raises:
            ValueError: it cannot be written.
        """
        if value is None:
            if self.none is None:
                raise ValueError(f"{self.name} has no value")
            return self.none
        text = self._spell(value, style)
        if text == self.none:
            raise ValueError(f"{value!r} is spelled as no {self.name} is")
        return text

    def read(self, text: str, style: str = "") -> str | None:
        """The value that is written so.

        Raises:
            ValueError: none is.
        """
        return None if text == self.none else self._read(text, style)

    def node(self, style: str = "") -> _Node:
        """All texts of the field."""
        node = self._node(style)
        return node if self.none is None else _alt([_text(self.none), node])

    def pattern_of(self, style: str = "") -> str:
        """All texts of the field as a regular expression without groups of its own."""
        pattern = self._pattern(style)
        return pattern if self.none is None else f"{re.escape(self.none)}|{pattern}"

    def example(self, style: str = "") -> str:
        """One text of the field, for messages."""
        raise NotImplementedError

    def _spell(self, value: str, style: str) -> str:
        raise NotImplementedError

    def _read(self, text: str, style: str) -> str:
        raise NotImplementedError

    def _node(self, style: str) -> _Node:
        raise NotImplementedError

    def _pattern(self, style: str) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class Form(Field):
    """Numbers in a text, such as ``cu{major:2}{minor}``; the value is ``12.4``."""

    form: str = "{number}"

    @property
    def widths(self) -> list[int]:
        """The digits of each number, 0 for any count."""
        return [item for item in self._pieces("") if isinstance(item, int)]

    def _pieces(self, style: str) -> tuple[str | int, ...]:
        """The form's literal texts, and for every number its width."""
        return _pieces(self, style)

    def _read_form(self, style: str) -> Iterator[str | int]:
        end = 0
        for found in _REFERENCE.finditer(self.form):
            yield self._literal(self.form[end : found.start()], style)
            width = found["style"]
            if width is not None and (not width.isdigit() or not 0 < int(width) < _MAX_DIGITS):
                raise ConfigError(
                    f"{found[0]!r} has no width {width!r}",
                    where=f"the form of {self.name}",
                    expected="a number of digits, such as {major:2}",
                )
            yield int(width or 0)
            end = found.end()
        yield self._literal(self.form[end:], style)

    def _literal(self, text: str, style: str) -> str:
        if "{" in text or "}" in text:
            raise ConfigError(
                f"{self.form!r} has a brace that is no {{name}} or {{name:width}}",
                where=f"the form of {self.name}",
            )
        if style not in ("", "flat"):
            raise ConfigError(
                f"{{{self.name}:{style}}} is no style", expected="flat, the form without dots"
            )
        return re.sub(r"[.\-_]", "", text) if style == "flat" else text

    def _spell(self, value: str, style: str) -> str:
        numbers = value.split(".")
        widths = self.widths
        valid = len(numbers) == len(widths) and all(
            re.fullmatch(_number_pattern(width), number, re.ASCII)
            for number, width in zip(numbers, widths)
        )
        if not valid:
            raise ValueError(f"{value!r} does not fit {self.form!r}")
        left = iter(numbers)
        return "".join(
            next(left) if isinstance(piece, int) else piece for piece in self._pieces(style)
        )

    def _read(self, text: str, style: str) -> str:
        found = re.fullmatch(self._pattern(style, group=True), text, re.ASCII)
        if not found:
            raise ValueError(f"{text!r} does not fit {self.form!r}")
        return ".".join(found.groups())

    def _node(self, style: str) -> _Node:
        return _seq(
            [
                _number(piece) if isinstance(piece, int) else _text(piece)
                for piece in self._pieces(style)
            ]
        )

    def _pattern(self, style: str, group: bool = False) -> str:
        mark = "(" if group else "(?:"
        return "".join(
            f"{mark}{_number_pattern(piece)})" if isinstance(piece, int) else re.escape(piece)
            for piece in self._pieces(style)
        )

    def example(self, style: str = "") -> str:
        """One text of the field, for messages."""
        digits = iter("2413579" * 3)
        return "".join(
            "12"[:piece].ljust(piece, "0")
            if isinstance(piece, int) and piece > 1
            else next(digits)
            if isinstance(piece, int)
            else piece
            for piece in self._pieces(style)
        )


@lru_cache(maxsize=None)
def _pieces(form: Form, style: str) -> tuple[str | int, ...]:
    return tuple(form._read_form(style))


def _number_pattern(width: int) -> str:
    return rf"[1-9][0-9]{{{width - 1}}}" if width else rf"(?:0|[1-9][0-9]{{0,{_MAX_DIGITS - 1}}})"


@dataclass(frozen=True)
class Choices(Field):
    """One of a few words."""

    choices: tuple[str, ...] = ()

    def _spell(self, value: str, style: str) -> str:
        return self._read(value, style)

    def _read(self, text: str, style: str) -> str:
        if text not in self.choices:
            raise ValueError(f"{text!r} is none of {', '.join(self.choices)}")
        return text

    def _node(self, style: str) -> _Node:
        return _alt([_text(choice) for choice in self.choices])

    def _pattern(self, style: str) -> str:
        # Of two choices, one the beginning of the other, the longer first.
        return "|".join(re.escape(item) for item in sorted(self.choices, key=len, reverse=True))

    def example(self, style: str = "") -> str:
        """One text of the field, for messages."""
        return self.choices[0]


@dataclass(frozen=True)
class Word(Field):
    """Characters of one class, a number of them.

    Attributes:
        characters: which they are, e.g. ``0123456789abcdef``.
        least, most: how many; `most` 0 for any number.
    """

    characters: str = ""
    least: int = 1
    most: int = 0

    def _spell(self, value: str, style: str) -> str:
        return self._read(value, style)

    def _read(self, text: str, style: str) -> str:
        if not re.fullmatch(self._pattern(style), text):
            raise ValueError(f"{text!r} is not {self._counted()} characters of {self.characters}")
        return text

    def _counted(self) -> str:
        return f"{self.least} to {self.most}" if self.most else f"at least {self.least}"

    def _node(self, style: str) -> _Node:
        one = _chars(frozenset(self.characters))
        if not self.most:
            return _seq([one] * self.least + [_Node("star", parts=(one,))])
        rest = _seq([])
        for _ in range(self.most - self.least):
            rest = _Node("opt", parts=(_seq([one, rest]),))
        return _seq([one] * self.least + [rest])

    def _pattern(self, style: str) -> str:
        return f"[{re.escape(self.characters)}]{{{self.least},{self.most or ''}}}"

    def example(self, style: str = "") -> str:
        """One text of the field, for messages."""
        return (self.characters * self.least)[-self.least :]


# ---------------------------------------------------------------- templates


@dataclass(frozen=True)
class _Reference:
    field: Field
    style: str


class Template:
    """A template and the fields in it.

    Args:
        text: the template.
        fields: by name.
        where: the key that has it, for messages.

    Raises:
        ConfigError: a field that is not there or stands twice, brackets that do not close or hold
            no field, or a template that can be read in two ways.
    """

    def __init__(self, text: str, fields: Mapping[str, Field], where: str) -> None:
        self.text = text
        self._where = where
        self._elements = list(self._parsed(text, fields))
        references = list(self._references())
        self.names = tuple(reference.field.name for reference in references)
        for name in self.names:
            if self.names.count(name) > 1:
                raise ConfigError(f"{text!r} has {{{name}}} twice", where=where)
        twice = ambiguity(self._node())
        if twice is not None:
            raise ConfigError(
                f"{text!r} can be read in two ways: {twice!r}",
                where=where,
                expected="a template that says where each number ends",
                fix="give a number its digits, as {major:1}, or put a character between two fields",
            )
        self._pattern = re.compile(self._regular_expression(), re.ASCII)

    def format(self, values: Mapping[str, str | None], left: Collection[str] = ()) -> str:
        """The text of these values.

        Args:
            values: of the fields, by name.
            left: fields that stay as the template has them, ``{cuda}`` or ``{torch:flat}``.

        Raises:
            ValueError: a value that cannot be written.
        """
        written = []
        for element in self._elements:
            if not isinstance(element, tuple):
                written.append(self._written(element, values, left))
                continue
            inside = [item.field.name for item in element if isinstance(item, _Reference)]
            if all(name in left or values.get(name) is not None for name in inside):
                written += [self._written(item, values, left) for item in element]
        return "".join(written)

    def parse(self, text: str) -> dict[str, str | None]:
        """The values that are written so; a field whose brackets are not there has None.

        Raises:
            ValueError: the text is not one of the template's.
        """
        found = self._pattern.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is not of the form {self.text!r}")
        return {
            reference.field.name: (
                None
                if found[reference.field.name] is None
                else reference.field.read(found[reference.field.name], reference.style)
            )
            for reference in self._references()
        }

    @property
    def example(self) -> str:
        """One text, for messages: without what stands in brackets."""
        return "".join(
            element if isinstance(element, str) else element.field.example(element.style)
            for element in self._elements
            if not isinstance(element, tuple)
        )

    @property
    def literals(self) -> str:
        """All characters that are not a field's."""
        return "".join(
            item
            for element in self._elements
            for item in (element if isinstance(element, tuple) else (element,))
            if isinstance(item, str)
        )

    def rewritten_by_pep440(self) -> str | None:
        """A text of the template that PEP 440 would rewrite in a local version, or None."""
        return rewritten_by_pep440(self._node())

    def _parsed(
        self, text: str, fields: Mapping[str, Field]
    ) -> Iterator[str | _Reference | tuple[str | _Reference, ...]]:
        for number, part in enumerate(re.split(r"(\[[^\[\]]*\])", text)):
            if number % 2:
                inside = tuple(self._flat(part[1:-1], fields))
                references = [item for item in inside if isinstance(item, _Reference)]
                if not references:
                    raise ConfigError(f"no field in the brackets {part!r}", where=self._where)
                for reference in references:
                    if reference.field.none is not None:
                        raise ConfigError(
                            f"{{{reference.field.name}}} in brackets is always there: no value is "
                            f"spelled {reference.field.none!r}",
                            where=self._where,
                        )
                yield inside
            else:
                yield from self._flat(part, fields)

    def _flat(self, text: str, fields: Mapping[str, Field]) -> Iterator[str | _Reference]:
        end = 0
        for found in _REFERENCE.finditer(text):
            yield self._literal(text[end : found.start()])
            field = fields.get(found["name"])
            if field is None:
                raise ConfigError(
                    f"there is no field {found['name']!r}",
                    where=self._where,
                    expected=", ".join(sorted(fields)),
                )
            yield _Reference(field, found["style"] or "")
            end = found.end()
        yield self._literal(text[end:])

    def _literal(self, text: str) -> str:
        if re.search(r"[\[\]{}]", text):
            raise ConfigError(
                f"a bracket or brace in {text!r} that closes nothing, or is not closed",
                where=self._where,
                expected="{field}, {field:flat} or [text{field}]",
            )
        return text

    def _references(self) -> Iterator[_Reference]:
        for element in self._elements:
            for item in element if isinstance(element, tuple) else (element,):
                if isinstance(item, _Reference):
                    yield item

    @staticmethod
    def _written(
        item: str | _Reference, values: Mapping[str, str | None], left: Collection[str]
    ) -> str:
        if isinstance(item, str):
            return item
        if item.field.name in left:
            return f"{{{item.field.name}{':' if item.style else ''}{item.style}}}"
        return item.field.spell(values.get(item.field.name), item.style)

    def _node(self) -> _Node:
        nodes = []
        for element in self._elements:
            items = element if isinstance(element, tuple) else (element,)
            inside = _seq(
                [
                    _text(item) if isinstance(item, str) else item.field.node(item.style)
                    for item in items
                ]
            )
            nodes.append(_Node("opt", parts=(inside,)) if isinstance(element, tuple) else inside)
        return _seq(nodes)

    def _regular_expression(self) -> str:
        written = []
        for element in self._elements:
            items = element if isinstance(element, tuple) else (element,)
            inside = "".join(
                re.escape(item)
                if isinstance(item, str)
                else f"(?P<{item.field.name}>{item.field.pattern_of(item.style)})"
                for item in items
            )
            written.append(f"(?:{inside})?" if isinstance(element, tuple) else inside)
        return "".join(written)


# ---------------------------------------------------------------- the proof


class _Automaton:
    """The Glushkov automaton of a node: one state a character class, and the start, 0.

    Two parses of a text are two runs of it, because each state is one place in the expression.
    """

    def __init__(self, node: _Node) -> None:
        self.classes: list[frozenset[str]] = [frozenset()]
        self.follow: list[set[int]] = [set()]
        nullable, first, last = self._build(node)
        self.follow[0] = set(first)
        self.accepting = set(last) | ({0} if nullable else set())

    def _build(self, node: _Node) -> tuple[bool, list[int], list[int]]:
        if node.kind == "chars":
            self.classes.append(node.chars)
            self.follow.append(set())
            place = len(self.classes) - 1
            return False, [place], [place]
        if node.kind == "alt":
            parts = [self._build(part) for part in node.parts]
            return (
                any(part[0] for part in parts),
                [state for part in parts for state in part[1]],
                [state for part in parts for state in part[2]],
            )
        if node.kind in ("opt", "star"):
            _, first, last = self._build(node.parts[0])
            if node.kind == "star":
                self._link(last, first)
            return True, first, last
        nullable, first, last = True, [], []
        for part in node.parts:
            empty, begins, ends = self._build(part)
            self._link(last, begins)
            first = first + begins if nullable else first
            last = last + ends if empty else ends
            nullable = nullable and empty
        return nullable, first, last

    def _link(self, last: Sequence[int], first: Sequence[int]) -> None:
        for state in last:
            self.follow[state].update(first)


def ambiguity(node: _Node) -> str | None:
    """The shortest text that `node` has in two ways, or None where every text is there in one."""
    automaton = _Automaton(node)
    start = (0, 0, False)
    came: dict[tuple[int, int, bool], tuple[tuple[int, int, bool], str] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        one, other, differ = state = waiting.popleft()
        if differ and one in automaton.accepting and other in automaton.accepting:
            return _spelled(came, state)
        for left in automaton.follow[one]:
            for right in automaton.follow[other]:
                common = automaton.classes[left] & automaton.classes[right]
                following = (left, right, differ or left != right)
                if common and following not in came:
                    came[following] = (state, min(common))
                    waiting.append(following)
    return None


def rewritten_by_pep440(node: _Node) -> str | None:
    """The shortest text of `node` with a numeric part that has a leading zero, or None.

    Installers write the local version ``1.007`` as ``1.7``.
    """
    automaton = _Automaton(node)
    # Of the part that is being read: its beginning, a zero, a zero and digits, others; and whether
    # a part before it was one that is rewritten.
    start = (0, "begin", False)
    came: dict[tuple[int, str, bool], tuple[tuple[int, str, bool], str] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        place, part, found = state
        if (found or part == "zero digits") and place in automaton.accepting:
            return _spelled(came, state)
        for place_after in automaton.follow[place]:
            for character in automaton.classes[place_after]:
                following = (place_after, *_numeric_part(part, found, character))
                if following not in came:
                    came[following] = (state, character)
                    waiting.append(following)
    return None


def _numeric_part(part: str, found: bool, character: str) -> tuple[str, bool]:
    if character in ".-_":
        return "begin", found or part == "zero digits"
    if part == "begin":
        return ("zero" if character == "0" else "other"), found
    if part in ("zero", "zero digits") and character in _DIGITS:
        return "zero digits", found
    return "other", found


def _spelled(came: Mapping[_State, tuple[_State, str] | None], state: _State) -> str:
    """The characters that led to `state`."""
    characters = []
    step = came[state]
    while step is not None:
        state, character = step
        characters.append(character)
        step = came[state]
    return "".join(reversed(characters))
