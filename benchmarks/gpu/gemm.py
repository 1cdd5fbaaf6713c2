"""Segment GEMM and fp8 products: flashinfer beside torch's grouped, scaled and plain products."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpu.workload import Buffers, Outputs

__all__ = ["OPS", "SIDES", "GemmWorkload"]

# `torch` is what one writes without a kernel for it: a product a segment, put together; and of fp8
# the product of bf16 copies, which are made beforehand and are not timed.
SIDES = {"segment_gemm": ("grouped-mm", "torch"), "bmm_fp8": ("scaled-mm", "torch")}
OPS = tuple(SIDES)
DTYPE = torch.bfloat16
FP8 = torch.float8_e4m3fn
_WORKSPACE = 128 << 20

Op = Callable[[Buffers], Any]


class _Family:
    """One operation: its buffers, its result in fp32, and the sides."""

    def __init__(
        self, device: torch.device, generator: torch.Generator, shape: Mapping[str, int]
    ) -> None:
        self.device = device
        self.generator = generator
        self.shape = shape

    def randn(self, *shape: int, scale: float = 1.0, dtype: torch.dtype = DTYPE) -> torch.Tensor:
        values = torch.empty(shape, dtype=DTYPE, device=self.device)
        return values.normal_(0.0, scale, generator=self.generator).to(dtype)

    def make(self) -> Buffers:
        raise NotImplementedError

    def expected(self, x: Buffers) -> Outputs:
        raise NotImplementedError

    def sides(self) -> dict[str, Op]:
        """Torch's ways."""
        raise NotImplementedError

    def library(self, flashinfer: Any) -> Op:
        raise NotImplementedError


class _SegmentGemm(_Family):
    @property
    def _lengths(self) -> list[int]:
        """Unequal ones where there are rows enough: with equal ones torch.bmm would do."""
        rows, more = self.shape["rows"], self.shape["rows"] // 2
        pairs = itertools.cycle((rows + more, rows - more))
        lengths = list(itertools.islice(pairs, self.shape["segments"]))
        if len(lengths) % 2:
            lengths[-1] = rows
        return lengths

    @property
    def _starts(self) -> list[int]:
        return [0, *itertools.accumulate(self._lengths)]

    def make(self) -> Buffers:
        shape, starts = self.shape, torch.tensor(self._starts)
        sizes = (shape["d_in"], shape["d_out"])
        weights = self.randn(
            shape["segments"],
            *(reversed(sizes) if shape["column_major"] else sizes),
            scale=shape["d_in"] ** -0.5,
        )
        return {
            "x": self.randn(self._starts[-1], shape["d_in"]),
            "weights": weights,
            "indptr": starts.to(self.device),
            "ends": starts[1:].to(self.device, torch.int32),
        }

    def _matrices(self, x: Buffers) -> torch.Tensor:
        """The weights as [segments, d_in, d_out]."""
        return x["weights"].mT if self.shape["column_major"] else x["weights"]

    def _parts(self, x: Buffers, dtype: torch.dtype) -> torch.Tensor:
        matrices = self._matrices(x)
        rows = itertools.pairwise(self._starts)
        return torch.cat(
            [x["x"][a:b].to(dtype) @ matrices[s].to(dtype) for s, (a, b) in enumerate(rows)]
        )

    def expected(self, x: Buffers) -> Outputs:
        return [self._parts(x, torch.float32)]

    def sides(self) -> dict[str, Op]:
        grouped: Any = getattr(torch, "_grouped_mm", None)

        def by_group(x: Buffers) -> Outputs:
            if grouped is None:
                raise ValueError(f"torch {torch.__version__} has no _grouped_mm")
            return [grouped(x["x"], self._matrices(x), offs=x["ends"])]

        return {"grouped-mm": by_group, "torch": lambda x: [self._parts(x, DTYPE)]}

    def library(self, flashinfer: Any) -> Op:
        workspace = torch.empty(_WORKSPACE, dtype=torch.uint8, device=self.device)
        wrapper = flashinfer.SegmentGEMMWrapper(workspace)
        segments, column_major = self.shape["segments"], bool(self.shape["column_major"])
        return lambda x: [
            wrapper.run(x["x"], x["weights"], segments, column_major, seg_indptr=x["indptr"])
        ]


class _BmmFp8(_Family):
    def make(self) -> Buffers:
        batch, m, n, k = (self.shape[name] for name in ("batch", "m", "n", "k"))
        a, b = self.randn(batch, m, k, dtype=FP8), self.randn(batch, n, k, dtype=FP8)
        return {
            "a": a,
            "b": b.mT,
            "a_scale": torch.full((1,), 0.5, device=self.device),
            "b_scale": torch.full((1,), 2.0 * k**-0.5, device=self.device),
            "out": torch.empty(batch, m, n, dtype=DTYPE, device=self.device),
        }

    def expected(self, x: Buffers) -> Outputs:
        scale = x["a_scale"] * x["b_scale"]
        pairs = zip(x["a"], x["b"], strict=True)
        return [torch.stack([a.float() @ b.float() for a, b in pairs]) * scale]

    def sides(self) -> dict[str, Op]:
        scaled: Any = getattr(torch, "_scaled_mm", None)
        # By where the factors lie: a set of buffers is there as long as its copies are.
        copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def in_a_loop(x: Buffers) -> Outputs:
            if scaled is None:
                raise ValueError(f"torch {torch.__version__} has no _scaled_mm")
            scales = x["a_scale"].view(()), x["b_scale"].view(())
            for a, b, out in zip(x["a"], x["b"], x["out"], strict=True):
                scaled(a, b, *scales, out_dtype=DTYPE, out=out)
            return [x["out"]]

        def of_copies(x: Buffers) -> Outputs:
            key = x["a"].data_ptr()
            if key not in copies:
                scale = x["a_scale"] * x["b_scale"]
                copies[key] = ((x["a"].float() * scale).to(DTYPE), x["b"].to(DTYPE))
            torch.bmm(*copies[key], out=x["out"])
            return [x["out"]]

        return {"scaled-mm": in_a_loop, "torch": of_copies}

    def library(self, flashinfer: Any) -> Op:
        return lambda x: [
            flashinfer.bmm_fp8(x["a"], x["b"], x["a_scale"], x["b_scale"], DTYPE, out=x["out"])
        ]


_FAMILIES: dict[str, type[_Family]] = {"segment_gemm": _SegmentGemm, "bmm_fp8": _BmmFp8}


class GemmWorkload:
    """A case of `cases.py` with one of these operations."""

    def __init__(
        self, op: str, device: torch.device, generator: torch.Generator, **shape: int
    ) -> None:
        self._family = _FAMILIES[op](device, generator, shape)

    def make(self) -> Buffers:
        """See :class:`Workload`."""
        return self._family.make()

    def expected(self, buffers: Buffers) -> Outputs:
        """See :class:`Workload`."""
        if "out" in buffers:
            buffers["out"].fill_(torch.nan)  # what another side wrote does not pass
        return self._family.expected(buffers)

    def picked(self, outputs: Outputs) -> Outputs:
        """See :class:`Workload`."""
        return outputs

    def call(self, side: str, library: ModuleType | None) -> Op:
        """See :class:`Workload`."""
        ways = self._family.sides()
        if side in ways:
            return ways[side]
        if library is None:
            raise ValueError(f"{side} needs a flashinfer to call")
        return self._family.library(library)
