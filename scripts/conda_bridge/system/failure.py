"""How a program tells a person, or another program, that it failed."""

from __future__ import annotations

import json
import sys

from ..errors import BridgeError

__all__ = ["failure"]


def failure(error: BridgeError, *, as_json: bool) -> int:
    """Prints `error` (JSON on standard output, text on standard error); returns its exit code."""
    if as_json:
        print(json.dumps(error.as_dict(), indent=2))
    else:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code
