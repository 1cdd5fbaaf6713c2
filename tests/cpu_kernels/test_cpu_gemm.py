"""Segment GEMM and bmm_fp8 on the CPU: every way through the kernels, against fp64.

The ways are chosen by type and size: up to 8 rows a segment read the matrix where it lies, unless
it has short columns (below 16 elements a row); more copy it. bf16 has ways of its own where the CPU
multiplies pairs of bf16: up to 48 rows over columns (24 elements a row or longer), and more than 8
in blocks. The avx2, baseline and wide levels have no such instruction, and fp16 never takes it:
those cases run the code that bf16 has without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from capi import INVALID_ARGUMENT, Failed, Guarded, Library
from compare import FLOATS, assert_rounded
from test_threads import cut_anywhere

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
# Of an fp32 sum of depth terms, relative to the sum of their sizes: errors of n additions mostly
# cancel, and depth * 2^-24 would be the worst case.
FP32 = 1e-6


def segment_gemm(
    lib: Library,
    out: torch.Tensor,
    x: torch.Tensor,
    weights: torch.Tensor,
    starts: Sequence[int],
    column_major: bool,
    indices: Sequence[int] | None = None,
    **changes: Any,
) -> None:
    in_dim = 2 if column_major else 1
    seg_indptr = torch.tensor(starts, dtype=torch.int64)
    weight_indices = None if indices is None else torch.tensor(indices, dtype=torch.int64)
    values: dict[str, Any] = {
        "dtype": x.dtype, "rows": x.shape[0], "num_segments": len(starts) - 1,
        "num_weights": weights.shape[0], "d_in": x.shape[1], "d_out": out.shape[1], "x": x,
        "x_stride": x.stride(0), "weights": weights, "w_stride_n": weights.stride(0),
        "w_stride_in": weights.stride(in_dim), "w_stride_out": weights.stride(3 - in_dim),
        "seg_indptr": seg_indptr, "weight_indices": weight_indices, "out": out,
        "out_stride": out.stride(0),
    }  # fmt: skip
    lib("segment_gemm", **{**values, **changes})


def check(
    lib: Library,
    generator: torch.Generator,
    dtype: torch.dtype,
    lengths: Sequence[int],
    d_in: int,
    d_out: int,
    column_major: bool,
    rest: int = 0,
) -> None:
    """A call on guarded tensors with gaps between their rows, against fp64."""
    rows = sum(lengths) + rest
    sources = Guarded((max(rows, 1), max(d_in, 1)), dtype, gap=3)
    x = sources.fill(torch.randn(max(rows, 1), max(d_in, 1), generator=generator))[:rows, :d_in]
    shape = (d_out, d_in) if column_major else (d_in, d_out)
    matrices = Guarded((max(len(lengths), 1), *(max(n, 1) for n in shape)), dtype, gap=5)
    weights = matrices.fill(torch.randn(matrices.view.shape, generator=generator))
    weights = weights[:, : shape[0], : shape[1]]
    target = Guarded((max(rows, 1), d_out), dtype, gap=7)
    out = target.view[:rows]
    out.fill_(torch.nan)
    starts = [sum(lengths[:s]) for s in range(len(lengths) + 1)]
    segment_gemm(lib, out, x, weights, starts, column_major)

    plain = weights.double().transpose(1, 2) if column_major else weights.double()
    exact = torch.zeros(rows, d_out, dtype=torch.float64)
    sizes = torch.zeros_like(exact)
    for s in range(len(lengths)):
        part = slice(starts[s], starts[s + 1])
        exact[part] = x[part].double() @ plain[s]
        sizes[part] = x[part].double().abs() @ plain[s].abs()
    assert_close(out, exact, sizes)
    assert sources.intact() and matrices.intact() and target.intact()


def assert_close(out: torch.Tensor, exact: torch.Tensor, sizes: torch.Tensor) -> None:
    assert torch.isfinite(out).all()
    assert_rounded(out, exact, 0.0, absolute=FP32 * sizes)


# 4 and 5, 8 and 9 rows: blocks of the few; 48 and 49: of the pairs; 516 and 517: one unit and two.
# 128 and 127 elements of a column are long and short for 8 rows, 192 and 191 as pairs. The depths
# end in the middle of a vector, of a pair and of a copied block of 256 (512 as pairs).
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize(
    ("lengths", "d_in", "d_out", "rest"),
    [
        ((1, 2, 3, 4, 5, 6, 7, 8), 40, 70, 0),
        ((8,), 257, 129, 2),
        ((9,), 257, 129, 0),
        ((8, 9, 0, 1), 513, 65, 1),
        ((8,), 128, 35, 0),
        ((8,), 127, 35, 0),
        ((8,), 192, 35, 0),
        ((8,), 191, 35, 0),
        ((4, 1), 64, 35, 0),
        ((48,), 64, 66, 0),
        ((48,), 1152, 33, 0),
        ((48, 49), 1163, 33, 3),
        ((516,), 33, 17, 0),
        ((517,), 33, 17, 0),
        ((1040, 3), 31, 67, 0),
        ((0, 0, 11, 0), 7, 259, 0),
        ((13,), 512, 64, 0),
        ((6, 12), 1, 1, 0),
        ((2, 30), 2, 3, 0),
        ((5, 50), 0, 9, 0),
        ((), 5, 6, 4),
        ((0, 0), 5, 6, 0),
    ],
)
def test_segment_gemm(
    lib: Library,
    generator: torch.Generator,
    dtype: torch.dtype,
    column_major: bool,
    lengths: tuple[int, ...],
    d_in: int,
    d_out: int,
    rest: int,
) -> None:
    check(lib, generator, dtype, lengths, d_in, d_out, column_major, rest)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("length", range(1, 20))
def test_every_block_of_rows(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, column_major: bool, length: int
) -> None:
    check(lib, generator, dtype, (length,), 36, 21, column_major)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("column_major", [False, True])
def test_weights_by_index(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, column_major: bool
) -> None:
    # A weight that two segments share, one that none has, and more segments than matrices.
    starts, indices = [0, 3, 3, 60, 61], [2, 0, 2, 1]
    x = torch.randn(61, 24, generator=generator).to(dtype)
    weights = torch.randn(3, 24, 24, generator=generator).to(dtype)
    out = torch.empty(61, 24, dtype=dtype)
    segment_gemm(lib, out, x, weights, starts, column_major, indices)
    for s, w in enumerate(indices):
        part = slice(starts[s], starts[s + 1])
        matrix = weights[w].double().T if column_major else weights[w].double()
        sizes = x[part].double().abs() @ matrix.abs()
        assert_close(out[part], x[part].double() @ matrix, sizes)


@pytest.mark.parametrize("lengths", [(5,), (30,), (60,)])
def test_a_matrix_of_one_column(
    lib: Library, generator: torch.Generator, lengths: tuple[int, ...]
) -> None:
    """Both strides are 1, or one that is never used: the column is read either way."""
    x = torch.randn(lengths[0], 300, generator=generator)
    weights = torch.randn(1, 300, 1, generator=generator)
    exact = x.double() @ weights[0].double()
    sizes = x.double().abs() @ weights[0].double().abs()
    for strides in ((1, 1), (1, 300), (1, 7)):
        out = torch.empty(lengths[0], 1)
        segment_gemm(
            lib, out, x, weights, [0, lengths[0]], False,
            w_stride_in=strides[0], w_stride_out=strides[1],
        )  # fmt: skip
        assert_close(out, exact, sizes)


def test_bf16_subnormals_are_numbers_or_zeros(lib: Library) -> None:
    """The instruction for pairs takes them for 0; nothing else may become of them."""
    tiny = 2.0**-130
    for column_major, rows in ((False, 3), (False, 20), (True, 3), (True, 60)):
        x = torch.full((rows, 4), tiny, dtype=torch.bfloat16)
        x[:, 3] = 1.0
        weights = torch.full((1, 4, 4), 2.0**100, dtype=torch.bfloat16)
        weights[:, 3, :] = 2.0**-20
        if column_major:
            weights = weights.transpose(1, 2).contiguous()
        out = torch.empty(rows, 4, dtype=torch.bfloat16)
        segment_gemm(lib, out, x, weights, [0, rows], column_major)
        with_them, without = 2.0**-20 + 3 * tiny * 2.0**100, 2.0**-20
        assert ((out == with_them) | (out == without)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("rows", [4, 20, 60])
def test_nan_and_inf_stay_in_their_row(
    lib: Library, dtype: torch.dtype, column_major: bool, rows: int
) -> None:
    x = torch.ones(rows, 34, dtype=dtype)
    x[1, 33], x[2, 0] = float("nan"), float("inf")
    weights, out = torch.ones(1, 34, 34, dtype=dtype), torch.empty(rows, 34, dtype=dtype)
    segment_gemm(lib, out, x, weights, [0, rows], column_major)
    assert out[1].isnan().all()
    assert out[2].isinf().all()
    rest = torch.cat([out[:1], out[3:]])
    assert torch.equal(rest, torch.full_like(rest, 34.0))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("column_major", [False, True])
def test_threads_do_not_change_a_bit(
    lib: Library, generator: torch.Generator, dtype: torch.dtype, column_major: bool
) -> None:
    starts = [0, 3, 533, 533, 580, 600]
    x = torch.randn(600, 270, generator=generator).to(dtype)
    weights = torch.randn(5, 300, 300, generator=generator).to(dtype)[:, :270, :270]

    def run() -> torch.Tensor:
        out = torch.full((600, 270), torch.nan, dtype=dtype)
        segment_gemm(lib, out, x, weights, starts, column_major)
        return out

    alone = run()
    with lib.threads(cut_anywhere) as grains:
        assert torch.equal(run(), alone)
    assert grains == [1]


def test_a_row_does_not_depend_on_its_neighbours(lib: Library, generator: torch.Generator) -> None:
    """Within one way through the kernel; the ways add up in different orders."""
    x = torch.randn(40, 100, generator=generator)
    weights = torch.randn(1, 100, 50, generator=generator)
    whole, part = torch.empty(40, 50), torch.empty(11, 50)
    segment_gemm(lib, whole, x, weights, [0, 40], False)
    segment_gemm(lib, part, x[7:18], weights, [0, 11], False)
    assert torch.equal(whole[7:18], part)


def bmm_fp8(
    lib: Library,
    out: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    a_scale: torch.Tensor,
    b_scale: torch.Tensor,
    **changes: Any,
) -> None:
    """``b`` is ``[batch, n, k]``: the columns of the second factor as rows."""
    values: dict[str, Any] = {
        "a_dtype": a.dtype, "b_dtype": b.dtype, "out_dtype": out.dtype, "batch": a.shape[0],
        "m": a.shape[1], "n": b.shape[1], "k": a.shape[2], "a": a, "a_stride_b": a.stride(0),
        "a_stride_m": a.stride(1), "b": b, "b_stride_b": b.stride(0), "b_stride_n": b.stride(1),
        "a_scale": a_scale, "b_scale": b_scale, "a_scale_stride": int(a_scale.numel() > 1),
        "b_scale_stride": int(b_scale.numel() > 1), "out": out, "out_stride_b": out.stride(0),
        "out_stride_m": out.stride(1),
    }  # fmt: skip
    lib("bmm_fp8", **{**values, **changes})


@pytest.mark.parametrize("out_dtype", FLOATS)
@pytest.mark.parametrize("a_dtype", FP8)
@pytest.mark.parametrize("b_dtype", FP8)
@pytest.mark.parametrize(
    ("batch", "m", "n", "k"),
    [
        (3, 1, 70, 40),
        (2, 8, 33, 257),
        (2, 9, 33, 257),
        (1, 517, 5, 19),
        (2, 3, 4, 0),
        (2, 20, 1, 1),
    ],
)
def test_bmm_fp8(
    lib: Library,
    generator: torch.Generator,
    out_dtype: torch.dtype,
    a_dtype: torch.dtype,
    b_dtype: torch.dtype,
    batch: int,
    m: int,
    n: int,
    k: int,
) -> None:
    sources = Guarded((batch, m, max(k, 1)), a_dtype, gap=3)
    columns = Guarded((batch, n, max(k, 1)), b_dtype, gap=5)
    a = sources.view.copy_(torch.randn(batch, m, max(k, 1), generator=generator))[:, :, :k]
    b = columns.view.copy_(torch.randn(batch, n, max(k, 1), generator=generator))[:, :, :k]
    target = Guarded((batch, m, n), out_dtype, gap=2)
    target.view.fill_(torch.nan)
    a_scale, b_scale = torch.tensor([0.5]), 2.0 ** torch.arange(batch)
    bmm_fp8(lib, target.view, a, b, a_scale, b_scale)
    scales = 0.5 * b_scale.double()[:, None, None]
    wide_a, wide_b = a.double(), b.double().transpose(1, 2)
    assert_close(
        target.view.contiguous(),
        torch.bmm(wide_a, wide_b) * scales,
        torch.bmm(wide_a.abs(), wide_b.abs()) * scales,
    )
    assert sources.intact() and columns.intact() and target.intact()


@pytest.mark.parametrize("dtype", FP8)
@pytest.mark.parametrize("rows", [8, 256])
def test_every_fp8_number(lib: Library, dtype: torch.dtype, rows: int) -> None:
    """Times one, on both sides: all 256 bytes come out exactly, NaNs as NaNs."""
    every = torch.arange(256, dtype=torch.uint8).view(dtype)
    ones = torch.ones(1, rows, 1).to(dtype)
    out = torch.empty(1, rows, 256)
    bmm_fp8(lib, out, ones, every.view(1, 256, 1), torch.ones(1), torch.ones(1))
    expected = every.float().expand(1, rows, 256)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    turned = torch.empty(1, 256, rows)
    bmm_fp8(lib, turned, every.view(1, 256, 1), ones, torch.ones(1), torch.ones(1))
    torch.testing.assert_close(turned, expected.transpose(1, 2), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("starts", "indices", "changes", "message"),
    [
        ([1, 2, 4], None, {}, r"seg_indptr\[0\] is 1, expected 0 to 0"),
        ([0, 3, 2], None, {}, r"seg_indptr\[2\] is 2, expected 3 to 4"),
        ([0, 3, 5], None, {}, r"seg_indptr\[2\] is 5, expected 3 to 4"),
        ([0, 3, -1], None, {}, r"seg_indptr\[2\] is -1, expected 3 to 4"),
        ([0, 1, 4], [0, 2], {}, "segment 1 has weight 2, expected 0 to 1"),
        ([0, 1, 4], [-1, 0], {}, "segment 0 has weight -1, expected 0 to 1"),
        ([0, 1, 2, 4], None, {}, "segment 2 has weight 2, expected 0 to 1"),
        (
            [0, 1, 4], None, {"w_stride_in": 9, "w_stride_out": 2},
            "w_stride_in is 9 and w_stride_out 2, expected 1 for one",
        ),
        ([0, 4], None, {"dtype": FP8[0]}, "dtype 3 is not fp16, bf16 or fp32"),
    ],
)  # fmt: skip
def test_refuses(
    lib: Library,
    starts: list[int],
    indices: list[int] | None,
    changes: dict[str, Any],
    message: str,
) -> None:
    x, weights, out = torch.ones(4, 8), torch.ones(2, 8, 8), torch.full((4, 8), 7.0)
    with pytest.raises(Failed, match=f"segment_gemm: {message}") as caught:
        segment_gemm(lib, out, x, weights, starts, False, indices, **changes)
    assert caught.value.status == INVALID_ARGUMENT
    assert (out == 7.0).all()


def test_refuses_what_is_not_fp8(lib: Library) -> None:
    eights, halves = torch.ones(1, 2, 8).to(FP8[0]), torch.ones(1, 2, 8).half()
    one, out = torch.ones(1), torch.full((1, 2, 2), 7.0)
    for a, b in ((halves, eights), (eights, halves)):
        with pytest.raises(Failed, match=r"bmm_fp8: a and b must be fp8, got fi_dtype \d and \d"):
            bmm_fp8(lib, out, a, b, one, one)
    with pytest.raises(Failed, match="bmm_fp8: dtype 4 is not fp16, bf16 or fp32"):
        bmm_fp8(lib, out, eights, eights, one, one, out_dtype=FP8[1])
    assert (out == 7.0).all()


def test_nothing_to_do(lib: Library) -> None:
    """Nothing is looked at: there are no pointers to look at."""
    lib("segment_gemm", dtype=torch.float32, rows=0, d_in=8, d_out=8, num_segments=3)
    lib("segment_gemm", dtype=torch.float32, rows=3, d_in=8, d_out=0, num_segments=3)
    for empty in ("batch", "m", "n"):
        sizes = {"batch": 1, "m": 1, "n": 1, "k": 1, empty: 0}
        lib("bmm_fp8", a_dtype=FP8[0], b_dtype=FP8[0], out_dtype=torch.float32, **sizes)
