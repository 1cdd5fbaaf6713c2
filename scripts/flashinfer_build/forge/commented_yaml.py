"""YAML as our recipes are written, changed as data and written again with its comments.

Block mappings and block lists, two columns a level, with comments and blank lines above entries.
Scalars are kept as they are spelled. Any other form of YAML is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from conda_bridge.errors import ConfigError

__all__ = ["Entry", "dump", "load"]


@dataclass
class Entry:
    """A value in a mapping or a list.

    Attributes:
        value: a scalar as it is spelled (lines after the first without their indentation), or the
            entries of a mapping or of a list.
        above: the comments and blank lines above it, without indentation.
    """

    value: str | dict[str, Entry] | list[Entry]
    above: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The scalar.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(self.value, str):
            raise ConfigError("a mapping or a list", expected="a plain value")
        return self.value

    @property
    def sequence(self) -> list[Entry]:
        """The entries of the list.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(self.value, list):
            raise ConfigError(f"{self.value!r}", expected="a list")
        return self.value

    @property
    def mapping(self) -> dict[str, Entry]:
        """The entries of the mapping.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(self.value, dict):
            raise ConfigError(f"{self.value!r}", expected="a mapping")
        return self.value

    def __getitem__(self, key: str) -> Entry:
        """The entry under `key` of the mapping.

        Raises:
            ConfigError: it has no such key.
        """
        found = self.mapping.get(key)
        if found is None:
            raise ConfigError(
                f"there is no {key!r}", expected=f"{key!r} beside {', '.join(self.mapping)}"
            )
        return found

    def take(self, key: str) -> Entry:
        """Removes `key` from the mapping and returns its entry.

        Raises:
            ConfigError: it has no such key.
        """
        found = self[key]
        del self.mapping[key]
        return found

    def walk(self) -> Iterator[Entry]:
        """This entry and all below it."""
        yield self
        below = self.value.values() if isinstance(self.value, dict) else self.value
        for entry in () if isinstance(below, str) else below:
            yield from entry.walk()


def load(text: str, where: str) -> Entry:
    """Reads a document.

    Args:
        text: its text.
        where: its name, for messages.

    Raises:
        ConfigError: not YAML, or of a form that :func:`dump` would not write in the same way.
    """
    try:
        return _loaded(text, where)
    except RecursionError:
        raise ConfigError("lists in one another without end", where=where) from None


def _loaded(text: str, where: str) -> Entry:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}", where=where) from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError("not a mapping", where=where)
    document = Entry(_Reader(text).value(node))
    written = dump(document)
    if written != text:
        pairs = enumerate(zip(text.splitlines(), written.splitlines(), strict=False), 1)
        line = next((number for number, (old, new) in pairs if old != new), len(text.splitlines()))
        raise ConfigError(
            "a form of YAML that would not be written again as it is",
            where=f"{where}:{line}",
            expected="block style, two columns a level, comments on lines of their own",
        )
    return document


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = text.splitlines()
        self._taken = 0  # lines above this one belong to entries that were read

    def value(self, node: yaml.Node) -> str | dict[str, Entry] | list[Entry]:
        if isinstance(node, yaml.MappingNode):
            entries = {}
            for key, value in node.value:
                above = self._above(key)
                entries[str(key.value)] = Entry(self.value(value), above)
            return entries
        if isinstance(node, yaml.SequenceNode):
            items = []
            for item in node.value:
                above = self._above(item)
                items.append(Entry(self.value(item), above))
            return items
        spelled = self._text[node.start_mark.index : node.end_mark.index].rstrip("\n")
        return "\n".join(line.strip() for line in spelled.split("\n"))

    def _above(self, node: yaml.Node) -> list[str]:
        """The lines between the entry before and this one: comments, or nothing at all."""
        line = first = node.start_mark.line
        while first > self._taken and self._lines[first - 1].strip()[:1] in ("", "#"):
            first -= 1
        self._taken = line + 1
        return [text.strip() for text in self._lines[first:line]]


def dump(document: Entry) -> str:
    """Writes a document."""
    return "\n".join(_lines(document, "")) + "\n"


def _lines(entry: Entry, indent: str) -> Iterator[str]:
    if isinstance(entry.value, dict):
        for key, below in entry.value.items():
            yield from _above(below, indent)
            if isinstance(below.value, str):
                yield from _scalar(f"{indent}{key}: ", below.value, indent + "  ")
            else:
                yield f"{indent}{key}:"
                yield from _lines(below, indent + "  ")
    elif isinstance(entry.value, list):
        for item in entry.value:
            yield from _above(item, indent)
            if isinstance(item.value, str):
                yield from _scalar(f"{indent}- ", item.value, indent + "  ")
            else:
                first, *others = _lines(item, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from others


def _above(entry: Entry, indent: str) -> Iterator[str]:
    for line in entry.above:
        yield indent + line if line else ""


def _scalar(start: str, spelled: str, indent: str) -> Iterator[str]:
    first, *others = spelled.split("\n")
    yield start + first
    for line in others:
        yield indent + line if line else ""
