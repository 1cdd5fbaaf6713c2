"""Imports torch, then flashinfer, and prints as lines of JSON what came of it.

A program for ``flashinfer.env``, which has it run by another process: a broken torch may end that,
and hang it. Its argument is ``sys.path``, as JSON. Not to be imported.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def _failure(error: BaseException) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "text": str(error),
        "missing": getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None,
        "finding": getattr(error, "finding", None),
    }


def _torch() -> dict[str, Any]:
    import torch

    answer = {"place": getattr(torch, "__file__", None) or str(list(torch.__path__)[:1])}
    return {
        **answer,
        "version": str(torch.__version__),
        "cuda": str(torch.version.cuda or ""),
        "cxx11_abi": bool(torch.compiled_with_cxx11_abi()),
    }


def _flashinfer() -> dict[str, Any]:
    import flashinfer
    from flashinfer import _compat, _ops

    binding, library = _ops.build_info()
    return {
        "version": flashinfer.__version__,
        "binding": binding,
        "library": library,
        "path": _compat.mapped("libflashinfer.so"),
    }


def _main() -> None:
    sys.path[:] = json.loads(sys.argv[1])
    # What anybody prints goes to stderr; stdout is for the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    for name, look in (("torch", _torch), ("flashinfer", _flashinfer)):
        try:
            answer = {"part": name, "found": look()}
        except BaseException as error:  # torch may raise what it likes
            answer = {"part": name, "failure": _failure(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _main()
