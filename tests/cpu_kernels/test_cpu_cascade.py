from __future__ import annotations

import math

import pytest
import torch
from capi import Failed, Guarded, Library
from compare import FLOATS, assert_rounded

# v is a mean of values of size 1: errors of the weights are absolute, 2^-s magnified by |s|.
WEIGHTS = 2e-6


def exact_merge(v: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge v [seq, states, heads, dim], s [seq, states, heads] in fp64."""
    top = s.double().amax(1, keepdim=True)
    top = torch.where(top.isinf(), 0.0, top)
    weights = torch.exp2(s.double() - top)
    total = weights.sum(1)
    weighted = torch.where(weights[..., None] > 0, v.double() * weights[..., None], 0.0).sum(1)
    merged = torch.where(total[..., None] > 0, weighted / total[..., None], 0.0)
    return merged, torch.log2(total) + top[:, 0]


def states(
    generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    v = torch.randn(shape, generator=generator).clamp(-4, 4).to(dtype)
    s = torch.randn(shape[:-1], generator=generator) * 12
    s[torch.rand(s.shape, generator=generator) < 0.15] = -math.inf
    v[s == -math.inf] = math.nan  # whatever an empty state holds must not come through
    return v, s


def merge_state(
    lib: Library,
    a: tuple[torch.Tensor, torch.Tensor],
    b: tuple[torch.Tensor, torch.Tensor],
    out: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor | None = None,
) -> None:
    seq_len, num_heads, head_dim = a[0].shape
    lib(
        "merge_state",
        dtype=a[0].dtype,
        seq_len=seq_len,
        num_heads=num_heads,
        head_dim=head_dim,
        v_a=a[0],
        s_a=a[1],
        v_b=b[0],
        s_b=b[1],
        v_out=out[0],
        s_out=out[1],
        mask=mask,
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("heads", "dim"), [(1, 1), (3, 7), (8, 64), (16, 128), (37, 80), (2, 256)])
def test_merge_state(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, heads: int, dim: int
) -> None:
    v, s = states(generator, (9, 2, heads, dim), dtype)
    expected_v, expected_s = exact_merge(v, s)
    a, b = ((v[:, i].contiguous(), s[:, i].contiguous()) for i in range(2))
    guards = Guarded((9, heads, dim), dtype, gap=0), Guarded((9, heads), torch.float32, gap=0)
    out = guards[0].view, guards[1].view
    merge_state(lib, a, b, out)
    assert_rounded(out[0], expected_v, WEIGHTS, WEIGHTS)
    assert_rounded(out[1], expected_s, 1e-7, 2e-7)
    assert all(guard.intact() for guard in guards)
    mask = torch.rand(9, generator=generator) < 0.5
    in_place = a[0].clone(), a[1].clone()
    merge_state(lib, in_place, b, in_place, mask.to(torch.uint8))
    for after, before, merged in zip(in_place, a, out, strict=True):
        assert torch.equal(after[mask], merged[mask])
        assert torch.equal(after[~mask].nan_to_num(9.0), before[~mask].nan_to_num(9.0))


def test_empty_states(lib: Library) -> None:
    v = torch.tensor([math.nan, 3.0]).view(1, 1, 2)
    full = torch.tensor([1.0, -2.0]).view(1, 1, 2)
    empty, some = torch.tensor([[-math.inf]]), torch.tensor([[5.5]])
    out = torch.ones(1, 1, 2), torch.ones(1, 1)
    merge_state(lib, (v, empty), (v, empty), out)
    assert out[0].tolist() == [[[0.0, 0.0]]]
    assert out[1].item() == -math.inf
    merge_state(lib, (v, empty), (full, some), out)
    assert torch.equal(out[0], full)
    assert out[1].item() == 5.5
    merge_state(lib, (full, some), (v, empty), out)
    assert torch.equal(out[0], full)
    assert out[1].item() == 5.5


def test_nothing_overflows(lib: Library) -> None:
    v = torch.ones(1, 1, 4)
    high, low = torch.tensor([[3e38]]), torch.tensor([[-3e38]])
    out = torch.empty(1, 1, 4), torch.empty(1, 1)
    merge_state(lib, (v, high), (2 * v, low), out)
    assert torch.equal(out[0], v)
    assert torch.equal(out[1], high)


def test_nan_comes_through(lib: Library) -> None:
    v = torch.ones(1, 1, 4)
    known, nan = torch.tensor([[1.0]]), torch.tensor([[math.nan]])
    for a, b in ((known, nan), (nan, known), (nan, torch.tensor([[-math.inf]]))):
        out = torch.empty(1, 1, 4), torch.empty(1, 1)
        merge_state(lib, (v, a), (v, b), out)
        assert out[0].isnan().all()
        assert out[1].isnan().all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("num_states", [1, 2, 5, 17, 256, 300])
@pytest.mark.parametrize(("heads", "dim"), [(1, 1), (3, 71), (8, 128)])
def test_merge_states(
    lib: Library,
    generator: torch.Generator,
    dtype: torch.dtype,
    num_states: int,
    heads: int,
    dim: int,
) -> None:
    v, s = states(generator, (4, num_states, heads, dim), dtype)
    s[0] = -math.inf
    v[0] = math.nan
    expected_v, expected_s = exact_merge(v, s)
    guards = Guarded((4, heads, dim), dtype, gap=0), Guarded((4, heads), torch.float32, gap=0)
    lib(
        "merge_states",
        dtype=dtype,
        seq_len=4,
        num_states=num_states,
        num_heads=heads,
        head_dim=dim,
        v=v,
        s=s,
        v_out=guards[0].view,
        s_out=guards[1].view,
    )
    assert_rounded(guards[0].view, expected_v, WEIGHTS, WEIGHTS)
    assert_rounded(guards[1].view, expected_s, 2e-7, 4e-7)
    assert all(guard.intact() for guard in guards)


def test_no_states(lib: Library) -> None:
    v_out, s_out = torch.ones(2, 1, 8), torch.ones(2, 1)
    lib(
        "merge_states",
        dtype=v_out.dtype,
        seq_len=2,
        num_heads=1,
        head_dim=8,
        v_out=v_out,
        s_out=s_out,
    )
    assert not v_out.any()
    assert (s_out == -math.inf).all()


@pytest.mark.parametrize("op", ["merge_state", "merge_states"])
def test_refuses_fp8_and_takes_nothing(lib: Library, op: str) -> None:
    with pytest.raises(Failed, match=f"{op}: dtype 4 is not"):
        lib(op, dtype=torch.float8_e5m2, seq_len=1)
    lib(op, dtype=torch.float16, seq_len=0, num_heads=4, head_dim=4)
