"""The calls that Text Generation Inference makes, as of its release 3.0.0.

Looked at: server/text_generation_server/layers/attention/{flashinfer,cuda,kv_cache}.py,
models/flash_causal_lm.py, models/model.py and models/globals.py. Everything goes by keyword; pages
have one token, the cache is a tensor of keys and one of values, and a model without a sliding
window has None for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import torch
from toy_model import (
    DIM,
    HEADS,
    KV_HEADS,
    LAYERS,
    SCALE,
    Family,
    Stored,
    Toy,
    last_of,
    offsets,
    random_tokens,
)

import flashinfer

prefill_state: ContextVar[flashinfer.BatchPrefillWithPagedKVCacheWrapper] = ContextVar("prefill")
decode_state: ContextVar[flashinfer.BatchDecodeWithPagedKVCacheWrapper] = ContextVar("decode")

BLOCKS = 64


class Server:
    """The caches and the states, of which one is active while a model runs."""

    def __init__(self, toy: Toy, stored: Stored, page_size: int) -> None:
        self.toy, self.device, self.stored, self.page_size = toy, toy.device, stored, page_size
        window = max(toy.family.windows)
        self.sliding_window = None if window == -1 else window
        self.workspace = torch.empty(16 << 20, dtype=torch.uint8, device=self.device)
        # Of ragged keys; TGI makes it and does not run it.
        flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
            self.workspace, kv_layout="NHD", use_cuda_graph=False
        )
        self.prefill = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
            self.workspace, kv_layout="NHD", use_cuda_graph=False
        )
        self.decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            self.workspace,
            kv_layout="NHD",
            use_cuda_graph=False,
            use_tensor_cores=HEADS // KV_HEADS not in [1, 2, 4, 8],
        )
        shape = (BLOCKS * 2 // page_size, page_size, KV_HEADS, DIM)
        self.caches = [
            tuple(torch.zeros(shape, device=self.device).to(stored.dtype) for _ in range(2))
            for _ in range(LAYERS)
        ]
        self.free = torch.randperm(shape[0]).tolist()
        self.blocks: list[list[int]] = []

    def store(self, layer: int, slots: torch.Tensor, *rows: torch.Tensor) -> None:
        scales = (self.stored.k_scale, self.stored.v_scale)
        for cache, new, scale in zip(self.caches[layer], rows, scales, strict=True):
            if self.stored.dtype.itemsize == 1:
                flat = cache.view(torch.uint8).view(-1, KV_HEADS, DIM)
                flat[slots] = (new / scale).to(self.stored.dtype).view(torch.uint8)
            else:
                cache.view(-1, KV_HEADS, DIM)[slots] = new

    def grow(self, sequences: list[list[int]]) -> None:
        self.blocks += [[] for _ in range(len(sequences) - len(self.blocks))]
        for blocks, tokens in zip(self.blocks, sequences, strict=True):
            while len(blocks) * self.page_size < len(tokens):
                blocks.append(self.free.pop())

    def tables(self) -> torch.Tensor:
        """The pages of all requests, one after another, as TGI calls ragged block tables."""
        blocks = [block for mine in self.blocks for block in mine]
        return torch.tensor(blocks, dtype=torch.int32, device=self.device)

    def slots(self, request: int, places: torch.Tensor) -> torch.Tensor:
        blocks = torch.tensor(self.blocks[request])
        return blocks[places // self.page_size] * self.page_size + places % self.page_size

    def lengths(self, input_lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """indptr and lengths of last pages; a request without tokens gets a full last page."""
        pages = (input_lengths + self.page_size - 1) // self.page_size
        last = (input_lengths - 1) % self.page_size + 1
        return offsets(pages), last.to(torch.int32)

    @contextmanager
    def prefilling(self, new: list[int], input_lengths: torch.Tensor) -> Iterator[None]:
        indptr, last = self.lengths(input_lengths)
        queries = torch.tensor([0, *new]).cumsum(0).to(self.device, torch.int32)
        token = prefill_state.set(self.prefill)
        try:
            self.prefill.begin_forward(
                qo_indptr=queries,
                paged_kv_indptr=indptr,
                paged_kv_indices=self.tables(),
                paged_kv_last_page_len=last,
                num_qo_heads=HEADS,
                num_kv_heads=KV_HEADS,
                head_dim=DIM,
                q_data_type=torch.float16,
                page_size=self.page_size,
                window_left=self.sliding_window,
            )
            yield
        finally:
            self.prefill.end_forward()
            prefill_state.reset(token)

    @contextmanager
    def decoding(
        self, state: Any, input_lengths: torch.Tensor, block_tables: torch.Tensor
    ) -> Iterator[None]:
        indptr, last = self.lengths(input_lengths)
        token = decode_state.set(state)
        try:
            state.begin_forward(
                indptr=indptr,
                indices=block_tables,
                last_page_len=last,
                num_qo_heads=HEADS,
                num_kv_heads=KV_HEADS,
                head_dim=DIM,
                page_size=self.page_size,
                data_type=self.stored.dtype,
                q_data_type=torch.float16,
                window_left=self.sliding_window,
            )
            yield
        finally:
            state.end_forward()
            decode_state.reset(token)

    def scales(self) -> dict[str, float]:
        return {"k_scale": self.stored.k_scale, "v_scale": self.stored.v_scale}

    def prefilled(self, sequences: list[list[int]], cached: list[int]) -> torch.Tensor:
        """Logits of the last tokens, after a chunk of every prompt that follows what is cached."""
        self.grow(sequences)
        new = [len(tokens) - had for tokens, had in zip(sequences, cached, strict=True)]
        at = [torch.arange(had, had + count) for had, count in zip(cached, new, strict=True)]
        slots = torch.cat([self.slots(i, places) for i, places in enumerate(at)]).to(self.device)
        tokens = [
            tokens[place]
            for tokens, places in zip(sequences, at, strict=True)
            for place in places.tolist()
        ]
        lengths = torch.tensor([len(tokens) for tokens in sequences], dtype=torch.int32)
        softcap = self.toy.family.soft_cap or None

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.store(layer, slots, k, v)
            return prefill_state.get().forward(
                q.contiguous(),
                causal=True,
                paged_kv_cache=self.caches[layer],
                logits_soft_cap=0.0 if softcap is None else softcap,
                sm_scale=SCALE,
                window_left=self.toy.family.windows[layer],
                **self.scales(),
            )

        with self.prefilling(new, lengths.to(self.device)):
            logits = self.toy.run(torch.tensor(tokens, device=self.device), torch.cat(at), attend)
        return logits[last_of(new)]

    def decoded(
        self, sequences: list[list[int]], attention: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Logits of every sequence's last token, the others being cached."""
        at = [torch.tensor([len(tokens) - 1]) for tokens in sequences]
        slots = torch.cat([self.slots(i, place) for i, place in enumerate(at)]).to(self.device)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.store(layer, slots, k, v)
            return attention(layer, q)

        tokens = torch.tensor([tokens[-1] for tokens in sequences], device=self.device)
        return self.toy.run(tokens, torch.cat(at), attend)

    def attend(self, layer: int, q: torch.Tensor) -> torch.Tensor:
        return decode_state.get().forward(
            q.contiguous(),
            paged_kv_cache=self.caches[layer],
            logits_soft_cap=self.toy.family.soft_cap or None,
            sm_scale=SCALE,
            **self.scales(),
        )


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize(
    "stored",
    [Stored(), Stored(torch.float8_e4m3fn, 0.5, 0.25), Stored(torch.float8_e5m2)],
    ids=["float16", "fp8_e4m3", "fp8_e5m2"],
)
def test_chunks_of_prompts_and_decoding(stored: Stored, page_size: int, device: str) -> None:
    toy = Toy(device, Family(soft_cap=20.0))
    server = Server(toy, stored, page_size)
    sequences = [random_tokens(count) for count in (7, 17, 1)]
    toy.check(server.prefilled(sequences, [0, 0, 0]), sequences, stored)
    cached = [len(tokens) for tokens in sequences]
    for tokens, count in zip(sequences, (12, 1, 3), strict=True):
        tokens.extend(random_tokens(count))
    toy.check(server.prefilled(sequences, cached), sequences, stored)
    for _ in range(3):
        new = random_tokens(3)
        for tokens, token in zip(sequences, new, strict=True):
            tokens.append(token)
        server.grow(sequences)
        lengths = torch.tensor([len(tokens) for tokens in sequences], dtype=torch.int32)
        with server.decoding(server.decode, lengths.to(device), server.tables()):
            logits = server.decoded(sequences, server.attend)
        toy.check(logits, sequences, stored)


def test_sliding_window_of_a_prompt(device: str) -> None:
    """The plan has the window, and forward says it again."""
    toy = Toy(device, Family(windows=(5, 5)))
    server = Server(toy, Stored(), 1)
    sequences = [random_tokens(count) for count in (9, 3)]
    toy.check(server.prefilled(sequences, [0, 0]), sequences)


@pytest.mark.parametrize("page_size", [1, 16])
def test_decode_with_buffers_for_graphs(page_size: int, device: str) -> None:
    """The table of pages is the wrapper's buffer too; requests that are padding have no tokens."""
    toy = Toy(device)
    server = Server(toy, Stored(), page_size)
    sequences = [random_tokens(count) for count in (5, 15)]
    server.prefilled(sequences, [0, 0])

    size, most = 4, 24
    block_tables = torch.arange(most, dtype=torch.int32, device=device).repeat(size)
    state = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        server.workspace,
        kv_layout="NHD",
        use_cuda_graph=True,
        paged_kv_indices_buffer=block_tables,
        paged_kv_indptr_buffer=torch.zeros(size + 1, dtype=torch.int32, device=device),
        paged_kv_last_page_len_buffer=torch.ones(size, dtype=torch.int32, device=device),
        use_tensor_cores=HEADS // KV_HEADS not in [1, 2, 4, 8],
    )
    input_lengths = torch.ones(size, dtype=torch.int32, device=device) * most
    with server.decoding(state, input_lengths, block_tables):
        pass  # the first run, outside of a graph
    graphs: dict[int, Any] = {}

    def padded(layer: int, q: torch.Tensor) -> torch.Tensor:
        """Captured alone, as the toy's RoPE runs on the host."""
        q = torch.cat([q, q.new_zeros(size - 2, HEADS, DIM)])
        if device == "cpu":
            return server.attend(layer, q)[:2]
        if layer not in graphs:
            query, graph = q.clone(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = server.attend(layer, query)
            graphs[layer] = query, graph, out
        query, graph, out = graphs[layer]
        query.copy_(q)
        graph.replay()
        return out[:2].clone()

    for _ in range(3):
        new = random_tokens(2)
        for tokens, token in zip(sequences, new, strict=True):
            tokens.append(token)
        server.grow(sequences)
        pages = server.tables()
        block_tables[: pages.shape[0]] = pages
        input_lengths.zero_()
        input_lengths[:2] = torch.tensor([len(tokens) for tokens in sequences])
        with server.decoding(state, input_lengths, block_tables):
            logits = server.decoded(sequences, padded)
        toy.check(logits, sequences)
