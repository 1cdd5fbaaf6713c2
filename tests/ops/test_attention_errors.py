"""Wrong calls of the attention functions name the argument, what came and what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashinfer
from flashinfer import _attention, _ops, _single

H = torch.float16


def f(*shape: int, dtype: torch.dtype = H) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def i(*values: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def workspace() -> torch.Tensor:
    return torch.empty(1 << 16, dtype=torch.uint8)


def decode(**changes: Any) -> Callable[[], Any]:
    """A plan and a run of the decode wrapper, with some arguments changed."""
    planned: dict[str, Any] = {
        "indptr": i(0, 2, 3),
        "indices": i(3, 0, 1),
        "last_page_len": i(1, 4),
        "num_qo_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
        "page_size": 4,
    }
    running: dict[str, Any] = {"q": f(2, 4, 64), "paged_kv_cache": f(5, 2, 4, 2, 64)}
    layout = changes.pop("kv_layout", "NHD")
    for name, value in changes.items():
        (running if name in running else planned)[name] = value

    def call() -> Any:
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(), layout)
        wrapper.plan(**planned)
        return wrapper.run(**running)

    return call


def paged(**changes: Any) -> Callable[[], Any]:
    planned: dict[str, Any] = {
        "qo_indptr": i(0, 3, 7),
        "paged_kv_indptr": i(0, 2, 3),
        "paged_kv_indices": i(3, 0, 1),
        "paged_kv_last_page_len": i(1, 4),
        "num_qo_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
        "page_size": 4,
    }
    running: dict[str, Any] = {"q": f(7, 4, 64), "paged_kv_cache": f(5, 2, 4, 2, 64)}
    for name, value in changes.items():
        (running if name in running else planned)[name] = value

    def call() -> Any:
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace())
        wrapper.plan(**planned)
        return wrapper.run(**running)

    return call


def ragged(**changes: Any) -> Callable[[], Any]:
    planned: dict[str, Any] = {
        "qo_indptr": i(0, 3, 7),
        "kv_indptr": i(0, 5, 9),
        "num_qo_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
    }
    running: dict[str, Any] = {"q": f(7, 4, 64), "k": f(9, 2, 64), "v": f(9, 2, 64)}
    for name, value in changes.items():
        (running if name in running else planned)[name] = value

    def call() -> Any:
        wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace())
        wrapper.plan(**planned)
        return wrapper.run(**running)

    return call


def single(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {"q": f(3, 4, 64), "k": f(5, 2, 64), "v": f(5, 2, 64)}
    arguments |= changes
    return lambda: flashinfer.single_prefill_with_kv_cache(**arguments)


def blocks(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {
        "indptr": i(0, 1, 3), "indices": i(2, 0, 1), "M": 4, "N": 6, "R": 2, "C": 2,
        "num_qo_heads": 4, "num_kv_heads": 2, "head_dim": 64,
    }  # fmt: skip
    running: dict[str, Any] = {"q": f(4, 4, 64), "k": f(6, 2, 64), "v": f(6, 2, 64)}
    for name, value in changes.items():
        (running if name in running else arguments)[name] = value

    def call() -> Any:
        wrapper = flashinfer.BlockSparseAttentionWrapper(workspace())
        wrapper.plan(**arguments)
        return wrapper.run(**running)

    return call


def graph_decode(
    batch_size: int = 2, pages: int = 8, dtype: torch.dtype = torch.int32, indptr: int = 3
) -> Any:
    return flashinfer.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(
        workspace(),
        torch.zeros(indptr, dtype=dtype),
        torch.zeros(pages, dtype=torch.int32),
        torch.zeros(batch_size, dtype=torch.int32),
    )


def graph_prefill(**buffers: torch.Tensor | None) -> Any:
    given: dict[str, Any] = {
        "qo_indptr_buf": i(0, 0),
        "paged_kv_indptr_buf": i(0, 0),
        "paged_kv_indices_buf": i(0, 0, 0),
        "paged_kv_last_page_len_buf": i(0),
    }
    return flashinfer.BatchPrefillWithPagedKVCacheWrapper(
        workspace(), use_cuda_graph=True, **(given | buffers)
    )


def second_plan(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    wrapper = graph_prefill()
    wrapper.plan(*first, 64, 4)
    wrapper.plan(*second, 64, 4)


def levels(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {
        "qo_indptr_arr": [i(0, 2), i(0, 1, 2)],
        "paged_kv_indptr_arr": [i(0, 1), i(0, 1, 2)],
        "paged_kv_indices_arr": [i(0), i(1, 2)],
        "paged_kv_last_page_len": [i(2), i(1, 1)],
        "num_qo_heads": 4, "num_kv_heads": 2, "head_dim": 64, "page_size": 4,
    }  # fmt: skip
    arguments |= changes
    return lambda: flashinfer.MultiLevelCascadeAttentionWrapper(2, workspace()).plan(**arguments)


def new_decode() -> Any:
    return flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace())


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # single
    (single(q=f(3, 64)), ValueError, "q has shape [3, 64], expected [qo_len, num_qo_heads, head_"),
    (single(q=[1]), TypeError, "q is a list, expected a torch.Tensor"),
    (single(q=f(3, 4, 64, dtype=torch.int8)), TypeError, "q has dtype torch.int8, expected one of"),
    (single(k=f(5, 64)), ValueError, "k has shape [5, 64], expected [kv_len, num_kv_heads, head"),
    (single(v=f(6, 2, 64)), ValueError, "v has shape [6, 2, 64], expected [5, 2, 64]"),
    (
        single(k=f(5, 2, 32), v=f(5, 2, 32)),
        ValueError,
        "k has 2 heads of 32 elements in layout NHD",
    ),
    (
        single(k=f(5, 3, 64), v=f(5, 3, 64)),
        ValueError,
        "num_qo_heads is 4 and num_kv_heads 3, expected a positive multiple",
    ),
    (
        single(k=f(5, 2, 64, dtype=torch.bfloat16), v=f(5, 2, 64, dtype=torch.bfloat16)),
        TypeError,
        "k has dtype torch.bfloat16, expected torch.float16 as q has, or an fp8 dtype",
    ),
    (single(v=f(5, 2, 64, dtype=torch.float8_e5m2)), TypeError, "v has dtype torch.float8_e5m2"),
    (single(k=f(5, 2, 64).to("meta"), v=f(5, 2, 64).to("meta")), ValueError, "k is on meta"),
    (
        single(k=f(2, 2, 64), v=f(2, 2, 64), causal=True),
        ValueError,
        "k has 2 rows for 3 of q, expected as many or more with causal=True",
    ),
    (single(k=f(5, 2, 128)[:, :, ::2]), ValueError, "k has stride 2 in its last dimension"),
    (single(kv_layout="DHN"), ValueError, "kv_layout is 'DHN', expected 'NHD' or 'HND'"),
    (single(pos_encoding_mode="ROPE"), ValueError, "pos_encoding_mode is 'ROPE', expected 'NONE'"),
    (single(rope_theta=0.0), ValueError, "rope_theta 0.0, expected both above 0"),
    (
        single(custom_mask=f(3, 4)),
        ValueError,
        "custom_mask has shape [3, 4], 12 elements, expected",
    ),
    (single(packed_custom_mask=f(2)), TypeError, "packed_custom_mask has dtype torch.float16"),
    (
        single(packed_custom_mask=i(1, dtype=torch.uint8)),
        ValueError,
        "packed_custom_mask has 1 bytes, expected 2",
    ),
    (
        lambda: flashinfer.single_decode_with_kv_cache(f(3, 4, 64), f(5, 2, 64), f(5, 2, 64)),
        ValueError,
        "q has shape [3, 4, 64], expected [num_qo_heads, head_dim]",
    ),
    # plans
    (decode(indptr=i(0, 3, 2)), ValueError, "indptr[1:3] is (3, 2), expected non-decreasing"),
    (decode(indptr=i(-1, 2, 3)), ValueError, "indptr[0] is -1, expected 0"),
    (decode(indptr=i()), ValueError, "indptr has shape [0], expected [batch_size + 1]"),
    (decode(indptr=f(3)), TypeError, "indptr has dtype torch.float16, expected torch.int32"),
    (decode(indptr=[0, 2, 3]), TypeError, "indptr is a list, expected a torch.Tensor"),
    (decode(indices=i(3, 0)), ValueError, "indices has shape [2], expected 3 or more"),
    (decode(indices=f(3)), TypeError, "indices has dtype torch.float16"),
    (decode(last_page_len=i(1)), ValueError, "last_page_len has shape [1], expected [2]"),
    (decode(last_page_len=i(1, 5)), ValueError, "last_page_len[1] is 5, expected 1..4"),
    (decode(last_page_len=i(0, 4)), ValueError, "last_page_len[0] is 0, expected 1..4"),
    (decode(page_size=0), ValueError, "page_size is 0, expected 1 or more"),
    (decode(num_kv_heads=3), ValueError, "num_qo_heads is 4 and num_kv_heads 3"),
    (
        decode(q_data_type="float15"),
        ValueError,
        "q_data_type is 'float15', expected one of float16",
    ),
    (decode(kv_data_type=torch.int32), TypeError, "kv_data_type is torch.int32, expected a torch"),
    (paged(qo_indptr=i(1, 3, 7)), ValueError, "qo_indptr[0] is 1, expected 0"),
    (paged(paged_kv_indptr=i(0, 3)), ValueError, "paged_kv_indptr has shape [2], expected [3]"),
    (
        paged(custom_mask=torch.ones(30, dtype=torch.bool)),
        ValueError,
        "custom_mask has shape [30], 30 elements, expected 31",
    ),
    (
        paged(packed_custom_mask=torch.ones(3, dtype=torch.uint8)),
        ValueError,
        "packed_custom_mask has 3 bytes, expected 4",
    ),
    (ragged(kv_indptr=i(0, 5)), ValueError, "kv_indptr has shape [2], expected [3]"),
    (ragged(kv_indptr=i(1, 5, 9)), ValueError, "kv_indptr[0] is 1, expected 0"),
    (ragged(kv_indptr=i(0, 5, 4)), ValueError, "kv_indptr[1:3] is (5, 4)"),
    # runs
    (
        lambda: new_decode().run(f(2, 4, 64), f(5, 2, 4, 2, 64)),
        RuntimeError,
        "run of BatchDecodeWi",
    ),
    (decode(q=f(3, 4, 64)), ValueError, "q has shape [3, 4, 64], expected 2 rows as planned"),
    (paged(q=f(6, 4, 64)), ValueError, "q has shape [6, 4, 64], expected 7 rows as planned"),
    (
        decode(q=f(2, 8, 64)),
        ValueError,
        "q has 8 heads of 64 elements, expected 4 of 64 as planned",
    ),
    (
        decode(q=f(2, 4, 64).to("meta")),
        ValueError,
        "q is on meta, expected cpu as the workspace is",
    ),
    (
        decode(paged_kv_cache=f(5, 4, 2, 64)),
        ValueError,
        "paged_kv_cache has shape [5, 4, 2, 64], expected [pages, 2, page_size, num_kv_heads",
    ),
    (
        decode(paged_kv_cache=f(5, 2, 8, 2, 64)),
        ValueError,
        "paged_kv_cache has pages of 8 entries in layout NHD, expected 4 as planned",
    ),
    (
        decode(paged_kv_cache=f(5, 2, 4, 3, 64)),
        ValueError,
        "paged_kv_cache has 3 heads of 64 elements in layout NHD, expected 2 of 64",
    ),
    (
        decode(paged_kv_cache=f(5, 2, 4, 2, 64, dtype=torch.float32)),
        TypeError,
        "paged_kv_cache has dtype torch.float32, expected torch.float16 as q has",
    ),
    (
        decode(indices=i(3, 5, 1)),
        ValueError,
        "kv_indices[1] is 5, expected a page in 0..4",
    ),
    (decode(indices=i(3, 0, -1)), ValueError, "kv_indices[2] is -1, expected a page in 0..4"),
    (
        ragged(k=f(8, 2, 64), v=f(8, 2, 64)),
        ValueError,
        "k has 8 rows, expected 9 or more as planned",
    ),
    (ragged(v=f(10, 2, 64)), ValueError, "v has shape [10, 2, 64], expected [9, 2, 64]"),
    (
        lambda: flashinfer.BatchDecodeWithPagedKVCacheWrapper(f(4, 4)[:, :2]),
        ValueError,
        "float_workspace_buffer is not contiguous",
    ),
    # CUDA graphs
    (
        lambda: flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(), use_cuda_graph=True),
        ValueError,
        "paged_kv_indptr_buffer is None, expected a tensor",
    ),
    (
        lambda: graph_decode(batch_size=3),
        ValueError,
        "paged_kv_indptr_buffer has shape [3], expected [4]",
    ),
    (
        lambda: graph_decode().plan(i(0, 1), i(0), i(1), 4, 2, 64, 4),
        ValueError,
        "indptr has shape [2], expected [3]: batch_size + 1",
    ),
    (
        lambda: graph_decode(pages=1).plan(i(0, 1, 2), i(0, 1), i(1, 1), 4, 2, 64, 4),
        ValueError,
        "paged_kv_indices_buffer has room for 1, expected 2 or more",
    ),
    (
        lambda: graph_prefill(paged_kv_last_page_len_buf=i(0, 0)),
        ValueError,
        "paged_kv_last_page_len_buf has shape [2], expected [1]",
    ),
    (
        lambda: graph_prefill().plan(
            i(0, 1), i(0, 1), i(0), i(1), 4, 2, 64, 4, custom_mask=torch.ones(1)
        ),
        ValueError,
        "custom_mask_buf is None, expected a tensor",
    ),
    (
        lambda: second_plan(
            (i(0, 3), i(0, 1), i(0), i(4), 4, 2), (i(0, 4), i(0, 1), i(0), i(4), 4, 2)
        ),
        ValueError,
        "qo_indptr[-1] is 4, expected at most 3",
    ),
    (
        lambda: second_plan(
            (i(0, 3), i(0, 1), i(0), i(4), 4, 2), (i(0, 3), i(0, 1), i(0), i(4), 8, 2)
        ),
        ValueError,
        "of the first plan, for graphs",
    ),
    # block-sparse
    (blocks(indptr=i(0, 1)), ValueError, "indptr has shape [2], expected [3]"),
    (
        blocks(indices=i(3, 0, 1)),
        ValueError,
        "page indices are from 0 to 3, expected pages in 0..2",
    ),
    (blocks(N=7), ValueError, "M, N, R, C are 4, 7, 2, 2, expected"),
    (blocks(mask=f(3, 2, 3)), ValueError, "mask has shape [3, 2, 3], expected [3, 2, 2]"),
    (
        blocks(M=3, mask=f(3, 2, 2), q=f(3, 4, 64)),
        ValueError,
        "M is 3, expected a multiple of R, 2",
    ),
    (
        blocks(packed_mask=i(0, dtype=torch.uint8)),
        ValueError,
        "packed_mask has 1 bytes, expected 2",
    ),
    (blocks(k=f(5, 2, 64)), ValueError, "k has 5 rows, expected N, 6"),
    (blocks(q=f(5, 4, 64)), ValueError, "q has shape [5, 4, 64], expected 4 rows as planned"),
    # cascade
    (
        levels(qo_indptr_arr=[i(0, 2)]),
        ValueError,
        "qo_indptr_arr is of 1 tensors, expected 2: one for each level",
    ),
    (levels(window_left=3), ValueError, "window_left 3, expected 'NONE' and -1"),
    (levels(pos_encoding_mode="ALIBI"), ValueError, "pos_encoding_mode is 'ALIBI'"),
    (
        lambda: flashinfer.MultiLevelCascadeAttentionWrapper(0, workspace()),
        ValueError,
        "num_levels is 0, expected 1 or more",
    ),
]


@pytest.fixture(autouse=True)
def _the_usual_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_attention, "DEBUG", False)  # whatever the environment says


@pytest.mark.parametrize(("call", "error", "text"), CASES, ids=[case[2] for case in CASES])
def test_wrong_call(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        call()


@pytest.mark.parametrize("call", [decode(), paged(), ragged(), single(), blocks(), levels()])
def test_what_was_changed_is_what_was_wrong(call: Callable[[], Any]) -> None:
    call()


def test_the_last_page_of_a_request_without_pages() -> None:
    for length in (0, 1):
        decode(indptr=i(0, 3, 3), last_page_len=i(2, length))()


def test_a_plan_that_fails_leaves_the_last_one() -> None:
    wrapper = new_decode()
    wrapper.plan(i(0, 2, 3), i(3, 0, 1), i(1, 4), 4, 2, 64, 4)
    with pytest.raises(ValueError, match="last_page_len"):
        wrapper.plan(i(0, 2, 3), i(3, 0, 1), i(1, 5), 4, 2, 64, 4)
    assert wrapper.run(f(2, 4, 64), f(5, 2, 4, 2, 64)).shape == (2, 4, 64)


def test_a_graph_plan_that_fails_leaves_the_buffers() -> None:
    buffers = {"custom_mask_buf": torch.zeros(1, dtype=torch.uint8), "qk_indptr_buf": i(0, 0)}
    wrapper = graph_prefill(**buffers)
    wrapper.plan(i(0, 1), i(0, 2), i(2, 1), i(2), 4, 2, 64, 4)
    words = wrapper._planned.words.clone()
    bits = torch.ones(10, dtype=torch.bool)
    with pytest.raises(ValueError, match="custom_mask_buf has room for 1, expected 2 or more"):
        wrapper.plan(i(0, 1), i(0, 3), i(0, 1, 2), i(2), 4, 2, 64, 4, custom_mask=bits)
    assert torch.equal(wrapper._planned.words, words)
    assert wrapper._paged_kv_indices_buf.tolist() == [2, 1, 0]


def test_debug_mode_looks_at_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_attention, "DEBUG", True)
    decode()()
    with pytest.raises(ValueError, match=re.escape("from 1 to 5, expected pages in 0..4")):
        decode(indices=i(3, 5, 1))()


# The binding guards itself too: its ops can be called without the front functions.
def attention(**changes: Any) -> Callable[[], None]:
    arguments: dict[str, Any] = {
        "q": f(2, 4, 64),
        "k": f(4, 2, 2, 64),
        "v": f(4, 2, 2, 64),
        "kv_indices": i(3, 1),
        "out": f(2, 4, 64),
        "lse": torch.zeros(2, 4),
        # One item: request 0, tokens 0..1, pages from 0, 3 keys, all of them, no slot.
        "plan": i(1, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 3, -1),
        "workspace": torch.zeros(0),
        "mask": None,
        "mask_indptr": None,
        "alibi_slopes": None,
        "tile_rows": 16,
        "item_capacity": 1,
        "merge_capacity": 0,
        "num_slots": 0,
        "hnd": False,
        "causal": False,
        "window_left": -1,
        "pos_encoding": "NONE",
        "sm_scale": 0.1,
        "logits_soft_cap": 0.0,
        "v_scale": 1.0,
        "rope_scale": 1.0,
        "rope_theta": 1e4,
    }
    arguments |= changes
    return lambda: _ops.attention(*arguments.values())


def plan(**changes: Any) -> Callable[[], None]:
    arguments: dict[str, Any] = {
        "qo_indptr": i(0, 2), "kv_base": i(0), "kv_len": i(3), "num_qo_heads": 4,
        "num_kv_heads": 2, "head_dim": 64, "device": -1, "tile_rows": 0, "max_slots": 0,
        "item_capacity": 1, "merge_capacity": 0, "plan": torch.zeros(13, dtype=torch.int32),
        "result": torch.zeros(5, dtype=torch.int64),
    }  # fmt: skip
    arguments |= changes
    return lambda: _ops.attention_plan(*arguments.values())


PLAN = [1, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 3, -1]


def item(word: int, value: int) -> torch.Tensor:
    words = list(PLAN)
    words[4 + word] = value
    return i(*words)


BINDING: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (attention(out=f(2, 4, 32)), ValueError, "out has shape [2, 4, 32], expected [2, 4, 64]"),
    (attention(v=f(4, 2, 3, 64)), ValueError, "v has shape [4, 2, 3, 64], expected [4, 2, 2, 64]"),
    (attention(k=f(4, 2, 64)), ValueError, "k has shape [4, 2, 64], expected [*, *, *, 64]"),
    (
        attention(k=f(4, 2, 3, 64), v=f(4, 2, 3, 64)),
        ValueError,
        "k has 3 heads, expected a divisor",
    ),
    (attention(k=f(4, 0, 2, 64), v=f(4, 0, 2, 64)), ValueError, "k has pages of 0 entries"),
    (attention(lse=f(2, 4)), TypeError, "lse has dtype Half, expected float32"),
    (attention(plan=i(1, 0)), ValueError, "plan has shape [2], expected [13]"),
    (attention(tile_rows=0), ValueError, "tile_rows is 0"),
    (attention(num_slots=1), ValueError, "workspace has 0 floats, expected 2080 or more for 1"),
    (attention(pos_encoding="ROPE"), ValueError, "pos_encoding is 'ROPE', expected NONE"),
    (
        attention(mask=i(1, dtype=torch.uint8)),
        ValueError,
        "mask needs mask_indptr, and got None",
    ),
    (
        attention(mask=torch.zeros(0, dtype=torch.uint8), mask_indptr=i(0, 1)),
        ValueError,
        "mask has 0 bytes, expected 1 from byte 0 on for request 0",
    ),
    (
        attention(mask=torch.zeros(2, dtype=torch.uint8), mask_indptr=i(0)),
        ValueError,
        "mask_indptr has 1 entries, expected 2 or more",
    ),
    (
        attention(alibi_slopes=torch.zeros(3)),
        ValueError,
        "alibi_slopes has shape [3], expected [4]",
    ),
    (
        attention(plan=i(2, *PLAN[1:])),
        ValueError,
        "plan has 2 items and 0 merges, expected at most",
    ),
    (attention(plan=item(1, 1)), ValueError, "q has 2 tokens, expected 3 or more"),
    (attention(plan=item(3, 1)), ValueError, "kv_indices has 2 entries, expected 3 or more"),
    (attention(plan=item(8, 0)), ValueError, "num_slots is 0, expected more than 0"),
    (attention(kv_indices=i(3, 4)), ValueError, "kv_indices[1] is 4, expected a page in 0..3"),
    (
        attention(kv_indices=None, k=f(2, 2, 64), v=f(2, 2, 64)),
        ValueError,
        "k has 2 rows, expected 3 or more: the keys of request 0",
    ),
    (plan(kv_len=i(3, 4)), ValueError, "kv_len has shape [2], expected [1]"),
    (plan(qo_indptr=i()), ValueError, "qo_indptr is empty, expected [batch_size + 1]"),
    (plan(qo_indptr=i(0, 2, dtype=torch.int64)), TypeError, "qo_indptr has dtype Long"),
    (plan(num_kv_heads=3), ValueError, "4 query heads and 3 KV heads"),
    (plan(qo_indptr=i(0, -1)), ValueError, "qo_indptr[1] is -1, expected 0 or more"),
    (plan(kv_len=i(-3)), ValueError, "request 0 has -3 keys"),
    (plan(plan=torch.zeros(4, dtype=torch.int32)), ValueError, "plan has shape [4], expected [13]"),
    (plan(result=torch.zeros(5)), TypeError, "result has dtype Float"),
    (
        plan(item_capacity=0, plan=torch.zeros(4, dtype=torch.int32)),
        ValueError,
        "1 items and 0 merges do not fit into a plan for 0 and 0",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), BINDING, ids=[case[2] for case in BINDING])
def test_wrong_call_of_the_binding(call: Callable[[], Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_right_calls_of_the_binding() -> None:
    attention()()
    plan()()


@pytest.mark.gpu
def test_head_dims_and_float32_on_cuda() -> None:
    with pytest.raises(ValueError, match="head_dim is 96, expected 64, 128 or 256 on CUDA"):
        single(**{name: f(5, 2, 96).cuda() for name in "qkv"})()
    with pytest.raises(TypeError, match=r"q has dtype torch\.float32 on CUDA"):
        single(**{name: torch.zeros(5, 2, 64, device="cuda") for name in "qkv"})()


@pytest.mark.gpu
def test_rows_that_cannot_be_copied_16_bytes_at_a_time() -> None:
    odd = f(5, 2, 68).cuda()[..., 1:65]
    right = odd.contiguous()
    out = flashinfer.single_prefill_with_kv_cache(odd, right, right)
    assert torch.equal(out, flashinfer.single_prefill_with_kv_cache(right, right, right))
    with pytest.raises(ValueError, match=r"k is at .*, expected a multiple of 16 bytes"):
        flashinfer.single_prefill_with_kv_cache(right, odd, odd)


@pytest.mark.gpu
def test_a_graph_may_capture_a_single_request_of_a_new_length() -> None:
    q = f(3, 4, 64).cuda()
    expected = flashinfer.single_prefill_with_kv_cache(q, q, q)
    _single._plan_for.cache_clear()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = flashinfer.single_prefill_with_kv_cache(q, q, q)
    for _ in range(2):
        out.zero_()
        graph.replay()
        assert torch.equal(out, expected)


@pytest.mark.parametrize(
    ("words", "out", "message"),
    [
        (i(1, 2), i(0), r"out has shape \[1\], expected \[2\]"),
        (i(1, 2, dtype=torch.int64), i(0, 0), "words has dtype Long, expected int32"),
        (i(1, 2), torch.zeros(2), "out has dtype Float, expected int32"),
    ],
)
def test_words_to_upload(words: torch.Tensor, out: torch.Tensor, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        _ops.upload_words(words, out)
