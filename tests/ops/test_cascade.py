from __future__ import annotations

import math

import pytest
import reference
import torch

import flashinfer

SHAPES = [(1, 1, 1), (7, 3, 64), (19, 8, 128), (4, 5, 33), (3, 2, 256)]
# The sums are made in float32 in some order, over at most a few hundred states.
S = 1e-5


def states(
    shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(shape).to(device, dtype), (torch.randn(shape[:-1]) * 10).to(device)


def pair(
    v_a: torch.Tensor, s_a: torch.Tensor, v_b: torch.Tensor, s_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return reference.merge(torch.stack((v_a, v_b), 1), torch.stack((s_a, s_b), 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_merge_state(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> None:
    a, b = states(shape, dtype, device), states(shape, dtype, device)
    v, s = flashinfer.merge_state(*a, *b)
    want_v, want_s = pair(*a, *b)
    assert v.dtype == dtype
    assert s.dtype == torch.float32
    reference.assert_close(v, want_v, atol=S)
    reference.assert_close(s, want_s, atol=S)


def test_merge_state_does_not_overflow(dtype: torch.dtype, device: str) -> None:
    shape = (2, 3, 16)
    a, b = states(shape, dtype, device), states(shape, dtype, device)
    far_a, far_b = a[1] + 3000, b[1] + 3000
    v, s = flashinfer.merge_state(a[0], far_a, b[0], far_b)
    want_v, want_s = pair(a[0], far_a, b[0], far_b)
    # A float32 near 3,000 has steps of 2**-12, which is what the weights see too.
    reference.assert_close(v, want_v, atol=1e-3)
    reference.assert_close(s, want_s, atol=1e-3)


def test_empty_states(dtype: torch.dtype, device: str) -> None:
    v_a, s_a = states((4, 2, 64), dtype, device)
    v_b = torch.zeros_like(v_a)
    none = torch.full_like(s_a, -math.inf)
    for v, s in (
        flashinfer.merge_state(v_a, s_a, v_b, none),
        flashinfer.merge_state(v_b, none, v_a, s_a),
    ):
        assert torch.equal(v, v_a)
        assert torch.equal(s, s_a)
    v, s = flashinfer.merge_state(v_a, none, v_a, none)
    assert (v == 0).all()
    assert (s == -math.inf).all()


def test_merge_state_strides_and_dtype_of_s(dtype: torch.dtype, device: str) -> None:
    v_a = reference.rows((7, 3, 64), dtype, device, "inner gaps")
    v_b = reference.rows((3, 7, 64), dtype, device).transpose(0, 1)
    s_a = torch.randn(3, 7, device=device).T.half()
    s_b = torch.randn(7, 3, device=device).double()
    v, s = flashinfer.merge_state(v_a, s_a, v_b, s_b)
    want_v, want_s = pair(v_a, s_a.double(), v_b, s_b)
    reference.assert_close(v, want_v, atol=S)
    reference.assert_close(s, want_s, atol=S)


@pytest.mark.parametrize("mask_dtype", [None, torch.bool, torch.uint8], ids=str)
@pytest.mark.parametrize("gaps", [False, True])
def test_merge_state_in_place(
    mask_dtype: torch.dtype | None, gaps: bool, dtype: torch.dtype, device: str
) -> None:
    v, s = states((9, 3, 64), dtype, device)
    if gaps:
        v = reference.rows((9, 3, 64), dtype, device, "inner gaps")
        s = torch.randn(3, 9, device=device).T
    other = states((9, 3, 64), dtype, device)
    want_v, want_s = pair(v, s, *other)
    mask = None
    if mask_dtype is not None:
        mask = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1], device=device).to(mask_dtype)
        keep = mask == 0
        before = v[keep].clone(), s[keep].clone()
        want_v[keep], want_s[keep] = before[0].double(), before[1].double()
    flashinfer.merge_state_in_place(v, s, *other, mask)
    reference.assert_close(v, want_v, atol=S)
    reference.assert_close(s, want_s, atol=S)
    if mask is not None:
        assert torch.equal(v[keep], before[0])
        assert torch.equal(s[keep], before[1])


@pytest.mark.parametrize("num_states", [1, 2, 7, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_merge_states(
    shape: tuple[int, int, int], num_states: int, dtype: torch.dtype, device: str
) -> None:
    v, s = states((shape[0], num_states, *shape[1:]), dtype, device)
    got_v, got_s = flashinfer.merge_states(v, s)
    want_v, want_s = reference.merge(v.cpu(), s.cpu())
    reference.assert_close(got_v, want_v, atol=S)
    reference.assert_close(got_s, want_s, atol=S)


def test_merge_states_with_empty_ones(dtype: torch.dtype, device: str) -> None:
    v, s = states((3, 4, 2, 64), dtype, device)
    s[:, 1] = -math.inf
    s[2] = -math.inf
    got_v, got_s = flashinfer.merge_states(v, s)
    want_v, want_s = reference.merge(v.cpu(), s.cpu())
    reference.assert_close(got_v, want_v, atol=S)
    reference.assert_close(got_s[:2], want_s[:2], atol=S)
    assert (got_v[2] == 0).all()
    assert (got_s[2] == -math.inf).all()


def test_merging_is_associative(device: str) -> None:
    v, s = states((5, 3, 4, 64), torch.float16, device)
    at_once, s_at_once = flashinfer.merge_states(v, s)
    first = flashinfer.merge_state(v[:, 0], s[:, 0], v[:, 1], s[:, 1])
    step, s_step = flashinfer.merge_state(*first, v[:, 2], s[:, 2])
    torch.testing.assert_close(at_once, step, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(s_at_once, s_step, atol=1e-5, rtol=1e-5)


def test_no_rows(dtype: torch.dtype, device: str) -> None:
    v = torch.empty(0, 3, 64, dtype=dtype, device=device)
    s = torch.empty(0, 3, device=device)
    assert flashinfer.merge_state(v, s, v, s)[0].shape == (0, 3, 64)
    flashinfer.merge_state_in_place(v, s, v, s)
    assert flashinfer.merge_states(v[:, None], s[:, None])[1].shape == (0, 3)
