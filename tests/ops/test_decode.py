from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from batches import FP8, Batch, Heads, assert_attention, randn, workspace

import flashinfer
from flashinfer import decode

HEADS = [Heads(4, 4, 64), Heads(8, 2, 128), Heads(12, 4, 256), Heads(17, 1, 64)]
OPTIONS: list[dict[str, Any]] = [
    {"logits_soft_cap": 3.0},
    {"window_left": 30},
    {"window_left": 0},
    {"sm_scale": 0.3},
    {"pos_encoding_mode": "ROPE_LLAMA"},
    {"pos_encoding_mode": "ROPE_LLAMA", "rope_scale": 2.0, "rope_theta": 5e5},
    {"pos_encoding_mode": "ALIBI"},
    {"pos_encoding_mode": "ALIBI", "logits_soft_cap": 2.0, "window_left": 50},
]


def decode_batch(
    kv_lens: list[int], heads: Heads, dtype: torch.dtype, device: str, **how: Any
) -> Batch:
    return Batch([1] * len(kv_lens), kv_lens, heads, dtype, device, **how)


def planned(batch: Batch, size: int = 8 << 20, **options: Any) -> Any:
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace(batch.device, size), batch.layout
    )
    wrapper.plan(*batch.tables, *batch.heads, batch.page_size, **options)
    return wrapper


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("kv_len", [1, 54, 1999])
def test_single(kv_len: int, heads: Heads, layout: str, dtype: torch.dtype, device: str) -> None:
    q = randn(heads.qo, heads.dim, dtype=dtype, device=device)
    k, v = (randn(kv_len, heads.kv, heads.dim, dtype=dtype, device=device) for _ in range(2))
    expected = reference.attention(q[None], k, v)[0][0]
    if layout == "HND":
        k, v = k.transpose(0, 1).contiguous(), v.transpose(0, 1)
    out = flashinfer.single_decode_with_kv_cache(q, k, v, layout)
    assert out.dtype == dtype
    assert_attention(out, (expected, expected))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_single_with_options(options: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    q = randn(6, 64, dtype=dtype, device=device)
    k, v = (randn(143, 2, 64, dtype=dtype, device=device) for _ in range(2))
    expected = reference.attention(q[None], k, v, **options)[0][0]
    out = flashinfer.single_decode_with_kv_cache(q, k, v, **options)
    assert_attention(out, (expected, expected))


def test_single_over_no_keys(device: str) -> None:
    q = randn(4, 64, dtype=torch.float16, device=device)
    k = q.new_empty(0, 4, 64)
    assert not flashinfer.single_decode_with_kv_cache(q, k, k).any()


def test_single_scales(device: str) -> None:
    q = randn(4, 64, dtype=torch.float16, device=device)
    k, v = (randn(77, 2, 64, dtype=torch.float16, device=device) for _ in range(2))
    out = flashinfer.single_decode_with_kv_cache(q, k, v, q_scale=0.5, k_scale=3.0, v_scale=0.25)
    expected = reference.attention(q[None], k, v, sm_scale=1.5 / 8)[0][0] * 0.25
    assert_attention(out, (expected, expected))


def test_the_plan_of_a_single_request_is_kept(device: str) -> None:
    from flashinfer import _single

    q = randn(4, 64, dtype=torch.float16, device=device)
    k = randn(91, 4, 64, dtype=torch.float16, device=device)
    flashinfer.single_decode_with_kv_cache(q, k, k)
    misses = _single._plan_for.cache_info().misses
    # Another layout and other options, the same plan.
    first = flashinfer.single_decode_with_kv_cache(q, k, k, window_left=9)
    second = flashinfer.single_decode_with_kv_cache(
        q, k.transpose(0, 1), k.transpose(0, 1), "HND", window_left=9
    )
    assert _single._plan_for.cache_info().misses == misses
    assert torch.equal(first, second)


@pytest.mark.parametrize("form", ["one", "tuple", "strided"])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("page_size", [1, 5, 16])
def test_batch(page_size: int, layout: str, form: str, device: str) -> None:
    batch = decode_batch(
        [54, 1, 97, 512, 3], Heads(8, 2, 64), torch.float16, device,
        page_size=page_size, layout=layout, form=form,
    )  # fmt: skip
    wrapper = planned(batch)
    expected = batch.reference()
    assert_attention(wrapper.run(batch.q, batch.cache), expected)
    assert_attention(wrapper.run(batch.q, batch.cache, return_lse=True), expected)
    assert_attention(wrapper.run_return_lse(batch.q, batch.cache), expected)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_caches_of_single_entries(layout: str, device: str) -> None:
    """SGLang's form: pages of one entry, without a dimension for it."""
    batch = decode_batch(
        [54, 1, 97], Heads(8, 2, 64), torch.float16, device, page_size=1, layout=layout
    )
    wrapper, expected = planned(batch), batch.reference()
    slots = 2 if layout == "NHD" else 3
    assert_attention(wrapper.run(batch.q, batch.cache.squeeze(slots)), expected)
    k, v = (half.squeeze(slots - 1) for half in batch.cache.unbind(1))
    assert_attention(wrapper.run(batch.q, (k, v)), expected)


@pytest.mark.parametrize("heads", HEADS)
def test_batch_of_any_group_size(heads: Heads, dtype: torch.dtype, device: str) -> None:
    batch = decode_batch([33, 128, 700, 1], heads, dtype, device)
    assert_attention(planned(batch).run(batch.q, batch.cache, return_lse=True), batch.reference())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_batch_with_options(options: dict[str, Any], device: str) -> None:
    batch = decode_batch([54, 1, 97, 240], Heads(6, 2, 64), torch.float16, device)
    expected = batch.reference(**options)
    assert_attention(planned(batch, **options).run_return_lse(batch.q, batch.cache), expected)
    # FlashInfer's older way: options when it runs, under a plan that did not know them.
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device), "NHD")
    wrapper.begin_forward(*batch.tables, *batch.heads, batch.page_size)
    assert_attention(wrapper.forward(batch.q, batch.cache, **options), expected)
    assert_attention(wrapper.forward_return_lse(batch.q, batch.cache, **options), expected)
    wrapper.end_forward()
    assert_attention(wrapper.run(batch.q, batch.cache), batch.reference())


def test_requests_that_are_split(dtype: torch.dtype, device: str) -> None:
    batch = decode_batch([5000, 40, 0, 9001], Heads(8, 2, 128), dtype, device)
    expected = batch.reference(logits_soft_cap=10.0)
    whole = planned(batch, size=0, logits_soft_cap=10.0)
    assert whole._planned.capacity.slots == 0
    split = planned(batch, logits_soft_cap=10.0)
    assert split._planned.capacity.slots > 2
    for wrapper in (whole, split):
        out, lse = wrapper.run_return_lse(batch.q, batch.cache)
        assert_attention((out, lse), expected)
        assert not out[2].any()
        assert (lse[2] == -torch.inf).all()
    again = split.run_return_lse(batch.q, batch.cache)
    assert torch.equal(again[0], split.run_return_lse(batch.q, batch.cache)[0])


def test_a_window_that_leaves_chunks_empty(device: str) -> None:
    batch = decode_batch([5000, 40], Heads(4, 4, 64), torch.float16, device)
    wrapper = planned(batch, window_left=100)
    assert wrapper._planned.capacity.slots > 0
    assert_attention(wrapper.run_return_lse(batch.q, batch.cache), batch.reference(window_left=100))


@pytest.mark.parametrize("kv_dtype", FP8, ids=str)
@pytest.mark.parametrize("page_size", [1, 16])
def test_fp8_cache(kv_dtype: torch.dtype, page_size: int, dtype: torch.dtype, device: str) -> None:
    batch = decode_batch(
        [54, 97, 700], Heads(8, 2, 128), dtype, device, page_size=page_size, kv_dtype=kv_dtype
    )
    wrapper = planned(batch, q_data_type=dtype, kv_data_type=kv_dtype)
    expected, lse = batch.reference(sm_scale=0.6 / 128**0.5)
    actual = wrapper.run(batch.q, batch.cache, k_scale=0.6, v_scale=1.7, return_lse=True)
    assert_attention(actual, (expected * 1.7, lse))


def test_scales(device: str) -> None:
    batch = decode_batch([54, 97], Heads(8, 2, 64), torch.float16, device)
    out = planned(batch, sm_scale=0.2).run(batch.q, batch.cache, q_scale=0.5, k_scale=2.0)
    assert_attention(out, batch.reference(sm_scale=0.2))
    out = planned(batch).run(batch.q, batch.cache, 0.5, 3.0, 0.5)
    expected, lse = batch.reference(sm_scale=1.5 / 8)
    assert_attention(out, (expected * 0.5, lse))


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("where", ["host", "device"])
def test_index_tensors(index_dtype: torch.dtype, where: str, device: str) -> None:
    batch = decode_batch([54, 97, 1], Heads(8, 2, 64), torch.float16, device)
    place = "cpu" if where == "host" else device
    tables = [table.to(place, index_dtype) for table in batch.tables]
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device))
    wrapper.plan(*tables, *batch.heads, batch.page_size)
    if where == "host":
        for table in tables:
            table.fill_(-7)  # the caller's again
    assert_attention(wrapper.run(batch.q, batch.cache), batch.reference())


def test_positional_calls_of_0_1_6(device: str) -> None:
    batch = decode_batch([54, 97], Heads(8, 2, 64), torch.float16, device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(device), "NHD", False, True)
    # ..., pos_encoding_mode, window_left, logits_soft_cap, data_type, q_data_type, sm_scale, ...
    rest: Any = ("ROPE_LLAMA", 40, 5.0, "float16", "float16", 0.2, 2.0, 3e4)
    wrapper.begin_forward(*batch.tables, *batch.heads, batch.page_size, *rest)
    expected = batch.reference(
        pos_encoding_mode="ROPE_LLAMA", window_left=40, logits_soft_cap=5.0, sm_scale=0.2,
        rope_scale=2.0, rope_theta=3e4,
    )  # fmt: skip
    assert_attention(wrapper.run(batch.q, batch.cache), expected)
    # q, cache, pos_encoding_mode, q_scale, k_scale, v_scale, window_left, cap, sm_scale
    out = wrapper.forward(batch.q, batch.cache, "NONE", None, 2.0, None, 20, 3.0, 0.1)
    assert_attention(out, batch.reference(window_left=20, logits_soft_cap=3.0, sm_scale=0.2))
    wrapper.end_forward()


def test_workspaces(device: str) -> None:
    batch = decode_batch([3000, 97], Heads(8, 2, 64), torch.float16, device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(2 << 20, dtype=torch.bfloat16, device=device)[3:]
    )
    wrapper.plan(*batch.tables, *batch.heads, batch.page_size)
    assert wrapper._planned is not None
    assert wrapper._planned.capacity.slots > 0
    assert_attention(wrapper.run(batch.q, batch.cache), batch.reference())
    wrapper.reset_workspace_buffer(workspace(device, 40), workspace(device, 40))
    wrapper.plan(*batch.tables, *batch.heads, batch.page_size)
    assert wrapper._planned.capacity.slots == 0
    assert_attention(wrapper.run(batch.q, batch.cache), batch.reference())


def graph_wrapper(device: str, batch_size: int, pages: int, layout: str = "NHD") -> Any:
    buffers = [
        torch.zeros(n, dtype=torch.int32, device=device)
        for n in (batch_size + 1, pages, batch_size)
    ]
    return flashinfer.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(
        workspace(device), *buffers, layout
    ), buffers


GRAPH_LENGTHS = [[1, 1, 1], [54, 97, 3], [7000, 1, 300], [40, 40, 40]]


def test_plans_for_graphs_stay_in_place(device: str) -> None:
    wrapper, buffers = graph_wrapper(device, 3, 1000)
    assert wrapper.is_cuda_graph_enabled
    first = None
    for kv_lens in GRAPH_LENGTHS:
        batch = decode_batch(kv_lens, Heads(8, 2, 64), torch.float16, device)
        wrapper.plan(*batch.tables, *batch.heads, batch.page_size)
        plan = wrapper._planned
        place = (plan.words.data_ptr(), plan.capacity, wrapper._kv_indices.data_ptr())
        first = first or place
        assert place == first
        for buffer, table in zip(buffers, batch.tables, strict=True):
            assert torch.equal(buffer[: table.shape[0]], table)
        assert_attention(wrapper.run_return_lse(batch.q, batch.cache), batch.reference())


@pytest.mark.gpu
def test_cuda_graph() -> None:
    wrapper, _ = graph_wrapper("cuda", 3, 1000)
    heads = Heads(8, 2, 128)
    batches = [decode_batch(lens, heads, torch.float16, "cuda") for lens in GRAPH_LENGTHS]
    size = max(batch.cache.shape[0] for batch in batches)
    q = torch.zeros_like(batches[0].q)
    cache = q.new_zeros(size, 2, 16, heads.kv, heads.dim)
    wrapper.plan(*batches[0].tables, *heads, 16)
    wrapper.run(q, cache)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = wrapper.run_return_lse(q, cache)
    for batch in batches:
        q.copy_(batch.q)
        cache[: batch.cache.shape[0]].copy_(batch.cache)
        wrapper.plan(*batch.tables, *heads, 16)
        graph.replay()
        assert_attention((out, lse), batch.reference())


@pytest.mark.gpu
def test_run_does_not_synchronize() -> None:
    batch = decode_batch([54, 5000], Heads(8, 2, 128), torch.float16, "cuda")
    tables = [table.cpu() for table in batch.tables]
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace("cuda"))
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            wrapper.plan(*tables, *batch.heads, batch.page_size)
            out = wrapper.run(batch.q, batch.cache)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert_attention(out, batch.reference())


def test_what_sglang_asks() -> None:
    assert decode._grouped_size_compiled_for_decode_kernels(32, 8)
    assert not decode._grouped_size_compiled_for_decode_kernels(32, 5)
