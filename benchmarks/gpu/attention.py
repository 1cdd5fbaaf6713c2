"""Decode, append and prefill: flashinfer's wrappers beside torch's SDPA and FlexAttention."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu.workload import Buffers, Outputs

__all__ = ["OPS", "SIDES", "AttentionWorkload"]

OPS = ("single_decode", "batch_decode", "single_prefill", "batch_prefill")
SIDES = ("sdpa-flash", "sdpa-cudnn", "flex")
DTYPE = torch.bfloat16
WORKSPACE = 256 << 20
SAMPLED = 12  # (request, token, head) triples whose results are looked at

Op = Callable[[Buffers], Any]


class AttentionWorkload:
    """A case of `cases.py`; torch's sides have contiguous keys in place of pages."""

    def __init__(
        self,
        op: str,
        device: torch.device,
        generator: torch.Generator,
        *,
        paged: bool = True,
        batch: int,
        qo: int,
        kv: int,
        heads: int,
        kv_heads: int,
        dim: int,
        page: int,
        causal: int,
    ) -> None:
        if page == 0 and batch != 1:
            raise ValueError(f"batch is {batch} without pages, expected 1")
        self._op = op
        self._device = device
        self._generator = generator
        self._batch, self._qo, self._kv = batch, qo, kv
        self._heads, self._kv_heads, self._dim = heads, kv_heads, dim
        self._page = page if paged else 0
        self._causal = bool(causal)
        # One page table for all sets: a plan then serves them all.
        self._pages_each = -(-kv // page) if page else 0
        self._pages = torch.randperm(
            batch * self._pages_each, generator=generator, device=device
        ).to(torch.int32)
        triples = torch.rand(SAMPLED, 3, generator=generator, device=device).cpu()
        self._sample = [
            (int(b * batch), int(i * qo), int(h * heads)) for b, i, h in triples.tolist()
        ]

    def _randn(self, *shape: int) -> torch.Tensor:
        out = torch.empty(shape, dtype=DTYPE, device=self._device)
        return out.normal_(generator=self._generator)

    def make(self) -> Buffers:
        """See :class:`Workload`."""
        q = self._randn(self._batch * self._qo, self._heads, self._dim)
        if self._page:
            pages = self._batch * self._pages_each
            return {"q": q, "kv": self._randn(pages, 2, self._page, self._kv_heads, self._dim)}
        shape = (self._batch, self._kv, self._kv_heads, self._dim)
        return {"q": q, "k": self._randn(*shape), "v": self._randn(*shape)}

    def _keys(self, buffers: Buffers, request: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a request and a KV head, [kv, dim] in fp64."""
        if not self._page:
            k, v = (buffers[name][request, :, head].double() for name in ("k", "v"))
            return k, v
        each = self._pages_each
        own = self._pages[request * each : (request + 1) * each].long()
        both = buffers["kv"][own][:, :, :, head].transpose(0, 1).reshape(2, -1, self._dim)
        return both[0, : self._kv].double(), both[1, : self._kv].double()

    def expected(self, buffers: Buffers) -> Outputs:
        """See :class:`Workload`."""
        rows = []
        for request, token, head in self._sample:
            k, v = self._keys(buffers, request, head // (self._heads // self._kv_heads))
            q = buffers["q"][request * self._qo + token, head].double()
            scores = k @ q * self._dim**-0.5
            if self._causal:
                # Query `token` sees the keys up to its own, counted from the end.
                scores[self._kv - self._qo + token + 1 :] = -torch.inf
            rows.append(torch.softmax(scores, 0) @ v)
        return [torch.stack(rows)]

    def picked(self, outputs: Outputs) -> Outputs:
        """See :class:`Workload`."""
        (out,) = outputs
        out = out.view(self._batch, self._qo, self._heads, self._dim)
        return [torch.stack([out[request, token, head] for request, token, head in self._sample])]

    def call(self, side: str, library: ModuleType | None) -> Op:
        """See :class:`Workload`."""
        if side in SIDES:
            return {"sdpa-flash": self._sdpa, "sdpa-cudnn": self._sdpa, "flex": self._flex}[side](
                side
            )
        if library is None:
            raise ValueError(f"{side} needs a flashinfer to call")
        tensor_cores = side.endswith("-tc")
        return {
            "single_decode": self._single_decode,
            "batch_decode": self._batch_decode,
            "single_prefill": self._single_prefill,
            "batch_prefill": self._batch_prefill,
        }[self._op](library, tensor_cores)

    def _single_decode(self, library: Any, tensor_cores: bool) -> Op:
        options = {"use_tensor_cores": True} if tensor_cores else {}
        decode = library.single_decode_with_kv_cache
        return lambda x: (decode(x["q"][0], x["k"][0], x["v"][0], **options),)

    def _single_prefill(self, library: Any, _tensor_cores: bool) -> Op:
        prefill = library.single_prefill_with_kv_cache
        causal = self._causal
        return lambda x: (prefill(x["q"], x["k"][0], x["v"][0], causal=causal),)

    def _workspace(self) -> torch.Tensor:
        size = WORKSPACE if self._device.type == "cuda" else 8 << 20
        return torch.zeros(size, dtype=torch.uint8, device=self._device)

    def _table(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where each request's pages begin, the pages, the entries of each last one."""
        each, device = self._pages_each, self._device
        indptr = torch.arange(self._batch + 1, dtype=torch.int32, device=device) * each
        last = torch.full((self._batch,), (self._kv - 1) % self._page + 1, device=device)
        return indptr, self._pages, last.to(torch.int32)

    def _batch_decode(self, library: Any, tensor_cores: bool) -> Op:
        options = {"use_tensor_cores": True} if tensor_cores else {}
        wrapper = library.BatchDecodeWithPagedKVCacheWrapper(self._workspace(), "NHD", **options)
        wrapper.plan(
            *self._table(), self._heads, self._kv_heads, self._dim, self._page,
            q_data_type=DTYPE, data_type=DTYPE,
        )  # fmt: skip
        return lambda x: (wrapper.run(x["q"], x["kv"]),)

    def _batch_prefill(self, library: Any, _tensor_cores: bool) -> Op:
        wrapper = library.BatchPrefillWithPagedKVCacheWrapper(self._workspace(), "NHD")
        steps = torch.arange(self._batch + 1, dtype=torch.int32, device=self._device)
        wrapper.plan(
            steps * self._qo, *self._table(), self._heads, self._kv_heads, self._dim, self._page,
            causal=self._causal, q_data_type=DTYPE,
        )  # fmt: skip
        return lambda x: (wrapper.run(x["q"], x["kv"]),)

    def _heads_first(self, x: Buffers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q = x["q"].view(self._batch, self._qo, self._heads, self._dim)
        return q.transpose(1, 2), x["k"].transpose(1, 2), x["v"].transpose(1, 2)

    def _sdpa(self, side: str) -> Op:
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.attention.bias import causal_lower_right

        flash = side == "sdpa-flash"
        backend = SDPBackend.FLASH_ATTENTION if flash else SDPBackend.CUDNN_ATTENTION
        options: dict[str, Any] = {"enable_gqa": self._heads != self._kv_heads}
        if self._causal and self._qo == self._kv:
            options["is_causal"] = True
        elif self._causal and flash:
            options["attn_mask"] = causal_lower_right(self._qo, self._kv)
        elif self._causal:
            # cuDNN's is_causal in torch is aligned to the top left: a dense mask is what is left.
            full = torch.ones(self._qo, self._kv, dtype=torch.bool, device=self._device)
            options["attn_mask"] = full.tril(self._kv - self._qo)

        def attention(x: Buffers) -> tuple[torch.Tensor]:
            q, k, v = self._heads_first(x)
            with sdpa_kernel(backend):
                return (F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2),)

        return attention

    def _flex(self, _side: str) -> Op:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        offset = self._kv - self._qo
        options: dict[str, Any] = {"enable_gqa": self._heads != self._kv_heads}
        if self._causal:

            def visible(
                _b: torch.Tensor, _h: torch.Tensor, q: torch.Tensor, k: torch.Tensor
            ) -> torch.Tensor:
                return k <= q + offset

            options["block_mask"] = create_block_mask(
                visible, None, None, self._qo, self._kv, device=self._device
            )
        compiled: Any = torch.compile(flex_attention, dynamic=False)
        return lambda x: (compiled(*self._heads_first(x), **options).transpose(1, 2),)
