from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from batches import FP8, Batch, Heads, assert_attention, randn, workspace

import flashinfer

HEADS = [Heads(4, 4, 64), Heads(8, 2, 128), Heads(6, 2, 256), Heads(7, 1, 64)]
OPTIONS: list[dict[str, Any]] = [
    {"causal": True, "logits_soft_cap": 3.0},
    {"causal": True, "window_left": 13},
    {"window_left": 0},
    {"sm_scale": 0.3},
    {"causal": True, "pos_encoding_mode": "ROPE_LLAMA"},
    {"pos_encoding_mode": "ROPE_LLAMA", "rope_scale": 2.0, "rope_theta": 5e5},
    {"causal": True, "pos_encoding_mode": "ALIBI"},
    {"pos_encoding_mode": "ALIBI", "logits_soft_cap": 2.0, "window_left": 20},
]
# The field's tolerance for custom masks.
MASKED = {"atol": 1e-2, "rtol": 1e-3}


def single(
    qo_len: int, kv_len: int, heads: Heads, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        randn(qo_len, heads.qo, heads.dim, dtype=dtype, device=device),
        randn(kv_len, heads.kv, heads.dim, dtype=dtype, device=device),
        randn(kv_len, heads.kv, heads.dim, dtype=dtype, device=device),
    )


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [(1, 1), (37, 37), (17, 127), (130, 511), (3, 2100)], ids=str)
def test_single(
    lengths: tuple[int, int], causal: bool, layout: str, dtype: torch.dtype, device: str
) -> None:
    q, k, v = single(*lengths, Heads(8, 2, 64), dtype, device)
    expected = reference.attention(q, k, v, causal=causal)
    if layout == "HND":
        k, v = k.transpose(0, 1), v.transpose(0, 1).contiguous()
    out = flashinfer.single_prefill_with_kv_cache(q, k, v, causal=causal, kv_layout=layout)
    assert out.dtype == dtype
    assert_attention(out, expected)
    pair = flashinfer.single_prefill_with_kv_cache_return_lse(
        q, k, v, causal=causal, kv_layout=layout
    )
    assert_attention(pair, expected)


@pytest.mark.parametrize("heads", HEADS)
def test_single_of_any_group_size(heads: Heads, dtype: torch.dtype, device: str) -> None:
    q, k, v = single(33, 90, heads, dtype, device)
    pair = flashinfer.single_prefill_with_kv_cache(q, k, v, causal=True, return_lse=True)
    assert_attention(pair, reference.attention(q, k, v, causal=True))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_single_with_options(options: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    q, k, v = single(29, 143, Heads(6, 2, 64), dtype, device)
    pair = flashinfer.single_prefill_with_kv_cache_return_lse(q, k, v, **options)
    assert_attention(pair, reference.attention(q, k, v, **options))


@pytest.mark.parametrize("how", ["bools", "flat", "packed"])
@pytest.mark.parametrize("lengths", [(37, 37), (13, 97), (60, 21)], ids=str)
def test_single_with_a_mask(lengths: tuple[int, int], how: str, device: str) -> None:
    q, k, v = single(*lengths, Heads(4, 2, 64), torch.float16, device)
    mask = (torch.rand(lengths) < 0.5).to(device)
    mask[3] = False  # sees nothing
    given: dict[str, Any] = {"custom_mask": mask if how == "bools" else mask.view(-1)}
    if how == "packed":
        given = {"packed_custom_mask": flashinfer.packbits(mask.view(-1), "little")}
    pair = flashinfer.single_prefill_with_kv_cache(q, k, v, **given, causal=True, return_lse=True)
    expected = reference.attention(q, k, v, mask=mask)
    assert_attention(pair, expected)
    assert not pair[0][3].any()
    assert (pair[1][3] == -torch.inf).all()


def test_single_with_fp8_keys_and_row_gaps(device: str) -> None:
    wide = randn(50, 12, 64, dtype=torch.bfloat16, device=device)
    q, k, v = wide[:, :8], wide[:, 8:10], wide[:, 10:]
    pair = flashinfer.single_prefill_with_kv_cache_return_lse(q, k, v, causal=True)
    assert_attention(pair, reference.attention(q, k, v, causal=True))
    for kv_dtype in FP8:
        k8, v8 = k.to(kv_dtype), v.to(kv_dtype)
        pair = flashinfer.single_prefill_with_kv_cache_return_lse(q, k8, v8)
        assert_attention(pair, reference.attention(q, k8.float(), v8.float()))
    gaps = wide.repeat_interleave(2, 2)[:, :8, ::2]
    assert_attention(
        flashinfer.single_prefill_with_kv_cache(gaps, k, v), reference.attention(q, k, v)
    )


def test_single_positional_call_of_0_1_6(device: str) -> None:
    q, k, v = single(9, 40, Heads(4, 2, 64), torch.float16, device)
    # custom_mask, packed, causal, kv_layout, pos_encoding_mode, allow_fp16, sm_scale, window, cap
    out = flashinfer.single_prefill_with_kv_cache(
        q, k, v, None, None, True, "NHD", "NONE", True, 0.2, 11, 4.0
    )
    expected = reference.attention(
        q, k, v, causal=True, sm_scale=0.2, window_left=11, logits_soft_cap=4.0
    )
    assert_attention(out, expected)


QO, KV = [17, 1, 40, 0, 33], [54, 9, 40, 20, 300]


def prefill_batch(device: str, dtype: torch.dtype = torch.float16, **how: Any) -> Batch:
    lengths = how.pop("lengths", (QO, KV))
    return Batch(*lengths, how.pop("heads", Heads(8, 2, 64)), dtype, device, **how)


def paged(batch: Batch, size: int = 8 << 20, **options: Any) -> Any:
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
        workspace(batch.device, size), batch.layout
    )
    wrapper.plan(batch.qo_indptr, *batch.tables, *batch.heads, batch.page_size, **options)
    return wrapper


def ragged(batch: Batch, size: int = 8 << 20, **options: Any) -> Any:
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
        workspace(batch.device, size), batch.layout
    )
    wrapper.plan(batch.qo_indptr, batch.ragged_indptr, *batch.heads, **options)
    return wrapper


@pytest.mark.parametrize("form", ["one", "tuple", "strided"])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("page_size", [1, 5, 16])
def test_paged(page_size: int, layout: str, form: str, device: str) -> None:
    batch = prefill_batch(device, page_size=page_size, layout=layout, form=form)
    for causal in (False, True):
        expected = batch.reference(causal=causal)
        wrapper = paged(batch, causal=causal)
        assert_attention(wrapper.run(batch.q, batch.cache), expected)
        assert_attention(wrapper.run_return_lse(batch.q, batch.cache), expected)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("causal", [False, True])
def test_ragged(causal: bool, layout: str, dtype: torch.dtype, device: str) -> None:
    batch = prefill_batch(device, dtype, layout=layout)
    expected = batch.reference(causal=causal)
    wrapper = ragged(batch, causal=causal)
    assert_attention(wrapper.run(batch.q, *batch.ragged), expected)
    assert_attention(wrapper.run(batch.q, *batch.ragged, return_lse=True), expected)
    assert_attention(wrapper.run_return_lse(batch.q, *batch.ragged), expected)


@pytest.mark.parametrize("heads", HEADS)
def test_paged_of_any_group_size(heads: Heads, dtype: torch.dtype, device: str) -> None:
    batch = prefill_batch(device, dtype, heads=heads)
    actual = paged(batch, causal=True).run_return_lse(batch.q, batch.cache)
    assert_attention(actual, batch.reference(causal=True))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_batches_with_options(options: dict[str, Any], device: str) -> None:
    batch = prefill_batch(device, heads=Heads(6, 2, 64))
    expected = batch.reference(**options)
    assert_attention(paged(batch, **options).run_return_lse(batch.q, batch.cache), expected)
    assert_attention(ragged(batch, **options).run_return_lse(batch.q, *batch.ragged), expected)
    # FlashInfer's older way: options when it runs, under a plan that did not know them.
    old, old_ragged = paged(batch), ragged(batch)
    assert_attention(old.forward(batch.q, batch.cache, **options), expected)
    assert_attention(old.forward_return_lse(batch.q, batch.cache, **options), expected)
    assert_attention(old_ragged.forward(batch.q, *batch.ragged, **options), expected)
    assert_attention(old_ragged.forward_return_lse(batch.q, *batch.ragged, **options), expected)
    old.end_forward()
    old_ragged.end_forward()
    assert_attention(old.run(batch.q, batch.cache), batch.reference())


@pytest.mark.parametrize("window_left", [-1, 25])
@pytest.mark.parametrize("how", ["bools", "packed"])
def test_batches_with_masks(how: str, window_left: int, device: str) -> None:
    batch = prefill_batch(device)
    masks = batch.masks()
    expected = batch.reference(masks, window_left=window_left)
    flat = torch.cat([mask.view(-1) for mask in masks]).to(device)
    given: dict[str, Any] = {"custom_mask": flat}
    if how == "packed":
        bits = batch.offsets([mask.numel() for mask in masks])
        given = {"packed_custom_mask": flashinfer.segment_packbits(flat, bits, "little")[0]}
    for causal in (False, True):  # the mask takes its place
        options = {"causal": causal, "window_left": window_left, **given}
        pair = paged(batch, **options).run_return_lse(batch.q, batch.cache)
        assert_attention(pair, expected, **MASKED)
        pair = ragged(batch, **options).run_return_lse(batch.q, *batch.ragged)
        assert_attention(pair, expected, **MASKED)
    # The next plan has no mask.
    wrapper = paged(batch, **given)
    wrapper.plan(batch.qo_indptr, *batch.tables, *batch.heads, batch.page_size, causal=True)
    assert_attention(wrapper.run(batch.q, batch.cache), batch.reference(causal=True))


def test_requests_that_are_split(dtype: torch.dtype, device: str) -> None:
    batch = prefill_batch(device, dtype, lengths=([5, 30], [4000, 900]))
    expected = batch.reference(causal=True)
    for size in (0, 8 << 20):
        wrapper = paged(batch, size, causal=True)
        assert (wrapper._planned.capacity.slots > 0) == (size > 0)
        assert_attention(wrapper.run_return_lse(batch.q, batch.cache), expected)
        pair = ragged(batch, size, causal=True).run_return_lse(batch.q, *batch.ragged)
        assert_attention(pair, expected)


@pytest.mark.parametrize("kv_dtype", FP8, ids=str)
def test_fp8_cache(kv_dtype: torch.dtype, device: str) -> None:
    batch = prefill_batch(device, kv_dtype=kv_dtype, heads=Heads(8, 2, 128))
    expected, lse = batch.reference(causal=True, sm_scale=0.5 / 128**0.5)
    actual = paged(batch, causal=True).run(batch.q, batch.cache, 0.5, 1.5, return_lse=True)
    assert_attention(actual, (expected * 1.5, lse))


def test_fp8_is_close_to_what_was_quantised(device: str) -> None:
    batch = prefill_batch(device)
    exact = batch.reference(causal=True)
    cache = batch.cache.to(torch.float8_e4m3fn)
    out = paged(batch, causal=True).run(batch.q, cache)
    # The field's tolerance, for most elements: each key and value is off by up to 2**-4.
    wrong = (out.double().cpu() - exact[0]).abs() > 1e-2 + 0.2 * exact[0].abs()
    assert wrong.double().mean() < 0.05


def test_rows_of_padding(device: str) -> None:
    batch = prefill_batch(device)
    q = torch.cat([batch.q, batch.q[:3]])
    out = paged(batch, causal=True).run(q, batch.cache)
    assert out.shape == q.shape
    assert_attention(out[:-3], batch.reference(causal=True))


def test_positional_calls_of_0_1_6(device: str) -> None:
    batch = prefill_batch(device)
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device), "NHD")
    wrapper.begin_forward(batch.qo_indptr, *batch.tables, *batch.heads, batch.page_size)
    # q, cache, causal, pos_encoding_mode, allow_fp16, k_scale, v_scale, window_left, cap, sm_scale
    out = wrapper.forward(batch.q, batch.cache, True, "NONE", False, 2.0, None, 12, 5.0, 0.1)
    expected = batch.reference(causal=True, window_left=12, logits_soft_cap=5.0, sm_scale=0.2)
    assert_attention(out, expected)
    old = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace(device), "NHD")
    # custom_mask, packed, causal, pos_encoding_mode, allow_fp16, window_left, cap, sm_scale
    rest = (None, None, True, "NONE", False, 12, 5.0, 0.2)
    old.begin_forward(batch.qo_indptr, batch.ragged_indptr, *batch.heads, *rest)
    assert_attention(old.run(batch.q, batch.k, batch.v), expected)


GRAPH_LENGTHS = [([9, 40, 3], [9, 60, 3]), ([50, 1, 1], [300, 1, 9]), ([1, 2, 3], [5000, 40, 3])]


def graph_wrappers(device: str) -> tuple[Any, Any]:
    def buffer(n: int) -> torch.Tensor:
        return torch.zeros(n, dtype=torch.int32, device=device)

    def masks() -> dict[str, torch.Tensor]:
        size = torch.zeros(20000, dtype=torch.uint8, device=device)
        return {"custom_mask_buf": size, "qk_indptr_buf": buffer(4)}

    return (
        flashinfer.BatchPrefillWithPagedKVCacheWrapper(
            workspace(device),
            use_cuda_graph=True,
            qo_indptr_buf=buffer(4),
            paged_kv_indptr_buf=buffer(4),
            paged_kv_indices_buf=buffer(1000),
            paged_kv_last_page_len_buf=buffer(3),
            **masks(),
        ),
        flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
            workspace(device),
            use_cuda_graph=True,
            qo_indptr_buf=buffer(4),
            kv_indptr_buf=buffer(4),
            **masks(),
        ),
    )


def test_plans_for_graphs_stay_in_place(device: str) -> None:
    wrapper, other = graph_wrappers(device)
    places: list[set[Any]] = [set(), set()]
    for lengths in GRAPH_LENGTHS:
        batch = prefill_batch(device, lengths=lengths)
        masks = batch.masks()
        expected = batch.reference(masks)
        mask = torch.cat([mask.view(-1) for mask in masks]).to(device)
        wrapper.plan(
            batch.qo_indptr, *batch.tables, *batch.heads, batch.page_size, custom_mask=mask
        )
        other.plan(batch.qo_indptr, batch.ragged_indptr, *batch.heads, custom_mask=mask)
        pair = wrapper.run(batch.q, batch.cache, return_lse=True)
        assert_attention(pair, expected, **MASKED)
        pair = other.run(batch.q, batch.k, batch.v, return_lse=True)
        assert_attention(pair, expected, **MASKED)
        for seen, each in zip(places, (wrapper, other), strict=True):
            tensors = (each._planned.words, each._mask, each._mask_indptr, each._qo_indptr_buf)
            seen.add((each._planned.capacity, *(t.data_ptr() for t in tensors)))
        assert torch.equal(wrapper._qo_indptr_buf, batch.qo_indptr)
        assert torch.equal(other._kv_indptr_buf, batch.ragged_indptr)
        assert torch.equal(wrapper._paged_kv_last_page_len_buf, batch.last_page_len)
    assert [len(seen) for seen in places] == [1, 1]


def test_a_graph_has_room_for_other_queries(device: str) -> None:
    """The first plan has all tokens in one request, the second a tile for each of many."""
    heads, requests = Heads(4, 1, 64), 300
    buffers = [torch.zeros(requests + 1, dtype=torch.int32, device=device) for _ in range(2)]
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
        workspace(device), use_cuda_graph=True, qo_indptr_buf=buffers[0], kv_indptr_buf=buffers[1]
    )
    for lens in ([requests] + [0] * (requests - 1), [1] * requests):
        batch = Batch(lens, [length + 1 for length in lens], heads, torch.float16, device)
        wrapper.plan(batch.qo_indptr, batch.ragged_indptr, *heads, causal=True)
        assert_attention(wrapper.run(batch.q, *batch.ragged), batch.reference(causal=True))


@pytest.mark.gpu
def test_cuda_graph() -> None:
    wrapper, _ = graph_wrappers("cuda")
    batches = [prefill_batch("cuda", lengths=lengths) for lengths in GRAPH_LENGTHS]
    heads = batches[0].heads
    q = torch.zeros_like(batches[0].q)
    cache = q.new_zeros(max(b.cache.shape[0] for b in batches), 2, 16, heads.kv, heads.dim)
    wrapper.plan(batches[0].qo_indptr, *batches[0].tables, *heads, 16, causal=True)
    wrapper.run(q, cache)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = wrapper.run(q, cache, return_lse=True)
    for batch in batches:
        rows = batch.q.shape[0]
        if rows > q.shape[0]:
            continue
        q[:rows].copy_(batch.q)
        cache[: batch.cache.shape[0]].copy_(batch.cache)
        wrapper.plan(batch.qo_indptr, *batch.tables, *heads, 16, causal=True)
        graph.replay()
        assert_attention((out[:rows], lse[:rows]), batch.reference(causal=True))
