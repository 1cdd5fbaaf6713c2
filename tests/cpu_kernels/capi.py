"""Calls libflashinfer's C interface with torch tensors.

The argument structs come from api.h itself, so they cannot drift from it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from api_header import DTYPES, struct_fields

OK, INVALID_ARGUMENT, UNSUPPORTED = 0, 1, 2
ISA_VARIABLE = "FLASHINFER_CPU_ISA"

BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, BODY, ctypes.c_void_p)


class Exec(ctypes.Structure):
    """fi_exec."""

    _fields_ = [
        ("device", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
        ("parallel_for", PARALLEL_FOR),
    ]


class Failed(Exception):
    """A call that returned a status other than FI_OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """Set, or with None remove, an environment variable for the time of a block."""
    before = os.environ.get(name)
    try:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


class Library:
    """A libflashinfer of its own: loaded from a copy, so that it reads the environment anew."""

    def __init__(self, path: Path, folder: Path, isa: str | None) -> None:
        copy = folder / f"libflashinfer-{isa or 'default'}.so"
        shutil.copyfile(path, copy)
        self._library = ctypes.CDLL(str(copy))
        self._library.fi_last_error.restype = ctypes.c_char_p
        self._structs: dict[str, Any] = {}
        self._parallel_for: Any = PARALLEL_FOR()
        with environment(ISA_VARIABLE, isa), contextlib.suppress(Failed):
            # The variable is read by the first call; this one has nothing to do.
            self("packbits")

    def __call__(self, op: str, **values: Any) -> None:
        """Call fi_<op>; fields that are not given are 0 or NULL, tensors become their pointers."""
        if op not in self._structs:
            fields = struct_fields(f"fi_{op}_args")
            self._structs[op] = type(op, (ctypes.Structure,), {"_fields_": fields})
        converted = {
            name: value.data_ptr()
            if isinstance(value, torch.Tensor)
            else DTYPES[value]
            if isinstance(value, torch.dtype)
            else value
            for name, value in values.items()
        }
        unknown = converted.keys() - {name for name, _ in self._structs[op]._fields_}
        assert not unknown, f"fi_{op}_args has no {unknown}"
        args = self._structs[op](**converted)
        execution = Exec(device=-1, stream=None, parallel_for=self._parallel_for)
        status = getattr(self._library, f"fi_{op}")(ctypes.byref(execution), ctypes.byref(args))
        if status != OK:
            raise Failed(status, self._library.fi_last_error().decode())

    @contextlib.contextmanager
    def threads(self, split: Callable[[int, int], list[tuple[int, int]]]) -> Iterator[list[int]]:
        """Run calls on four threads, over the ranges of ``split(n, grain)``; yield the grains."""
        grains: list[int] = []
        with ThreadPoolExecutor(4) as pool:

            def parallel_for(n: int, grain: int, body: Any, arg: int) -> None:
                grains.append(grain)
                for done in [pool.submit(body, arg, low, high) for low, high in split(n, grain)]:
                    done.result()

            self._parallel_for = PARALLEL_FOR(parallel_for)
            try:
                yield grains
            finally:
                self._parallel_for = PARALLEL_FOR()


class Guarded:
    """A tensor inside a larger buffer, to see that nothing outside it is written.

    ``view`` has the shape and dtype asked for; its rows, in every dimension but the last, lie
    ``gap`` elements apart from each other.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, gap: int = 5) -> None:
        margin = 32
        strides = [1] * len(shape)
        for i in range(len(shape) - 2, -1, -1):
            strides[i] = strides[i + 1] * (shape[i + 1] + (gap if i == len(shape) - 2 else 0))
        size = shape[0] * strides[0] + 2 * margin
        self._bytes = (torch.arange(size * dtype.itemsize) % 249).to(torch.uint8)
        self._before = self._bytes.clone()
        self.view = torch.as_strided(self._bytes.view(dtype), shape, strides, margin)
        inside = torch.zeros(size, dtype=torch.bool)
        torch.as_strided(inside, shape, strides, margin).fill_(True)
        self._outside = ~inside.repeat_interleave(dtype.itemsize)

    def fill(self, values: torch.Tensor) -> torch.Tensor:
        """Copy values into the view and return the view."""
        self.view.copy_(values)
        return self.view

    def intact(self) -> bool:
        """Whether every byte outside the view is what it was."""
        return torch.equal(self._bytes[self._outside], self._before[self._outside])
