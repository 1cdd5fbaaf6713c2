from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from emulated import Emulator, Failed
from rounding import assert_rounded

TYPES = [torch.float16, torch.bfloat16, torch.float32]


def frequencies(dim: int, theta: float, scale: float, llama31: tuple[float, float] | None) -> Any:
    base = theta ** (-2 * torch.arange(dim // 2, dtype=torch.float64) / dim)
    if llama31 is None:
        return base / scale
    smooth = (base * llama31[0] + llama31[1]).clamp(0, 1)
    return (1 - smooth) * base / scale + smooth * base


def rotate(
    x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, dim: int, interleave: bool
) -> torch.Tensor:
    """fp64 rotation of [nnz, heads, head_dim] by angles of [nnz, dim / 2]."""
    out = x.double().clone()
    first = slice(0, dim, 2) if interleave else slice(0, dim // 2)
    second = slice(1, dim, 2) if interleave else slice(dim // 2, dim)
    a, b = out[..., first].clone(), out[..., second].clone()
    cosine, sine = cosine.double().unsqueeze(1), sine.double().unsqueeze(1)
    out[..., first] = a * cosine - b * sine
    out[..., second] = b * cosine + a * sine
    return out


def rope(
    gpu: Emulator,
    q: torch.Tensor,
    k: torch.Tensor,
    q_out: torch.Tensor,
    k_out: torch.Tensor,
    rotary_dim: int,
    **more: Any,
) -> None:
    strides = {
        f"{name}_stride_{axis}": tensor.stride(i)
        for name, tensor in [("q", q), ("k", k), ("q_out", q_out), ("k_out", k_out)]
        for i, axis in enumerate("nh")
    }
    more = {"rope_scale": 1.0, "rope_theta": 1e4, **more}
    gpu(
        "rope", dtype=q.dtype, nnz=q.shape[0], num_qo_heads=q.shape[1], num_kv_heads=k.shape[1],
        head_dim=q.shape[2], rotary_dim=rotary_dim, q=q, k=k, q_out=q_out, k_out=k_out,
        **strides, **more,
    )  # fmt: skip


def check(
    gpu: Emulator,
    dtype: torch.dtype,
    positions: torch.Tensor,
    heads: tuple[int, int],
    head_dim: int,
    rotary_dim: int,
    *,
    interleave: bool,
    in_place: bool = False,
    strided: bool = False,
    offset: int = 0,
    theta: float = 1e4,
    scale: float = 1.0,
    llama31: tuple[float, float] | None = None,
    **how: Any,
) -> None:
    nnz = len(positions)
    q = torch.randn(nnz, heads[0], head_dim).to(dtype)
    k = torch.randn(nnz, heads[1], head_dim).to(dtype)

    def strides(n: int) -> tuple[int, int, int] | None:
        return (n * (head_dim + 8) + 16, head_dim + 8, 1) if strided else None

    placed_q = gpu.put(q, "q", strides=strides(heads[0]), offset=offset)
    placed_k = gpu.put(k, "k", strides=strides(heads[1]), offset=offset)
    q_out = placed_q if in_place else gpu.empty(q.shape, dtype, "q_out")
    k_out = placed_k if in_place else gpu.empty(k.shape, dtype, "k_out")
    if llama31 is not None:
        how |= {"llama31": 1, "smooth_a": llama31[0], "smooth_b": llama31[1]}
    rope(
        gpu, placed_q, placed_k, q_out, k_out, rotary_dim, interleave=int(interleave),
        rope_theta=theta, rope_scale=scale, **how,
    )  # fmt: skip
    # The frequency is rounded to fp32 parameters by the interface, the angle by nothing.
    theta, scale = (float(torch.tensor(x, dtype=torch.float32)) for x in (theta, scale))
    if llama31 is not None:
        a, b = torch.tensor(llama31, dtype=torch.float32).tolist()
        llama31 = (a, b)
    angle = positions.double().unsqueeze(1) * frequencies(rotary_dim, theta, scale, llama31)
    for actual, x in [(q_out, q), (k_out, k)]:
        assert_rounded(actual, rotate(x, angle.cos(), angle.sin(), rotary_dim, interleave))


SHAPES = [
    ((4, 2), 64, 64),
    ((8, 1), 128, 128),
    ((1, 1), 256, 256),
    ((3, 5), 128, 64),
    ((40, 8), 96, 80),
    ((2, 1), 80, 20),  # no vectors: 10 pairs
    ((2, 3), 7, 4),
    ((1, 1), 2, 2),
    ((3, 1), 64, 0),
    ((2, 0), 64, 64),
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("heads", "head_dim", "rotary_dim"), SHAPES)
def test_pos_ids(
    gpu: Emulator,
    dtype: torch.dtype,
    interleave: bool,
    in_place: bool,
    heads: tuple[int, int],
    head_dim: int,
    rotary_dim: int,
) -> None:
    positions = torch.randint(0, 4096, (21,))
    check(
        gpu, dtype, positions, heads, head_dim, rotary_dim, interleave=interleave,
        in_place=in_place, pos_ids=gpu.put(positions, "pos_ids"), pos_ids_bits=64,
    )  # fmt: skip


@pytest.mark.parametrize("nnz", [1, 2, 130])
def test_pos_ids_of_32_bits(gpu: Emulator, nnz: int) -> None:
    gpu.library.fi_emulator_set_multiprocessors(2)  # 130 tokens: tiles of 8, the last one of 2
    positions = torch.randint(0, 4096, (nnz,), dtype=torch.int32)
    check(
        gpu, torch.float16, positions, (2, 1), 64, 64, interleave=False,
        pos_ids=gpu.put(positions, "pos_ids"), pos_ids_bits=32,
    )  # fmt: skip


@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
def test_heads_apart_and_unaligned(gpu: Emulator, interleave: bool, offset: int) -> None:
    positions = torch.arange(11)
    check(
        gpu, torch.bfloat16, positions, (3, 2), 128, 64, interleave=interleave, strided=True,
        offset=offset, pos_ids=gpu.put(positions, "pos_ids"), pos_ids_bits=64,
    )  # fmt: skip


def test_angles_are_exact_at_long_context(gpu: Emulator) -> None:
    # In fp32, position * frequency would be off by 0.06 rad at 2^20, and by whole turns later.
    positions = torch.tensor([0, 1, 2**16 - 1, 2**20 + 1, 2**24 + 1, 2**24 - 1, 2**27 + 7])
    check(
        gpu, torch.float32, positions, (1, 1), 128, 128, interleave=False,
        pos_ids=gpu.put(positions, "pos_ids"), pos_ids_bits=64,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_llama31_and_scale(gpu: Emulator, scale: float) -> None:
    low, high, context = 1.0, 4.0, 8192.0
    smooth = (context / (2 * math.pi * (high - low)), -low / (high - low))
    for llama31 in (smooth, None):
        positions = torch.randint(0, 131072, (9,))
        check(
            gpu, torch.float32, positions, (2, 1), 128, 128, interleave=False, theta=5e5,
            scale=scale, llama31=llama31, pos_ids=gpu.put(positions, "pos_ids"), pos_ids_bits=64,
        )  # fmt: skip


@pytest.mark.parametrize("lengths", [[5], [1, 1, 1], [0, 3, 0, 0, 7, 1, 0], [300]])
def test_segments(gpu: Emulator, lengths: list[int]) -> None:
    offsets = [7 * b + 3 for b in range(len(lengths))]
    positions = torch.cat([o + torch.arange(n) for o, n in zip(offsets, lengths, strict=True)])
    indptr = torch.tensor([0, *lengths]).cumsum(0)
    check(
        gpu, torch.float16, positions, (2, 1), 64, 64, interleave=False,
        indptr=gpu.ints(indptr, "indptr"), offsets=gpu.ints(offsets, "offsets"),
        batch_size=len(lengths),
    )  # fmt: skip


def test_rows_of_no_segment_stay_as_they_are(gpu: Emulator) -> None:
    q = torch.randn(6, 1, 64).half()
    q_out = gpu.put(q, "q")
    k_out = gpu.put(q, "k")
    rope(
        gpu, q_out, k_out, q_out, k_out, 64, indptr=gpu.ints([1, 4]), offsets=gpu.ints([50]),
        batch_size=1,
    )  # fmt: skip
    assert torch.equal(q_out[[0, 4, 5]], q[[0, 4, 5]])
    angle = torch.arange(50, 53).double().unsqueeze(1) * frequencies(64, 1e4, 1.0, None)
    assert_rounded(q_out[1:4], rotate(q[1:4], angle.cos(), angle.sin(), 64, False))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("rotary_dim", [128, 64, 20])
def test_cos_sin_cache(
    gpu: Emulator, dtype: torch.dtype, interleave: bool, rotary_dim: int
) -> None:
    cache = torch.randn(50, rotary_dim)
    positions = torch.randint(0, 50, (13,))
    q, k = torch.randn(13, 4, 128).to(dtype), torch.randn(13, 1, 128).to(dtype)
    q_out, k_out = gpu.empty(q.shape, dtype, "q_out"), gpu.empty(k.shape, dtype, "k_out")
    placed = gpu.put(cache, "cos_sin_cache", strides=(rotary_dim + 3, 1))
    rope(
        gpu, gpu.put(q, "q"), gpu.put(k, "k"), q_out, k_out, rotary_dim, interleave=int(interleave),
        pos_ids=gpu.put(positions, "pos_ids"), pos_ids_bits=64, cos_sin_cache=placed,
        cos_sin_stride=placed.stride(0), max_position=50,
    )  # fmt: skip
    cosine, sine = cache[positions].chunk(2, dim=1)
    for actual, x in [(q_out, q), (k_out, k)]:
        assert_rounded(actual, rotate(x, cosine, sine, rotary_dim, interleave))


def test_a_position_outside_of_the_cache_reads_nothing_else(gpu: Emulator) -> None:
    positions = torch.tensor([-1, 3, 2**40])
    q = torch.randn(3, 1, 64).half()
    out = gpu.empty(q.shape, q.dtype)
    cache = torch.randn(3, 64)
    rope(
        gpu, gpu.put(q), gpu.put(q[:, :0]), out, out[:, :0], 64, max_position=3,
        pos_ids=gpu.put(positions, "pos_ids"), pos_ids_bits=64, cos_sin_cache=gpu.put(cache),
        cos_sin_stride=64,
    )  # fmt: skip
    cosine, sine = cache[[0, 2, 2]].chunk(2, dim=1)
    assert_rounded(out, rotate(q, cosine, sine, 64, False))


def test_only_q_in_place(gpu: Emulator) -> None:
    q, k = torch.randn(5, 2, 64).half(), torch.randn(5, 1, 64).half()
    positions = torch.arange(5)
    q_out, k_out = gpu.put(q, "q"), gpu.empty(k.shape, k.dtype, "k_out")
    rope(gpu, q_out, gpu.put(k, "k"), q_out, k_out, 32, pos_ids=gpu.put(positions), pos_ids_bits=64)
    angle = positions.double().unsqueeze(1) * frequencies(32, 1e4, 1.0, None)
    for actual, x in [(q_out, q), (k_out, k)]:
        assert_rounded(actual, rotate(x, angle.cos(), angle.sin(), 32, False))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rotary_dim": 65}, "rotary_dim"),
        ({"rotary_dim": 130}, "rotary_dim"),
        ({"pos_ids": None}, "pos_ids"),
        ({"pos_ids_bits": 16}, "pos_ids_bits"),
    ],
)
def test_arguments_out_of_range(gpu: Emulator, change: dict[str, Any], words: str) -> None:
    q = gpu.put(torch.randn(2, 1, 128).half())
    how = {"pos_ids": gpu.put(torch.arange(2)), "pos_ids_bits": 64, **change}
    with pytest.raises(Failed, match=words):
        rope(gpu, q, q, q, q, how.pop("rotary_dim", 128), **how)
