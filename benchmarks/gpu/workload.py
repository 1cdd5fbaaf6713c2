"""What a family of operations gives the worker: buffers, results to compare with, ways to call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

import torch

__all__ = ["ERROR_LIMIT", "Buffers", "Outputs", "Workload", "error_of"]

Buffers = Mapping[str, torch.Tensor]
Outputs = Sequence[torch.Tensor]

# Of bf16 results: a few roundings of 2^-9 each, against any wrong key, head or page.
ERROR_LIMIT = 0.03


class Workload(Protocol):
    """One case, on a device."""

    def make(self) -> Buffers:
        """One set of buffers; every one has the same sizes and other values."""
        ...

    def expected(self, buffers: Buffers) -> Outputs:
        """What a call must give, or a sample of it, in fp32 or fp64; taken before the call."""
        ...

    def picked(self, outputs: Outputs) -> Outputs:
        """The part of a call's outputs that :meth:`expected` has."""
        ...

    def call(self, side: str, library: ModuleType | None) -> Callable[[Buffers], Any]:
        """The function that does the operation on a set of buffers and returns its outputs.

        Args:
            side: who does it.
            library: the flashinfer that is measured, None for torch's sides.

        Raises:
            Exception: of any type, where this side cannot do it.
        """
        ...


def error_of(outputs: Outputs, expected: Outputs) -> float:
    """The largest difference, relative to the value and the root mean square of all values."""
    if len(outputs) != len(expected):
        raise ValueError(f"{len(outputs)} outputs, expected {len(expected)}")
    worst = 0.0
    for actual, right in zip(outputs, expected, strict=True):
        if actual.shape != right.shape:
            raise ValueError(f"shape {list(actual.shape)}, expected {list(right.shape)}")
        scale = right.double().pow(2).mean().sqrt() + right.double().abs()
        error = float(((actual.double() - right.double()).abs() / scale).max())
        worst = max(worst, math.inf if math.isnan(error) else error)
    return worst
