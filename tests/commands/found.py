"""Commands that install something, found where they are written: documents, comments, programs."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_COMMAND = re.compile(
    r"(?<![\w.-])(?:python[\d.]* -m )?"
    r"((?:uv )?(?:pip3?|conda|mamba|micromamba)"
    r" (?:install|download|create|update|upgrade)\b(?!-).*)"
)
_PROGRAMS = ("scripts", "flashinfer", "recipe", "examples", "benchmarks")
_DOCUMENTS = ("docs", "examples", "scripts", "recipe", "tests")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        file: relative to the project.
        text: from ``pip``, ``uv`` or ``conda`` on. What a program fills in is ``{}``.
    """

    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


def in_documents(root: Path) -> Iterator[Command]:
    """Of the code in Markdown, in blocks and in lines, and of the comments in environment files."""
    for path in [*root.glob("*.md"), *_below(root, _DOCUMENTS, "*.md")]:
        for code in _code(MarkdownIt().enable("table").parse(path.read_text())):
            yield from _commands(code, path.relative_to(root))
    for path in sorted(root.glob("environment*.yml")):
        yield from _commands(path.read_text(), path.relative_to(root))


def in_programs(root: Path) -> Iterator[Command]:
    """Of every text in the Python that is no test; in docstrings, where it is set off."""
    for file, text, docstring in texts_of_programs(root):
        yield from _commands(text, Path(file), prose=docstring)


@functools.cache
def texts_of_programs(root: Path) -> tuple[tuple[str, str, bool], ...]:
    """The file of each text, the text, and whether it is a docstring."""
    return tuple(_of_programs(root))


def _of_programs(root: Path) -> Iterator[tuple[str, str, bool]]:
    for path in [*root.glob("setup.py"), *_below(root, _PROGRAMS, "*.py")]:
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node, text in _texts(tree):
            yield str(path.relative_to(root)), text, id(node) in docstrings


def _below(root: Path, folders: tuple[str, ...], pattern: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob(pattern))


def _code(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type in ("fence", "code_block", "code_inline"):
            yield token.content
        yield from _code(token.children or [])


def _texts(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    inside: set[int] = set()
    for node in ast.walk(tree):  # what is around comes before what is inside
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            inside.update(map(id, node.values))
            yield node, "".join(map(str, parts))
        elif isinstance(value := getattr(node, "value", None), str) and id(node) not in inside:
            yield node, value


def _commands(text: str, file: Path, *, prose: bool = False) -> Iterator[Command]:
    # What a shell continues on the next line is one.
    for line in text.replace("\\\n", " ").splitlines():
        for found in _COMMAND.finditer(line):
            before = line[: found.start()]
            words = found[1].partition("`")[0] if before.endswith("`") else found[1]
            if not prose or before.endswith("`") or not before.strip():
                yield Command(str(file), words.strip())
