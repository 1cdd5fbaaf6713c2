"""``flashinfer/_build_info.py``: what the build wrote down of itself, read without running it."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from conda_bridge.errors import ArtifactError

if TYPE_CHECKING:  # it needs packaging, and a machine with a GPU may have no such package
    from ..label import Label

__all__ = ["PATH", "differences", "expected", "parse", "read", "release"]

PATH = "flashinfer/_build_info.py"  # in the wheel
_NOTHING = (tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER)
_LONGEST = 64 << 10  # a build writes less than one KiB


def parse(source: bytes) -> dict[str, object]:
    """The constants in it: texts, numbers of 64 bits, truth values.

    It is read token by token, since Python's own parser goes as deep as an expression does.

    Raises:
        ValueError: not Python in UTF-8, too long, or more in it than a docstring and lines
            ``NAME = constant``.
    """
    if len(source) > _LONGEST:
        raise ValueError(f"{len(source)} bytes, and at most {_LONGEST} are read")
    if b"\r" in source.replace(b"\r\n", b""):
        raise ValueError("a carriage return, which ends a line for Python and not for all readers")
    values: dict[str, object] = {}
    for number, line in enumerate(_lines(source)):
        if number == 0 and [token.type for token in line] == [tokenize.STRING]:
            continue  # the docstring
        if line[-1].string == "=":
            raise ValueError(f"not Python: line {line[0].start[0]} ends where a value belongs")
        if (
            len(line) not in (3, 4)
            or line[0].type != tokenize.NAME
            or keyword.iskeyword(line[0].string)
            or line[1].string != "="
        ):
            raise ValueError(f"line {line[0].start[0]} is not a constant")
        values[line[0].string] = _constant(line[2:])
    return values


def _lines(source: bytes) -> Iterator[list[tokenize.TokenInfo]]:
    """The tokens of each statement."""
    line: list[tokenize.TokenInfo] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source.decode()).readline):
            if token.type == tokenize.NEWLINE:
                if line:
                    yield line
                line = []
            elif token.type not in _NOTHING:
                line.append(token)
        if line:
            yield line
    except (SyntaxError, tokenize.TokenError, UnicodeDecodeError) as error:
        raise ValueError(f"not Python: {error}") from error


def _constant(tokens: list[tokenize.TokenInfo]) -> object:
    minus, last = tokens[:-1], tokens[-1]
    where = f"line {last.start[0]}"
    negative = [token.string for token in minus] == ["-"] and last.type == tokenize.NUMBER
    if minus and not negative:
        raise ValueError(f"{where} is not a constant")
    try:
        value = ast.literal_eval(last.string)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{where} is not a constant") from None
    if not _is_plain(value):
        kind = type(value).__name__
        raise ValueError(f"{where} is {kind}, no text, number of 64 bits or truth value")
    return -value if minus and isinstance(value, int) else value


def _is_plain(value: object) -> bool:
    """Whether it can be compared, shown, and written as JSON."""
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    if isinstance(value, str):
        return not any("\ud800" <= one <= "\udfff" for one in value)
    return value is None


def read(source: bytes, where: str, fix: str = "") -> dict[str, object]:
    """The constants in it.

    Raises:
        ArtifactError: not Python, or more in it than constants.
    """
    try:
        return parse(source)
    except ValueError as error:
        raise ArtifactError(
            f"cannot be read: {error}", where=where, expected="names with constants", fix=fix
        ) from error


def expected(label: Label) -> dict[str, object]:
    """What it has to say in an artifact of this label."""
    return {
        "VERSION": label.wheel_version,
        "PUBLIC_VERSION": label.public_version,
        "VARIANT": label.variant.id,
        "TORCH": "{}.{}".format(*label.variant.torch),
        "COMMIT": label.commit or "",
        "BUILD_NUMBER": label.build_number,
        **label.requests,
    }


def differences(
    found: Mapping[str, object], wanted: Mapping[str, object]
) -> Iterator[tuple[str, object, object]]:
    """Name, value found and value wanted of each that differs; a bool is not a number here."""
    for name, value in wanted.items():
        have = found.get(name)
        if type(have) is not type(value) or have != value:
            yield name, have, value


def release(cuda: str) -> str:
    """``13.0`` of the ``13.0.88`` that ``CUDA`` says; empty for the CPU."""
    return ".".join(cuda.split(".")[:2])
