"""docs/conda-bridge-config.md against the reader: every key, its type and its default, no other."""

from __future__ import annotations

import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conda_bridge import config
from conda_bridge.project import Project

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conda-bridge-config.md"
TABLES = {
    "[tool.conda-bridge]": config.Config,
    "[tool.conda-bridge.label]": config.LabelTable,
    "[tool.conda-bridge.label.fields.<name>]": config.FieldTable,
    "[[tool.conda-bridge.fold]]": config.FoldTable,
    "[tool.conda-bridge.dependencies.<name>]": config.Dropped,
    "[tool.conda-bridge.page]": config.PageTable,
}


def rows() -> dict[str, dict[str, list[str]]]:
    """By heading and key, the cells of its row."""
    found: dict[str, dict[str, list[str]]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        lines = [line for line in text.splitlines() if line.startswith("| `")]
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        found[heading.strip("`")] = {row[0].strip(" `"): row[1:] for row in cells}
    return found


ROWS = rows()
KEYS = [
    (heading, field.encode_name)
    for heading in TABLES
    for field in msgspec.structs.fields(TABLES[heading])
]


def in_words(kind: Any) -> str:
    """A type as the page has it."""
    if kind in (str, int):
        return {str: "string", int: "whole number"}[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "table"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(in_words(item) for item in arguments if item is not type(None))
    plural = {"string": "strings", "table": "tables", "list of strings": "lists of strings"}
    inner = " or ".join(
        plural[word]
        for word in in_words(arguments[-1] if origin is dict else arguments[0]).split(" or ")
    )
    return f"{'table' if origin is dict else 'list'} of {inner}"


def test_every_table_has_its_section() -> None:
    assert set(ROWS) == set(TABLES)


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_and_no_other(heading: str) -> None:
    assert list(ROWS[heading]) == [
        item.encode_name for item in msgspec.structs.fields(TABLES[heading])
    ]


@pytest.mark.parametrize(("heading", "key"), KEYS)
def test_type_default_and_example(heading: str, key: str) -> None:
    kind, default, meaning, example = ROWS[heading][key]
    [field] = [item for item in msgspec.structs.fields(TABLES[heading]) if item.encode_name == key]
    hints = typing.get_type_hints(TABLES[heading])
    assert kind == in_words(hints[field.name])
    assert meaning
    if default == "required":
        assert field.required
    elif default == "none":
        assert field.default is None
    else:
        value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        value = msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
        stated = tomllib.loads(f"x = {default.strip('`')}")["x"]
        assert stated == (list(value) if isinstance(value, tuple) else value)
        # The meaning of an empty value is said, where it has one of its own.
        if stated == "" and not meaning.startswith(
            ("numbers in a text", "characters of", "said where")
        ):
            assert re.search(r"Empty: ", meaning), key
    if not example:
        assert "see below" in meaning
        return
    text = example.strip("`")
    if example and default != "none":
        msgspec.convert(tomllib.loads(f"x = {text}")["x"], hints[field.name])


def test_the_example_of_the_page_is_a_project() -> None:
    [block] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.S)
    table = tomllib.loads(block)["tool"]["conda-bridge"]
    project = Project.of(config.parse(table, "page"), hooks=False)
    label = project.scheme.label("1.0", {"cuda": "12.4", "torch": "2.4"})
    assert project.scheme.conda_build(label) == "cu124_torch24_0"
    assert project.scheme.wheel_version(label) == "1.0+cu124torch2.4"


def test_every_hook_is_a_hook_of_the_table(root: Path) -> None:
    """This project's own table, read as the programs read it."""
    project = Project.load(root / "pyproject.toml")
    assert type(project.hooks).__module__ == project.config.hooks
