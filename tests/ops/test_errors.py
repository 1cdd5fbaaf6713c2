"""Wrong calls raise what a caller can act on: the argument, what came, what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashinfer
from flashinfer import _ops

H = torch.float16


def f(*shape: int, dtype: torch.dtype = H) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def i(*values: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def append(**changes: Any) -> Callable[[], None]:
    arguments: dict[str, Any] = {
        "append_key": f(3, 2, 8),
        "append_value": f(3, 2, 8),
        "batch_indices": i(0, 0, 1),
        "positions": i(0, 1, 0),
        "paged_kv_cache": f(4, 2, 2, 2, 8),
        "kv_indices": i(1, 2),
        "kv_indptr": i(0, 1, 2),
        "kv_last_page_len": i(2, 1),
    }
    arguments |= changes
    return lambda: flashinfer.append_paged_kv_cache(**arguments)


def rope(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {"q": f(3, 4, 8), "k": f(3, 2, 8), "pos_ids": i(0, 1, 2)}
    arguments |= changes
    return lambda: flashinfer.apply_rope_pos_ids(**arguments)


def cached(**changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {
        "q": f(3, 4, 8),
        "k": f(3, 2, 8),
        "cos_cache": torch.zeros(5, 8),
        "sin_cache": torch.zeros(5, 8),
        "pos_ids": i(0, 1, 2),
    }
    arguments |= changes
    return lambda: flashinfer.apply_rope_with_cos_sin_cache(**arguments)


def fp8(*shape: int) -> torch.Tensor:
    return f(*shape).to(torch.float8_e4m3fn)


NHD_FORM = "[pages, 2, page_size, num_kv_heads, head_dim]"

CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # norm
    (
        lambda: flashinfer.rmsnorm([1.0], f(1)),  # type: ignore[arg-type]
        TypeError,
        "input is a list, expected a torch.Tensor",
    ),
    (lambda: flashinfer.rmsnorm(f(8), f(8)), ValueError, "input has shape [8], expected [rows, h"),
    (
        lambda: flashinfer.rmsnorm(f(3, 8), f(7)),
        ValueError,
        "weight has shape [7], expected [8]: the hidden size of input",
    ),
    (
        lambda: flashinfer.rmsnorm(f(3, 8), f(8, dtype=torch.float32)),
        TypeError,
        "weight has dtype torch.float32, expected torch.float16 as input has",
    ),
    (
        lambda: flashinfer.rmsnorm(f(3, 8, dtype=torch.int32), f(8)),
        TypeError,
        "input has dtype torch.int32, expected one of torch.float16",
    ),
    (
        lambda: flashinfer.rmsnorm(f(3, 8), f(8), out=f(3, 9)),
        ValueError,
        "out has shape [3, 9], expected [3, 8]",
    ),
    (
        lambda: flashinfer.rmsnorm(f(3, 8), f(8), out=f(3, 8, dtype=torch.bfloat16)),
        TypeError,
        "out has dtype torch.bfloat16",
    ),
    (
        lambda: flashinfer.rmsnorm(f(3, 8), f(8).to("meta")),
        ValueError,
        "weight is on meta, expected cpu as input is",
    ),
    (
        lambda: flashinfer.fused_add_rmsnorm(f(3, 8), f(4, 8), f(8)),
        ValueError,
        "residual has shape [4, 8], expected [3, 8]",
    ),
    (
        lambda: flashinfer.layernorm(f(3, 8), f(7), f(8)),
        ValueError,
        "gemma has shape [7], expected [8]: the hidden size of input",
    ),
    (
        lambda: flashinfer.layernorm(f(3, 8), f(8), i(*range(8))),
        TypeError,
        "beta has dtype torch.int32, expected a floating point one",
    ),
    (
        lambda: flashinfer.rmsnorm_quant(f(3, 8), f(3, 8), f(8), 1.0),
        TypeError,
        "out has dtype torch.float16, expected one of torch.float8_e4m3fn",
    ),
    (
        lambda: flashinfer.rmsnorm_quant(fp8(3, 9), f(3, 8), f(8), 1.0),
        ValueError,
        "out has shape [3, 9], expected [3, 8]",
    ),
    (
        lambda: flashinfer.rmsnorm_quant(fp8(3, 8), f(3, 8), f(8), torch.ones(2)),
        ValueError,
        "scale has 2 elements, expected 1",
    ),
    (
        lambda: flashinfer.fused_add_rmsnorm_quant(fp8(3, 8), f(3, 8), f(3, 7), f(8), 1.0),
        ValueError,
        "residual has shape [3, 7], expected [3, 8]",
    ),
    (
        lambda: flashinfer.concat_mla_k(f(3, 2, 12), f(3, 2, 8), f(3, 2, 4)),
        ValueError,
        "k_rope has shape [3, 2, 4], expected [3, 1, 4]",
    ),
    (
        lambda: flashinfer.concat_mla_k(f(3, 2, 12), f(3, 2, 8), f(3, 1, 4).float()),
        TypeError,
        "k_rope has dtype torch.float32, expected torch.float16 as k has",
    ),
    (
        lambda: flashinfer.top_k(i(1, 2).view(1, 2), 1),
        TypeError,
        "input has dtype torch.int32, expected a floating point one",
    ),
    (lambda: flashinfer.top_k(f(3, 8), 9), ValueError, "k is 9, expected 1 to 8"),
    # activation
    (
        lambda: flashinfer.silu_and_mul(f(3, 7)),
        ValueError,
        "input has shape [3, 7], expected [..., 2 * d]",
    ),
    (lambda: flashinfer.silu_and_mul(f()), ValueError, "input has shape []"),
    (
        lambda: flashinfer.gelu_and_mul(f(3, 8), f(3, 8)),
        ValueError,
        "out has shape [3, 8], expected [3, 4]",
    ),
    (
        lambda: flashinfer.gelu_tanh_and_mul(f(3, 8, dtype=torch.float64)),
        TypeError,
        "input has dtype torch.float64",
    ),
    # rope
    (rope(q=f(3, 8)), ValueError, "q has shape [3, 8], expected [nnz, num_qo_heads, head_dim]"),
    (rope(k=f(2, 2, 8)), ValueError, "k has shape [2, 2, 8], expected [3, num_kv_heads, 8]"),
    (rope(k=f(3, 2, 8, dtype=torch.bfloat16)), TypeError, "k has dtype torch.bfloat16"),
    (rope(rotary_dim=3), ValueError, "rotary_dim is 3, expected an even number in 2..8"),
    (rope(rotary_dim=10), ValueError, "rotary_dim is 10"),
    (rope(rotary_dim=0), ValueError, "rotary_dim is 0"),
    (rope(pos_ids=i(0, 1)), ValueError, "pos_ids has shape [2], expected [3]"),
    (rope(pos_ids=f(3)), TypeError, "pos_ids has dtype torch.float16"),
    (rope(rope_theta=0.0), ValueError, "rope_theta 0.0"),
    (
        lambda: flashinfer.apply_rope(f(3, 4, 8), f(3, 2, 8), i(0, 3), i(0, 0)),
        ValueError,
        "offsets has shape [2], expected [1]",
    ),
    (
        lambda: flashinfer.apply_rope(f(3, 4, 8), f(3, 2, 8), i(0, 4), i(0)),
        ValueError,
        "indptr[0:2] is (0, 4), expected non-decreasing values in 0..3",
    ),
    (
        lambda: flashinfer.apply_rope(f(3, 4, 8), f(3, 2, 8), i(), i()),
        ValueError,
        "indptr",
    ),
    (
        lambda: flashinfer.apply_llama31_rope(
            f(3, 4, 8), f(3, 2, 8), i(0, 3), i(0), low_freq_factor=4, high_freq_factor=4
        ),
        ValueError,
        "high_freq_factor is 4, expected more than low_freq_factor, 4",
    ),
    (cached(cos_cache=f(5, 8)), TypeError, "cos_cache has dtype torch.float16"),
    (cached(sin_cache=torch.zeros(5, 6)), ValueError, "sin_cache has shape [5, 6]"),
    (cached(cos_cache=torch.zeros(8)), ValueError, "cos_cache has shape [8], expected [max_pos"),
    # page
    (append(append_key=f(3, 16)), ValueError, "append_key has shape [3, 16], expected [nnz, num"),
    (append(append_value=f(3, 2, 9)), ValueError, "append_value has shape [3, 2, 9]"),
    (
        append(paged_kv_cache=f(4, 2, 2, 2, 8, dtype=torch.bfloat16)),
        TypeError,
        "paged_kv_cache has dtype torch.bfloat16, expected torch.float16 as append_key has",
    ),
    (
        append(paged_kv_cache=f(4, 2, 2, 8)),
        ValueError,
        f"paged_kv_cache has shape [4, 2, 2, 8], expected {NHD_FORM}",
    ),
    (append(paged_kv_cache=f(4, 3, 2, 2, 8)), ValueError, "expected 2 in dimension 1"),
    (
        append(paged_kv_cache=f(4, 2, 2, 3, 8)),
        ValueError,
        "paged_kv_cache has 3 heads of 8 elements in layout NHD, expected 2 of 8",
    ),
    (
        append(paged_kv_cache=(f(4, 2, 2, 8), f(4, 3, 2, 8))),
        ValueError,
        "paged_kv_cache[1] has shape [4, 3, 2, 8], expected [4, 2, 2, 8]",
    ),
    (append(paged_kv_cache=(f(4, 2, 2, 8),)), ValueError, "paged_kv_cache has 1 tensors"),
    (
        append(paged_kv_cache=f(4, 2, 2, 2, 16)[..., ::2]),
        ValueError,
        "k_cache has stride 2 in its last dimension, expected 1",
    ),
    (append(kv_layout="DHN"), ValueError, "kv_layout is 'DHN', expected 'NHD' or 'HND'"),
    (append(kv_last_page_len=i(2)), ValueError, "kv_last_page_len has shape [1], expected [2]"),
    (append(positions=i(0, 1)), ValueError, "positions has shape [2], expected [3]"),
    (append(kv_indices=f(2)), TypeError, "kv_indices has dtype torch.float16"),
    (
        append(positions=i(0, 2, 0)),
        ValueError,
        "positions[1] is 2, expected less than 2: request 0 has 1 pages",
    ),
    (append(positions=i(0, -1, 0)), ValueError, "positions[1] is -1"),
    (append(kv_indices=i(1, 4)), ValueError, "kv_indices[1] is 4, expected a page in 0..3"),
    (append(kv_indptr=i(0, 1, 3)), ValueError, "kv_indptr[1:3] is (1, 3), expected values in 0..2"),
    (append(unknown=1), TypeError, "append_paged_kv_cache has no argument 'unknown'"),
    (append(append_indptr=i(0, 2, 3)), TypeError, "no argument 'batch_indices'"),
    (
        lambda: flashinfer.append_paged_kv_cache(f(3, 2, 8), f(3, 2, 8), i(0, 0, 1)),  # type: ignore[call-overload]
        TypeError,
        "append_paged_kv_cache needs paged_kv_cache, kv_indices, kv_indptr, kv_last_page_len",
    ),
    (
        lambda: flashinfer.get_batch_indices_positions(i(0, 2, 4), i(2, 2), 3),
        ValueError,
        "append_indptr[1:3] is (2, 4), expected non-decreasing values in 0..3",
    ),
    (
        lambda: flashinfer.get_batch_indices_positions(i(0, 2), i(2), -1),
        ValueError,
        "nnz is -1",
    ),
    (lambda: flashinfer.get_seq_lens(i(0, 2), i(2, 1), 4), ValueError, "kv_last_page_len has sh"),
    # cascade
    (
        lambda: flashinfer.merge_state(f(3, 8), f(3), f(3, 8), f(3)),
        ValueError,
        "v_a has shape [3, 8], expected [seq_len, num_heads, head_dim]",
    ),
    (
        lambda: flashinfer.merge_state(f(3, 2, 8), f(3, 2), f(3, 2, 9), f(3, 2)),
        ValueError,
        "v_b has shape [3, 2, 9], expected [3, 2, 8]",
    ),
    (
        lambda: flashinfer.merge_state(f(3, 2, 8), f(3, 3), f(3, 2, 8), f(3, 2)),
        ValueError,
        "s_a has shape [3, 3], expected [3, 2]",
    ),
    (
        lambda: flashinfer.merge_state_in_place(f(3, 2, 8), f(3, 2), f(3, 2, 8), f(3, 2)),
        TypeError,
        "s has dtype torch.float16, expected torch.float32, as it is overwritten",
    ),
    (
        lambda: flashinfer.merge_state_in_place(
            f(3, 2, 8), torch.zeros(3, 2), f(3, 2, 8), f(3, 2), mask=torch.ones(2)
        ),
        ValueError,
        "mask has shape [2], expected [3]",
    ),
    (
        lambda: flashinfer.merge_state_in_place(
            f(3, 2, 8), torch.zeros(3, 2), f(3, 2, 8), f(3, 2), mask=torch.ones(3)
        ),
        TypeError,
        "mask has dtype torch.float32",
    ),
    (
        lambda: flashinfer.merge_states(f(3, 4, 2, 8), f(3, 2, 4)),
        ValueError,
        "s has shape [3, 2, 4], expected [3, 4, 2]",
    ),
    # quantization
    (lambda: flashinfer.packbits(f(2, 3)), ValueError, "x has shape [2, 3], expected [n]"),
    (
        lambda: flashinfer.packbits(f(3), "middle"),
        ValueError,
        "bitorder is 'middle', expected 'big' or 'little'",
    ),
    (
        lambda: flashinfer.segment_packbits(f(3), i(0, 4)),
        ValueError,
        "indptr[0:2] is (0, 4), expected non-decreasing values in 0..3",
    ),
    (lambda: flashinfer.segment_packbits(f(3), i()), ValueError, "indptr has shape [0]"),
    (lambda: flashinfer.segment_packbits(f(3), f(2)), TypeError, "indptr has dtype torch.float16"),
    # sampling
    (
        lambda: flashinfer.sampling_from_probs(f(8)),
        ValueError,
        "probs has shape [8], expected [batch_size, num_classes]",
    ),
    (
        lambda: flashinfer.sampling_from_probs(torch.zeros(3, 8, dtype=torch.int32)),
        TypeError,
        "probs has dtype torch.int32, expected a floating point one",
    ),
    (lambda: flashinfer.sampling_from_probs(f(3, 0)), ValueError, "probs has no columns to sample"),
    (
        lambda: flashinfer.sampling_from_probs(f(3, 8), f(2)),
        ValueError,
        "uniform_samples has shape [2], expected [batch_size] with a batch_size of 3",
    ),
    (
        lambda: flashinfer.sampling_from_probs(f(3, 8), f(2, 3)),
        ValueError,
        "uniform_samples has shape [2, 3], expected [batch_size] with",
    ),
    (
        lambda: flashinfer.top_p_sampling_from_probs(f(3, 8), f(0, 3), 0.5),
        ValueError,
        "uniform_samples has shape [0, 3], expected [rounds, batch_size] with",
    ),
    (
        lambda: flashinfer.sampling_from_probs(f(3, 8), f(3), generator=torch.Generator()),
        ValueError,
        "uniform_samples and generator are both given",
    ),
    (lambda: flashinfer.top_p_sampling_from_probs(f(3, 8)), TypeError, "top_p is missing"),
    (lambda: flashinfer.top_k_sampling_from_probs(f(3, 8)), TypeError, "top_k is missing"),
    (lambda: flashinfer.min_p_sampling_from_probs(f(3, 8)), TypeError, "min_p is missing"),
    (
        lambda: flashinfer.top_p_sampling_from_probs(f(3, 8), top_p=1.5),
        ValueError,
        "top_p is 1.5, expected 0 to 1",
    ),
    (
        lambda: flashinfer.min_p_sampling_from_probs(f(3, 8), min_p=float("nan")),
        ValueError,
        "min_p is nan, expected 0 to 1",
    ),
    (
        lambda: flashinfer.top_k_sampling_from_probs(f(3, 8), top_k=0),
        ValueError,
        "top_k is 0, expected 1 or more",
    ),
    (
        lambda: flashinfer.top_k_renorm_probs(f(3, 8), 0.5),  # type: ignore[arg-type]
        TypeError,
        "top_k is 0.5, expected an int or a tensor [batch_size]",
    ),
    (
        lambda: flashinfer.top_k_mask_logits(f(3, 8), f(3).to(torch.complex64)),
        TypeError,
        "top_k has dtype torch.complex64, expected a real one",
    ),
    (
        lambda: flashinfer.top_p_renorm_probs(f(3, 8), f(2)),
        ValueError,
        "top_p has shape [2], expected [3]: one for each row of probs",
    ),
    (
        lambda: flashinfer.top_p_renorm_probs(f(3, 8), f(3).to(torch.complex64)),
        TypeError,
        "top_p has dtype torch.complex64, expected a real one",
    ),
    (
        lambda: flashinfer.top_k_top_p_sampling_from_probs(f(3, 8), None, 2, 0.5, "top_p_first"),
        ValueError,
        "filter_apply_order is 'top_p_first', expected 'top_k_first' or 'joint'",
    ),
    (
        lambda: flashinfer.chain_speculative_sampling(f(3, 2, 8), i(1, 2), None, f(3, 3, 8)),
        ValueError,
        "draft_token_ids has shape [2], expected [3, 2]",
    ),
    (
        lambda: flashinfer.chain_speculative_sampling(
            f(3, 2, 8), torch.zeros(3, 2, dtype=torch.int32), None, f(3, 2, 8)
        ),
        ValueError,
        "target_probs has shape [3, 2, 8], expected [3, 3, 8]: one token more",
    ),
    (
        lambda: flashinfer.chain_speculative_sampling(f(3, 2, 8), i(1)),
        TypeError,
        "target_probs is missing",
    ),
    (lambda: flashinfer.softmax(i(1, 2)), ValueError, "logits has shape [2], expected [batch_siz"),
    (
        lambda: flashinfer.softmax(i(1, 2).view(1, 2)),
        TypeError,
        "logits has dtype torch.int32, expected a floating point one",
    ),
    (
        lambda: flashinfer.softmax(f(3, 8), torch.ones(2)),
        ValueError,
        "temperature has shape [2], expected [3]",
    ),
    (
        lambda: flashinfer.softmax(f(3, 8), torch.ones(3, dtype=torch.complex64)),
        TypeError,
        "temperature has dtype torch.complex64, expected a real one",
    ),
    (
        lambda: flashinfer.chain_speculative_sampling(
            f(3, 2, 8), torch.zeros(3, 2, dtype=torch.int32), None, f(3, 3, 8), f(3)
        ),
        TypeError,
        "maybe_output_accepted_token_num has dtype torch.float16",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), CASES, ids=[case[2] for case in CASES])
def test_wrong_call(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_nothing_is_written_when_a_later_row_is_wrong() -> None:
    cache = f(4, 2, 2, 2, 8)
    with pytest.raises(ValueError, match=r"positions\[2\]"):
        append(paged_kv_cache=cache, append_key=f(3, 2, 8) + 1, positions=i(0, 1, 9))()
    assert not cache.any()


# The binding guards itself too: its ops can be called without the front functions.
@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: _ops.rmsnorm(f(3, 8), f(3, 8), f(7), 1e-6, 0.0),
            ValueError,
            "flashinfer::rmsnorm: weight has shape [7], expected [8]",
        ),
        (
            lambda: _ops.rmsnorm(f(3, 8), f(3, 16)[:, ::2], f(8), 1e-6, 0.0),
            ValueError,
            "input has stride 2 in its last dimension, expected 1",
        ),
        (
            lambda: _ops.rmsnorm(f(3, 8), f(3, 8), f(8, dtype=torch.double), 1e-6, 0.0),
            TypeError,
            "weight has dtype Double, expected Half as input has",
        ),
        (
            lambda: _ops.rmsnorm(f(3, 8), f(3, 8).to_sparse(), f(8), 1e-6, 0.0),
            (TypeError, NotImplementedError),
            "parse",
        ),
        (
            lambda: _ops.layernorm(f(3, 8), f(3, 8), f(8), f(8), 1e-6),
            TypeError,
            "gamma has dtype Half, expected float32",
        ),
        (
            lambda: _ops.rmsnorm_quant(f(3, 8), f(3, 8), f(8), None, 1.0, 1e-6),
            TypeError,
            "out has dtype Half, expected Float8_e4m3fn or Float8_e5m2",
        ),
        (
            lambda: _ops.rmsnorm_quant(fp8(3, 8), f(3, 8), f(8), torch.ones(2), 1.0, 1e-6),
            ValueError,
            "scale has shape [2], expected [1]",
        ),
        (
            lambda: _ops.concat_mla_k(
                torch.zeros(3, 2, 12).double(), torch.zeros(3, 2, 8, dtype=torch.int8),
                torch.zeros(3, 1, 4).double(),
            ),
            TypeError,
            "k_nope has dtype Char, expected Double as k has",
        ),
        (
            lambda: _ops.top_k(f(3, 9), i(*range(27)).view(3, 9).long(), f(3, 8), True, False),
            ValueError,
            "values has 9 columns, expected 1 to 8, those of input",
        ),
        (
            lambda: _ops.act_and_mul(f(3, 4), f(3, 8), "relu"),
            ValueError,
            "activation is 'relu', expected silu, gelu or gelu_tanh",
        ),
        (
            lambda: _ops.batch_positions(i(0, 2), i(2, dtype=torch.int64), i(0, 0), i(0, 0)),
            TypeError,
            "seq_lens has dtype Long, expected int32",
        ),
        (
            lambda: _ops.merge_state(
                f(3, 2, 8).transpose(0, 1),
                torch.zeros(2, 3),
                f(2, 3, 8),
                torch.zeros(2, 3),
                f(2, 3, 8),
                torch.zeros(2, 3),
            ),
            ValueError,
            "v_a has shape [2, 3, 8] and strides [8, 16, 1], expected a contiguous tensor",
        ),
        (
            lambda: _ops.rope_inplace(
                f(3, 2, 8), f(3, 2, 8), i(0, 5, 0), None, None, torch.zeros(5, 8), 8, False,
                False, 1.0, 1e4, 0.0, 0.0,
            ),
            ValueError,
            "pos_ids[1] is 5, expected 0 <= position < 5, the rows of cos_sin_cache",
        ),
        (
            lambda: _ops.segment_packbits(
                torch.ones(9, dtype=torch.bool), i(0, 9), i(0, 1), i(0).to(torch.uint8), False
            ),
            ValueError,
            "out_indptr[0:2] is (0, 1), expected 2 bytes within 0..1",
        ),
        (
            lambda: _ops.renorm_probs(
                torch.zeros(3, 7), torch.zeros(3, 8), None, 1, None, 1.0
            ),
            ValueError,
            "out has shape [3, 7], expected [3, 8]",
        ),
        (
            lambda: _ops.softmax(torch.zeros(3, 8), torch.zeros(3, 8), torch.zeros(2), 1.0),
            ValueError,
            "temperature has shape [2], expected [3]",
        ),
        (
            lambda: _ops.mask_logits(f(3, 8), f(3, 8), None, 1),
            TypeError,
            "logits has dtype Half, expected float32",
        ),
    ],
)  # fmt: skip
def test_wrong_call_of_the_binding(call: Callable[[], Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        call()


@pytest.mark.gpu
def test_float32_is_for_the_cpu() -> None:
    x = torch.zeros(3, 8, device="cuda")
    with pytest.raises(TypeError, match=r"input has dtype torch\.float32 on CUDA"):
        flashinfer.rmsnorm(x, x[0])


@pytest.mark.gpu
def test_devices_must_agree() -> None:
    x = f(3, 8).cuda()
    with pytest.raises(ValueError, match="weight is on cpu, expected cuda:0 as input is"):
        flashinfer.rmsnorm(x, f(8))
    with pytest.raises(ValueError, match="weight is on cpu, expected cuda:0 as out is"):
        _ops.rmsnorm(x, x, f(8), 1e-6, 0.0)
