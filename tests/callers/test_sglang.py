"""The calls that SGLang makes, as of its releases 0.4.0 and, for drafts that are verified, 0.4.1.

Looked at: srt/layers/attention/flashinfer_backend.py, srt/layers/{sampler,layernorm,activation}.py,
srt/lora/, srt/models/deepseek_v2.py, srt/utils.py, srt/server.py, check_env.py. It has pages of one
token, and rows of tokens for its cache; forward and begin_forward, not run and plan.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any, NamedTuple

import pytest
import reference
import torch
import toy_model
from packaging import version
from toy_model import (
    DIM,
    GEMMA,
    HEADS,
    KV_HEADS,
    LAYERS,
    LLAMA,
    SCALE,
    Family,
    Stored,
    Toy,
    last_of,
    offsets,
    random_tokens,
)

from flashinfer import (
    BatchDecodeWithPagedKVCacheWrapper,
    BatchPrefillWithPagedKVCacheWrapper,
    BatchPrefillWithRaggedKVCacheWrapper,
    SegmentGEMMWrapper,
    bmm_fp8,
)
from flashinfer.activation import gelu_and_mul, gelu_tanh_and_mul, silu_and_mul
from flashinfer.cascade import merge_state
from flashinfer.decode import _grouped_size_compiled_for_decode_kernels
from flashinfer.norm import fused_add_rmsnorm, gemma_fused_add_rmsnorm, gemma_rmsnorm, rmsnorm
from flashinfer.sampling import (
    min_p_sampling_from_probs,
    top_k_renorm_prob,
    top_k_top_p_sampling_from_probs,
    top_p_renorm_prob,
)

CONTEXT = 64  # tokens that a request may have


@pytest.mark.artifacts  # metadata is that of an installed package
def test_version_of_the_distribution() -> None:
    found = metadata.version("flashinfer")
    assert version.parse(found) >= version.parse("0.1.6")
    # The report of the environment asks the module.
    assert importlib.import_module("flashinfer").__version__ == found


@pytest.mark.parametrize(("heads", "kv_heads"), [(32, 32), (32, 8), (28, 4), (12, 2), (32, 1)])
def test_question_for_the_group_size(heads: int, kv_heads: int) -> None:
    assert _grouped_size_compiled_for_decode_kernels(heads, kv_heads) is True


class Norms:
    """RMSNorm and Gemma's: out of place, or in place with a residual."""

    def __init__(self, family: Family) -> None:
        self.plain, self.fused = rmsnorm, fused_add_rmsnorm
        if family.bias:
            self.plain, self.fused = gemma_rmsnorm, gemma_fused_add_rmsnorm

    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Any:
        parameter = torch.nn.Parameter(weight)
        if residual is None:
            return self.plain(x, parameter.data, toy_model.EPS)
        self.fused(x, residual, parameter.data, toy_model.EPS)
        return x, residual


def activation(family: Family) -> Any:
    function = gelu_tanh_and_mul if family.activation == "gelu_tanh" else silu_and_mul

    def call(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype, device=x.device)
        function(x, out)
        return out

    return call


class Batch(NamedTuple):
    """Requests (rows of the table of tokens) with the tokens that they have and had before."""

    requests: torch.Tensor
    seq_lens: torch.Tensor
    prefix_lens: torch.Tensor
    slots: torch.Tensor


class Server:
    """The cache, the wrappers and their calls; where layers have windows, two of each wrapper."""

    def __init__(
        self, toy: Toy, requests: int, kv_dtype: torch.dtype, tensor_cores: bool = False
    ) -> None:
        self.toy, self.device, self.kv_dtype = toy, toy.device, kv_dtype
        self.window = max(toy.family.windows)
        self.kinds = 2 if self.window >= 0 else 1
        self.tensor_cores = tensor_cores
        self.workspace = torch.empty(16 << 20, dtype=torch.uint8, device=self.device)
        self.kv_indptr = [self.ints(requests + 1) for _ in range(self.kinds)]
        self.qo_indptr = [self.ints(requests + 1) for _ in range(self.kinds)]
        self.last_page_len = torch.ones(requests, dtype=torch.int32, device=self.device)
        self.ragged = BatchPrefillWithRaggedKVCacheWrapper(self.workspace, "NHD")
        self.paged = [
            BatchPrefillWithPagedKVCacheWrapper(self.workspace, "NHD") for _ in range(self.kinds)
        ]
        self.decode = [
            BatchDecodeWithPagedKVCacheWrapper(self.workspace, "NHD", use_tensor_cores=tensor_cores)
            for _ in range(self.kinds)
        ]
        self.table = self.ints(requests, CONTEXT)  # the slots of every request's tokens
        size = requests * CONTEXT + 1
        self.free = torch.randperm(size - 1) + 1
        stored = torch.uint8 if kv_dtype.itemsize == 1 else kv_dtype
        self.pool = [
            tuple(
                torch.empty(size, KV_HEADS, DIM, dtype=stored, device=self.device) for _ in range(2)
            )
            for _ in range(LAYERS)
        ]

    def ints(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int32, device=self.device)

    def store(self, layer: int, slots: torch.Tensor, *rows: torch.Tensor) -> None:
        for pool, new in zip(self.pool[layer], rows, strict=True):
            pool[slots] = new.to(self.kv_dtype).view(pool.dtype)

    def buffers(self, layer: int) -> tuple[torch.Tensor, ...]:
        return tuple(pool.view(self.kv_dtype) for pool in self.pool[layer])

    def kind(self, layer: int) -> int:
        return int(self.toy.family.windows[layer] < 0) if self.kinds == 2 else 0

    def take(self, requests: list[int], had: list[int], new: list[int]) -> Batch:
        """Slots for new tokens, anywhere in the pool."""
        slots = []
        for request, begin, count in zip(requests, had, new, strict=True):
            mine, self.free = self.free[:count], self.free[count:]
            self.table[request, begin : begin + count] = mine.to(self.device, torch.int32)
            slots.append(mine)
        prefix = torch.tensor(had, dtype=torch.int32, device=self.device)
        seq_lens = prefix + torch.tensor(new, dtype=torch.int32, device=self.device)
        chosen = torch.tensor(requests, device=self.device)
        return Batch(chosen, seq_lens, prefix, torch.cat(slots).to(self.device))

    def indices(self, batch: Batch, lengths: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        rows = [
            self.table[request, begin : begin + length]
            for request, begin, length in zip(
                batch.requests.tolist(), start.tolist(), lengths.tolist(), strict=True
            )
        ]
        return torch.cat(rows)

    def seen(self, batch: Batch, kind: int, longest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Lengths and first tokens of what a kind of layer reads."""
        windowed = self.kinds == 2 and kind == 0
        lengths = torch.minimum(batch.seq_lens, longest) if windowed else batch.seq_lens
        return lengths, batch.seq_lens - lengths

    def begin_decode(self, batch: Batch, wrappers: list[Any]) -> None:
        size = len(batch.requests)
        for kind, wrapper in enumerate(wrappers):
            lengths, start = self.seen(batch, kind, torch.tensor(self.window + 1))
            indptr = self.kv_indptr[kind]
            indptr[1 : size + 1] = torch.cumsum(lengths, dim=0)
            wrapper.end_forward()
            wrapper.begin_forward(
                indptr[: size + 1],
                self.indices(batch, lengths, start),
                self.last_page_len[:size],
                *(HEADS, KV_HEADS, DIM, 1),
                data_type=self.kv_dtype,
                q_data_type=torch.float16,
            )

    def begin_extend(self, batch: Batch, use_ragged: bool) -> None:
        size = len(batch.requests)
        for kind, wrapper in enumerate(self.paged):
            longest = torch.tensor(self.window) + batch.seq_lens - batch.prefix_lens
            lengths, start = self.seen(batch, kind, longest)
            if use_ragged:
                lengths, start = batch.prefix_lens, torch.zeros_like(batch.prefix_lens)
            indptr, qo_indptr = self.kv_indptr[kind], self.qo_indptr[kind]
            indptr[1 : size + 1] = torch.cumsum(lengths, dim=0)
            qo_indptr[1 : size + 1] = torch.cumsum(batch.seq_lens - batch.prefix_lens, dim=0)
            qo_indptr = qo_indptr[: size + 1]
            if use_ragged:
                self.ragged.end_forward()
                self.ragged.begin_forward(qo_indptr, qo_indptr, HEADS, KV_HEADS, DIM)
            wrapper.end_forward()
            wrapper.begin_forward(
                qo_indptr,
                indptr[: size + 1],
                self.indices(batch, lengths, start),
                self.last_page_len[:size],
                *(HEADS, KV_HEADS, DIM, 1),
            )

    def extend(
        self, tokens: list[list[int]], batch: Batch, use_ragged: bool, no_prefix: bool = False
    ) -> torch.Tensor:
        """Logits of all new tokens."""
        self.begin_extend(batch, use_ragged)
        options = {"sm_scale": SCALE, "logits_soft_cap": self.toy.family.soft_cap}

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            paged = self.paged[self.kind(layer)]
            q = q.contiguous().view(-1, HEADS, DIM)
            if not use_ragged:
                self.store(layer, batch.slots, k, v)
                window = self.toy.family.windows[layer]
                return paged.forward(
                    q, self.buffers(layer), causal=True, window_left=window, **options
                )
            out, lse = self.ragged.forward_return_lse(
                q, k.contiguous(), v.contiguous(), causal=True, **options
            )
            if not no_prefix:
                other = paged.forward_return_lse(q, self.buffers(layer), causal=False, **options)
                out, _ = merge_state(out, lse, *other)
            self.store(layer, batch.slots, k, v)
            return out

        positions = [
            torch.arange(begin, end)
            for begin, end in zip(batch.prefix_lens.tolist(), batch.seq_lens.tolist(), strict=True)
        ]
        return self.run(
            torch.tensor([token for new in tokens for token in new]), torch.cat(positions), attend
        )

    def step(self, tokens: torch.Tensor, batch: Batch, wrappers: list[Any]) -> torch.Tensor:
        """Logits of one more token for every request."""

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.store(layer, batch.slots, k, v)
            return wrappers[self.kind(layer)].forward(
                q.contiguous().view(-1, HEADS, DIM),
                self.buffers(layer),
                sm_scale=SCALE,
                logits_soft_cap=self.toy.family.soft_cap,
            )

        return self.run(tokens, batch.seq_lens - 1, attend)

    def run(self, tokens: torch.Tensor, positions: torch.Tensor, attend: Any) -> torch.Tensor:
        family = self.toy.family
        tokens = tokens.to(self.device)
        return self.toy.run(tokens, positions, attend, Norms(family), activation(family))


@pytest.mark.parametrize("kv_dtype", [torch.float16, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("family", [LLAMA, GEMMA], ids=["llama", "gemma"])
def test_conversations(family: Family, kv_dtype: torch.dtype, device: str) -> None:
    """Prompts, second turns with what was cached, and decoding, all in batches."""
    toy = Toy(device, family)
    server = Server(toy, 5, kv_dtype, tensor_cores=kv_dtype.itemsize == 1)
    stored = Stored(kv_dtype)
    requests = [3, 0, 2]
    sequences = [random_tokens(count) for count in (9, 1, 14)]

    batch = server.take(requests, [0, 0, 0], [len(tokens) for tokens in sequences])
    logits = server.extend(sequences, batch, use_ragged=False)
    toy.check(logits[last_of([9, 1, 14])], sequences, stored)

    had = [len(tokens) for tokens in sequences]
    turns = [random_tokens(count) for count in (4, 7, 1)]
    for tokens, turn in zip(sequences, turns, strict=True):
        tokens.extend(turn)
    batch = server.take(requests, had, [len(turn) for turn in turns])
    logits = server.extend(turns, batch, use_ragged=False)
    toy.check(logits[last_of([4, 7, 1])], sequences, stored)

    for _ in range(3):
        had = [len(tokens) for tokens in sequences]
        new = random_tokens(3)
        for tokens, token in zip(sequences, new, strict=True):
            tokens.append(token)
        batch = server.take(requests, had, [1, 1, 1])
        server.begin_decode(batch, server.decode)
        toy.check(server.step(torch.tensor(new), batch, server.decode), sequences, stored)


def test_long_extend_is_ragged_and_merged_with_the_prefix(device: str) -> None:
    toy = Toy(device)
    server = Server(toy, 4, torch.float16)
    first, second = [random_tokens(11), random_tokens(3)], [random_tokens(6), random_tokens(12)]
    batch = server.take([1, 2], [0, 0], [11, 3])
    logits = server.extend(first, batch, use_ragged=True, no_prefix=True)
    toy.check(logits[[10, 13]], first)
    batch = server.take([1, 2], [11, 3], [6, 12])
    logits = server.extend(second, batch, use_ragged=True)
    toy.check(logits[[5, 17]], [a + b for a, b in zip(first, second, strict=True)])


@pytest.mark.parametrize("tensor_cores", [False, True])
def test_decode_with_buffers_for_graphs(tensor_cores: bool, device: str) -> None:
    """Captured with empty requests, replayed for a batch with one that is padding."""
    toy = Toy(device)
    server = Server(toy, 6, torch.float16, tensor_cores)
    sequences = [random_tokens(5), random_tokens(9)]
    batch = server.take([1, 2], [0, 0], [5, 9])
    server.extend(sequences, batch, use_ragged=False)

    size = 3
    indices = server.ints(6 * CONTEXT)
    wrappers = [
        BatchDecodeWithPagedKVCacheWrapper(
            server.workspace,
            "NHD",
            use_cuda_graph=True,
            use_tensor_cores=tensor_cores,
            paged_kv_indptr_buffer=server.kv_indptr[0][: size + 1],
            paged_kv_indices_buffer=indices,
            paged_kv_last_page_len_buffer=server.last_page_len[:size],
        )
    ]
    nothing = torch.zeros(size, dtype=torch.int32, device=device)
    slots, tokens = nothing.long(), nothing.long()
    static = Batch(nothing.long(), nothing.clone(), nothing, slots)
    server.begin_decode(static, wrappers)

    graph = None
    for _ in range(3):
        had = [len(sequence) for sequence in sequences]
        new = random_tokens(2)
        for sequence, token in zip(sequences, new, strict=True):
            sequence.append(token)
        batch = server.take([1, 2], had, [1, 1])
        slots[:2], tokens[:2] = batch.slots, torch.tensor(new, device=device)
        static.seq_lens[:2] = batch.seq_lens
        requests = torch.tensor([1, 2, 0], device=device)
        server.begin_decode(Batch(requests, static.seq_lens, nothing, slots), wrappers)
        if device == "cpu":
            logits = server.step(tokens, static, wrappers)
        else:
            graph, logits = captured_attention(server, static, wrappers, tokens, graph)
        toy.check(logits[:2], sequences)


def captured_attention(
    server: Server, batch: Batch, wrappers: list[Any], tokens: torch.Tensor, graphs: Any
) -> tuple[Any, torch.Tensor]:
    """A step whose attention is captured once for each layer, and replayed.

    Only the attention: the toy's RoPE runs on the host.
    """
    graphs = {} if graphs is None else graphs

    def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        server.store(layer, batch.slots, k, v)
        if layer not in graphs:
            query, graph = q.contiguous(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = wrappers[0].forward(
                    query, server.buffers(layer), sm_scale=SCALE, logits_soft_cap=0.0
                )
            graphs[layer] = query, graph, out
        query, graph, out = graphs[layer]
        query.copy_(q)
        graph.replay()
        return out.clone()

    return graphs, server.run(tokens, batch.seq_lens - 1, attend)


@pytest.mark.parametrize("use_cuda_graph", [False, True])
def test_drafts_are_verified_with_a_mask(use_cuda_graph: bool, device: str) -> None:
    """0.4.1: trees of draft tokens, each of which sees the prompt and its own branch."""
    lengths, drafts = [7, 4], 3
    workspace = torch.empty(8 << 20, dtype=torch.uint8, device=device)
    buffers: dict[str, Any] = {}
    if use_cuda_graph:
        ints = {"dtype": torch.int32, "device": device}
        buffers = {
            "use_cuda_graph": True,
            "qo_indptr_buf": torch.zeros(3, **ints),
            "paged_kv_indptr_buf": torch.zeros(3, **ints),
            "paged_kv_indices_buf": torch.zeros(2 * CONTEXT, **ints),
            "paged_kv_last_page_len_buf": torch.ones(2, **ints),
            "custom_mask_buf": torch.zeros(2 * CONTEXT, dtype=torch.uint8, device=device),
            "qk_indptr_buf": torch.zeros(3, **ints),
        }
    wrapper = BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", **buffers)
    tree = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
    masks = [torch.cat([torch.ones(3, n, dtype=torch.bool), tree], 1) for n in lengths]
    kv_lens = torch.tensor(lengths) + drafts
    q = torch.randn(2 * drafts, HEADS, DIM).to(device, torch.float16)
    k, v = (torch.randn(40, KV_HEADS, DIM).to(device, torch.float16) for _ in range(2))
    slots = torch.randperm(40)[: int(kv_lens.sum())]
    wrapper.end_forward()
    wrapper.begin_forward(
        offsets(torch.tensor([drafts, drafts])).to(device),
        offsets(kv_lens).to(device),
        slots.to(device, torch.int32),
        torch.ones(2, dtype=torch.int32, device=device),
        *(HEADS, KV_HEADS, DIM, 1),
        q_data_type=torch.float16,
        custom_mask=torch.cat([mask.flatten() for mask in masks]).to(device),
    )
    out = wrapper.forward(q, (k, v), causal=True, sm_scale=SCALE, logits_soft_cap=0.0)
    expected = [
        reference.attention(q[3 * b : 3 * b + 3], k.cpu()[mine], v.cpu()[mine], mask=masks[b])[0]
        for b, mine in enumerate(slots.split(kv_lens.tolist()))
    ]
    reference.assert_close(out, torch.cat(expected))


@pytest.mark.parametrize("shape", [(6, 384), (2, 3, 384)])
def test_activations_write_to_an_output(shape: tuple[int, ...], device: str) -> None:
    x = torch.randn(shape).to(device, torch.float16)
    for function, name in (
        (silu_and_mul, "silu"),
        (gelu_and_mul, "gelu"),
        (gelu_tanh_and_mul, "gelu_tanh"),
    ):
        out = torch.empty((*shape[:-1], shape[-1] // 2), dtype=x.dtype, device=device)
        function(x, out)
        reference.assert_close(out, reference.act_and_mul(x, name))


class Sampling(NamedTuple):
    """What requests ask for; 1 << 30 is SGLang's word for no top-k."""

    top_ks: torch.Tensor
    top_ps: torch.Tensor
    min_ps: torch.Tensor


def allowed(probs: torch.Tensor, info: Sampling, with_min_p: bool) -> torch.Tensor:
    """Which tokens may come, by sorting in float64."""
    values, order = probs.double().cpu().sort(dim=-1, descending=True)
    ranks = torch.arange(values.shape[1])
    keep = ranks < info.top_ks.cpu()[:, None]
    if with_min_p:
        values = values * keep
        values = values / values.sum(-1, keepdim=True)
    # Sums near the edge may fall on either side.
    keep &= values.cumsum(-1) - values < info.top_ps.double().cpu()[:, None] + 1e-6
    if with_min_p:
        keep &= values >= values[:, :1] * (info.min_ps.double().cpu()[:, None] - 1e-6)
    return torch.zeros_like(keep).scatter(1, order, keep)


@pytest.mark.parametrize("need_min_p", [False, True])
def test_sampler(need_min_p: bool, device: str) -> None:
    rows = 64
    probs = torch.softmax(2 * torch.randn(rows, 500).to(device), dim=-1)
    info = Sampling(
        torch.tensor([1, 5, 50, 1 << 30], dtype=torch.int32).repeat(rows // 4).to(device),
        torch.tensor([1.0, 0.3, 0.9, 0.95]).repeat_interleave(rows // 4).to(device),
        torch.tensor([0.0, 0.1]).repeat(rows // 2).to(device),
    )
    may = allowed(probs, info, need_min_p)
    for _ in range(20):
        uniform_samples = torch.rand((32, rows), device=device)
        if need_min_p:
            kept = top_p_renorm_prob(top_k_renorm_prob(probs, info.top_ks), info.top_ps)
            tokens, success = min_p_sampling_from_probs(kept, uniform_samples, info.min_ps)
        else:
            tokens, success = top_k_top_p_sampling_from_probs(
                *(probs, uniform_samples, info.top_ks, info.top_ps),
                filter_apply_order="joint",
            )
        assert torch.all(success)
        assert tokens.dtype == torch.int32
        assert may.gather(1, tokens.cpu().long()[:, None]).all()


def test_nan_is_reported_where_it_is_asked_for(device: str) -> None:
    probs = torch.softmax(torch.randn(2, 9), -1).to(device)
    probs[1, 3] = torch.nan
    arguments = (probs, torch.rand(32, 2).to(device), 3, 0.9)
    with pytest.raises(ValueError, match="NaN"):
        top_k_top_p_sampling_from_probs(*arguments, "joint", check_nan=True)


def test_lora(device: str) -> None:
    """Adapters in one buffer: down, and up in slices, with int32 offsets and int64 indices."""
    rank, scaling = 8, 0.5
    seg_lens = torch.tensor([3, 0, 5, 1])
    seg_indptr = torch.zeros(5, dtype=torch.int32, device=device)
    seg_indptr[1:] = torch.cumsum(seg_lens, dim=0)
    weight_indices = torch.tensor([1, 0, 2, 1], device=device)
    x = torch.randn(9, 64).to(device, torch.float16)
    down = (torch.randn(3, 2 * rank, 64) / 8).to(device, torch.float16)
    up = (torch.randn(3, 96, rank) / 3).to(device, torch.float16)
    gemm = SegmentGEMMWrapper(torch.empty(1 << 20, dtype=torch.int8, device=device))

    def run(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return gemm.run(
            x=x,
            weights=weights,
            batch_size=4,
            weight_column_major=True,
            seg_indptr=seg_indptr,
            weight_indices=weight_indices,
        )

    base = torch.randn(9, 96).to(device, torch.float16)
    between = run(x, down)
    out = torch.empty_like(base)
    for part in range(2):
        left, right = 48 * part, 48 * (part + 1)
        mine = between[:, rank * part : rank * (part + 1)].contiguous()
        out[:, left:right] = run(mine, up[:, left:right, :].contiguous())
    got = base + out * scaling

    rows = weight_indices.cpu().repeat_interleave(seg_lens)
    a, b = down.double().cpu()[rows], up.double().cpu()[rows]
    inner = torch.einsum("ni,nri->nr", x.double().cpu(), a)
    halves = [
        torch.einsum("nr,nor->no", inner[:, rank * p : rank * (p + 1)], b[:, 48 * p : 48 * (p + 1)])
        for p in range(2)
    ]
    reference.assert_close(got, base.double().cpu() + torch.cat(halves, 1) * scaling, atol=1e-2)


def test_latent_attention_absorbs_weights_in_fp8(device: str) -> None:
    """DeepSeek's heads as a batch; one scale for a tensor, without dimensions."""

    def quantised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        step = x.abs().amax().float() / torch.finfo(torch.float8_e4m3fn).max
        return (x / step).to(torch.float8_e4m3fn).contiguous(), step

    q = torch.randn(5, HEADS, 32).to(device, torch.bfloat16)
    w = torch.randn(HEADS, 32, 48).to(device, torch.bfloat16)
    weights, w_scale = quantised(w)
    weights = weights.transpose(1, 2).contiguous().transpose(1, 2)
    rows, scale = quantised(q.transpose(0, 1))
    out = bmm_fp8(rows, weights, scale, w_scale, torch.bfloat16)
    expected = torch.bmm(rows.cpu().double(), weights.cpu().double())
    reference.assert_close(out, expected * (scale * w_scale).double().cpu())
