"""Sampling and renormalisation: flashinfer beside torch, which sorts, eager and compiled.

A sample is right if the filters keep it: every row has entries that they do not keep, zeros among
them. How often a sample comes is for the tests of the operation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpu.workload import Buffers, Outputs

__all__ = ["OPS", "SIDES", "SamplingWorkload"]

SIDES = ("torch", "compile")
TOP_K, TOP_P = 50, 0.9
OPS = (
    "sampling_from_probs",
    "top_p_sampling_from_probs",
    "top_k_sampling_from_probs",
    "top_k_top_p_sampling_from_probs",
    "top_p_renorm_probs",
    "top_k_renorm_probs",
)

Op = Callable[[Buffers], Any]


def _nucleus(values: torch.Tensor) -> torch.Tensor:
    """Sorted rows with 0 outside of the nucleus of their sum."""
    inside = values.cumsum(-1) - values < TOP_P * values.sum(-1, keepdim=True)
    return torch.where(inside, values, 0)


def _sorted(op: str, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The kept entries, 0 where one is not, and where they are; by the usual torch functions."""
    if "top_k" in op:
        values, order = p.topk(TOP_K, -1)
    else:
        values, order = p.sort(dim=-1, descending=True)
    return (_nucleus(values) if "top_p" in op else values), order


class SamplingWorkload:
    """A case of `cases.py` with one of these operations."""

    def __init__(
        self, op: str, device: torch.device, generator: torch.Generator, *, rows: int, vocab: int
    ) -> None:
        self._op = op
        self._renorm = "renorm" in op
        self._device = device
        self._generator = generator
        self._shape = (rows, vocab)

    def make(self) -> Buffers:
        """See :class:`Workload`."""
        p = torch.empty(self._shape, device=self._device).normal_(generator=self._generator)
        p = torch.softmax(p * 3, -1)
        p[:, ::4] = 0
        u = torch.rand(self._shape[0], device=self._device, generator=self._generator)
        return {"probs": p / p.sum(-1, keepdim=True), "u": u}

    def expected(self, buffers: Buffers) -> Outputs:
        """See :class:`Workload`."""
        values, order = _sorted(self._op, buffers["probs"].double())
        self._kept = torch.zeros_like(buffers["probs"], dtype=torch.float64)
        self._kept.scatter_(-1, order, values)
        if self._renorm:
            return [self._kept / self._kept.sum(-1, keepdim=True)]
        return [torch.ones(self._shape[0], device=self._device)]

    def picked(self, outputs: Outputs) -> Outputs:
        """See :class:`Workload`."""
        if self._renorm:
            return outputs
        samples = outputs[0].long()
        inside = (samples >= 0) & (samples < self._shape[1])
        found = self._kept.gather(-1, samples.clamp(0, self._shape[1] - 1)[:, None])[:, 0]
        return [(inside & (found > 0)).float()]

    def _torch(self, x: Buffers) -> Outputs:
        p = x["probs"]
        if self._op == "sampling_from_probs":
            return [torch.multinomial(p, 1)[:, 0]]
        values, order = _sorted(self._op, p)
        if self._renorm:
            values = values / values.sum(-1, keepdim=True)
            return [torch.zeros_like(p).scatter_(-1, order, values)]
        return [order.gather(-1, torch.multinomial(values, 1))[:, 0]]

    def call(self, side: str, library: ModuleType | None) -> Op:
        """See :class:`Workload`."""
        if side == "torch":
            return self._torch
        if side == "compile":
            compiled: Op = torch.compile(self._torch, dynamic=False)
            return compiled
        if library is None:
            raise ValueError(f"{side} needs a flashinfer to call")
        function = getattr(library, self._op)
        filters = [TOP_K] * ("top_k" in self._op) + [TOP_P] * ("top_p" in self._op)
        if self._renorm:
            return lambda x: [function(x["probs"], *filters)]
        # Later FlashInfers draw the uniform numbers themselves, and return the samples alone.
        takes_uniform = "uniform_samples" in inspect.signature(function).parameters

        def call(x: Buffers) -> Outputs:
            got = function(x["probs"], *([x["u"]] if takes_uniform else []), *filters)
            return [got[0] if isinstance(got, tuple) else got]

        return call
