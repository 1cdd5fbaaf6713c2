"""Calls as SGLang 0.5 and vLLM 0.33 make them, of names that FlashInfer 0.2.0 has already."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import reference
import torch
from batches import Batch, Heads, assert_attention, workspace

import flashinfer
from flashinfer.rope import apply_rope_with_cos_sin_cache, apply_rope_with_cos_sin_cache_inplace

HEADS = Heads(4, 2, 64)


@pytest.fixture(autouse=True)
def _no_warning() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---------------------------------------------------------------- sampling

P = torch.softmax(torch.randn(6, 50, generator=torch.Generator().manual_seed(3)), -1)
K = torch.tensor([1, 3, 50, 7, 2, 9])
S = torch.tensor([0.9, 0.5, 0.1, 1.0, 0.7, 0.3])

# Each with a later call, and the same with the names of this package, given uniform numbers.
SAMPLERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "plain": (
        flashinfer.sampling_from_probs,
        flashinfer.sampling_from_probs,
    ),
    "plain, by place": (
        lambda p, generator=None: flashinfer.sampling_from_probs(p, None, True, generator),
        flashinfer.sampling_from_probs,
    ),
    "top_k": (
        lambda p, **g: flashinfer.top_k_sampling_from_probs(p, 4, deterministic=True, **g),
        lambda p, u: flashinfer.top_k_sampling_from_probs(p, u, 4)[0],
    ),
    "top_k of rows": (
        lambda p, **g: flashinfer.top_k_sampling_from_probs(p, K.to(p.device), **g),
        lambda p, u: flashinfer.top_k_sampling_from_probs(p, u, K.to(p.device))[0],
    ),
    "top_k of rows, in floats": (
        lambda p, **g: flashinfer.top_k_sampling_from_probs(p, K.to(p.device).float(), **g),
        lambda p, u: flashinfer.top_k_sampling_from_probs(p, u, K.to(p.device))[0],
    ),
    "top_p": (
        lambda p, generator=None: flashinfer.top_p_sampling_from_probs(
            p, 0.6, None, True, generator, True
        ),
        lambda p, u: flashinfer.top_p_sampling_from_probs(p, u, 0.6)[0],
    ),
    "top_p of rows": (
        lambda p, **g: flashinfer.top_p_sampling_from_probs(p, S.to(p.device), **g),
        lambda p, u: flashinfer.top_p_sampling_from_probs(p, u, S.to(p.device))[0],
    ),
    "min_p": (
        lambda p, **g: flashinfer.min_p_sampling_from_probs(p, S.to(p.device), **g),
        lambda p, u: flashinfer.min_p_sampling_from_probs(p, u, S.to(p.device))[0],
    ),
    "both": (
        lambda p, **g: flashinfer.top_k_top_p_sampling_from_probs(
            p, K.to(p.device), S.to(p.device), filter_apply_order="joint", check_nan=False, **g
        ),
        lambda p, u: flashinfer.top_k_top_p_sampling_from_probs(
            p, u, K.to(p.device), S.to(p.device), "joint"
        )[0],
    ),
    "both, by place": (
        lambda p, generator=None: flashinfer.top_k_top_p_sampling_from_probs(
            p, K.to(p.device).float(), 0.7, None, "top_k_first", True, generator
        ),
        lambda p, u: flashinfer.top_k_top_p_sampling_from_probs(p, u, K.to(p.device), 0.7)[0],
    ),
    "both by name": (
        lambda p, **g: flashinfer.top_k_top_p_sampling_from_probs(probs=p, top_p=0.7, top_k=5, **g),
        lambda p, u: flashinfer.top_k_top_p_sampling_from_probs(p, u, 5, 0.7)[0],
    ),
    "logits": (
        lambda p, **g: flashinfer.top_k_top_p_sampling_from_logits(
            logits=p.log(), top_k=K.to(p.device), top_p=0.7, **g
        ),
        lambda p, u: flashinfer.top_k_top_p_sampling_from_logits(
            p.log(), u, K.to(p.device), 0.7
        )[0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_alone(name: str, device: str) -> None:
    later, own = SAMPLERS[name]
    p = P.to(device)
    got = later(p, generator=torch.Generator(device).manual_seed(7))
    seeded = torch.Generator(device).manual_seed(7)
    u = torch.rand(6, device=device, generator=seeded)
    assert got.dtype == torch.int32
    assert torch.equal(got, own(p, u))
    torch.manual_seed(11)
    first = later(p)
    torch.manual_seed(11)
    assert torch.equal(later(p), first)


def test_rows_and_whether_they_are_valid(device: str) -> None:
    p = P.to(device).clone()
    p[2] = 0
    rows = torch.tensor([5, 2, 2, 0], device=device)
    for sampler, filters in (
        (flashinfer.sampling_from_probs, ()),
        (flashinfer.top_k_sampling_from_probs, (K.to(device),)),
        (flashinfer.top_p_sampling_from_probs, (S.to(device),)),
        (flashinfer.min_p_sampling_from_probs, (S.to(device),)),
        (flashinfer.top_k_top_p_sampling_from_probs, (K.to(device), S.to(device))),
    ):
        call: Any = sampler
        g = torch.Generator(device).manual_seed(5)
        samples, valid = call(p, *filters, indices=rows, generator=g, return_valid=True)
        assert valid.tolist() == [True, False, False, True]
        g.manual_seed(5)
        picked = tuple(x[rows] for x in filters)
        assert torch.equal(samples, call(p[rows], *picked, generator=g))
    assert flashinfer.sampling_from_probs(p, rows).shape == (4,)


@pytest.mark.parametrize("uniform", ["[rounds, batch]", "[batch]"])
def test_the_older_forms_return_pairs(uniform: str, device: str) -> None:
    p = P.to(device)
    u = torch.rand((3, 6) if uniform == "[rounds, batch]" else (6,)).to(device)
    k, s = K.to(device), S.to(device)
    ones = torch.tensor([1] * 6, device=device)
    calls: list[Any] = [
        lambda: flashinfer.top_k_sampling_from_probs(p, u, k),
        lambda: flashinfer.top_k_sampling_from_probs(p, u, 3, True, False),
        lambda: flashinfer.top_k_sampling_from_probs(p, u, top_k=k),
        lambda: flashinfer.top_p_sampling_from_probs(p, u, s),
        lambda: flashinfer.top_p_sampling_from_probs(p, u, ones),
        lambda: flashinfer.top_p_sampling_from_probs(probs=p, uniform_samples=u, top_p=0.5),
        lambda: flashinfer.min_p_sampling_from_probs(p, u, ones),
        lambda: flashinfer.min_p_sampling_from_probs(p, uniform_samples=u, min_p=s),
        lambda: flashinfer.top_k_top_p_sampling_from_probs(p, u, k, s),
        lambda: flashinfer.top_k_top_p_sampling_from_probs(p, u, 3, 0.5, "joint", True, True),
        lambda: flashinfer.top_k_top_p_sampling_from_probs(p, u, k, top_p=s),
        lambda: flashinfer.top_k_top_p_sampling_from_probs(p, u, top_k=k, top_p=s),
        lambda: flashinfer.top_k_top_p_sampling_from_logits(p.log(), u, k, s),
    ]
    for call in calls:
        samples, success = call()
        assert (samples.dtype, success.dtype) == (torch.int32, torch.bool)
        assert success.all()


def test_calls_of_no_release() -> None:
    sampler: Any = flashinfer.top_p_sampling_from_probs
    for args, kwargs, words in (
        ((P,), {}, "top_p is missing"),
        ((P, 0.5), {"top_p": 0.5}, "got 'top_p' twice"),
        ((P, 0.5, None, True, None, True, 9), {}, "takes 6 arguments in this form, .* and got 7"),
    ):
        with pytest.raises(TypeError, match=words):
            sampler(*args, **kwargs)


def test_speculation_without_uniform_numbers(device: str) -> None:
    q = torch.softmax(torch.randn(6, 3, 50), -1).to(device)
    p, ids = q[:, :2].contiguous(), torch.randint(50, (6, 2)).to(device)
    count = torch.full((6,), 10, dtype=torch.int32, device=device)
    for generator in (None, torch.Generator(device).manual_seed(1)):
        out, accepted, emitted = flashinfer.chain_speculative_sampling(
            p, ids, q, None, None, True, generator  # type: ignore[arg-type]
        )  # fmt: skip
        assert (out[:, :2] == ids).all()  # what the target would draw too is accepted
        assert accepted.tolist() == emitted.tolist() == [2] * 6
    call: Any = flashinfer.chain_speculative_sampling
    _, _, emitted = call(p, ids, target_probs=q, maybe_output_emitted_draft_token_num=count)
    assert emitted is count
    assert count.tolist() == [12] * 6


# ---------------------------------------------------------------- RoPE and matrices


@pytest.mark.parametrize("is_neox", [True, False])
@pytest.mark.parametrize("rotary_dim", [64, 32])
@pytest.mark.parametrize("named", [True, False])
def test_one_cache_of_cosines_and_sines(
    is_neox: bool, rotary_dim: int, named: bool, device: str
) -> None:
    positions = torch.tensor([3, 0, 17, 17, 5], device=device)
    packed = torch.randn(5, 6 * 64 + 2 * 64).to(device, torch.float16)
    query, key = packed[:, : 6 * 64], packed[:, 6 * 64 :]  # rows with gaps, as of one projection
    angles = torch.outer(torch.arange(18.0), reference.frequencies(rotary_dim, 1, 1e4).float())
    cache = torch.cat((angles.cos(), angles.sin()), -1).to(device)
    right = [
        reference.rotate(
            x.view(5, -1, 64).cpu(), *(f(angles[positions.cpu()]) for f in (torch.cos, torch.sin)),
            not is_neox,
        )
        for x in (query, key)
    ]  # fmt: skip
    names = ("positions", "query", "key", "head_size", "cos_sin_cache", "is_neox")
    values = (positions, query, key, 64, cache, is_neox)
    args: tuple[Any, ...] = () if named else values
    kwargs: dict[str, Any] = dict(zip(names, values, strict=True)) if named else {}
    before = packed.clone()
    outs = apply_rope_with_cos_sin_cache(*args, **kwargs)
    assert torch.equal(packed, before)
    apply_rope_with_cos_sin_cache_inplace(*args, **kwargs)
    for out, inplace, expected in zip(outs, (query, key), right, strict=True):
        assert out.shape == inplace.shape
        reference.assert_close(out.view(5, -1, 64), expected)
        assert torch.equal(out, inplace)


def test_one_cache_says_what_is_wrong() -> None:
    good: dict[str, Any] = {
        "positions": torch.tensor([0, 1]),
        "query": torch.zeros(2, 128),
        "key": torch.zeros(2, 64),
        "head_size": 64,
        "cos_sin_cache": torch.zeros(5, 64),
    }
    for name, value, error, words in (
        ("head_size", 48, ValueError, r"query has shape \[2, 128\], expected \[nnz, heads"),
        ("cos_sin_cache", torch.zeros(5, 64).half(), TypeError, "cos_sin_cache has dtype"),
        ("cos_sin_cache", torch.zeros(5, 66), ValueError, "rotary_dim is 66"),
        ("positions", torch.tensor([0, 5]), ValueError, "5"),
        ("is_neo", True, TypeError, "unexpected keyword argument 'is_neo'"),
    ):
        with pytest.raises(error, match=words):
            apply_rope_with_cos_sin_cache(**good | {name: value})


def test_bmm_fp8_with_a_backend(device: str) -> None:
    a = torch.randn(2, 16, 32).to(device, torch.float8_e4m3fn)
    b = torch.randn(2, 16, 32).to(device, torch.float8_e4m3fn).transpose(1, 2)
    one = torch.ones(1, device=device)
    plain = flashinfer.bmm_fp8(a, b, one, one, torch.bfloat16)
    for backend in ("auto", "cublas", "cudnn", "cutlass"):
        assert torch.equal(flashinfer.bmm_fp8(a, b, one, one, torch.bfloat16, None, backend), plain)


def test_segment_gemm_with_out(device: str) -> None:
    x, w = torch.randn(5, 8).to(device).half(), torch.randn(2, 8, 4).to(device).half()
    lengths, out = torch.tensor([2, 3], device=device), torch.empty(5, 4).to(device).half()
    wrapper = flashinfer.SegmentGEMMWrapper(workspace(device, 16), backend="auto")
    plain = wrapper.run(x, w, 2, False, lengths)
    call: Any = wrapper.run
    for args, kwargs in (((out, lengths), {}), ((), {"out": out, "seg_lens": lengths})):
        out.zero_()
        assert call(x, w, 2, False, *args, **kwargs) is out
        assert torch.equal(out, plain)


# ---------------------------------------------------------------- attention

PLANNED = (HEADS.qo, HEADS.kv, HEADS.dim)
HINTS: dict[str, Any] = {"seq_lens": None, "block_tables": None}


def decode(batch: Batch, **options: Any) -> Any:
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace(batch.device), use_tensor_cores=True, backend="auto"
    )
    wrapper.plan(
        *batch.tables, *PLANNED, batch.page_size, data_type=torch.float16, o_data_type="float16",
        q_data_type=torch.float16, non_blocking=True, **options,
    )  # fmt: skip
    return wrapper


def paged(batch: Batch, **options: Any) -> Any:
    wrapper: Any = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
        workspace(batch.device), "NHD", backend="fa2", mask_indptr_buf=None
    )
    wrapper.plan(
        qo_indptr=batch.qo_indptr, paged_kv_indptr=batch.kv_indptr,
        paged_kv_indices=batch.kv_indices, paged_kv_last_page_len=batch.last_page_len,
        num_qo_heads=HEADS.qo, num_kv_heads=HEADS.kv, head_dim_qk=HEADS.dim, head_dim_vo=HEADS.dim,
        page_size=batch.page_size, use_fp16_qk_reduction=False, **options,
    )  # fmt: skip
    return wrapper


def ragged(batch: Batch, **options: Any) -> Any:
    wrapper: Any = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
        workspace(batch.device), "NHD", backend="cutlass"
    )
    wrapper.plan(
        qo_indptr=batch.qo_indptr, kv_indptr=batch.ragged_indptr, num_qo_heads=HEADS.qo,
        num_kv_heads=HEADS.kv, head_dim_qk=HEADS.dim, head_dim_vo=HEADS.dim, **options,
    )  # fmt: skip
    return wrapper


RUNS: dict[str, Callable[..., Any]] = {
    "decode": lambda b, run, **o: decode(b, **o).run(b.q, b.cache, **run),
    "paged": lambda b, run, **o: paged(b, **o).run(b.q, b.cache, **run),
    "ragged": lambda b, run, **o: ragged(b, **o).run(b.q, *b.ragged, **run),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    "options",
    [{}, {"fixed_split_size": -1}, {"fixed_split_size": 4}, {"disable_split_kv": True}, HINTS],
    ids=str,
)
def test_plans(name: str, options: dict[str, Any], device: str) -> None:
    lengths = [1, 1, 1] if name == "decode" else [3, 1, 40]
    batch = Batch(lengths, [500, 90, 700], HEADS, torch.float16, device)
    out = torch.empty_like(batch.q)
    lse = torch.empty(batch.q.shape[:2], device=device)
    run = {"out": out, "lse": lse, "return_lse": True, "enable_pdl": False}
    got = RUNS[name](batch, run, **options)
    assert got[0] is out
    assert got[1] is lse
    assert_attention(got, batch.reference())


@pytest.mark.parametrize("option", [{"fixed_split_size": 4}, {"disable_split_kv": True}], ids=str)
@pytest.mark.parametrize("graph", [False, True])
def test_without_splits_there_are_none(option: dict[str, Any], graph: bool, device: str) -> None:
    batch = Batch([1], [3000], HEADS, torch.float16, device)
    indptr, indices, last = batch.tables
    buffers = (torch.empty_like(indptr), torch.empty_like(indices), torch.empty_like(last))
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace(device), "NHD", graph, False, *(buffers if graph else ())
    )
    outs = []
    for options in ({}, option, {}):
        wrapper.plan(*batch.tables, *PLANNED, batch.page_size, **options)
        planned = wrapper._planned
        assert planned is not None
        merges = int(planned.words[1])
        assert (merges == 0) == bool(options), planned.words[:4]
        outs.append(wrapper.run(batch.q, batch.cache))
        assert_attention(outs[-1], batch.reference())


@pytest.mark.parametrize("graph", [False, True])
def test_a_plan_in_the_place_of_begin_forward(graph: bool, device: str) -> None:
    batch = Batch([1, 1, 1], [50, 9, 33], HEADS, torch.float16, device)
    indptr, indices, last = batch.tables
    buffers = (torch.empty_like(indptr), torch.empty_like(indices), torch.empty_like(last))
    wrapper: Any = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace(device), "NHD", graph, False, *(buffers if graph else ())
    )
    wrapper.begin_forward = functools.partial(flashinfer.fast_decode_plan, wrapper)
    for _ in range(2):
        wrapper.begin_forward(
            torch.full_like(indptr, -7), indices, last, *PLANNED, batch.page_size,
            data_type=torch.float16, q_data_type=torch.float16, non_blocking=True,
            fixed_split_size=None, disable_split_kv=False, global_override_indptr_cpu=indptr.cpu(),
        )  # fmt: skip
        assert_attention(wrapper.forward(batch.q, batch.cache), batch.reference())
    wrapper.begin_forward(*batch.tables, *PLANNED, batch.page_size, window_left=3)
    assert_attention(wrapper.run(batch.q, batch.cache), batch.reference(window_left=3))
    with pytest.raises(ValueError, match="q_len_per_req is 2, expected 1"):
        wrapper.begin_forward(*batch.tables, *PLANNED, batch.page_size, q_len_per_req=2)


def test_windows_of_a_run(device: str) -> None:
    batch = Batch([1, 1], [50, 9], HEADS, torch.float16, device)
    for name in ("decode", "paged"):
        got = RUNS[name](batch, {"window_left": 5, "return_lse": True})
        assert_attention(got, batch.reference(window_left=5))
    scaled = paged(batch).run(batch.q, batch.cache, q_scale=0.5, k_scale=0.5, v_scale=2.0)
    out, _ = batch.reference(sm_scale=0.25 / 8)
    reference.assert_close(scaled, out * 2, atol=2e-3)


@pytest.mark.parametrize("name", ["paged", "ragged"])
def test_head_dims_by_place(name: str, device: str) -> None:
    batch = Batch([3, 4], [9, 8], HEADS, torch.float16, device)
    if name == "paged":
        one: Any = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(device))
        one.plan(
            batch.qo_indptr, *batch.tables, *PLANNED, batch.page_size, HEADS.dim, None, None, True
        )
        got = one.run_return_lse(batch.q, batch.cache)
    else:
        one = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace(device))
        one.plan(batch.qo_indptr, batch.ragged_indptr, *PLANNED, HEADS.dim, None, None, True)
        got = one.run_return_lse(batch.q, *batch.ragged)
    assert_attention(got, batch.reference(causal=True))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"head_dim_vo": 128}, ValueError, "head_dim_vo is 128, expected 64 as head_dim"),
        ({"o_data_type": "float12"}, ValueError, "o_data_type is 'float12', expected one of"),
        ({"prefix_len_ptr": None}, TypeError, "plan got an unexpected keyword .*'prefix_len_ptr'"),
    ],
)
def test_plans_that_are_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    batch = Batch([3], [9], HEADS, torch.float16, "cpu")
    for make in (
        lambda: flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace("cpu")).plan(
            batch.qo_indptr, *batch.tables, *PLANNED, batch.page_size, **options
        ),
        lambda: flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace("cpu")).plan(
            batch.qo_indptr, batch.ragged_indptr, *PLANNED, **options
        ),
    ):
        with pytest.raises(error, match=words):
            make()
    with pytest.raises(
        ValueError, match=r"o_data_type is torch.bfloat16 in the plan, expected torch.float16"
    ):
        RUNS["paged"](batch, {}, o_data_type=torch.bfloat16)


def test_cascade_and_single_with_what_is_new(device: str) -> None:
    batch = Batch([3, 4], [9, 8], HEADS, torch.float16, device)
    wrapper: Any = flashinfer.MultiLevelCascadeAttentionWrapper(1, workspace(device), "NHD")
    wrapper.plan(
        [batch.qo_indptr], [batch.kv_indptr], [batch.kv_indices], [batch.last_page_len], *PLANNED,
        batch.page_size, causal=True, sm_scale=None, window_left=-1, logits_soft_cap=None,
        q_data_type=torch.float16, kv_data_type=torch.float16, use_fp16_qk_reduction=False,
    )  # fmt: skip
    assert_attention(wrapper.run(batch.q, batch.cache), batch.reference(causal=True))
    one = Batch([1], [9], HEADS, torch.float16, device)
    out, lse = flashinfer.single_decode_with_kv_cache(one.q[0], *one.ragged, return_lse=True)
    assert_attention((out[None], lse[None]), one.reference())


def test_norms_and_activations_with_enable_pdl(device: str) -> None:
    x, w = torch.randn(3, 64).to(device).half(), torch.randn(64).to(device).half()
    assert torch.equal(flashinfer.rmsnorm(x, w, enable_pdl=True), flashinfer.rmsnorm(x, w))
    assert torch.equal(flashinfer.silu_and_mul(x, enable_pdl=False), flashinfer.silu_and_mul(x))
    a, b = x.clone(), x.clone()
    flashinfer.fused_add_rmsnorm(a, x.clone(), w, 1e-6, None)
    flashinfer.fused_add_rmsnorm(b, x.clone(), w)
    assert torch.equal(a, b)


@pytest.mark.parametrize("out_dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_norms_in_fp8(out_dtype: torch.dtype, as_tensor: bool, device: str) -> None:
    x, w = torch.randn(5, 96).to(device).half(), torch.randn(96).to(device).half()
    residual, out = torch.randn(5, 96).to(device).half(), torch.empty(5, 96).to(device, out_dtype)
    scale: Any = torch.tensor([0.3], device=device) if as_tensor else 0.3
    most = torch.finfo(out_dtype).max

    def right(rows: torch.Tensor, scale: float) -> torch.Tensor:
        normed = reference.rmsnorm(rows, w, 1e-6) / scale
        return normed.clamp(-most, most).float().to(out_dtype).double().cpu()

    def check(expected: torch.Tensor) -> None:
        # fp32 and fp64 may round to neighbours.
        torch.testing.assert_close(out.cpu().double(), expected, rtol=0.26, atol=2e-4)
        assert (out.cpu().double() == expected).float().mean() > 0.98

    flashinfer.rmsnorm_quant(out, x, w, scale)
    check(right(x.cpu(), 0.3) if device == "cpu" else right(x, 0.3))
    flashinfer.rmsnorm_quant(out, x, w, 1e-9)
    assert out.float().abs().max() == most
    total = x.float() + residual.float()
    before = x.clone()
    flashinfer.fused_add_rmsnorm_quant(out, x, residual, w, scale)
    check(right(total, 0.3))
    assert torch.equal(residual, total.half())
    assert torch.equal(x, before)


def test_layernorm(device: str) -> None:
    x, gamma, beta = torch.randn(5, 96).to(device).bfloat16() + 3, torch.randn(96), torch.randn(96)
    right = x.double().cpu()
    right = (right - right.mean(-1, keepdim=True)) / right.var(-1, False, keepdim=True).sqrt()
    got = flashinfer.layernorm(x, gamma.to(device), beta.to(device))
    assert got.dtype == torch.bfloat16
    reference.assert_close(got, right * gamma.double() + beta.double(), atol=2e-2)


def test_softmax_and_draws_from_logits(device: str) -> None:
    logits = torch.randn(6, 50).to(device)
    heat = torch.tensor([1.0, 0.5, 2.0, 1e-3, 0.0, 7.0], device=device)
    right = torch.softmax(logits.double() / heat.double()[:, None], -1)
    right[4] = 1 / 50
    reference.assert_close(flashinfer.softmax(logits, heat.double()), right.cpu(), atol=1e-4)
    reference.assert_close(flashinfer.softmax(logits, 0.5), torch.softmax(2 * logits, -1).cpu())
    assert torch.equal(flashinfer.softmax(logits, 0), torch.full_like(logits, 1 / 50))
    g = torch.Generator(device).manual_seed(2)
    rows = torch.tensor([3, 0], device=device)
    got = flashinfer.sampling_from_logits(logits, rows, generator=g)
    g.manual_seed(2)
    probs = flashinfer.softmax(logits)
    assert torch.equal(got, flashinfer.sampling_from_probs(probs, indices=rows, generator=g))
    with pytest.raises(ValueError, match="logits has NaN in row 0, 1"):
        flashinfer.sampling_from_logits(logits * torch.nan, check_nan=True)


def test_top_k(device: str) -> None:
    x = torch.randint(0, 9, (4, 60)).to(device).half()
    for options in (
        {},
        {"sorted": True},
        {"deterministic": True},
        {"tie_break": 1},
        {"tie_break": 2},
    ):
        values, indices = flashinfer.top_k(x, 13, **options)
        assert (values.dtype, indices.dtype) == (x.dtype, torch.int64)
        assert torch.equal(x.gather(1, indices), values)
        ordered = values.sort(-1, descending=True).values
        assert torch.equal(ordered, x.topk(13).values)
        assert all(len(set(row)) == 13 for row in indices.tolist())
    least = x.topk(13).values[:, -1:]
    for tie_break in (1, 2):
        chosen = torch.zeros_like(x).scatter_(1, flashinfer.top_k(x, 13, tie_break=tie_break)[1], 1)
        for row, ties in zip(chosen, x == least, strict=True):
            taken = row[ties].tolist()  # of the equal ones: those at one end
            assert taken == sorted(taken, reverse=tie_break == 1)
    for k, tie_break, words in ((0, 0, "k is 0, expected 1 to 60"), (1, 3, "tie_break is 3")):
        with pytest.raises(ValueError, match=words):
            flashinfer.top_k(x, k, tie_break=tie_break)


def test_concat_mla_k(device: str) -> None:
    nope, rope = torch.randn(7, 3, 16).to(device).half(), torch.randn(7, 1, 8).to(device).half()
    k = torch.empty(7, 3, 48).to(device).half()[..., ::2]
    flashinfer.concat_mla_k(k, nope, rope)
    assert torch.equal(k, torch.cat((nope, rope.expand(-1, 3, -1)), -1))
    with pytest.raises(ValueError, match=r"k has shape \[7, 3, 20\], expected \[7, 3, 24\]"):
        flashinfer.concat_mla_k(k[..., :20], nope, rope)


def test_positions_into_buffers(device: str) -> None:
    indptr, lengths = torch.tensor([0, 2, 3], device=device), torch.tensor([5, 1], device=device)
    rooms = [torch.full((6,), -9, dtype=torch.int32, device=device) for _ in range(2)]
    new = flashinfer.get_batch_indices_positions(indptr, lengths, 4)
    got = flashinfer.get_batch_indices_positions(indptr, lengths, 4, *rooms)
    for room, written, right in zip(rooms, got, new, strict=True):
        assert torch.equal(written, right)
        assert torch.equal(room[:4], right)
        assert (room[4:] == -9).all()


COMPILED: dict[str, tuple[Callable[..., Any], Callable[[], tuple[torch.Tensor, ...]]]] = {
    "sampling": (
        lambda p, k, u: (
            flashinfer.top_k_sampling_from_probs(p, k, indices=k, return_valid=True)[1],
            flashinfer.top_k_top_p_sampling_from_probs(p, 1, 0.9, deterministic=True),
            flashinfer.top_k_top_p_sampling_from_probs(p, u, k, 0.9)[0],
        ),
        lambda: (P, torch.arange(1, 7) // 2, torch.full((6,), 0.5)),
    ),
    "one cache": (
        lambda positions, query, cache: apply_rope_with_cos_sin_cache(
            positions=positions, query=query, key=query, head_size=64, cos_sin_cache=cache
        ),
        lambda: (torch.arange(3), torch.randn(3, 128), torch.rand(4, 64)),
    ),
    "an order of 0.1.6": (
        lambda q, indptr, offsets: flashinfer.apply_rope(q, q, indptr, offsets, True, 2.0),
        lambda: (torch.randn(3, 2, 64), torch.tensor([0, 3]), torch.tensor([7])),
    ),
    "without interleave": (
        lambda q, indptr, offsets: flashinfer.apply_llama31_rope(q, q, indptr, offsets),
        lambda: (torch.randn(3, 2, 64), torch.tensor([0, 3]), torch.tensor([7])),
    ),
}


@pytest.mark.parametrize("name", COMPILED)
def test_forms_are_traced(name: str) -> None:
    function, make = COMPILED[name]
    inputs = make()
    traced = torch.compile(function, backend="eager", fullgraph=True)(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = function(*inputs)
    for got, right in zip(traced, plain, strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("name", ["run", "forward"])
def test_runs_without_causal_are_traced(name: str) -> None:
    batch = Batch([3, 4], [9, 8], HEADS, torch.float16, "cpu")
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace("cpu"))
    wrapper.plan(batch.qo_indptr, batch.ragged_indptr, *PLANNED)
    run = torch.compile(getattr(wrapper, name), backend="eager", fullgraph=True)
    assert_attention(run(batch.q, *batch.ragged), batch.reference())
