"""What both directions have in common: one file after another, a bar, lines or JSON for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import BridgeError, ConfigError, StorageError
from ..system.failure import stage
from ..system.terminal import print_json, say
from .display import Report, bar

__all__ = ["convert_all", "written_line"]

SCHEMA = 1


class _Result(Protocol):
    """What became of one file, in either direction."""

    def as_dict(self) -> Mapping[str, Any]:
        """For ``--json``."""


_AnyResult = TypeVar("_AnyResult", bound=_Result)


def convert_all(
    paths: Sequence[Path],
    convert: Callable[[Path, Report | None], _AnyResult],
    lines: Callable[[_AnyResult], Iterable[str]],
    output: Path,
    *,
    key: str,
    as_json: bool,
) -> int:
    """Converts each of `paths`; a failure of one does not keep the others.

    Args:
        paths: the files.
        convert: one of them, with a display of (bytes done, bytes in all) or None.
        lines: what a person is told of a result.
        output: where to, for messages.
        key: of the results in the JSON object.
        as_json: print one object at the end, and no lines.

    Returns:
        The exit status: the worst of all.
    """
    made: list[_AnyResult] = []
    errors: list[BridgeError] = []
    for path in paths:
        try:
            with bar(path, quiet=as_json) as report, stage("converting", path):
                result = convert(path, report)
        except OSError as error:
            error.filename = error.filename or str(output)  # a full disk has no name
            errors.append(StorageError(error))
        except BridgeError as error:
            # One of many: what is wrong with a member, or a field, says of which file it is.
            errors.append(error if isinstance(error, ConfigError) else error.within(path.name))
        else:
            made.append(result)
            if not as_json:
                for line in lines(result):
                    say(line)
            continue
        if not as_json:
            print(f"error: {errors[-1]}", file=sys.stderr)
    if as_json:
        results = [result.as_dict() for result in made]
        failures = [error.as_dict() for error in errors]
        print_json({"schema": SCHEMA, key: results, "errors": failures})
    return max((error.exit_code for error in errors), default=0)


def written_line(
    path: Path, outcome: str, *, size: int, sha256: str, files: int, more: str = ""
) -> str:
    """One file that was written, is unchanged, or would be written (``checked``)."""
    if outcome == "checked":
        return f"would write  {path}  ({files} files{more and f', {more}'})"
    return f"{outcome:<11}  {path}  {size / 1e6:.1f} MB{more and f'  {more}'}  sha256 {sha256[:16]}"
