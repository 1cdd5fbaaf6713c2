"""A case of latent attention: its cache on the emulated device, the calls, the fp64 reference."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from emulated import Emulator
from emulated_attention import HEADER, INF, ITEM, MERGE, POSITIONS, PlanResult

CKV, KPE = 512, 64


@dataclass
class Case:
    """Requests of one query token and so many keys, and all that a call depends on."""

    lengths: Sequence[int]
    heads: int = 16
    dtype: torch.dtype = torch.float16
    page_size: int = 16
    together: bool = False  # ckv and kpe are slices of one pool
    window: int = -1
    cap: float = 0.0
    position: str = "rope"
    sm_scale: float = 192**-0.5
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

    def make(self) -> None:
        """Random queries [n, heads, dim], and the rows [keys, dim] of every request."""
        n, t = len(self.lengths), self.tensors
        for name, dim in (("nope", CKV), ("pe", KPE)):
            t[f"q_{name}"] = (self.amplitude * torch.randn(n, self.heads, dim)).to(self.dtype)
        t["rows"] = torch.randn(sum(self.lengths), CKV + KPE).to(self.dtype)

    def place(self, gpu: Emulator) -> dict[str, Any]:
        """The tensors on the device, as arguments of fi_mla_decode."""
        t, args = self.tensors, dict[str, Any]()
        n, heads = len(self.lengths), self.heads
        # Strides larger than need be: what lies between the rows is out of bounds.
        for name, dim in (("q_nope", CKV), ("q_pe", KPE), ("out", CKV)):
            strides = (heads * (dim + 8) + 16, dim + 8, 1)
            args[name] = (
                gpu.empty((n, heads, dim), self.dtype, name, strides=strides)
                if name == "out"
                else gpu.put(t[name], name, strides=strides)
            )
            args[f"{name}_stride_n"], args[f"{name}_stride_h"] = strides[:2]
        args["lse"] = gpu.empty((n, heads), torch.float32, "lse")
        size = self.page_size
        counts = [-(-length // size) for length in self.lengths]
        generator = torch.Generator().manual_seed(1)
        # Page 0, where the cache begins, is nobody's: nothing is written there.
        pages = (1 + torch.randperm(sum(counts) + 2, generator=generator)[: sum(counts)]).tolist()
        args["kv_indices"], args["page_size"] = gpu.ints(pages, "kv_indices"), size
        shape = (max([*pages, 0]) + 1, size)
        if self.together:
            # Only what the two slices have is in bounds.
            pool = gpu.empty((*shape, CKV + KPE), self.dtype, "pool")
            caches = {"ckv": pool[..., :CKV], "kpe": pool[..., CKV:]}
        else:
            caches = {
                name: gpu.empty(
                    (*shape, dim), self.dtype, name, strides=(size * (dim + 8) + 24, dim + 8, 1)
                )
                for name, dim in (("ckv", CKV), ("kpe", KPE))
            }
        row = used = 0
        for length, count in zip(self.lengths, counts, strict=True):
            for key in range(length):
                for name, part in (("ckv", slice(0, CKV)), ("kpe", slice(CKV, None))):
                    to = caches[name][pages[used + key // size], key % size]
                    to.copy_(t["rows"][row, part])
                    gpu._mark(to, written=True)
                row += 1
            used += count
        for name, cache in caches.items():
            args[name] = cache
            args[f"{name}_stride_page"], args[f"{name}_stride_n"] = cache.stride()[:2]
        return args

    def plan(self, gpu: Emulator) -> tuple[torch.Tensor, PlanResult, int, int]:
        """The plan on the device, what it is, and the capacities it was made for."""
        gpu.library.fi_emulator_set_multiprocessors(self.multiprocessors)
        n = len(self.lengths)
        pages = [-(-length // self.page_size) for length in self.lengths]
        result = PlanResult()
        args: dict[str, Any] = {
            "batch_size": n, "num_qo_heads": self.heads, "num_kv_heads": 1, "head_dim": CKV,
            "qo_indptr": torch.arange(n + 1, dtype=torch.int32),
            "kv_base": torch.tensor([0, *pages]).cumsum(0).int(),
            "kv_len": torch.tensor(self.lengths, dtype=torch.int32), "tile_rows": self.tile_rows,
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
        """All arguments of fi_mla_decode."""
        if not self.tensors:
            self.make()
        plan, result, items, merges = self.plan(gpu)
        shape = (max(result.num_slots, min(merges, 1)), result.tile_rows)
        return {
            **self.place(gpu), "dtype": self.dtype, "num_qo_heads": self.heads,
            "head_dim_ckv": CKV, "head_dim_kpe": KPE, "plan": plan, "tile_rows": result.tile_rows,
            "item_capacity": items, "merge_capacity": merges,
            "partial_out": gpu.empty((*shape, CKV), torch.float32, "partial_out"),
            "partial_lse": gpu.empty(shape, torch.float32, "partial_lse"),
            "window_left": self.window, "pos_encoding": POSITIONS[self.position],
            "sm_scale": self.sm_scale, "logits_soft_cap": self.cap, "v_scale": self.v_scale,
            "rope_scale": self.rope_scale, "rope_theta": self.rope_theta,
        }  # fmt: skip

    def run(self, gpu: Emulator) -> tuple[torch.Tensor, torch.Tensor]:
        args = self.arguments(gpu)
        gpu("mla_decode", device=self.device, **args)
        return args["out"], args["lse"]

    def _turned(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        frequency = self.rope_theta ** (-torch.arange(0, KPE, 2).double() / KPE) / self.rope_scale
        angle = positions.double()[:, None] * frequency
        pairs = torch.complex(x[..., 0::2], x[..., 1::2]) * torch.polar(angle * 0 + 1, angle)
        return torch.stack([pairs.real, pairs.imag], -1).flatten(-2)

    def reference(self) -> tuple[torch.Tensor, torch.Tensor]:
        """out and lse in fp64, with the softmax over all keys at once."""
        t, outs, lses = self.tensors, [], []
        for b, rows in enumerate(t["rows"].double().split(list(self.lengths))):
            q_nope, q_pe = t["q_nope"][b].double(), t["q_pe"][b].double()
            ckv, kpe, keys = rows[:, :CKV], rows[:, CKV:], torch.arange(len(rows))
            if self.position == "rope":
                q_pe = self._turned(q_pe, torch.tensor([len(rows) - 1]))
                kpe = self._turned(kpe, keys)
            x = (q_nope @ ckv.T + q_pe @ kpe.T) * self.sm_scale
            if self.cap > 0:
                x = self.cap * torch.tanh(x / self.cap)
            if self.window >= 0:
                x = x.masked_fill(keys < len(rows) - 1 - self.window, -INF)
            outs.append(self.v_scale * torch.softmax(x, -1).nan_to_num(0.0) @ ckv)
            lses.append(torch.logsumexp(x, -1) / math.log(2))
        return torch.stack(outs), torch.stack(lses)


def check(gpu: Emulator, case: Case) -> None:
    """Run the case and compare it with its reference."""
    out, lse = case.run(gpu)
    expected, expected_lse = case.reference()
    assert not out.isnan().any(), "NaN: an element that was not written?"
    empty = expected_lse == -INF
    assert torch.equal(lse == -INF, empty), "the rows without keys"
    assert not out[empty].any()
    # Probabilities, what RoPE turned and the result are rounded to the dtype.
    eps = torch.finfo(case.dtype).eps
    size = expected.abs().max().clamp(min=0.1)
    error = (out.double() - expected).abs().max()
    assert error <= 2 * eps * size, f"out is off by {error / size / eps:.2f} ulps"
    lse_error = (lse.double() - expected_lse)[~empty].abs().max() if (~empty).any() else 0.0
    allowed = 2e-5 if case.position == "none" else 4 * eps
    assert lse_error <= allowed * (1 + case.amplitude), f"lse is off by {lse_error}"
