"""What both directions have in common: one file after another, a bar, a line or JSON for each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import BridgeError, StorageError
from .display import Report, bar

__all__ = ["Converted", "convert_all"]

SCHEMA = 1


class Converted(Protocol):
    """What became of one file, in either direction."""

    path: Path
    outcome: str
    sha256: str
    size: int
    seconds: float
    payload_size: int

    @property
    def payload(self) -> Sequence[str]:
        """The files of the payload."""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""


def convert_all(
    paths: Sequence[Path],
    convert: Callable[[Path, Report | None], Converted],
    output: Path,
    *,
    key: str,
    as_json: bool,
) -> int:
    """Converts each of `paths`; a failure of one does not keep the others.

    Args:
        paths: the files.
        convert: one of them, with a display of (bytes done, bytes in all) or None.
        output: where to, for messages.
        key: of the results in the JSON object.
        as_json: print one object at the end, and no lines.

    Returns:
        The exit status: the worst of all.
    """
    made: list[Converted] = []
    errors: list[BridgeError] = []
    for path in paths:
        try:
            with bar(path, quiet=as_json) as report:
                result = convert(path, report)
        except BrokenPipeError:
            raise
        except OSError as error:
            error.filename = error.filename or str(output)  # a full disk has no name
            errors.append(StorageError(error))
        except BridgeError as error:
            errors.append(error)
        else:
            made.append(result)
            if not as_json:
                print(_line(result))
            continue
        if not as_json:
            print(f"error: {errors[-1]}", file=sys.stderr)
    if as_json:
        results = [result.as_dict() for result in made]
        failures = [error.as_dict() for error in errors]
        print(json.dumps({"schema": SCHEMA, key: results, "errors": failures}, indent=2))
    return max((error.exit_code for error in errors), default=0)


def _line(result: Converted) -> str:
    if result.outcome == "checked":
        return (
            f"would write  {result.path}  ({len(result.payload)} files,"
            f" {result.payload_size / 1e6:.1f} MB unpacked)"
        )
    return (
        f"{result.outcome:<11}  {result.path}  {result.size / 1e6:.1f} MB"
        f"  {result.seconds:.1f} s  sha256 {result.sha256[:16]}"
    )
