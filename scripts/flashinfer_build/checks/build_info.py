"""``flashinfer/_build_info.py``: what the build wrote down of itself, read without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from conda_bridge.errors import ArtifactError

if TYPE_CHECKING:  # it needs packaging, and a machine with a GPU may have no such package
    from ..label import Label

__all__ = ["PATH", "differences", "expected", "parse", "read", "release"]

PATH = "flashinfer/_build_info.py"  # in the wheel
_LONGEST = 64 << 10  # a build writes less than one KiB


def parse(source: bytes) -> dict[str, object]:
    """The constants in it: texts, numbers of 64 bits, truth values.

    Raises:
        ValueError: not Python, too long, or more in it than such constants.
    """
    if len(source) > _LONGEST:
        raise ValueError(f"{len(source)} bytes, and at most {_LONGEST} are read")
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"not Python: {error}") from error
    values: dict[str, object] = {}
    for number, statement in enumerate(body):
        if number == 0 and isinstance(statement, ast.Expr):
            continue  # the docstring
        if (
            not isinstance(statement, ast.Assign)
            or not isinstance(statement.value, ast.Constant)
            or len(statement.targets) != 1
            or not isinstance(statement.targets[0], ast.Name)
        ):
            raise ValueError(f"line {statement.lineno} is not a constant")
        if not _is_plain(statement.value.value):
            kind = type(statement.value.value).__name__
            raise ValueError(f"line {statement.lineno} is {kind}, no text, number or truth value")
        values[statement.targets[0].id] = statement.value.value
    return values


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
        "CONDA_VERSION": label.conda_version,
        "VARIANT": label.variant.id,
        "TORCH": "{}.{}".format(*label.variant.torch),
        "COMMIT": label.commit or "",
        "BUILD_NUMBER": label.build_number,
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
