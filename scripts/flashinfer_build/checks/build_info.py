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


def parse(source: bytes) -> dict[str, object]:
    """The constants in it.

    Raises:
        ValueError: not Python, or more in it than constants.
    """
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
        values[statement.targets[0].id] = statement.value.value
    return values


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
