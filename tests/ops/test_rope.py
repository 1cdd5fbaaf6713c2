from __future__ import annotations

from typing import Any

import pytest
import reference
import torch

import flashinfer

INDPTR = [0, 5, 5, 12, 13]  # one segment is empty
OFFSETS = [0, 9, 1000, 77]
NNZ = INDPTR[-1]
LLAMA31 = (1.0, 4.0, 8192)

# Angles are made in float32: a position of 1,000 costs 1,000 * 2**-24 of a radian.
ANGLE = 2e-4


def packed_qk(
    dtype: torch.dtype, device: str, head_dim: int, heads: tuple[int, int] = (6, 2)
) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k as slices of one packed QKV tensor, as serving engines have them."""
    packed = reference.rows((NNZ, sum(heads) + heads[1], head_dim), dtype, device)
    return packed[:, : heads[0]], packed[:, heads[0] : sum(heads)]


def expected(
    x: torch.Tensor, positions: torch.Tensor, freqs: torch.Tensor, interleave: bool
) -> torch.Tensor:
    angles = positions.double()[:, None] * freqs
    return reference.rotate(x.cpu(), angles.cos(), angles.sin(), interleave)


FORMS = ["segments", "pos_ids int32", "pos_ids int64"]


@pytest.mark.parametrize("llama31", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize(
    ("head_dim", "rotary_dim"), [(64, None), (128, 128), (128, 32), (256, None), (10, 6), (2, 2)]
)
@pytest.mark.parametrize("inplace", [False, True])
def test_rope(
    head_dim: int,
    rotary_dim: int | None,
    interleave: bool,
    form: str,
    llama31: bool,
    inplace: bool,
    dtype: torch.dtype,
    device: str,
) -> None:
    q, k = packed_qk(dtype, device, head_dim)
    positions = reference.segment_positions(INDPTR, OFFSETS)
    options: dict[str, Any] = {"rotary_dim": rotary_dim, "interleave": interleave}
    if llama31:
        # A context of 64 puts the transition among the pairs of even the smallest head.
        options |= {"rope_scale": 8, "rope_theta": 5e5, "old_context_len": 64}
        freqs = reference.frequencies(rotary_dim or head_dim, 8, 5e5, (1.0, 4.0, 64))
    else:
        options |= {"rope_scale": 2.0, "rope_theta": 1e4}
        freqs = reference.frequencies(rotary_dim or head_dim, 2.0, 1e4)
    name = f"apply_{'llama31_' if llama31 else ''}rope"
    where: tuple[torch.Tensor, ...]
    if form == "segments":
        where = (
            torch.tensor(INDPTR, dtype=torch.int32, device=device),
            torch.tensor(OFFSETS, dtype=torch.int32, device=device),
        )
    else:
        name += "_pos_ids"
        index = torch.int64 if form.endswith("64") else torch.int32
        where = (positions.to(device, index),)
    want_q = expected(q, positions, freqs, interleave)
    want_k = expected(k, positions, freqs, interleave)
    if inplace:
        assert getattr(flashinfer, name + "_inplace")(q, k, *where, **options) is None
        got_q, got_k = q, k
    else:
        before = q.clone(), k.clone()
        got_q, got_k = getattr(flashinfer, name)(q, k, *where, **options)
        assert torch.equal(q, before[0])
        assert torch.equal(k, before[1])
    reference.assert_close(got_q, want_q, atol=ANGLE)
    reference.assert_close(got_k, want_k, atol=ANGLE)


def test_defaults_are_those_of_the_models(device: str) -> None:
    q, k = packed_qk(torch.float16, device, 128)
    positions = reference.segment_positions(INDPTR, OFFSETS)
    pos_ids = positions.to(device)
    plain, _ = flashinfer.apply_rope_pos_ids(q, k, pos_ids)
    freqs = reference.frequencies(128, 1, 1e4)
    reference.assert_close(plain, expected(q, positions, freqs, False))
    llama, _ = flashinfer.apply_llama31_rope_pos_ids(q, k, pos_ids)
    freqs = reference.frequencies(128, 8, 5e5, LLAMA31)
    reference.assert_close(llama, expected(q, positions, freqs, False))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(128, 128), (128, 64), (10, 4)])
def test_cos_sin_cache(
    head_dim: int,
    rotary_dim: int,
    interleave: bool,
    inplace: bool,
    dtype: torch.dtype,
    device: str,
) -> None:
    q, k = packed_qk(dtype, device, head_dim)
    angles = torch.rand(50, rotary_dim // 2, dtype=torch.float64) * 7
    full = angles.repeat_interleave(2, dim=1) if interleave else torch.cat((angles, angles), 1)
    cos_cache, sin_cache = full.cos().float().to(device), full.sin().float().to(device)
    pos_ids = torch.randint(0, 50, (NNZ,), device=device)
    used = angles[pos_ids.cpu()]
    want_q = reference.rotate(q.cpu(), used.cos(), used.sin(), interleave)
    want_k = reference.rotate(k.cpu(), used.cos(), used.sin(), interleave)
    if inplace:
        flashinfer.apply_rope_with_cos_sin_cache_inplace(
            q, k, cos_cache, sin_cache, pos_ids, interleave
        )
        got_q, got_k = q, k
    else:
        got_q, got_k = flashinfer.apply_rope_with_cos_sin_cache(
            q, k, cos_cache, sin_cache, pos_ids, interleave
        )
    reference.assert_close(got_q, want_q)
    reference.assert_close(got_k, want_k)


@pytest.mark.parametrize("inplace", [False, True])
def test_inner_gaps(inplace: bool, dtype: torch.dtype, device: str) -> None:
    q = reference.rows((NNZ, 4, 64), dtype, device, "inner gaps")
    k = reference.rows((NNZ, 2, 64), dtype, device, "inner gaps")
    positions = torch.arange(NNZ)
    freqs = reference.frequencies(64, 1, 1e4)
    want_q = expected(q, positions, freqs, False)
    want_k = expected(k, positions, freqs, False)
    if inplace:
        flashinfer.apply_rope_pos_ids_inplace(q, k, positions.to(device))
        got_q, got_k = q, k
    else:
        got_q, got_k = flashinfer.apply_rope_pos_ids(q, k, positions.to(device))
    reference.assert_close(got_q, want_q, atol=ANGLE)
    reference.assert_close(got_k, want_k, atol=ANGLE)


def test_inplace_leaves_the_values_of_packed_qkv(device: str) -> None:
    packed = reference.rows((NNZ, 10, 64), torch.float16, device)
    before = packed.clone()
    flashinfer.apply_rope_pos_ids_inplace(
        packed[:, :6], packed[:, 6:8], torch.arange(NNZ, device=device)
    )
    assert torch.equal(packed[:, 8:], before[:, 8:])
    assert not torch.equal(packed[1:, :8], before[1:, :8])
    assert torch.equal(packed[0], before[0])  # position 0 turns nothing


def test_no_rows(dtype: torch.dtype, device: str) -> None:
    q = torch.empty(0, 4, 64, dtype=dtype, device=device)
    indptr = torch.zeros(1, dtype=torch.int32, device=device)
    got, _ = flashinfer.apply_rope(q, q, indptr, indptr[:0])
    assert got.shape == (0, 4, 64)


def test_more_kv_heads_than_query_heads(device: str) -> None:
    q, k = packed_qk(torch.bfloat16, device, 64, heads=(1, 5))
    positions = torch.arange(NNZ)
    got_q, got_k = flashinfer.apply_rope_pos_ids(q, k, positions.to(device))
    freqs = reference.frequencies(64, 1, 1e4)
    reference.assert_close(got_q, expected(q, positions, freqs, False))
    reference.assert_close(got_k, expected(k, positions, freqs, False))
