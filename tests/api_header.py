"""The argument structs and numbers of libflashinfer's C interface, read from api.h.

So the tests' ctypes structs cannot drift from the header.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import torch

HEADER = Path(__file__).resolve().parents[1] / "csrc" / "include" / "flashinfer" / "api.h"

DTYPES = {
    torch.float16: 0,
    torch.bfloat16: 1,
    torch.float32: 2,
    torch.float8_e4m3fn: 3,
    torch.float8_e5m2: 4,
}
_SCALARS: dict[str, Any] = {
    "int64_t": ctypes.c_int64,
    "int32_t": ctypes.c_int32,
    "float": ctypes.c_float,
    "fi_dtype": ctypes.c_int32,
    "fi_activation": ctypes.c_int32,
    "fi_mask_mode": ctypes.c_int32,
    "fi_pos_encoding": ctypes.c_int32,
}


def struct_fields(name: str) -> list[tuple[str, Any]]:
    """The fields of ``typedef struct <name> {...}``, which are plain scalars and pointers."""
    match = re.search(rf"typedef struct {name} {{(.*?)}} {name};", HEADER.read_text(), re.DOTALL)
    assert match, f"no struct {name} in {HEADER.name}"
    fields: list[tuple[str, Any]] = []
    for declaration in re.sub(r"//[^\n]*", "", match[1]).split(";"):
        words = declaration.replace("const ", "").split(None, 1)
        if not words:
            continue
        kind, names = words
        for field in names.split(","):
            pointer = "*" in kind or "*" in field
            fields.append((field.strip(" *\n"), ctypes.c_void_p if pointer else _SCALARS[kind]))
    return fields
