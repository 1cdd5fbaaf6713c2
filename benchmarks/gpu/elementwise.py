"""Norm, activation, RoPE, append and merge: flashinfer beside torch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu.workload import Buffers, Outputs

__all__ = ["OPS", "SIDES", "ElementwiseWorkload"]

SIDES = ("torch", "compile")
DTYPE = torch.bfloat16
EPS = 1e-6
THETA = 1e4

Op = Callable[[Buffers], Any]


class _Rows:
    """What makes random buffers on the device."""

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self.device = device
        self.generator = generator

    def randn(self, *shape: int, dtype: torch.dtype = DTYPE) -> torch.Tensor:
        out = torch.empty(shape, dtype=dtype, device=self.device)
        return out.normal_(generator=self.generator)

    def empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=DTYPE, device=self.device)

    def integers(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(torch.int32).to(self.device)


class _Family:
    """One operation: its buffers, its result in fp32, torch's way and flashinfer's way."""

    def __init__(self, rows: _Rows, shape: dict[str, int]) -> None:
        self.rows = rows
        self.shape = shape

    def make(self) -> Buffers:
        raise NotImplementedError

    def expected(self, x: Buffers) -> Outputs:
        raise NotImplementedError

    def torch(self, x: Buffers) -> Outputs:
        raise NotImplementedError

    def library(self, flashinfer: Any) -> Op:
        raise NotImplementedError


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


class _RmsNorm(_Family):
    def make(self) -> Buffers:
        n, hidden = self.shape["rows"], self.shape["hidden"]
        rows = self.rows
        return {
            "x": rows.randn(n, hidden),
            "weight": rows.randn(hidden),
            "out": rows.empty(n, hidden),
        }

    def expected(self, x: Buffers) -> Outputs:
        return [_norm(x["x"].float(), x["weight"].float())]

    def torch(self, x: Buffers) -> Outputs:
        return [F.rms_norm(x["x"], x["weight"].shape, x["weight"], EPS)]

    def library(self, flashinfer: Any) -> Op:
        return lambda x: [flashinfer.rmsnorm(x["x"], x["weight"], EPS, out=x["out"])]


class _FusedAddRmsNorm(_Family):
    def make(self) -> Buffers:
        n, hidden = self.shape["rows"], self.shape["hidden"]
        rows = self.rows
        return {
            "x": rows.randn(n, hidden),
            "residual": rows.randn(n, hidden),
            "weight": rows.randn(hidden),
        }

    def expected(self, x: Buffers) -> Outputs:
        total = x["residual"].float() + x["x"].float()
        return [_norm(total, x["weight"].float()), total]

    def torch(self, x: Buffers) -> Outputs:
        x["residual"].add_(x["x"])
        x["x"].copy_(F.rms_norm(x["residual"], x["weight"].shape, x["weight"], EPS))
        return [x["x"], x["residual"]]

    def library(self, flashinfer: Any) -> Op:
        def call(x: Buffers) -> Outputs:
            flashinfer.fused_add_rmsnorm(x["x"], x["residual"], x["weight"], EPS)
            return [x["x"], x["residual"]]

        return call


class _SiluAndMul(_Family):
    def make(self) -> Buffers:
        n, d = self.shape["rows"], self.shape["d"]
        return {"x": self.rows.randn(n, 2 * d), "out": self.rows.empty(n, d)}

    def expected(self, x: Buffers) -> Outputs:
        gate, up = x["x"].float().chunk(2, -1)
        return [gate * torch.sigmoid(gate) * up]

    def torch(self, x: Buffers) -> Outputs:
        gate, up = x["x"].chunk(2, -1)
        return [F.silu(gate) * up]

    def library(self, flashinfer: Any) -> Op:
        return lambda x: [flashinfer.silu_and_mul(x["x"], out=x["out"])]


class _Rope(_Family):
    def make(self) -> Buffers:
        shape, rows = self.shape, self.rows
        nnz, dim = shape["nnz"], shape["dim"]
        positions = torch.randint(
            0, 8192, (nnz,), generator=rows.generator, device=rows.device, dtype=torch.int32
        )
        return {
            "q": rows.randn(nnz, shape["heads"], dim),
            "k": rows.randn(nnz, shape["kv_heads"], dim),
            "positions": positions,
        }

    def _turned(self, x: Buffers, dtype: torch.dtype, angles: torch.dtype) -> list[torch.Tensor]:
        half = self.shape["dim"] // 2
        steps = torch.arange(half, dtype=angles, device=self.rows.device)
        angle = x["positions"].to(angles)[:, None] * THETA ** (-steps / half)
        cos, sin = angle.cos().to(dtype)[:, None], angle.sin().to(dtype)[:, None]
        turned = []
        for name in ("q", "k"):
            low, high = x[name].to(dtype).chunk(2, -1)
            turned.append(torch.cat((low * cos - high * sin, high * cos + low * sin), -1))
        return turned

    def expected(self, x: Buffers) -> Outputs:
        return self._turned(x, torch.float32, torch.float64)

    def torch(self, x: Buffers) -> Outputs:
        q, k = self._turned(x, DTYPE, torch.float32)
        return [x["q"].copy_(q), x["k"].copy_(k)]

    def library(self, flashinfer: Any) -> Op:
        def call(x: Buffers) -> Outputs:
            flashinfer.apply_rope_pos_ids_inplace(x["q"], x["k"], x["positions"])
            return [x["q"], x["k"]]

        return call


class _Append(_Family):
    def make(self) -> Buffers:
        shape, rows = self.shape, self.rows
        nnz, page, heads, dim = (shape[name] for name in ("nnz", "page", "kv_heads", "dim"))
        pages = -(-nnz // page)
        order = torch.randperm(pages, generator=rows.generator, device=rows.device)
        cache = torch.zeros(pages, 2, page, heads, dim, dtype=DTYPE, device=rows.device)
        return {
            "key": rows.randn(nnz, heads, dim),
            "value": rows.randn(nnz, heads, dim),
            "cache": cache,
            "pages": order.to(torch.int32),
            "indptr": rows.integers(torch.tensor([0, pages])),
            "last": rows.integers(torch.tensor([(nnz - 1) % page + 1])),
            "batch": rows.integers(torch.zeros(nnz)),
            "positions": rows.integers(torch.arange(nnz)),
        }

    def _places(self, x: Buffers) -> tuple[torch.Tensor, torch.Tensor]:
        positions, page = x["positions"], self.shape["page"]
        return x["pages"][positions // page].long(), (positions % page).long()

    def expected(self, x: Buffers) -> Outputs:
        return [x["key"].float(), x["value"].float()]

    def picked(self, x: Buffers) -> Outputs:
        pages, slots = self._places(x)
        return [x["cache"][pages, 0, slots], x["cache"][pages, 1, slots]]

    def torch(self, x: Buffers) -> Outputs:
        pages, slots = self._places(x)
        x["cache"][:, 0].index_put_((pages, slots), x["key"])
        x["cache"][:, 1].index_put_((pages, slots), x["value"])
        return [x["cache"]]

    def library(self, flashinfer: Any) -> Op:
        def call(x: Buffers) -> Outputs:
            flashinfer.append_paged_kv_cache(
                x["key"], x["value"], x["batch"], x["positions"], x["cache"],
                x["pages"], x["indptr"], x["last"], kv_layout="NHD",
            )  # fmt: skip
            return [x["cache"]]

        return call


class _MergeState(_Family):
    def make(self) -> Buffers:
        n, heads, dim = (self.shape[name] for name in ("rows", "heads", "dim"))
        rows = self.rows
        return {
            "v_a": rows.randn(n, heads, dim),
            "s_a": rows.randn(n, heads, dtype=torch.float32),
            "v_b": rows.randn(n, heads, dim),
            "s_b": rows.randn(n, heads, dtype=torch.float32),
        }

    def expected(self, x: Buffers) -> Outputs:
        a, b = torch.exp2(x["s_a"])[..., None], torch.exp2(x["s_b"])[..., None]
        return [(x["v_a"] * a + x["v_b"] * b) / (a + b), torch.log2(a + b)[..., 0]]

    def torch(self, x: Buffers) -> Outputs:
        s = torch.logaddexp2(x["s_a"], x["s_b"])
        a, b = torch.exp2(x["s_a"] - s)[..., None], torch.exp2(x["s_b"] - s)[..., None]
        return [(x["v_a"] * a + x["v_b"] * b).to(DTYPE), s]

    def library(self, flashinfer: Any) -> Op:
        return lambda x: flashinfer.merge_state(x["v_a"], x["s_a"], x["v_b"], x["s_b"])


class _MergeStates(_Family):
    def make(self) -> Buffers:
        n, states, heads, dim = (self.shape[name] for name in ("rows", "states", "heads", "dim"))
        rows = self.rows
        return {
            "v": rows.randn(n, states, heads, dim),
            "s": rows.randn(n, states, heads, dtype=torch.float32),
        }

    def _merged(self, x: Buffers) -> list[torch.Tensor]:
        top = x["s"].amax(1, keepdim=True)
        weights = torch.exp2(x["s"] - top)
        total = weights.sum(1)
        merged = (weights[..., None] * x["v"]).sum(1) / total[..., None]
        return [merged, torch.log2(total) + top[:, 0]]

    def expected(self, x: Buffers) -> Outputs:
        return self._merged(x)

    def torch(self, x: Buffers) -> Outputs:
        merged, s = self._merged(x)
        return [merged.to(DTYPE), s]

    def library(self, flashinfer: Any) -> Op:
        return lambda x: flashinfer.merge_states(x["v"], x["s"])


_FAMILIES: dict[str, type[_Family]] = {
    "rmsnorm": _RmsNorm,
    "fused_add_rmsnorm": _FusedAddRmsNorm,
    "silu_and_mul": _SiluAndMul,
    "apply_rope_pos_ids_inplace": _Rope,
    "append_paged_kv_cache": _Append,
    "merge_state": _MergeState,
    "merge_states": _MergeStates,
}
OPS = tuple(_FAMILIES)


class ElementwiseWorkload:
    """A case of `cases.py` with one of these operations."""

    def __init__(
        self, op: str, device: torch.device, generator: torch.Generator, **shape: int
    ) -> None:
        self._family = _FAMILIES[op](_Rows(device, generator), shape)

    def make(self) -> Buffers:
        """See :class:`Workload`."""
        return self._family.make()

    def expected(self, buffers: Buffers) -> Outputs:
        """See :class:`Workload`."""
        # A copy, as an in-place operation is about to change the buffers; and nothing that another
        # side wrote may pass for this one's.
        self._checked = buffers
        for name in ("out", "cache"):
            if name in buffers:
                buffers[name].fill_(torch.nan)
        return [value.clone() for value in self._family.expected(buffers)]

    def picked(self, outputs: Outputs) -> Outputs:
        """See :class:`Workload`."""
        if isinstance(self._family, _Append):
            return self._family.picked(self._checked)
        return outputs

    def call(self, side: str, library: ModuleType | None) -> Op:
        """See :class:`Workload`."""
        if side == "torch":
            return self._family.torch
        if side == "compile":
            compiled: Op = torch.compile(self._family.torch, dynamic=False)
            return compiled
        if library is None:
            raise ValueError(f"{side} needs a flashinfer to call")
        return self._family.library(library)
