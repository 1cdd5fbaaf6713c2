"""A case of attention: its tensors on the emulated device, the calls, and the fp64 reference."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from api_header import struct_fields
from emulated import Emulator

MASKS = {"none": 0, "causal": 1, "custom": 2}
POSITIONS = {"none": 0, "rope": 1, "alibi": 2}
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
INF = float("inf")
HEADER, ITEM, MERGE = 4, 9, 5


class PlanResult(ctypes.Structure):
    _fields_ = struct_fields("fi_attention_plan_result")


@dataclass
class Case:
    """Requests of (queries, keys) and everything an attention depends on."""

    lengths: Sequence[tuple[int, int]]
    heads: tuple[int, int] = (1, 1)  # of q and of k and v
    head_dim: int = 64
    dtype: torch.dtype = torch.float16
    kv_dtype: torch.dtype | None = None
    page_size: int = 0  # 0: keys and values are rows
    layout: str = "NHD"
    mask: str = "none"
    window: int = -1
    cap: float = 0.0
    position: str = "none"
    slopes: bool = False  # ALiBi slopes of the caller
    sm_scale: float | None = None
    v_scale: float = 1.0
    rope_scale: float = 1.0
    rope_theta: float = 1e4
    tile_rows: int = 0
    max_slots: int = 0
    padding: int = 0  # items and merges that the plan has room for, but does not use
    multiprocessors: int = 4
    device: int = 0
    amplitude: float = 1.0
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def stored(self) -> torch.dtype:
        return self.kv_dtype or self.dtype

    def scale(self) -> float:
        return self.sm_scale if self.sm_scale is not None else 1 / math.sqrt(self.head_dim)

    # ------------------------------------------------------------ inputs

    def make(self) -> None:
        """Random queries [n, heads, dim], keys and values [keys, heads, dim] of every request."""
        queries = sum(qo for qo, _ in self.lengths)
        keys = sum(kv for _, kv in self.lengths)
        t = self.tensors
        t["q"] = (self.amplitude * torch.randn(queries, self.heads[0], self.head_dim)).to(
            self.dtype
        )
        for name in ("k", "v"):
            t[name] = torch.randn(keys, self.heads[1], self.head_dim).to(self.stored)
        if self.mask == "custom":
            bits = [torch.rand(qo, kv) < 0.7 for qo, kv in self.lengths]
            if bits and bits[0].numel():
                bits[0][0] = False  # a row that sees nothing
            t["bits"] = torch.cat([b.flatten() for b in bits])
        if self.slopes:
            t["slopes"] = torch.rand(self.heads[0])

    def place(self, gpu: Emulator) -> dict[str, Any]:
        """The tensors on the device, as arguments of fi_attention."""
        t = self.tensors
        args: dict[str, Any] = {}
        # Strides larger than need be: what lies between the rows is out of bounds.
        heads, dim = self.heads[0], self.head_dim
        q_strides = ((heads * dim) + 16, dim, 1)
        args["q"] = gpu.put(t["q"], "q", strides=q_strides)
        args["q_stride_n"], args["q_stride_h"] = q_strides[:2]
        out_strides = ((heads * dim) + 8, dim, 1)
        args["out"] = gpu.empty(t["q"].shape, self.dtype, "out", strides=out_strides)
        args["out_stride_n"], args["out_stride_h"] = out_strides[:2]
        args["lse"] = gpu.empty(t["q"].shape[:2], torch.float32, "lse")
        if self.page_size:
            pages = self._pages()
            args["kv_indices"] = gpu.ints(pages, "kv_indices")
            args["page_size"] = self.page_size
        for name in ("k", "v"):
            if self.page_size:
                cache = self._paged(t[name], pages, gpu, name)
                order = (0, 1, 2) if self.layout == "NHD" else (0, 2, 1)
                strides = [cache.stride(i) for i in order]
                args[name] = cache
                args[f"{name}_stride_page"], args[f"{name}_stride_n"] = strides[0], strides[1]
                args[f"{name}_stride_h"] = strides[2]
            else:
                kv_heads = self.heads[1]
                keys = t[name].shape[0]
                strides = (
                    (kv_heads * dim + 16, dim, 1)
                    if self.layout == "NHD"
                    else (dim, max(keys, 1) * dim, 1)
                )
                args[name] = gpu.put(t[name], name, strides=strides)
                args[f"{name}_stride_n"], args[f"{name}_stride_h"] = strides[:2]
        if self.mask == "custom":
            packed, indptr = self._packed()
            args["mask"], args["mask_indptr"] = gpu.put(packed, "mask"), gpu.ints(indptr, "indptr")
        if self.slopes:
            args["alibi_slopes"] = gpu.put(t["slopes"], "slopes")
        return args

    def _pages(self) -> list[int]:
        """The pages of the requests one after the other, in no natural order."""
        count = sum(-(-kv // self.page_size) for _, kv in self.lengths)
        generator = torch.Generator().manual_seed(1)
        return torch.randperm(count + 2, generator=generator)[:count].tolist()

    def _paged(
        self, rows: torch.Tensor, pages: list[int], gpu: Emulator, name: str
    ) -> torch.Tensor:
        """A cache with the rows in their pages; nothing else of it is written."""
        count = max([*pages, 0]) + 1
        heads, dim, size = self.heads[1], self.head_dim, self.page_size
        shape = (count, size, heads, dim) if self.layout == "NHD" else (count, heads, size, dim)
        cache = gpu.empty(shape, self.stored, name)
        by_slot = cache if self.layout == "NHD" else cache.transpose(1, 2)
        row = used = 0
        for _, kv in self.lengths:
            for key in range(kv):
                to = by_slot[pages[used + key // size], key % size]
                to.copy_(rows[row])
                gpu._mark(to, written=True)
                row += 1
            used += -(-kv // size)
        return cache

    def _packed(self) -> tuple[torch.Tensor, list[int]]:
        indptr, parts, at = [0], [], 0
        for qo, kv in self.lengths:
            bits = self.tensors["bits"][at : at + qo * kv]
            at += qo * kv
            size = -(-len(bits) // 8)
            padded = torch.zeros(size * 8, dtype=torch.uint8)
            padded[: len(bits)] = bits.byte()
            weights = torch.tensor([1 << i for i in range(8)])
            parts.append((padded.view(-1, 8).int() * weights).sum(1).byte())
            indptr.append(indptr[-1] + size)
        return torch.cat(parts), indptr

    # ------------------------------------------------------------ calls

    def plan(self, gpu: Emulator) -> tuple[torch.Tensor, PlanResult, int, int]:
        """The plan on the device, what it is, and the capacities it was made for."""
        gpu.library.fi_emulator_set_multiprocessors(self.multiprocessors)
        qo = torch.tensor([0, *(qo for qo, _ in self.lengths)]).cumsum(0).int()
        kv_len = torch.tensor([kv for _, kv in self.lengths], dtype=torch.int32)
        size = self.page_size or 1
        base = torch.tensor([0, *(-(-kv // size) for _, kv in self.lengths)]).cumsum(0).int()
        result = PlanResult()
        args: dict[str, Any] = {
            "batch_size": len(self.lengths), "num_qo_heads": self.heads[0],
            "num_kv_heads": self.heads[1], "head_dim": self.head_dim, "qo_indptr": qo,
            "kv_base": base, "kv_len": kv_len, "tile_rows": self.tile_rows,
            "max_slots": self.max_slots, "result": ctypes.addressof(result),
        }  # fmt: skip
        gpu("attention_plan", device=self.device, **args)
        items = result.num_items + self.padding
        merges = result.num_merges + self.padding
        # What is not used would lead far out of every tensor.
        words = torch.full((HEADER + ITEM * items + MERGE * merges,), 2**24, dtype=torch.int32)
        gpu(
            "attention_plan", device=self.device, **args, item_capacity=items,
            merge_capacity=merges, plan=words,
        )  # fmt: skip
        return gpu.ints(words, "plan"), result, items, merges

    def arguments(self, gpu: Emulator) -> dict[str, Any]:
        """All arguments of fi_attention."""
        if not self.tensors:
            self.make()
        plan, result, items, merges = self.plan(gpu)
        slots, rows = max(result.num_slots, min(merges, 1)), result.tile_rows
        shape = (slots, self.heads[1], rows)
        return {
            **self.place(gpu), "q_dtype": self.dtype, "kv_dtype": self.stored,
            "num_qo_heads": self.heads[0], "num_kv_heads": self.heads[1],
            "head_dim": self.head_dim, "plan": plan, "tile_rows": rows, "item_capacity": items,
            "merge_capacity": merges,
            "partial_out": gpu.empty((*shape, self.head_dim), torch.float32, "partial_out"),
            "partial_lse": gpu.empty(shape, torch.float32, "partial_lse"),
            "mask_mode": MASKS[self.mask], "window_left": self.window,
            "pos_encoding": POSITIONS[self.position], "sm_scale": self.scale(),
            "logits_soft_cap": self.cap, "v_scale": self.v_scale, "rope_scale": self.rope_scale,
            "rope_theta": self.rope_theta,
        }  # fmt: skip

    def run(self, gpu: Emulator) -> tuple[torch.Tensor, torch.Tensor]:
        args = self.arguments(gpu)
        gpu("attention", device=self.device, **args)
        return args["out"], args["lse"]

    # ------------------------------------------------------------ the reference

    def _rotated(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        half = self.head_dim // 2
        frequency = self.rope_theta ** (-torch.arange(half).double() / half) / self.rope_scale
        angle = (positions.double()[:, None] * frequency)[:, None, :]
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def _slopes(self) -> torch.Tensor:
        if self.slopes:
            return self.tensors["slopes"].double()
        heads = self.heads[0]
        n = 2 ** int(math.log2(heads))
        first = [2.0 ** (-8 * (h + 1) / n) for h in range(n)]
        more = [2.0 ** (-4 * (2 * h + 1) / n) for h in range(heads - n)]
        return torch.tensor(first + more, dtype=torch.float64)

    def reference(self) -> tuple[torch.Tensor, torch.Tensor]:
        """out and lse in fp64, with the softmax over all keys at once."""
        t = self.tensors
        group = self.heads[0] // self.heads[1]
        out, lse = torch.zeros(t["q"].shape).double(), torch.zeros(t["q"].shape[:2]).double()
        first_q = first_k = first_bit = 0
        for qo, kv in self.lengths:
            q = t["q"][first_q : first_q + qo].double()
            k = t["k"][first_k : first_k + kv].double()
            v = t["v"][first_k : first_k + kv].double()
            at, keys = torch.arange(qo) + kv - qo, torch.arange(kv)
            if self.position == "rope":
                q, k = self._rotated(q, at), self._rotated(k, keys)
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
            x = torch.einsum("ihd,jhd->hij", q, k) * self.scale()
            if self.cap > 0:
                x = self.cap * torch.tanh(x / self.cap)
            if self.position == "alibi":
                x = x + self._slopes()[:, None, None] * (keys[None, :] - at[:, None])
            seen = torch.ones(qo, kv, dtype=torch.bool)
            if self.mask == "causal":
                seen &= keys[None, :] <= at[:, None]
            elif self.mask == "custom":
                seen &= t["bits"][first_bit : first_bit + qo * kv].view(qo, kv)
            if self.window >= 0:
                seen &= keys[None, :] >= at[:, None] - self.window
            x = x.masked_fill(~seen, -INF)
            total = torch.logsumexp(x, -1) if kv else torch.full((self.heads[0], qo), -INF).double()
            p = torch.where(seen, torch.exp(x - total.clamp(min=-1e300)[..., None]), 0.0)
            out[first_q : first_q + qo] = self.v_scale * torch.einsum("hij,jhd->ihd", p, v)
            lse[first_q : first_q + qo] = (total / math.log(2)).T
            first_q, first_k, first_bit = first_q + qo, first_k + kv, first_bit + qo * kv
        return out, lse


def check(gpu: Emulator, case: Case) -> None:
    """Run the case and compare it with its reference."""
    out, lse = case.run(gpu)
    expected, expected_lse = case.reference()
    assert not out.isnan().any(), "NaN: an element that was not written?"
    empty = expected_lse == -INF
    assert torch.equal(lse == -INF, empty), "the rows without keys"
    assert not out[empty].any()
    # Probabilities, RoPE's q and k and the result are rounded to the dtype.
    eps = torch.finfo(case.dtype).eps
    rope = 4 if case.position == "rope" else 1
    size = expected.abs().max().clamp(min=0.1)
    error = (out.double() - expected).abs().max()
    assert error <= 1.5 * rope * eps * size, f"out is off by {error / size / eps:.2f} ulps"
    lse_error = (lse.double() - expected_lse)[~empty].abs().max() if (~empty).any() else 0.0
    allowed = 2e-5 if case.position != "rope" else 8 * eps
    assert lse_error <= allowed * (1 + case.amplitude), f"lse is off by {lse_error}"
