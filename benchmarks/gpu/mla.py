"""Decode of multi-head latent attention: flashinfer's wrapper beside torch's SDPA.

RoPE is left out on every side: published wheels and SDPA want q_pe and kpe that were turned before.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu.workload import Buffers, Outputs

__all__ = ["OPS", "SIDES", "MlaWorkload"]

OPS = ("mla_decode",)
SIDES = ("sdpa",)
DTYPE = torch.bfloat16
CKV, KPE = 512, 64
SM_SCALE = 192**-0.5
WORKSPACE = 256 << 20
SAMPLED = 12  # (request, head) pairs whose results are looked at

Op = Callable[[Buffers], Any]


class MlaWorkload:
    """A case of `cases.py`; torch has its keys in a row in place of pages."""

    def __init__(
        self,
        _op: str,
        device: torch.device,
        generator: torch.Generator,
        *,
        paged: bool = True,
        batch: int,
        kv: int,
        heads: int,
        page: int,
    ) -> None:
        self._device = device
        self._generator = generator
        self._batch, self._kv, self._heads, self._page = batch, kv, heads, page
        self._paged = paged
        # One page table for all sets: a plan then serves them all.
        self._pages_each = -(-kv // page)
        self._pages = torch.randperm(
            batch * self._pages_each, generator=generator, device=device
        ).to(torch.int32)
        pairs = torch.rand(SAMPLED, 2, generator=generator, device=device).cpu()
        self._sample = [(int(b * batch), int(h * heads)) for b, h in pairs.tolist()]

    def _randn(self, *shape: int) -> torch.Tensor:
        out = torch.empty(shape, dtype=DTYPE, device=self._device)
        return out.normal_(generator=self._generator)

    def make(self) -> Buffers:
        """See :class:`Workload`."""
        q = {
            "q_nope": self._randn(self._batch, self._heads, CKV),
            "q_pe": self._randn(self._batch, self._heads, KPE),
        }
        if not self._paged:
            return {**q, "k": self._randn(self._batch, self._kv, CKV + KPE)}
        pages = self._batch * self._pages_each
        return {
            **q,
            "ckv": self._randn(pages, self._page, CKV),
            "kpe": self._randn(pages, self._page, KPE),
        }

    def _keys(self, buffers: Buffers, request: int) -> torch.Tensor:
        """The rows of the cache of a request, [kv, CKV + KPE] in fp64."""
        if not self._paged:
            return buffers["k"][request].double()
        each = self._pages_each
        own = self._pages[request * each : (request + 1) * each].long()
        parts = [buffers[name][own].flatten(0, 1)[: self._kv] for name in ("ckv", "kpe")]
        return torch.cat(parts, -1).double()

    def expected(self, buffers: Buffers) -> Outputs:
        """See :class:`Workload`."""
        rows = []
        for request, head in self._sample:
            keys = self._keys(buffers, request)
            q = torch.cat([buffers[name][request, head] for name in ("q_nope", "q_pe")]).double()
            rows.append(torch.softmax(keys @ q * SM_SCALE, 0) @ keys[:, :CKV])
        return [torch.stack(rows)]

    def picked(self, outputs: Outputs) -> Outputs:
        """See :class:`Workload`."""
        (out,) = outputs
        return [torch.stack([out[request, head] for request, head in self._sample])]

    def call(self, side: str, library: ModuleType | None) -> Op:
        """See :class:`Workload`."""
        if side in SIDES:
            return self._sdpa
        if library is None:
            raise ValueError(f"{side} needs a flashinfer to call")
        return self._published(library) if side == "published" else self._ours(library)

    def _workspace(self) -> torch.Tensor:
        size = WORKSPACE if self._device.type == "cuda" else 8 << 20
        return torch.zeros(size, dtype=torch.uint8, device=self._device)

    def _indptr(self) -> torch.Tensor:
        return torch.arange(self._batch + 1, dtype=torch.int32, device=self._device)

    def _filled(self, value: int) -> torch.Tensor:
        return torch.full((self._batch,), value, dtype=torch.int32, device=self._device)

    def _ours(self, library: Any) -> Op:
        wrapper = library.BatchDecodeMlaWithPagedKVCacheWrapper(self._workspace())
        wrapper.plan(
            self._indptr() * self._pages_each, self._pages,
            self._filled((self._kv - 1) % self._page + 1), self._heads, CKV, self._page, SM_SCALE,
            data_type=DTYPE, pos_encoding_mode="NONE",
        )  # fmt: skip
        return lambda x: (wrapper.run(x["q_nope"], x["q_pe"], x["ckv"], x["kpe"]),)

    def _published(self, library: Any) -> Op:
        """The class that took the place of 0.2.0's."""
        wrapper = library.mla.BatchMLAPagedAttentionWrapper(self._workspace())
        wrapper.plan(
            self._indptr(), self._indptr() * self._pages_each, self._pages, self._filled(self._kv),
            self._heads, CKV, KPE, self._page, False, SM_SCALE, DTYPE, DTYPE,
        )  # fmt: skip
        return lambda x: (wrapper.run(x["q_nope"], x["q_pe"], x["ckv"], x["kpe"]),)

    def _sdpa(self, x: Buffers) -> tuple[torch.Tensor]:
        """The heads of a request as the rows of one head, and the backend that torch chooses."""
        q = torch.cat((x["q_nope"], x["q_pe"]), -1)[:, None]
        k = x["k"][:, None]
        return (F.scaled_dot_product_attention(q, k, k[..., :CKV], scale=SM_SCALE)[:, 0],)
