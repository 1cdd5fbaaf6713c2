from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from emulated import Emulator, Failed
from rounding import assert_rounded

TYPES = [torch.float16, torch.bfloat16]
FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]


def long(gpu: Emulator, values: Sequence[int], name: str) -> torch.Tensor:
    return gpu.put(torch.tensor(values, dtype=torch.int64), name)


def segment_gemm(
    gpu: Emulator,
    out: torch.Tensor,
    x: torch.Tensor,
    weights: torch.Tensor,
    lengths: Sequence[int],
    column_major: bool,
    indices: Sequence[int] | None = None,
) -> None:
    in_dim = 2 if column_major else 1
    starts = [sum(lengths[:s]) for s in range(len(lengths) + 1)]
    gpu(
        "segment_gemm", dtype=x.dtype, rows=x.shape[0], num_segments=len(lengths),
        num_weights=weights.shape[0], d_in=x.shape[1], d_out=out.shape[1], x=x,
        x_stride=x.stride(0), weights=weights, w_stride_n=weights.stride(0),
        w_stride_in=weights.stride(in_dim), w_stride_out=weights.stride(3 - in_dim),
        seg_indptr=long(gpu, starts, "seg_indptr"),
        weight_indices=0 if indices is None else long(gpu, indices, "weight_indices"),
        out=out, out_stride=out.stride(0),
    )  # fmt: skip


def exact(
    x: torch.Tensor,
    weights: torch.Tensor,
    lengths: Sequence[int],
    column_major: bool,
    indices: Sequence[int] | None = None,
) -> torch.Tensor:
    """The products in fp64, rows after the last segment 0."""
    matrices = weights.double().transpose(1, 2) if column_major else weights.double()
    parts, at = [], 0
    for s, length in enumerate(lengths):
        matrix = matrices[s if indices is None else indices[s]]
        parts.append(x[at : at + length].double() @ matrix)
        at += length
    parts.append(torch.zeros(x.shape[0] - at, matrices.shape[2], dtype=torch.float64))
    return torch.cat(parts)


def numbers(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Small multiples of a power of two: every order of fp32 sums gives the same."""
    return (torch.randint(-8, 9, tuple(shape)) / 8).to(dtype)


# Few rows a segment (the thin tiles), some (the middle ones), many (the large ones), and segments
# that fill no tile, several, or nothing; sizes of vectors and not.
@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("lengths", "rest", "d_in", "d_out"),
    [
        ((1, 2, 3, 4), 0, 128, 72),
        ((1,), 0, 8, 8),
        ((0, 17, 0, 0, 3, 0), 2, 72, 136),
        ((40, 25), 0, 200, 264),
        ((90, 0, 60), 5, 64, 128),
        ((300, 200), 1, 136, 256),
        ((129,), 0, 64, 520),
        ((3, 1), 0, 7, 5),
        ((70,), 2, 65, 131),
        ((0, 0), 4, 16, 16),
        ((), 3, 16, 16),
        ((5,), 0, 1, 1),
    ],
)
def test_segment_gemm(
    gpu: Emulator,
    dtype: torch.dtype,
    column_major: bool,
    lengths: tuple[int, ...],
    rest: int,
    d_in: int,
    d_out: int,
) -> None:
    x = numbers((sum(lengths) + rest, d_in), dtype)
    shape = (d_out, d_in) if column_major else (d_in, d_out)
    weights = numbers((max(len(lengths), 1), *shape), dtype)
    out = gpu.empty((x.shape[0], d_out), dtype)
    segment_gemm(gpu, out, gpu.put(x), gpu.put(weights), lengths, column_major)
    assert_rounded(out, exact(x, weights, lengths, column_major))


def test_real_numbers(gpu: Emulator) -> None:
    x, weights = torch.randn(33, 1024).half(), (torch.randn(1, 1024, 64) / 32).half()
    out = gpu.empty((33, 64), x.dtype)
    segment_gemm(gpu, out, gpu.put(x), gpu.put(weights), (33,), False)
    wanted = exact(x, weights, (33,), False)
    assert (out.double() - wanted).abs().max() < 2e-3


@pytest.mark.parametrize("column_major", [False, True])
def test_segments_share_weights(gpu: Emulator, column_major: bool) -> None:
    lengths, indices = (2, 0, 5, 1) * 20, (1, 7, 0, 1) * 20  # more than a warp looks at at once
    x, weights = numbers((160, 64), torch.float16), numbers((2, 64, 64), torch.float16)
    out = gpu.empty((160, 64), x.dtype)
    segment_gemm(gpu, out, gpu.put(x), gpu.put(weights), lengths, column_major, indices)
    seen = [index % 2 for index in indices]  # that of the empty segment is never looked at
    assert_rounded(out, exact(x, weights, lengths, column_major, seen))


@pytest.mark.parametrize(
    ("x_stride", "w_strides", "out_stride", "offsets"),
    [
        (80, (4608, 72), 72, (0, 0, 0)),  # gaps that leave the vectors aligned
        (67, (4160, 65), 65, (0, 0, 0)),
        (64, (4096, 64), 64, (1, 0, 0)),
        (64, (4096, 64), 64, (0, 3, 0)),
        (64, (4096, 64), 64, (0, 0, 1)),
    ],
)
@pytest.mark.parametrize("column_major", [False, True])
def test_strided_and_unaligned(
    gpu: Emulator,
    x_stride: int,
    w_strides: tuple[int, int],
    out_stride: int,
    offsets: tuple[int, int, int],
    column_major: bool,
) -> None:
    lengths = (9, 20)
    x, weights = numbers((29, 64), torch.bfloat16), numbers((2, 64, 64), torch.bfloat16)
    placed = gpu.put(x, strides=(x_stride, 1), offset=offsets[0])
    matrices = gpu.put(weights, strides=(*w_strides, 1), offset=offsets[1])
    out = gpu.empty((29, 64), x.dtype, strides=(out_stride, 1), offset=offsets[2])
    segment_gemm(gpu, out, placed, matrices, lengths, column_major)
    assert_rounded(out, exact(x, weights, lengths, column_major))


def bmm_fp8(
    gpu: Emulator,
    out: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    a_scale: torch.Tensor,
    b_scale: torch.Tensor,
) -> None:
    """``b`` is ``[batch, n, k]``: the columns of the second factor as rows."""
    gpu(
        "bmm_fp8", a_dtype=a.dtype, b_dtype=b.dtype, out_dtype=out.dtype, batch=a.shape[0],
        m=a.shape[1], n=b.shape[1], k=a.shape[2], a=a, a_stride_b=a.stride(0),
        a_stride_m=a.stride(1), b=b, b_stride_b=b.stride(0), b_stride_n=b.stride(1),
        a_scale=gpu.put(a_scale, "a_scale"), b_scale=gpu.put(b_scale, "b_scale"),
        a_scale_stride=int(a_scale.numel() > 1), b_scale_stride=int(b_scale.numel() > 1),
        out=out, out_stride_b=out.stride(0), out_stride_m=out.stride(1),
    )  # fmt: skip


@pytest.mark.parametrize("out_dtype", TYPES)
@pytest.mark.parametrize("b_dtype", FP8)
@pytest.mark.parametrize("a_dtype", FP8)
@pytest.mark.parametrize(
    ("batch", "m", "n", "k"),
    [(2, 3, 72, 128), (3, 48, 80, 64), (1, 200, 136, 80), (2, 150, 130, 48), (2, 5, 7, 11)],
)
def test_bmm_fp8(
    gpu: Emulator,
    a_dtype: torch.dtype,
    b_dtype: torch.dtype,
    out_dtype: torch.dtype,
    batch: int,
    m: int,
    n: int,
    k: int,
) -> None:
    a, b = numbers((batch, m, k), a_dtype), numbers((batch, n, k), b_dtype)
    a_scale, b_scale = torch.tensor([0.5]), 2.0 ** torch.arange(batch)
    out = gpu.empty((batch, m, n), out_dtype)
    bmm_fp8(gpu, out, gpu.put(a), gpu.put(b), a_scale, b_scale)
    wanted = torch.bmm(a.double(), b.double().transpose(1, 2))
    assert_rounded(out, wanted * 0.5 * b_scale.double()[:, None, None])


@pytest.mark.parametrize("dtype", FP8)
def test_every_fp8_number(gpu: Emulator, dtype: torch.dtype) -> None:
    """Times one: all 256 bytes but the NaNs and infinities come out exactly."""
    every = torch.arange(256, dtype=torch.uint8).view(dtype)
    every = torch.where(torch.isfinite(every.float()), every.float(), 0.0).to(dtype)
    a = torch.zeros(1, 256, 16).to(dtype)
    a[0, :, 3] = every
    one = torch.zeros(1, 16, 16).to(dtype)
    one[0, :, 3] = torch.ones(16).to(dtype)
    out = gpu.empty((1, 256, 16), torch.float16)
    bmm_fp8(gpu, out, gpu.put(a), gpu.put(one), torch.ones(1), torch.ones(1))
    assert torch.equal(out.float(), every.float()[None, :, None].expand(1, 256, 16))


def test_strided_fp8(gpu: Emulator) -> None:
    a, b = numbers((2, 9, 32), FP8[0]), numbers((2, 20, 32), FP8[1])
    for a_strides, b_strides, out_strides, offset in (
        ((640, 48, 1), (1024, 48, 1), (400, 22, 1), 0),
        ((333, 37, 1), (700, 33, 1), (250, 21, 1), 1),
    ):
        out = gpu.empty((2, 9, 20), torch.float16, strides=out_strides)
        placed = gpu.put(a, strides=a_strides, offset=offset)
        matrices = gpu.put(b, strides=b_strides, offset=offset)
        bmm_fp8(gpu, out, placed, matrices, torch.ones(1), torch.ones(1))
        assert_rounded(out, torch.bmm(a.double(), b.double().transpose(1, 2)))


def test_what_cannot_be_run_is_refused(gpu: Emulator) -> None:
    x, out = gpu.put(torch.ones(2, 8)), gpu.empty((2, 8), torch.float32)
    with pytest.raises(Failed, match="dtype must be float16 or bfloat16"):
        segment_gemm(gpu, out, x, gpu.put(torch.ones(1, 8, 8)), (2,), False)
    half = torch.ones(1, 2, 8).half()
    with pytest.raises(Failed, match="a and b must be fp8"):
        bmm_fp8(gpu, gpu.empty((1, 2, 2), torch.float16), gpu.put(half), gpu.put(half),
                torch.ones(1), torch.ones(1))  # fmt: skip
    eights = torch.ones(1, 2, 8).to(FP8[0])
    with pytest.raises(Failed, match="out must be float16 or bfloat16"):
        bmm_fp8(gpu, gpu.empty((1, 2, 2), torch.float32), gpu.put(eights), gpu.put(eights),
                torch.ones(1), torch.ones(1))  # fmt: skip
