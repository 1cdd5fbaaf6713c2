"""A batch of latent attention: a paged cache, the plan, the call, and the answer in fp64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from attention_case import ENCODINGS, Plan, make_plan, starts
from capi import Guarded, Library


@dataclass
class Case:
    """One call: a query token for each of the requests, which have so many keys."""

    kv_lens: list[int]
    heads: int = 16
    dims: tuple[int, int] = (512, 64)  # of ckv and kpe
    dtype: torch.dtype = torch.float32
    page_size: int = 16
    together: bool = False  # ckv and kpe are slices of one pool
    window: int = -1
    cap: float = 0.0
    encoding: str = "rope"
    sm_scale: float | None = None
    v_scale: float = 1.0
    rope: tuple[float, float] = (1.0, 1e4)  # scale, theta
    tile_rows: int = 0
    max_slots: int = 0
    return_lse: bool = True
    spread: float = 1.0
    sink: bool = False  # the first key is far above all others, which are equal

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(5)

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        n, (ckv, kpe) = len(self.kv_lens), self.dims
        rows = max(n, 1)
        # Strides that no other dimension explains: 5 elements between heads.
        self.q_nope, self.q_pe = (
            Guarded((rows, self.heads, dim), self.dtype).fill(
                (randn(rows, self.heads, dim) * self.spread).to(self.dtype)
            )
            for dim in self.dims
        )
        self.out = Guarded((rows, self.heads, ckv), self.dtype)
        self.lse = Guarded((rows, self.heads), torch.float32, gap=0)
        self.rows = [randn(length, ckv + kpe).to(self.dtype) for length in self.kv_lens]
        if self.sink:
            self.q_nope.abs_()
            self.q_pe.abs_()
            for rows_of in self.rows:
                rows_of[:1], rows_of[1:] = 1.3, 0.7
        size = self.page_size
        counts = [-(-length // size) for length in self.kv_lens]
        pages = sum(counts) + 2
        order = torch.randperm(pages, generator=generator).to(torch.int32)
        self.indices = order[: sum(counts) + 1].contiguous()
        self.bases = [1 + start for start in starts(counts)[:-1]]
        self.indices[0] = -5  # no request's
        # NaN wherever no key is: reading it would show.
        pool = torch.full((pages, size, ckv + kpe + 3), math.nan, dtype=self.dtype)
        for base, part in zip(self.bases, self.rows, strict=True):
            j = torch.arange(len(part))
            pool[self.indices[base + j // size].long(), j % size, : ckv + kpe] = part
        self.ckv, self.kpe = pool[..., :ckv], pool[..., ckv : ckv + kpe]
        if not self.together:
            self.ckv, self.kpe = self.ckv.contiguous(), self.kpe.contiguous()

    @property
    def scale(self) -> float:
        return self.sm_scale if self.sm_scale is not None else (128 + self.dims[1]) ** -0.5

    def make_plan(self, lib: Library) -> Plan:
        return make_plan(
            lib,
            [1] * len(self.kv_lens),
            self.kv_lens,
            (self.heads, 1),
            self.bases,
            self.tile_rows,
            self.max_slots,
            self.dims[0],
            extra=2,
        )

    def run(self, lib: Library) -> tuple[torch.Tensor, torch.Tensor]:
        """Plan, call, and check that nothing but the result was written."""
        self.plan = plan = self.make_plan(lib)
        shape = (max(plan.num_slots, 1), plan.tile_rows)
        partial_out = Guarded((*shape, self.dims[0]), torch.float32, gap=0)
        partial_lse = Guarded(shape, torch.float32, gap=0)
        lib("mla_decode", **self.arguments(plan, partial_out.view, partial_lse.view))
        for guard in (self.out, self.lse, partial_out, partial_lse):
            assert guard.intact()
        return self.out.view[: len(self.kv_lens)], self.lse.view[: len(self.kv_lens)]

    def arguments(
        self, plan: Plan, partial_out: torch.Tensor, partial_lse: torch.Tensor
    ) -> dict[str, Any]:
        strides = {}
        for name, tensor, dims in (
            ("q_nope", self.q_nope, "nh"),
            ("q_pe", self.q_pe, "nh"),
            ("ckv", self.ckv, ("page", "n")),
            ("kpe", self.kpe, ("page", "n")),
            ("out", self.out.view, "nh"),
        ):
            strides |= {f"{name}_stride_{dim}": tensor.stride(i) for i, dim in enumerate(dims)}
        return {
            "dtype": self.dtype,
            "num_qo_heads": self.heads,
            "head_dim_ckv": self.dims[0],
            "head_dim_kpe": self.dims[1],
            "q_nope": self.q_nope,
            "q_pe": self.q_pe,
            "ckv": self.ckv,
            "kpe": self.kpe,
            **strides,
            "page_size": self.page_size,
            "kv_indices": self.indices,
            "out": self.out.view,
            "lse": self.lse.view if self.return_lse else None,
            "plan": plan.buffer,
            "tile_rows": plan.tile_rows,
            "item_capacity": plan.item_capacity,
            "merge_capacity": plan.merge_capacity,
            "partial_out": partial_out,
            "partial_lse": partial_lse,
            "window_left": self.window,
            "pos_encoding": ENCODINGS[self.encoding],
            "sm_scale": self.scale,
            "logits_soft_cap": self.cap,
            "v_scale": self.v_scale,
            "rope_scale": self.rope[0],
            "rope_theta": self.rope[1],
        }

    def expected(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Output and log-sum-exp (base 2) in fp64."""
        ckv_dim = self.dims[0]
        outs, lses = [], []
        for b, part in enumerate(self.rows):
            q_nope, q_pe = self.q_nope[b].double(), self.q_pe[b].double()
            ckv, kpe = part[:, :ckv_dim].double(), part[:, ckv_dim:].double()
            keys = torch.arange(len(part))
            if self.encoding == "rope":
                q_pe = self._turn(q_pe, torch.tensor([len(part) - 1]))
                kpe = self._turn(kpe, keys)
            x = (q_nope @ ckv.T + q_pe @ kpe.T) * self.scale
            if self.cap > 0:
                x = self.cap * torch.tanh(x / self.cap)
            if self.window >= 0:
                x = x.masked_fill(keys < len(part) - 1 - self.window, -math.inf)
            outs.append(torch.softmax(x, -1).nan_to_num(0.0) @ ckv * self.v_scale)
            lses.append(torch.logsumexp(x, -1) / math.log(2))
        if not outs:
            return torch.zeros(0, self.heads, ckv_dim), torch.zeros(0, self.heads)
        return torch.stack(outs), torch.stack(lses)

    def _turn(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """RoPE over neighbouring pairs: a multiplication of complex numbers."""
        scale, theta = self.rope
        dim = self.dims[1]
        f = theta ** (-torch.arange(0, dim, 2).double() / dim) / scale
        angles = positions.double()[:, None] * f
        turned = torch.view_as_complex(x.view(-1, dim // 2, 2)) * torch.polar(
            torch.ones_like(angles), angles
        )
        return torch.view_as_real(turned).flatten(1)
