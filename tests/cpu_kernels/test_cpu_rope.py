from __future__ import annotations

import ctypes
import math
from typing import Any

import pytest
import torch
from capi import Failed, Guarded, Library
from compare import FLOATS, assert_rounded

THETA, SCALE = 1e4, 4.0
LLAMA31 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "old_context_len": 8192.0}
ROUNDINGS = 3e-7  # of products of values up to 4, absolute


def frequencies(rotary_dim: int, llama31: bool) -> torch.Tensor:
    i = torch.arange(rotary_dim // 2, dtype=torch.float64)
    f0 = THETA ** (-2 * i / rotary_dim)
    if not llama31:
        return f0 / SCALE
    a, b = smoothing()
    s = (f0 * a + b).clamp(0, 1)
    return (1 - s) * f0 / SCALE + s * f0


def smoothing() -> tuple[float, float]:
    """smooth_a and smooth_b as the argument struct holds them, in fp32.

    At position 1e6 their rounding moves an angle by much more than fp32 trigonometry may.
    """
    width = LLAMA31["high_freq_factor"] - LLAMA31["low_freq_factor"]
    a = LLAMA31["old_context_len"] / (2 * math.pi * width)
    b = -LLAMA31["low_freq_factor"] / width
    return ctypes.c_float(a).value, ctypes.c_float(b).value


def exact_rope(
    x: torch.Tensor, angles: torch.Tensor, rotary_dim: int, interleave: bool
) -> torch.Tensor:
    """x [nnz, heads, head_dim] rotated by angles [nnz, rotary_dim / 2], in fp64."""
    cosines, sines = angles.cos()[:, None], angles.sin()[:, None]
    out = x.double().clone()
    half = rotary_dim // 2
    if interleave:
        first, second = slice(0, rotary_dim, 2), slice(1, rotary_dim, 2)
    else:
        first, second = slice(0, half), slice(half, rotary_dim)
    a, b = x[..., first].double(), x[..., second].double()
    out[..., first] = a * cosines - b * sines
    out[..., second] = b * cosines + a * sines
    return out


def rope(
    lib: Library,
    q: torch.Tensor,
    k: torch.Tensor,
    q_out: torch.Tensor,
    k_out: torch.Tensor,
    rotary_dim: int,
    **rest: Any,
) -> None:
    a, b = smoothing()
    strides = {
        f"{name}_stride_{axis}": tensor.stride(i)
        for name, tensor in (("q", q), ("k", k), ("q_out", q_out), ("k_out", k_out))
        for i, axis in enumerate("nh")
    }
    lib(
        "rope",
        **{
            "dtype": q.dtype,
            "nnz": q.shape[0],
            "num_qo_heads": q.shape[1],
            "num_kv_heads": k.shape[1],
            "head_dim": q.shape[2],
            "rotary_dim": rotary_dim,
            "q": q,
            "k": k,
            "q_out": q_out,
            "k_out": k_out,
            "rope_scale": SCALE,
            "rope_theta": THETA,
            "smooth_a": a,
            "smooth_b": b,
            **strides,
            **rest,
        },
    )


SHAPES = [(2, 2), (8, 6), (64, 64), (128, 128), (80, 50), (256, 256), (1100, 1050)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize(("head_dim", "rotary_dim"), SHAPES)
def test_pos_ids(
    lib: Library,
    generator: torch.Generator,
    dtype: torch.dtype,
    interleave: bool,
    head_dim: int,
    rotary_dim: int,
) -> None:
    bits = 64 if interleave else 32
    positions = torch.tensor([0, 1, 17, 4095, 131071, 1_000_003])
    nnz = positions.numel()
    sources = [Guarded((nnz, heads, head_dim), dtype) for heads in (3, 2)]
    targets = [Guarded((nnz, heads, head_dim), dtype, gap=2) for heads in (3, 2)]
    for source in sources:
        source.fill(torch.randn(source.view.shape, generator=generator).clamp(-4, 4))
    for llama31 in (False, True):
        angles = positions.double()[:, None] * frequencies(rotary_dim, llama31)
        expected = [exact_rope(s.view, angles, rotary_dim, interleave) for s in sources]
        pos_ids = positions.to(torch.int64 if bits == 64 else torch.int32)
        common = {
            "pos_ids": pos_ids,
            "pos_ids_bits": bits,
            "interleave": int(interleave),
            "llama31": int(llama31),
        }
        views = [s.view for s in sources]
        rope(lib, views[0], views[1], targets[0].view, targets[1].view, rotary_dim, **common)
        for target, exact in zip(targets, expected, strict=True):
            assert_rounded(target.view, exact, 2e-7, 4 * ROUNDINGS)
            assert target.intact()
        copies = [Guarded((nnz, heads, head_dim), dtype, gap=4) for heads in (3, 2)]
        q, k = (copy.fill(view) for copy, view in zip(copies, views, strict=True))
        rope(lib, q, k, q, k, rotary_dim, **common)
        for copy, target in zip(copies, targets, strict=True):
            assert torch.equal(copy.view, target.view), "in place differs"
            assert copy.intact()


@pytest.mark.parametrize("interleave", [False, True])
def test_segments(lib: Library, generator: torch.Generator, interleave: bool) -> None:
    """Segments with empty ones between; rows that no segment holds are left alone."""
    indptr = torch.tensor([1, 1, 4, 4, 9], dtype=torch.int32)
    offsets = torch.tensor([5, 100, 7, 0], dtype=torch.int32)
    q = torch.randn(10, 2, 64, generator=generator)
    k = torch.randn(10, 1, 64, generator=generator)
    positions = torch.tensor([0, 100, 101, 102, 0, 1, 2, 3, 4, 0])
    angles = positions.double()[:, None] * frequencies(64, False)
    expected = exact_rope(q, angles, 64, interleave)
    q_out, k_out = torch.full_like(q, 9.0), torch.full_like(k, 9.0)
    arguments = {
        "indptr": indptr,
        "offsets": offsets,
        "batch_size": 4,
        "interleave": int(interleave),
    }
    rope(lib, q, k, q_out, k_out, 64, **arguments)
    assert_rounded(q_out[1:9], expected[1:9], 1e-7, ROUNDINGS)
    assert_rounded(k_out[1:9], exact_rope(k, angles, 64, interleave)[1:9], 1e-7, ROUNDINGS)
    assert (q_out[[0, 9]] == 9.0).all()
    assert (k_out[[0, 9]] == 9.0).all()
    # The same in ranges that begin anywhere: with more heads, so that it is worth threads.
    wide_q = q.repeat(1, 40, 1)
    wide_k = k.repeat(1, 40, 1)
    for step in (1, 3):

        def split(n: int, grain: int, step: int = step) -> list[tuple[int, int]]:
            return [(i, min(i + step, n)) for i in range(0, n, step)]

        again_q, again_k = torch.full_like(wide_q, 9.0), torch.full_like(wide_k, 9.0)
        with lib.threads(split) as grains:
            rope(lib, wide_q, wide_k, again_q, again_k, 64, **arguments)
        assert grains
        assert torch.equal(again_q, q_out.repeat(1, 40, 1))
        assert torch.equal(again_k, k_out.repeat(1, 40, 1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("rotary_dim", [2, 22, 64, 1030])
def test_cos_sin_cache(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, interleave: bool, rotary_dim: int
) -> None:
    head_dim = rotary_dim + 6
    positions = torch.tensor([3, 0, 9], dtype=torch.int32)
    angles = torch.randn(10, rotary_dim // 2, generator=generator, dtype=torch.float64)
    cache = Guarded((10, rotary_dim), torch.float32).fill(
        torch.cat([angles.cos(), angles.sin()], 1)
    )
    q = torch.randn(3, 4, head_dim, generator=generator).to(dtype)
    k = torch.randn(3, 1, head_dim, generator=generator).to(dtype)
    q_out, k_out = torch.empty_like(q), torch.empty_like(k)
    rope(
        lib,
        q,
        k,
        q_out,
        k_out,
        rotary_dim,
        pos_ids=positions,
        pos_ids_bits=32,
        interleave=int(interleave),
        cos_sin_cache=cache,
        cos_sin_stride=cache.stride(0),
        max_position=10,
    )
    chosen = angles[positions.long()]
    assert_rounded(q_out, exact_rope(q, chosen, rotary_dim, interleave), 2e-7, 4 * ROUNDINGS)
    assert_rounded(k_out, exact_rope(k, chosen, rotary_dim, interleave), 2e-7, 4 * ROUNDINGS)


@pytest.mark.parametrize("position", [-1, 10])
def test_refuses_positions_outside_the_cache(lib: Library, position: int) -> None:
    q = torch.ones(2, 1, 8)
    cache = torch.zeros(10, 8)
    arguments = {"cos_sin_cache": cache, "cos_sin_stride": 8, "max_position": 10}
    with pytest.raises(Failed, match=rf"pos_ids\[1\] needs position {position}, .* 0 to 9"):
        pos_ids = torch.tensor([9, position], dtype=torch.int32)
        rope(lib, q, q, q, q, 8, pos_ids=pos_ids, pos_ids_bits=32, **arguments)
    with pytest.raises(Failed, match=rf"offsets\[0\] needs position {position}"):
        rope(
            lib,
            q,
            q,
            q,
            q,
            8,
            indptr=torch.tensor([0, 2], dtype=torch.int32),
            offsets=torch.tensor([position if position < 0 else position - 1], dtype=torch.int32),
            batch_size=1,
            **arguments,
        )
    assert (q == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotary_dim": 7}, "rotary_dim is 7, expected an even number up to 8"),
        ({"rotary_dim": 10}, "rotary_dim is 10, expected an even number up to 8"),
        ({"pos_ids_bits": 16}, "pos_ids_bits is 16, expected 32 or 64"),
        ({"pos_ids": None}, "neither pos_ids nor indptr and offsets"),
        (
            {"pos_ids": None, "indptr": torch.tensor([0, 3], dtype=torch.int32)},
            r"indptr\[1\] is 3, expected 0 to 2",
        ),
        (
            {"pos_ids": None, "indptr": torch.tensor([2, 1], dtype=torch.int32)},
            r"indptr\[1\] is 1, expected 2 to 2",
        ),
    ],
)
def test_refuses(lib: Library, arguments: dict[str, Any], message: str) -> None:
    q = torch.ones(2, 1, 8)
    defaults = {
        "rotary_dim": 8,
        "pos_ids": torch.zeros(2, dtype=torch.int32),
        "pos_ids_bits": 32,
        "batch_size": 1,
    }
    if "indptr" in arguments:
        defaults["offsets"] = torch.zeros(1, dtype=torch.int32)
    with pytest.raises(Failed, match=message):
        rope(lib, q, q, q, q, **{**defaults, **arguments})


def test_empty(lib: Library) -> None:
    q = torch.empty(0, 4, 64)
    rope(lib, q, q, q, q, 64)
    q = torch.ones(2, 1, 8)
    out = torch.zeros_like(q)
    pos_ids = torch.zeros(2, dtype=torch.int32)
    rope(lib, q, q[:, :0], out, out[:, :0], 0, pos_ids=pos_ids, pos_ids_bits=32)
    assert torch.equal(out, q), "rotary_dim 0 copies"
