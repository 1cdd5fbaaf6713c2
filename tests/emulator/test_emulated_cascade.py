from __future__ import annotations

import pytest
import torch
from emulated import Emulator
from rounding import assert_rounded

TYPES = [torch.float16, torch.bfloat16, torch.float32]
INF = float("inf")


def reference(v: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge over dimension 1 of v [n, states, heads, dim] and s [n, states, heads], in fp64."""
    v, s = v.double(), s.double()
    largest = s.max(dim=1, keepdim=True).values.clamp(min=-1e300)
    weight = torch.exp2(s - largest)
    total = weight.sum(1)
    merged = (torch.where(weight > 0, weight, 0).unsqueeze(-1) * v.nan_to_num()).sum(1)
    merged = merged / torch.where(total > 0, total, 1).unsqueeze(-1)
    return merged, torch.where(total > 0, largest.squeeze(1) + total.log2(), -INF)


def assert_states(v: torch.Tensor, s: torch.Tensor, expected: tuple[torch.Tensor, ...]) -> None:
    assert_rounded(v, expected[0])
    empty = expected[1] == -INF
    assert bool((s[empty] == -INF).all())
    assert_rounded(s[~empty], expected[1][~empty])


def states(*shape: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(shape).to(dtype), 5 * torch.randn(shape[:-1])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("seq_len", "heads", "head_dim"),
    [(1, 1, 1), (5, 3, 64), (33, 4, 128), (70, 32, 128), (3, 2, 256), (7, 3, 111), (2, 3, 1000)],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_merge_state(
    gpu: Emulator, dtype: torch.dtype, seq_len: int, heads: int, head_dim: int, in_place: bool
) -> None:
    v_a, s_a = states(seq_len, heads, head_dim, dtype=dtype)
    v_b, s_b = states(seq_len, heads, head_dim, dtype=dtype)
    placed_v, placed_s = gpu.put(v_a, "v_a"), gpu.put(s_a, "s_a")
    v_out = placed_v if in_place else gpu.empty(v_a.shape, dtype, "v_out")
    s_out = placed_s if in_place else gpu.empty(s_a.shape, torch.float32, "s_out")
    gpu(
        "merge_state", dtype=dtype, seq_len=seq_len, num_heads=heads, head_dim=head_dim,
        v_a=placed_v, s_a=placed_s, v_b=gpu.put(v_b, "v_b"), s_b=gpu.put(s_b, "s_b"), v_out=v_out,
        s_out=s_out,
    )  # fmt: skip
    assert_states(v_out, s_out, reference(torch.stack([v_a, v_b], 1), torch.stack([s_a, s_b], 1)))


@pytest.mark.parametrize("head_dim", [64, 33])
def test_merge_state_in_place_with_mask(gpu: Emulator, head_dim: int) -> None:
    v_a, s_a = states(40, 3, head_dim, dtype=torch.float16)
    v_b, s_b = states(40, 3, head_dim, dtype=torch.float16)
    mask = torch.rand(40) < 0.5
    v, s = gpu.put(v_a, "v"), gpu.put(s_a, "s")
    gpu(
        "merge_state", dtype=v.dtype, seq_len=40, num_heads=3, head_dim=head_dim, v_a=v, s_a=s,
        v_b=gpu.put(v_b), s_b=gpu.put(s_b), v_out=v, s_out=s,
        mask=gpu.put(mask.to(torch.uint8) * 255, "mask"),
    )  # fmt: skip
    assert torch.equal(v[~mask], v_a[~mask])
    assert torch.equal(s[~mask], s_a[~mask])
    merged = reference(torch.stack([v_a, v_b], 1), torch.stack([s_a, s_b], 1))
    assert_states(v[mask], s[mask], (merged[0][mask], merged[1][mask]))


def test_merge_state_with_empty_and_extreme_states(gpu: Emulator) -> None:
    s_a = torch.tensor([[-INF, 3.0, -INF, 1e4, -1e4, 100.0]])
    s_b = torch.tensor([[2.0, -INF, -INF, -1e4, -1e4, 99.0]])
    v_a, v_b = torch.randn(1, 6, 64).half(), torch.randn(1, 6, 64).half()
    v_a[0, [0, 2]] = float("nan")  # what an empty state holds is nobody's business
    v_b[0, [1, 2]] = INF
    v_out, s_out = gpu.empty(v_a.shape, v_a.dtype), gpu.empty(s_a.shape, torch.float32)
    gpu(
        "merge_state", dtype=v_a.dtype, seq_len=1, num_heads=6, head_dim=64, v_a=gpu.put(v_a),
        s_a=gpu.put(s_a), v_b=gpu.put(v_b), s_b=gpu.put(s_b), v_out=v_out, s_out=s_out,
    )  # fmt: skip
    assert_states(v_out, s_out, reference(torch.stack([v_a, v_b], 1), torch.stack([s_a, s_b], 1)))
    assert s_out[0, 2] == -INF
    assert not v_out[0, 2].any()


def merge_states(
    gpu: Emulator, v: torch.Tensor, s: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    n, count, heads, dim = v.shape
    v_out = gpu.empty((n, heads, dim), v.dtype, "v_out")
    s_out = gpu.empty((n, heads), torch.float32, "s_out")
    gpu(
        "merge_states", dtype=v.dtype, seq_len=n, num_states=count, num_heads=heads, head_dim=dim,
        v=gpu.put(v, "v"), s=gpu.put(s, "s"), v_out=v_out, s_out=s_out,
    )  # fmt: skip
    return v_out, s_out


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("seq_len", "count", "heads", "head_dim"),
    [
        (1, 1, 1, 1),
        (3, 2, 4, 64),
        (1, 100, 2, 128),  # few rows: the states are split over threads
        (2, 37, 3, 111),
        (150, 9, 32, 64),  # many rows: they are not
        (2, 5, 2, 256),
        (1, 64, 1, 520),
    ],
)
def test_merge_states(
    gpu: Emulator, dtype: torch.dtype, seq_len: int, count: int, heads: int, head_dim: int
) -> None:
    v, s = states(seq_len, count, heads, head_dim, dtype=dtype)
    assert_states(*merge_states(gpu, v, s), reference(v, s))


@pytest.mark.parametrize("count", [3, 70])
def test_merge_states_with_empty_states(gpu: Emulator, count: int) -> None:
    v, s = states(2, count, 3, 64, dtype=torch.bfloat16)
    s[:, ::2] = -INF
    s[0, :, 1] = -INF
    v[s == -INF] = float("nan")
    v_out, s_out = merge_states(gpu, v, s)
    assert_states(v_out, s_out, reference(v, s))
    assert s_out[0, 1] == -INF
    assert not v_out[0, 1].any()


def test_merge_of_no_states_is_the_empty_state(gpu: Emulator) -> None:
    v_out, s_out = merge_states(gpu, torch.zeros(2, 0, 3, 64).half(), torch.zeros(2, 0, 3))
    assert not v_out.any()
    assert bool((s_out == -INF).all())
