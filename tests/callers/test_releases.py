"""Calls that FlashInfer 0.1.6 and 0.2.0 take differently, and names of the one or the other.

docs/callers.md has the table. A call whose meaning the arguments do not settle warns, once, and
FLASHINFER_API chooses.
"""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from batches import Batch, Heads, assert_attention, workspace

import flashinfer
from flashinfer import _api, page

HEADS = Heads(4, 2, 64)


@pytest.fixture(autouse=True)
def _nothing_was_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_api, "_warned", set())
    monkeypatch.delenv("FLASHINFER_API", raising=False)


def batch_of(device: str) -> Batch:
    return Batch([3, 1, 5], [7, 4, 5], HEADS, torch.float16, device)


# ---------------------------------------------------------------- causal

PLANNED = (HEADS.qo, HEADS.kv, HEADS.dim)


def paged(batch: Batch, **options: Any) -> Any:
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(batch.device))
    wrapper.plan(batch.qo_indptr, *batch.tables, *PLANNED, batch.page_size, **options)
    return wrapper


def ragged(batch: Batch, **options: Any) -> Any:
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace(batch.device))
    wrapper.begin_forward(batch.qo_indptr, batch.ragged_indptr, *PLANNED, **options)
    return wrapper


def shared_prefix(batch: Batch, **options: Any) -> torch.Tensor:
    wrapper = flashinfer.BatchPrefillWithSharedPrefixPagedKVCacheWrapper(workspace(batch.device))
    wrapper.begin_forward(batch.qo_indptr, *batch.tables, *PLANNED, batch.page_size)
    empty = batch.k[:0]
    out: torch.Tensor = wrapper.forward(batch.q, empty, empty, batch.cache, **options)
    return out


# Each with what it is called in a warning.
OPEN: dict[str, Callable[..., Any]] = {
    "BatchPrefillWithPagedKVCacheWrapper.forward": lambda b, **c: paged(b).forward(
        b.q, b.cache, **c
    ),
    "BatchPrefillWithPagedKVCacheWrapper.forward_return_lse": lambda b, **c: paged(
        b
    ).forward_return_lse(b.q, b.cache, **c),
    "BatchPrefillWithRaggedKVCacheWrapper.forward": lambda b, **c: ragged(b).forward(
        b.q, *b.ragged, **c
    ),
    "BatchPrefillWithRaggedKVCacheWrapper.forward_return_lse": lambda b, **c: ragged(
        b
    ).forward_return_lse(b.q, *b.ragged, **c),
    "BatchPrefillWithRaggedKVCacheWrapper.plan": lambda b, **c: ragged(b, **c).run(b.q, *b.ragged),
    "BatchPrefillWithSharedPrefixPagedKVCacheWrapper.forward": shared_prefix,
}


@pytest.mark.parametrize("name", OPEN)
def test_causal_by_default(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(device)
    with pytest.warns(UserWarning, match=f"^{name} without causal: .*0.1.6.*0.2.0") as caught:
        assert_attention(OPEN[name](batch), batch.reference())
    assert [Path(str(one.filename)).name for one in caught] == [Path(__file__).name]
    for word in ("Here it has the meaning of 0.2.0", "Pass causal=True", "FLASHINFER_API=0.1.6"):
        assert word in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OPEN[name](batch)  # once is enough
        _api._warned.clear()
        for causal in (True, False):
            assert_attention(OPEN[name](batch, causal=causal), batch.reference(causal=causal))
        for release, causal in (("0.1.6", True), ("0.2.0", False)):
            monkeypatch.setenv("FLASHINFER_API", release)
            assert_attention(OPEN[name](batch), batch.reference(causal=causal))


def test_no_question_where_the_answer_makes_no_difference(device: str) -> None:
    batch = batch_of(device)
    masks = batch.masks()
    flat = torch.cat([mask.reshape(-1) for mask in masks]).to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapper = ragged(batch, custom_mask=flat)
        assert_attention(wrapper.run(batch.q, *batch.ragged), batch.reference(masks))
        assert_attention(wrapper.forward(batch.q, *batch.ragged), batch.reference(masks))
        # A plan of 0.1.6 whose runs say what they are; and one that is not of 0.1.6.
        run = ragged(batch).forward(batch.q, *batch.ragged, causal=True)
        assert_attention(run, batch.reference(causal=True))
        later = ragged(batch, head_dim_vo=HEADS.dim)
        assert_attention(later.run(batch.q, *batch.ragged), batch.reference())


# ---------------------------------------------------------------- RoPE


def rotated(interleave: bool, rope_scale: float = 8.0, **options: Any) -> torch.Tensor:
    frequencies = reference.frequencies(64, rope_scale, options.pop("theta", 5e5), **options)
    angles = (torch.arange(5) + 100).double()[:, None] * frequencies
    return reference.rotate(QUERIES, angles.cos(), angles.sin(), interleave)


QUERIES = torch.randn(5, 2, 64, generator=torch.Generator().manual_seed(1))
LLAMA31 = (1.0, 4.0, 8192)


@pytest.mark.parametrize("inplace", [False, True])
def test_llama31_interleave(inplace: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "apply_llama31_rope_inplace" if inplace else "apply_llama31_rope"

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        q = QUERIES.to(device, torch.float16)
        segment = torch.tensor([0, 5], device=device), torch.tensor([100], device=device)
        out = getattr(flashinfer, name)(q, q.clone(), *segment, *args, **kwargs)
        return q if inplace else out[0]  # type: ignore[no-any-return]

    def check(got: torch.Tensor, interleave: bool) -> None:
        reference.assert_close(got, rotated(interleave, llama31=LLAMA31), atol=2e-3)

    with pytest.warns(UserWarning, match=f"^{name} without interleave: .*0.1.6.*0.2.0"):
        check(call(), False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call()
        _api._warned.clear()
        for interleave in (True, False):
            check(call(interleave=interleave), interleave)
            check(call(interleave), interleave)  # in fifth place, as 0.1.6 has it
            check(call(64, interleave), interleave)
        check(call(rotary_dim=64), False)
        for release, interleave in (("0.1.6", True), ("0.2.0", False)):
            monkeypatch.setenv("FLASHINFER_API", release)
            check(call(), interleave)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((True,), {}),
        ((True, 2.0), {}),
        ((False, 2.0, 1e3), {}),
        ((True,), {"rope_scale": 2.0}),
        ((True, 2.0), {"rope_theta": 1e3}),
    ],
)
def test_rope_in_the_order_of_0_1_6(
    args: Any, kwargs: dict[str, Any], inplace: bool, device: str
) -> None:
    named = dict(zip(("interleave", "rope_scale", "rope_theta"), args, strict=False)) | kwargs
    q = QUERIES.to(device, torch.float16)
    segment = torch.tensor([0, 5], device=device), torch.tensor([100], device=device)
    if inplace:
        flashinfer.apply_rope_inplace(q, q.clone(), *segment, *args, **kwargs)
    else:
        q, _ = flashinfer.apply_rope(q, q.clone(), *segment, *args, **kwargs)
    theta = named.get("rope_theta", 1e4)
    right = rotated(named["interleave"], named.get("rope_scale", 1.0), theta=theta)
    reference.assert_close(q, right, atol=2e-3)


def test_rope_of_both_forms_says_what_is_wrong() -> None:
    q, segment = QUERIES, (torch.tensor([0, 5]), torch.tensor([100]))
    with pytest.raises(TypeError, match="apply_rope got 'rope_scale' twice"):
        flashinfer.apply_rope(q, q, *segment, True, 2.0, rope_scale=3.0)
    with pytest.raises(TypeError, match=r"apply_rope takes 7 arguments in this form, .* and got 8"):
        flashinfer.apply_rope(q, q, *segment, True, 1.0, 1e4, 7)  # type: ignore[arg-type,call-arg]


# ---------------------------------------------------------------- prefill's tenth place


def test_the_tenth_place(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch([4], [9], HEADS, torch.float16, device)
    first = (batch.q, *batch.ragged, None, None, True, "NHD", "NONE", False)
    call: Any = flashinfer.single_prefill_with_kv_cache_return_lse
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (None, 0.3):  # no window is a float
            assert_attention(
                call(*first, scale, 2), batch.reference(causal=True, window_left=2, sm_scale=scale)
            )
        assert_attention(call(*first, sm_scale=1), batch.reference(causal=True, sm_scale=1.0))
    with pytest.warns(
        UserWarning, match="tenth place: it is window_left .*0.1.6.* sm_scale .*0.2.0"
    ):
        assert_attention(call(*first, 2), batch.reference(causal=True, sm_scale=2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setenv("FLASHINFER_API", "0.1.6")
        assert_attention(
            call(*first, 2, 5.0, 0.3),
            batch.reference(causal=True, window_left=2, logits_soft_cap=5.0, sm_scale=0.3),
        )
        monkeypatch.setenv("FLASHINFER_API", "0.2.0")
        assert_attention(call(*first, 2), batch.reference(causal=True, sm_scale=2.0))


# ---------------------------------------------------------------- ALiBi


def alibi_forms(batch: Batch) -> dict[str, Callable[[], Any]]:
    options = {"pos_encoding_mode": "ALIBI", "causal": True}
    return {
        "paged": lambda: paged(batch, **options).run(batch.q, batch.cache, return_lse=True),
        "ragged": lambda: ragged(batch, **options).run_return_lse(batch.q, *batch.ragged),
    }


@pytest.mark.parametrize("form", ["paged", "ragged"])
def test_lse_of_alibi(form: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(device)
    out, lse = batch.reference(causal=True, pos_encoding_mode="ALIBI")
    with pytest.warns(
        UserWarning, match="^a log-sum-exp .*'ALIBI': .*0.1.6.*0.2.0.*meaning of 0.1.6"
    ):
        assert_attention(alibi_forms(batch)[form](), (out, lse))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setenv("FLASHINFER_API", "0.1.6")
        assert_attention(alibi_forms(batch)[form](), (out, lse))
        monkeypatch.setenv("FLASHINFER_API", "0.2.0")
        slopes = reference.alibi_slopes(HEADS.qo) * math.log2(math.e)
        ahead = [k - q for q, k in zip(batch.qo_lens, batch.kv_lens, strict=True)]
        rows = torch.tensor(ahead).repeat_interleave(torch.tensor(batch.qo_lens))
        moved = lse + rows[:, None] * slopes
        assert_attention(alibi_forms(batch)[form](), (out, moved))
        one = Batch([3], [9], Heads(6, 2, 64), torch.float16, device)
        expected = one.reference(pos_encoding_mode="ALIBI")
        got = flashinfer.single_prefill_with_kv_cache_return_lse(
            one.q, *one.ragged, pos_encoding_mode="ALIBI"
        )
        shift = 6 * reference.alibi_slopes(6) * math.log2(math.e)
        assert_attention(got, (expected[0], expected[1] + shift))


def test_soft_cap_with_alibi(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(device)
    options: dict[str, Any] = {"pos_encoding_mode": "ALIBI", "logits_soft_cap": 2.0}
    with pytest.warns(
        UserWarning, match="^pos_encoding_mode='ALIBI' with logits_soft_cap: .*0.1.6"
    ):
        run = paged(batch, **options).run(batch.q, batch.cache)
    assert_attention(run, batch.reference(**options))
    monkeypatch.setenv("FLASHINFER_API", "0.2.0")
    with pytest.raises(ValueError, match="the cap comes after the bias: there is no kernel for it"):
        paged(batch, **options)


# ---------------------------------------------------------------- the variable


def test_a_release_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHINFER_API", "0.1")
    with pytest.raises(ValueError, match=r"FLASHINFER_API is '0\.1' in the environment, expected"):
        _api.chosen()
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import flashinfer"],
        env=os.environ | {"FLASHINFER_API": "latest"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ValueError: FLASHINFER_API is 'latest' in the environment, expected '0.1.6' or '0.2.0':"
        " the release whose meaning calls have that the two take differently; unset it for neither"
    )


# ---------------------------------------------------------------- names of one release


def test_buffers_of_segment_gemm_by_their_names_in_0_1_6(device: str) -> None:
    buffer = torch.empty(1, device=device)
    wrapper: Any = flashinfer.SegmentGEMMWrapper
    made = wrapper(workspace_buffer=buffer)
    made.reset_workspace_buffer(new_workspace_buffer=buffer)
    x, w = torch.randn(3, 8).to(device).half(), torch.randn(1, 8, 4).to(device).half()
    lengths = torch.tensor([3], device=device)
    reference.assert_close(made.run(x, w, 1, False, lengths), (x.double() @ w[0].double()).cpu())
    with pytest.raises(TypeError, match="two names of one argument"):
        wrapper(workspace_buffer=buffer, float_workspace_buffer=buffer)
    assert "workspace_buffer" in inspect.getdoc(wrapper)  # type: ignore[operator]


@pytest.mark.parametrize("block_size", [1, 3, 16])
@pytest.mark.parametrize(("stride_block", "stride_n"), [(128, 1), (48, 7), (1, 1)])
def test_offsets_of_vectors(block_size: int, stride_block: int, stride_n: int, device: str) -> None:
    lengths = [5, 0, 17, 1]
    blocks = [-(-length // block_size) for length in lengths]
    indices = torch.randperm(sum(blocks) + 2, dtype=torch.int32)[: sum(blocks)]
    indptr = torch.tensor([0, *blocks]).cumsum(0).int()
    begins = torch.tensor([0, *lengths]).cumsum(0).int()
    out = torch.full((begins[-1].item() + 3,), -7, dtype=torch.int32)  # type: ignore[arg-type]
    right = out.clone()
    for b, length in enumerate(lengths):
        for j in range(length):
            block = int(indices[int(indptr[b]) + j // block_size])
            right[int(begins[b]) + j] = block * stride_block + j % block_size * stride_n
    tensors = [x.to(device) for x in (indices, indptr, out, begins, torch.tensor(lengths))]
    got = page.block_sparse_indices_to_vector_sparse_offsets(
        *tensors, stride_block, stride_n, block_size
    )
    if block_size == 1:  # a new tensor, as in 0.2.0
        assert torch.equal(got.cpu(), right[:-3])
    else:
        assert got is tensors[2]
        assert torch.equal(got.cpu(), right)


def test_offsets_of_vectors_out_of_range() -> None:
    i = torch.tensor
    out = torch.zeros(4, dtype=torch.int32)
    for lengths, room, words in (
        (i([9]), out, "block_sparse_indices has shape .2., and kv_lens needs elements 0 to 2"),
        (i([8]), out, "vector_sparse_offsets has shape .4., and kv_lens needs elements 0 to 7"),
        (i([-1]), out, "kv_lens has -1, expected 0 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            page.block_sparse_indices_to_vector_sparse_offsets(
                i([3, 4]), i([0, 2]), room, i([0, 9]), lengths, 128, 1, 4
            )
    assert not out.any()


@pytest.mark.parametrize("error", [KeyError, ValueError])
def test_an_unknown_name_is_what_either_release_calls_it(error: type[Exception]) -> None:
    batch = batch_of("cpu")
    one = (batch.q[0], batch.k, batch.v)
    calls: dict[str, Callable[[], Any]] = {
        "kv_layout is 'DHN', expected 'NHD' or 'HND'": lambda: (
            flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace("cpu"), "DHN")
        ),
        "kv_layout is 'NDH', expected 'NHD' or 'HND'": lambda: (
            flashinfer.single_decode_with_kv_cache(*one, kv_layout="NDH")
        ),
        "kv_layout is None, expected 'NHD' or 'HND'": lambda: flashinfer.append_paged_kv_cache(
            batch.k, batch.v, batch.qo_indptr, batch.qo_indptr, batch.cache, *batch.tables, None
        ),
        "pos_encoding_mode is 'ROPE', expected 'NONE', 'ROPE_LLAMA' or 'ALIBI'": lambda: (
            flashinfer.single_decode_with_kv_cache(*one, pos_encoding_mode="ROPE")
        ),
        "pos_encoding_mode is 'none', expected 'NONE', 'ROPE_LLAMA' or 'ALIBI'": lambda: paged(
            batch, pos_encoding_mode="none"
        ),
    }
    for words, call in calls.items():
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == words
