"""A batch of attention requests: tensors in any layout, the plan, the call, and the answer in fp64.

The reference is plain torch, a request and a head at a time, and knows nothing of plans.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from api_header import struct_fields
from capi import Guarded, Library

MASKS = {"none": 0, "causal": 1, "custom": 2}
ENCODINGS = {"none": 0, "rope": 1, "alibi": 2}
ITEM = [name for name, _ in struct_fields("fi_attention_item")]
MERGE = [name for name, _ in struct_fields("fi_attention_merge")]
PLAN_HEADER = 4


def as_int32(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def starts(lengths: list[int]) -> list[int]:
    """0 and the running sums."""
    return [sum(lengths[:i]) for i in range(len(lengths) + 1)]


@dataclass
class Plan:
    """What fi_attention_plan returned."""

    buffer: torch.Tensor
    tile_rows: int
    item_capacity: int
    merge_capacity: int
    num_slots: int
    split_target: int

    @property
    def items(self) -> list[dict[str, int]]:
        return self._rows(PLAN_HEADER, int(self.buffer[0]), ITEM)

    @property
    def merges(self) -> list[dict[str, int]]:
        first = PLAN_HEADER + len(ITEM) * self.item_capacity
        return self._rows(first, int(self.buffer[1]), MERGE)

    def _rows(self, first: int, count: int, names: list[str]) -> list[dict[str, int]]:
        words = self.buffer[first : first + count * len(names)].tolist()
        return [
            dict(zip(names, words[i : i + len(names)], strict=True))
            for i in range(0, len(words), len(names))
        ]


def make_plan(
    lib: Library,
    qo_lens: list[int],
    kv_lens: list[int],
    heads: tuple[int, int],
    kv_base: list[int] | None = None,
    tile_rows: int = 0,
    max_slots: int = 0,
    head_dim: int = 64,
    extra: int = 0,
) -> Plan:
    """Count, then plan into a buffer with room for `extra` more items and merges."""
    base = as_int32(kv_base if kv_base is not None else starts(kv_lens)[:-1])
    qo_indptr, lens = as_int32(starts(qo_lens)), as_int32(kv_lens)
    result = torch.zeros(5, dtype=torch.int64)
    values: dict[str, Any] = {
        "batch_size": len(qo_lens),
        "num_qo_heads": heads[0],
        "num_kv_heads": heads[1],
        "head_dim": head_dim,
        "qo_indptr": qo_indptr,
        "kv_base": base,
        "kv_len": lens,
        "tile_rows": tile_rows,
        "max_slots": max_slots,
        "result": result,
    }
    lib("attention_plan", **values)
    rows, items, merges, slots, target = result.tolist()
    capacities = items + extra, merges + extra
    size = PLAN_HEADER + len(ITEM) * capacities[0] + len(MERGE) * capacities[1]
    buffer = torch.full((size,), -77, dtype=torch.int32)
    lib(
        "attention_plan",
        **values,
        item_capacity=capacities[0],
        merge_capacity=capacities[1],
        plan=buffer,
    )
    assert result.tolist() == [rows, items, merges, slots, target]
    assert buffer[:2].tolist() == [items, merges]
    return Plan(buffer, rows, *capacities, slots, target)


@dataclass
class Case:
    """One call. Lengths are a request's; `layout` is how keys and values lie in memory."""

    qo_lens: list[int]
    kv_lens: list[int]
    heads: tuple[int, int] = (4, 2)
    dim: int = 64
    dtype: torch.dtype = torch.float32
    kv_dtype: torch.dtype | None = None
    layout: str = "ragged"  # or "paged NHD", "paged HND", "paged apart"
    page_size: int = 16
    mask: str = "none"
    window: int = -1
    cap: float = 0.0
    encoding: str = "none"
    slopes: bool = False
    sm_scale: float | None = None
    v_scale: float = 1.0
    rope: tuple[float, float] = (1.0, 1e4)  # scale, theta
    tile_rows: int = 0
    max_slots: int = 0
    return_lse: bool = True
    seed: int = 3
    mask_density: float = 0.5
    spread: float = 1.0
    sink: bool = False  # the first key is far above all others, which have one score
    tensors: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        kv_dtype = self.kv_dtype or self.dtype

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        nnz, (num_qo, num_kv) = sum(self.qo_lens), self.heads
        # Strides that no other dimension explains: 5 elements between heads.
        self.q = Guarded((max(nnz, 1), num_qo, self.dim), self.dtype).fill(
            (randn(max(nnz, 1), num_qo, self.dim) * self.spread).to(self.dtype)
        )
        self.out = Guarded((max(nnz, 1), num_qo, self.dim), self.dtype)
        self.lse = Guarded((max(nnz, 1), num_qo), torch.float32, gap=0)
        self.keys = [randn(n, num_kv, self.dim).to(kv_dtype) for n in self.kv_lens]
        self.values = [randn(n, num_kv, self.dim).to(kv_dtype) for n in self.kv_lens]
        if self.sink:
            self.q.abs_()
            for keys, values in zip(self.keys, self.values, strict=True):
                keys[1:], keys[:1] = 0.0, 1.0
                values.abs_()
        self.masks = [
            torch.rand(q, k, generator=generator) < self.mask_density
            for q, k in zip(self.qo_lens, self.kv_lens, strict=True)
        ]
        self.slope_values = torch.rand(num_qo, generator=generator)
        self._store_cache(kv_dtype, generator)

    def _store_cache(self, kv_dtype: torch.dtype, generator: torch.Generator) -> None:
        num_kv, dim, size = self.heads[1], self.dim, self.page_size

        def poisoned(*shape: int) -> torch.Tensor:
            """NaN wherever no key is: reading it would show."""
            return torch.full(shape, math.nan).to(kv_dtype)

        if self.layout == "ragged":
            first = 2
            rows = sum(self.kv_lens) + 3
            self.k, self.v = (poisoned(rows, num_kv, dim + 8)[..., :dim] for _ in range(2))
            self.bases = [first + start for start in starts(self.kv_lens)[:-1]]
            for base, k, v in zip(self.bases, self.keys, self.values, strict=True):
                _bits(self.k)[base : base + len(k)] = _bits(k)
                _bits(self.v)[base : base + len(v)] = _bits(v)
            self.strides = {
                **{f"k_{name}": self.k.stride(i) for name, i in (("stride_n", 0), ("stride_h", 1))},
                **{f"v_{name}": self.v.stride(i) for name, i in (("stride_n", 0), ("stride_h", 1))},
            }
            self.indices: torch.Tensor | None = None
            return
        counts = [-(-n // size) for n in self.kv_lens]
        pages = sum(counts) + 2
        order = torch.randperm(pages, generator=generator).to(torch.int32)
        self.indices = order[: sum(counts) + 1].contiguous()
        self.bases = [1 + start for start in starts(counts)[:-1]]
        self.indices[0] = -5  # no request's
        if self.layout == "paged HND":
            pool = poisoned(pages, 2, num_kv, size, dim)
            self.k, self.v = pool[:, 0].transpose(1, 2), pool[:, 1].transpose(1, 2)
        elif self.layout == "paged NHD":
            pool = poisoned(pages, 2, size, num_kv, dim)
            self.k, self.v = pool[:, 0], pool[:, 1]
        else:
            self.k = poisoned(pages, size, num_kv, dim)
            self.v = poisoned(pages, num_kv, size + 1, dim)[:, :, :size].transpose(1, 2)
        for base, k, v in zip(self.bases, self.keys, self.values, strict=True):
            j = torch.arange(len(k))
            page = self.indices[base + j // size].long()
            _bits(self.k)[page, j % size] = _bits(k)
            _bits(self.v)[page, j % size] = _bits(v)
        self.strides = {
            f"{letter}_stride_{name}": tensor.stride(i)
            for letter, tensor in (("k", self.k), ("v", self.v))
            for i, name in enumerate(("page", "n", "h"))
        }

    def run(self, lib: Library) -> tuple[torch.Tensor, torch.Tensor]:
        """Plan, call, and check that nothing but the result was written."""
        plan = make_plan(
            lib,
            self.qo_lens,
            self.kv_lens,
            self.heads,
            self.bases,
            self.tile_rows,
            self.max_slots,
            self.dim,
            extra=2,
        )
        self.plan = plan
        partial = (max(plan.num_slots, 1), self.heads[1], plan.tile_rows)
        partial_out = Guarded((*partial, self.dim), torch.float32, gap=0)
        partial_lse = Guarded(partial, torch.float32, gap=0)
        lib("attention", **self.arguments(plan, partial_out.view, partial_lse.view))
        for guard in (self.out, self.lse, partial_out, partial_lse):
            assert guard.intact()
        return self.out.view[: sum(self.qo_lens)], self.lse.view[: sum(self.qo_lens)]

    def arguments(
        self, plan: Plan, partial_out: torch.Tensor, partial_lse: torch.Tensor
    ) -> dict[str, Any]:
        packed, indptr = pack(self.masks)
        self.tensors = {"mask": packed, "mask_indptr": indptr}  # alive during the call
        return {
            "q_dtype": self.dtype,
            "kv_dtype": self.kv_dtype or self.dtype,
            "num_qo_heads": self.heads[0],
            "num_kv_heads": self.heads[1],
            "head_dim": self.dim,
            "q": self.q,
            "q_stride_n": self.q.stride(0),
            "q_stride_h": self.q.stride(1),
            "k": self.k,
            "v": self.v,
            "page_size": self.page_size,
            **self.strides,
            "kv_indices": self.indices,
            "out": self.out.view,
            "out_stride_n": self.out.view.stride(0),
            "out_stride_h": self.out.view.stride(1),
            "lse": self.lse.view if self.return_lse else None,
            "plan": plan.buffer,
            "tile_rows": plan.tile_rows,
            "item_capacity": plan.item_capacity,
            "merge_capacity": plan.merge_capacity,
            "partial_out": partial_out,
            "partial_lse": partial_lse,
            "mask_mode": MASKS[self.mask],
            "window_left": self.window,
            **(self.tensors if self.mask == "custom" else {}),
            "pos_encoding": ENCODINGS[self.encoding],
            "sm_scale": self.scale,
            "logits_soft_cap": self.cap,
            "v_scale": self.v_scale,
            "rope_scale": self.rope[0],
            "rope_theta": self.rope[1],
            "alibi_slopes": self.slope_values if self.slopes else None,
        }

    @property
    def scale(self) -> float:
        return self.sm_scale if self.sm_scale is not None else self.dim**-0.5

    def expected(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Output and log-sum-exp (base 2) in fp64; the same for every level and every plan."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in _OF_THE_CALL]
        key = repr([getattr(self, name) for name in names])
        if key not in _EXPECTED:
            _EXPECTED[key] = self._attend()
        return _EXPECTED[key]

    def _attend(self) -> tuple[torch.Tensor, torch.Tensor]:
        outs, lses = [], []
        group = self.heads[0] // self.heads[1]
        qs = self.q.double().split([*self.qo_lens, len(self.q) - sum(self.qo_lens)])
        for q, keys, values, custom in zip(qs, self.keys, self.values, self.masks, strict=False):
            k, v = (t.double().repeat_interleave(group, 1) for t in (keys, values))
            x, seen = self._scores(q, k, custom)
            if self.window >= 0:
                position = torch.arange(len(q))[:, None] + len(k) - len(q)
                seen = seen & (torch.arange(len(k)) >= position - self.window)
            x = torch.where(seen, x, -math.inf)
            p = torch.softmax(x, -1).nan_to_num(0.0)
            outs.append(torch.einsum("hnm,mhd->nhd", p, v) * self.v_scale)
            lses.append((torch.logsumexp(x, -1) / math.log(2)).T)
        if not outs:
            return torch.zeros(0, self.heads[0], self.dim), torch.zeros(0, self.heads[0])
        return torch.cat(outs), torch.cat(lses)

    def _scores(
        self, q: torch.Tensor, k: torch.Tensor, custom: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What goes into the softmax [head, query, key], and what the mask lets through."""
        position = torch.arange(len(q))[:, None] + len(k) - len(q)
        key = torch.arange(len(k))[None]
        if self.encoding == "rope":
            q, k = self._turn(q, position[:, 0]), self._turn(k, key[0])
        x = torch.einsum("nhd,mhd->hnm", q, k) * self.scale
        if self.cap > 0:
            x = self.cap * torch.tanh(x / self.cap)
        if self.encoding == "alibi":
            slope = self.slope_values.double() if self.slopes else press(self.heads[0])
            x = x + slope[:, None, None] * (key - position)
        if self.mask == "causal":
            return x, key <= position
        return x, custom if self.mask == "custom" else torch.ones(len(q), len(k), dtype=torch.bool)

    def _turn(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        scale, theta = self.rope
        f = theta ** (-torch.arange(0, self.dim, 2).double() / self.dim) / scale
        angles = positions.double()[:, None, None] * f
        low, high = x.chunk(2, -1)
        c, s = angles.cos(), angles.sin()
        return torch.cat([low * c - high * s, high * c + low * s], -1)


# Case.expected() by the fields that it depends on.
_OF_THE_CALL = {"tile_rows", "max_slots", "return_lse", "layout", "page_size", "tensors"}
_EXPECTED: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}


def _bits(x: torch.Tensor) -> torch.Tensor:
    """The tensor as integers: fp8 has no indexed copies."""
    return x.view(torch.uint8) if x.element_size() == 1 else x


def press(heads: int) -> torch.Tensor:
    """Press et al.'s slopes, by their own recursive rule."""

    def powers(n: int) -> list[float]:
        start = 2 ** (-8 / n)
        return [start ** (i + 1) for i in range(n)]

    n = 2 ** int(math.log2(heads))
    more = powers(2 * n)[0::2][: heads - n]
    return torch.tensor(powers(n) + more, dtype=torch.float64)


def pack(masks: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Every request's mask as little-endian bits, each from a byte of its own on."""
    packed, indptr = [], [0]
    for mask in masks:
        bits = mask.flatten().to(torch.uint8)
        bits = torch.cat([bits, torch.zeros(-len(bits) % 8, dtype=torch.uint8)]).view(-1, 8)
        packed.append((bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8))
        indptr.append(indptr[-1] + len(packed[-1]))
    return torch.cat([*packed, torch.zeros(1, dtype=torch.uint8)]), as_int32(indptr)
