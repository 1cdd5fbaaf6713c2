"""The calls that vLLM makes, as of its release 0.6.5.

Looked at: vllm/attention/backends/flashinfer.py, vllm/model_executor/layers/sampler.py and
rejection_sampler.py. Its cache is one tensor with pages of 16 tokens; a batch has prompts first,
then decoded requests, in one table of pages; norms and activations are its own.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import pytest
import torch
from toy_model import DIM, HEADS, KV_HEADS, LAYERS, SCALE, VOCAB, Stored, Toy, random_tokens

import flashinfer.sampling
from flashinfer import BatchDecodeWithPagedKVCacheWrapper
from flashinfer.decode import CUDAGraphBatchDecodeWithPagedKVCacheWrapper
from flashinfer.prefill import BatchPrefillWithPagedKVCacheWrapper
from flashinfer.sampling import chain_speculative_sampling
from flashinfer.sampling import top_k_top_p_sampling_from_probs as flashinfer_top_k_top_p_sampling

BLOCK, BLOCKS = 16, 12


def test_it_is_found() -> None:
    assert find_spec("flashinfer")


class Request(NamedTuple):
    """Its tokens and its pages."""

    tokens: list[int]
    blocks: list[int]


class Metadata(NamedTuple):
    """What a step needs, as vLLM builds it: on the host, and longer than it must be."""

    query_start_loc: torch.Tensor
    indptr: torch.Tensor
    indices: torch.Tensor
    last_page_len: torch.Tensor
    num_prefills: int


class Engine:
    """The cache and the wrappers with their calls."""

    def __init__(self, toy: Toy, stored: Stored, force_tensor_cores: bool = False) -> None:
        self.toy, self.device, self.stored = toy, toy.device, stored
        self.workspace = torch.empty(16 << 20, dtype=torch.uint8, device=self.device)
        self.prefill = BatchPrefillWithPagedKVCacheWrapper(self.workspace, "NHD")
        self.decode = BatchDecodeWithPagedKVCacheWrapper(
            self.workspace,
            "NHD",
            use_tensor_cores=force_tensor_cores or HEADS // KV_HEADS > 4,
        )
        self.quantised = stored.dtype.itemsize == 1
        kind = torch.uint8 if self.quantised else torch.float16
        shape = (BLOCKS, 2, BLOCK, KV_HEADS, DIM)
        self.caches = [torch.zeros(shape, dtype=kind, device=self.device) for _ in range(LAYERS)]
        self.free = torch.randperm(BLOCKS).tolist()

    def grow(self, request: Request, tokens: list[int]) -> None:
        request.tokens.extend(tokens)
        while len(request.blocks) * BLOCK < len(request.tokens):
            request.blocks.append(self.free.pop())

    def store(
        self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """What vLLM's own kernel does, with the scales that it has for fp8."""
        cache = self.caches[layer]
        for half, rows, scale in (
            (0, key, self.stored.k_scale),
            (1, value, self.stored.v_scale),
        ):
            new = (rows / scale).to(self.stored.dtype).view(cache.dtype)
            cache[slots // BLOCK, half, slots % BLOCK] = new

    def metadata(self, prefills: list[Request], decodes: list[Request], pad: int = 0) -> Metadata:
        requests = prefills + decodes
        indptr, indices, last = [0], [], []
        for request in requests:
            indices += request.blocks
            indptr.append(len(indices))
            last.append((len(request.tokens) - 1) % BLOCK + 1)
        indptr += [indptr[-1]] * pad
        last += [0] * pad
        indices += [0] * (BLOCKS - len(indices))
        queries = [len(request.tokens) for request in prefills] + [1] * len(decodes)
        start = torch.tensor([0, *queries]).cumsum(0).to(self.device, torch.int32)
        return Metadata(
            start,
            torch.tensor(indptr, dtype=torch.int),
            torch.tensor(indices, dtype=torch.int),
            torch.tensor(last, dtype=torch.int),
            len(prefills),
        )

    def begin_forward(self, meta: Metadata, decode: Any) -> None:
        indptr, indices = meta.indptr.to(self.device), meta.indices.to(self.device)
        last = meta.last_page_len.to(self.device)
        n = meta.num_prefills
        if n > 0:
            self.prefill.end_forward()
            self.prefill.begin_forward(
                meta.query_start_loc[: n + 1],
                indptr[: n + 1],
                indices,
                last[:n],
                *(HEADS, KV_HEADS, DIM, BLOCK),
            )
        if len(last) > n:
            decode.end_forward()
            decode.begin_forward(
                indptr[n:],
                indices,
                last[n:],
                *(HEADS, KV_HEADS, DIM, BLOCK),
                pos_encoding_mode="NONE",
                data_type=self.stored.dtype,
                q_data_type=torch.float16,
            )

    def view(self, layer: int) -> torch.Tensor:
        cache = self.caches[layer]
        return cache.view(self.stored.dtype) if self.quantised else cache

    def run_decode(self, wrapper: Any, query: torch.Tensor, layer: int) -> torch.Tensor:
        return wrapper.forward(
            query,
            self.view(layer),
            sm_scale=SCALE,
            logits_soft_cap=None,
            k_scale=self.stored.k_scale,
            v_scale=self.stored.v_scale,
            window_left=-1,
        )

    def step(
        self, prefills: list[Request], decodes: list[Request], pad: int = 0, graph: Any = None
    ) -> torch.Tensor:
        """Logits of every request's last token, prompts first."""
        decode = self.decode if graph is None else graph.wrapper
        self.begin_forward(self.metadata(prefills, decodes, pad), decode)
        tokens: list[int] = []
        positions, slots = [], []
        for request in prefills + decodes:
            count = len(request.tokens)
            at = torch.arange(0 if len(slots) < len(prefills) else count - 1, count)
            tokens += [request.tokens[place] for place in at.tolist()]
            positions.append(at)
            blocks = torch.tensor(request.blocks)
            slots.append(blocks[at // BLOCK] * BLOCK + at % BLOCK)
        mapping = torch.cat(slots).to(self.device)
        split = sum(len(request.tokens) for request in prefills)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.store(layer, mapping, k, v)
            q = q.contiguous()
            parts = []
            if prefills:
                parts.append(
                    self.prefill.forward(
                        q[:split],
                        self.view(layer),
                        logits_soft_cap=None,
                        causal=True,
                        k_scale=self.stored.k_scale,
                        v_scale=self.stored.v_scale,
                        window_left=-1,
                    )
                )
            if decodes:
                query = torch.cat([q[split:], q.new_zeros(pad, HEADS, DIM)])
                if graph is None or self.device == "cpu":
                    out = self.run_decode(decode, query, layer)
                else:
                    out = graph.replay(self, query, layer)
                parts.append(out[: len(decodes)])
            return torch.cat(parts)

        where = torch.tensor(tokens, device=self.device)
        logits = self.toy.run(where, torch.cat(positions), attend)
        ends = [len(at) for at in positions]
        return logits[torch.tensor(ends).cumsum(0) - 1]


@pytest.mark.parametrize(
    "stored",
    [Stored(), Stored(torch.float8_e4m3fn, 0.5, 0.25), Stored(torch.float8_e5m2)],
    ids=["float16", "fp8_e4m3", "fp8_e5m2"],
)
def test_prompts_and_decoding_in_one_batch(stored: Stored, device: str) -> None:
    toy = Toy(device)
    engine = Engine(toy, stored, force_tensor_cores=stored.dtype.itemsize == 1)
    requests = [Request([], []) for _ in range(4)]
    for request, count in zip(requests, (15, 33, 5, 16), strict=True):
        engine.grow(request, random_tokens(count))
    first, late = requests[:2], requests[2:]
    toy.check(engine.step(first, []), [request.tokens for request in first], stored)
    for prompts in ([late[0]], [late[1]], []):
        running = [request for request in requests if request in first]
        for request in running:
            engine.grow(request, random_tokens(1))
        logits = engine.step(prompts, running)
        toy.check(logits, [request.tokens for request in prompts + running], stored)
        first = first + prompts


class Graph:
    """The wrapper for one batch size, with slices of buffers that all sizes share."""

    def __init__(self, engine: Engine, size: int, most: int) -> None:
        ints = {"dtype": torch.int32, "device": engine.device}
        indices = torch.empty(most * BLOCKS, **ints)
        indptr, last = torch.empty(most + 1, **ints), torch.empty(most, **ints)
        self.wrapper = CUDAGraphBatchDecodeWithPagedKVCacheWrapper(
            engine.workspace, indptr[: size + 1], indices, last[:size], "NHD", False
        )
        engine.begin_forward(
            Metadata(
                torch.arange(size + 1, dtype=torch.int32),
                torch.arange(size + 1, dtype=torch.int32),
                torch.arange(size, dtype=torch.int32),
                torch.full((size,), BLOCK, dtype=torch.int32),
                0,
            ),
            self.wrapper,
        )
        self.captured: dict[int, Any] = {}

    def replay(self, engine: Engine, query: torch.Tensor, layer: int) -> torch.Tensor:
        """Attention alone: the toy's RoPE runs on the host."""
        if layer not in self.captured:
            static, graph = query.clone(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = engine.run_decode(self.wrapper, static, layer)
            self.captured[layer] = static, graph, out
        static, graph, out = self.captured[layer]
        static.copy_(query)
        graph.replay()
        return out.clone()


def test_decode_with_graphs_of_a_larger_batch(device: str) -> None:
    """Requests that are padding have no pages, and a last page of length 0."""
    toy = Toy(device)
    engine = Engine(toy, Stored())
    requests = [Request([], []) for _ in range(3)]
    for request, count in zip(requests, (15, 30, 3), strict=True):
        engine.grow(request, random_tokens(count))
    engine.step(requests, [])
    graph = Graph(engine, 4, 8)
    for _ in range(3):
        for request in requests:
            engine.grow(request, random_tokens(1))
        logits = engine.step([], requests, pad=1, graph=graph)
        toy.check(logits, [request.tokens for request in requests])


@pytest.mark.parametrize("seeded", [False, True])
def test_sampler(seeded: bool, device: str) -> None:
    num_samples, rows = 2, 3
    probs = torch.softmax(2 * torch.randn(rows, VOCAB).to(device), -1)
    top_ks = torch.tensor([1, 40, VOCAB], dtype=torch.int, device=device)
    top_ps = torch.tensor([1.0, 0.5, 0.9], device=device)

    def sample() -> torch.Tensor:
        many = [x.repeat_interleave(num_samples, dim=0) for x in (probs, top_ks, top_ps)]
        uniform_samples = torch.empty((32, rows * num_samples), device=device)
        if seeded:
            for row in range(rows):
                generator = torch.Generator(device).manual_seed(row)
                mine = slice(num_samples * row, num_samples * (row + 1))
                uniform_samples[:, mine].uniform_(generator=generator)
        else:
            uniform_samples.uniform_()
        tokens, success = flashinfer_top_k_top_p_sampling(
            many[0], uniform_samples, many[1], many[2]
        )
        assert success.all()
        # What vLLM falls back to where that is not so, from the same distribution.
        kept = flashinfer.sampling.top_k_renorm_prob(many[0], many[1])
        kept = flashinfer.sampling.top_p_renorm_prob(kept, many[2])
        again = flashinfer.sampling.sampling_from_probs(kept, uniform_samples[0])
        for drawn in (tokens, again):
            assert (kept.gather(1, drawn.long()[:, None]) > 0).all()
        return tokens.view(-1, num_samples)

    draws = torch.stack([sample() for _ in range(20)])
    assert draws.dtype == torch.int32
    assert (draws[:, 0] == probs[0].argmax()).all()
    assert (draws == draws[0]).all() == seeded


def test_rejection_sampler(device: str) -> None:
    """Draft tokens are int64, and accepted tokens come before one of the target's."""
    batch, k = 400, 3
    draft = torch.softmax(torch.randn(1, k, 20), -1).repeat(batch, 1, 1)
    target = torch.softmax(torch.randn(1, k + 1, 20), -1).repeat(batch, 1, 1)
    ids = torch.multinomial(draft.view(-1, 20), 1).view(batch, k)
    uniform_samples = torch.rand(batch, k + 1)
    output, accepted, emitted = chain_speculative_sampling(
        *(draft.to(device), ids.to(device), uniform_samples.to(device), target.to(device))
    )
    assert output.shape == (batch, k + 1)
    assert accepted.shape == emitted.shape == (batch,)
    # Of every token by itself: whether u < target / draft.
    p, q = (x.gather(2, ids[..., None])[..., 0] for x in (draft.double(), target[:, :k].double()))
    good = uniform_samples[:, :k].double() * p < q
    chain = good.long().cumprod(1)
    assert accepted.cpu().tolist() == good.sum(1).tolist()
    assert emitted.cpu().tolist() == chain.sum(1).tolist()
    for row, length in enumerate(chain.sum(1).tolist()):
        assert output[row, :length].tolist() == ids[row, :length].tolist()
        assert 0 <= int(output[row, length]) < 20
        assert (output[row, length + 1 :] == -1).all()
    # The first token that comes out has the target's distribution, whatever the draft's is.
    counts = torch.bincount(output[:, 0].cpu().long(), minlength=20) / batch
    reference_counts = target[0, 0]
    assert (counts - reference_counts).abs().max() < 5 * (0.25 / batch) ** 0.5
