"""Segment GEMM and fp8 products against float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

import flashinfer

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
# One rounding of a sum, and the order of its fp32 terms.
RTOL = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-5}


def exact(
    x: torch.Tensor,
    weights: torch.Tensor,
    lengths: Sequence[int],
    column_major: bool,
    indices: Sequence[int] | None = None,
) -> torch.Tensor:
    matrices = weights.double().transpose(1, 2) if column_major else weights.double()
    parts, at = [], 0
    for s, length in enumerate(lengths):
        parts.append(x[at : at + length].double() @ matrices[s if indices is None else indices[s]])
        at += length
    parts.append(x.new_zeros(x.shape[0] - at, matrices.shape[2], dtype=torch.float64))
    return torch.cat(parts)


def assert_product(actual: torch.Tensor, expected: torch.Tensor, depth: int) -> None:
    """The terms of a sum are of size 1, so it may be off by their number's root."""
    rtol = RTOL[actual.dtype]
    torch.testing.assert_close(
        actual.double(), expected, rtol=rtol, atol=rtol * max(depth, 1) ** 0.5
    )


def make(
    lengths: Sequence[int],
    d_in: int,
    d_out: int,
    column_major: bool,
    dtype: torch.dtype,
    device: str,
    num_weights: int | None = None,
    rest: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (d_out, d_in) if column_major else (d_in, d_out)
    weights = torch.randn(len(lengths) if num_weights is None else num_weights, *shape)
    return torch.randn(sum(lengths) + rest, d_in).to(device, dtype), weights.to(device, dtype)


def wrapper(device: str) -> flashinfer.SegmentGEMMWrapper:
    return flashinfer.SegmentGEMMWrapper(torch.empty(1024, dtype=torch.int8, device=device))


@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize(
    ("lengths", "d_in", "d_out"),
    [
        ((1, 2, 3, 4), 128, 256),
        ((0, 5, 0, 0, 9), 64, 72),
        ((7,), 4096, 64),
        ((8, 48, 49), 513, 129),  # around the limits of the CPU's ways of reading weights
        ((100, 600), 160, 264),
        ((1100,), 65, 70),
        ((3, 1), 7, 5),
        ((5, 2), 1, 1),
        ((2, 20), 0, 8),
        ((0, 0), 8, 8),
        ((), 8, 8),
    ],
)
def test_segment_gemm(
    lengths: tuple[int, ...],
    d_in: int,
    d_out: int,
    column_major: bool,
    dtype: torch.dtype,
    device: str,
) -> None:
    x, weights = make(lengths, d_in, d_out, column_major, dtype, device, rest=2)
    seg_lens = torch.tensor(lengths, dtype=torch.int64, device=device)
    y = wrapper(device).run(x, weights, len(lengths), column_major, seg_lens=seg_lens)
    assert (y.shape, y.dtype) == ((x.shape[0], d_out), dtype)
    assert_product(y, exact(x, weights, lengths, column_major), d_in)


@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_weights_by_index(
    column_major: bool, index_dtype: torch.dtype, dtype: torch.dtype, device: str
) -> None:
    lengths, indices = (3, 0, 70, 12), (1, 0, 1, 2)
    x, weights = make(lengths, 96, 40, column_major, dtype, device, num_weights=3)
    indptr = torch.tensor([0, 3, 3, 73, 85], dtype=index_dtype, device=device)
    y = wrapper(device).forward(
        x, weights, 4, column_major, None, indptr,
        torch.tensor(indices, dtype=index_dtype, device=device),
    )  # fmt: skip
    assert_product(y, exact(x, weights, lengths, column_major, indices), 96)


def test_views(dtype: torch.dtype, device: str) -> None:
    lengths = (5, 30)
    x = torch.randn(35, 200).to(device, dtype)[:, 3:99]
    weights = torch.randn(2, 96, 90).to(device, dtype)[:, :, 2:82]
    seg_lens = torch.tensor(lengths, device=device)
    y = wrapper(device).run(x, weights, 2, False, seg_lens)
    assert_product(y, exact(x, weights, lengths, False), 96)
    gaps = torch.randn(35, 192).to(device, dtype)[:, ::2]
    columns = weights.transpose(1, 2)  # column-major by its strides, and asked for as such
    y = wrapper(device).run(gaps, columns, 2, True, seg_lens)
    assert_product(y, exact(gaps, columns, lengths, True), 96)


@pytest.mark.parametrize("rows", [3, 40, 60])
def test_strides_of_one_element_do_not_count(rows: int, dtype: torch.dtype, device: str) -> None:
    """A dimension of one element may have any stride, and a tensor is contiguous all the same."""
    x = torch.randn(rows, 64).to(device, dtype)
    seg_lens = torch.tensor([rows], device=device)
    column = torch.randn(64).to(device, dtype)
    expected = (x.double() @ column.double())[:, None]
    for strides in ((64, 1, 64), (64, 1, 1), (9, 1, 7)):
        y = wrapper(device).run(x, column.as_strided((1, 64, 1), strides), 1, False, seg_lens)
        assert_product(y, expected, 64)
        turned = column.as_strided((1, 1, 64), (strides[0], strides[2], 1))
        assert_product(wrapper(device).run(x, turned, 1, True, seg_lens), expected, 64)
    one = column[:1].as_strided((1, 1, 1), (5, 5, 5))
    for column_major in (False, True):
        y = wrapper(device).run(x[:, :1], one, 1, column_major, seg_lens)
        assert_product(y, x[:, :1].double() * column[0].double(), 1)


def test_both_layouts_of_one_matrix_agree(dtype: torch.dtype, device: str) -> None:
    x, weights = make((60, 4), 300, 90, False, dtype, device)
    seg_lens = torch.tensor([60, 4], device=device)
    rows = wrapper(device).run(x, weights, 2, False, seg_lens)
    columns = wrapper(device).run(x, weights.transpose(1, 2).contiguous(), 2, True, seg_lens)
    assert_product(rows, columns.double(), 300)


def test_threads_do_not_change_a_bit() -> None:
    x, weights = make((3, 200, 0, 31), 260, 300, False, torch.bfloat16, "cpu")
    seg_lens = torch.tensor([3, 200, 0, 31])
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(wrapper("cpu").run(x, weights, 4, False, seg_lens))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_small_and_special_numbers(dtype: torch.dtype, device: str) -> None:
    x = torch.zeros(20, 16, dtype=dtype, device=device)
    x[3, 0], x[4, 0], x[5, 0] = float("inf"), float("nan"), 2.0
    weights = torch.zeros(1, 16, 8, dtype=dtype, device=device)
    weights[0, 0] = torch.arange(1, 9)
    y = wrapper(device).run(x, weights, 1, False, torch.tensor([20], device=device))
    assert torch.isinf(y[3]).all()
    assert torch.isnan(y[4]).all()
    assert torch.equal(y[5].float().cpu(), torch.arange(2.0, 17.0, 2.0))
    assert not y[:3].any()


def to_fp8(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """As callers quantise: the largest number becomes the largest of fp8."""
    scale = torch.finfo(dtype).max / x.abs().max().clamp(min=1e-12)
    return (x * scale).to(dtype), scale.float().reciprocal()


@pytest.mark.parametrize("a_dtype", FP8)
@pytest.mark.parametrize("b_dtype", FP8)
@pytest.mark.parametrize(
    ("batch", "m", "k", "n"),
    [(16, 48, 64, 80), (2, 1, 128, 72), (1, 300, 200, 130), (3, 5, 7, 11), (2, 3, 0, 4)],
)
def test_bmm_fp8(
    a_dtype: torch.dtype,
    b_dtype: torch.dtype,
    batch: int,
    m: int,
    k: int,
    n: int,
    dtype: torch.dtype,
    device: str,
) -> None:
    a, a_scale = to_fp8(torch.randn(batch, m, max(k, 1), device=device), a_dtype)
    b, b_scale = to_fp8(torch.randn(batch, n, max(k, 1), device=device), b_dtype)
    a, b = a[:, :, :k], b[:, :, :k].transpose(1, 2)
    out = flashinfer.bmm_fp8(a, b, a_scale, b_scale, dtype)
    assert (out.shape, out.dtype) == ((batch, m, n), dtype)
    product = torch.bmm(a.to(torch.float64), b.to(torch.float64))
    assert_product(out, product * (a_scale * b_scale).double(), k)
    into = torch.empty(batch, n, m, dtype=dtype, device=device).transpose(1, 2)
    assert flashinfer.bmm_fp8(a, b, a_scale, b_scale, dtype, out=into) is into
    assert torch.equal(into, out)


def test_a_scale_for_each_matrix_and_a_row_major_factor(device: str) -> None:
    a = torch.randn(3, 20, 64, device=device).to(FP8[0])
    b = torch.randn(3, 64, 24, device=device).to(FP8[1])  # row-major: copied
    scales = torch.tensor([[[0.5]], [[2.0]], [[1.0]]], device=device)
    out = flashinfer.bmm_fp8(a, b, scales, torch.ones((), device=device), torch.bfloat16)
    assert_product(out, torch.bmm(a.double(), b.double()) * scales.double(), 64)


W = torch.zeros(2, 8, 4, dtype=torch.float16)
X = torch.zeros(5, 8, dtype=torch.float16)
LENGTHS = torch.tensor([2, 3])


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"seg_lens": None}, ValueError, "neither seg_lens nor seg_indptr"),
        ({"x": X[0]}, ValueError, r"x has shape \[8\], expected \[rows, d_in\]"),
        ({"x": X.int()}, TypeError, "x has dtype torch.int32"),
        ({"weights": W.float()}, TypeError, "weights has dtype torch.float32, expected torch.f"),
        ({"weights": W[:, :7]}, ValueError, r"weights has shape \[2, 7, 4\].*8 columns of x"),
        ({"weight_column_major": True}, ValueError, "num_weights, d_out, d_in"),
        ({"weights": W[:1]}, ValueError, "weights has 1 matrices for 2 segments"),
        ({"seg_lens": LENGTHS[:1]}, ValueError, r"seg_lens has shape \[1\], expected \[2\]"),
        ({"seg_lens": LENGTHS.float()}, TypeError, "seg_lens has dtype torch.float32"),
        ({"seg_indptr": LENGTHS}, ValueError, r"seg_indptr has shape \[2\], expected \[3\]"),
        ({"seg_lens": LENGTHS + 1}, ValueError, r"seg_indptr\[2\] is 7, expected 3 to 5"),
        ({"seg_indptr": torch.tensor([1, 2, 5])}, ValueError, r"seg_indptr\[0\] is 1, expected 0"),
        ({"weight_indices": torch.tensor([0, 2])}, ValueError, "segment 1 has weight 2, expected"),
    ],
)
def test_errors(change: dict[str, object], error: type[Exception], said: str) -> None:
    arguments: dict[str, object] = {
        "x": X, "weights": W, "batch_size": 2, "weight_column_major": False, "seg_lens": LENGTHS,
    }  # fmt: skip
    with pytest.raises(error, match=said):
        wrapper("cpu").run(**{**arguments, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"A": torch.zeros(2, 3, 4).half()}, TypeError, "A has dtype torch.float16"),
        ({"B": torch.zeros(2, 5, 6).to(FP8[0])}, ValueError, r"B has shape \[2, 5, 6\]"),
        ({"A_scale": torch.ones(3)}, ValueError, "A_scale has 3 elements, expected 1, or 2"),
        ({"B_scale": torch.ones(1).half()}, TypeError, "B_scale has dtype torch.float16"),
        ({"dtype": torch.int32}, TypeError, "out has dtype torch.int32"),
        ({"out": torch.zeros(2, 3, 5).half()}, ValueError, r"expected \[2, 3, 6\]"),
        ({"out": torch.zeros(2, 3, 6)}, TypeError, "expected torch.float16 as dtype says"),
    ],
)
def test_errors_of_bmm(change: dict[str, object], error: type[Exception], said: str) -> None:
    arguments: dict[str, object] = {
        "A": torch.zeros(2, 3, 4).to(FP8[0]), "B": torch.zeros(2, 4, 6).to(FP8[0]),
        "A_scale": torch.ones(1), "B_scale": torch.ones(()), "dtype": torch.float16,
    }  # fmt: skip
    with pytest.raises(error, match=said):
        flashinfer.bmm_fp8(**{**arguments, **change})  # type: ignore[arg-type]


def test_the_wrapper_takes_what_callers_pass() -> None:
    made = flashinfer.SegmentGEMMWrapper(torch.empty(8), backend="sm80")
    made.reset_workspace_buffer(torch.empty(16), torch.empty(4))
    made.reset_workspace_buffer(torch.empty(16))
    with pytest.raises(ValueError, match="backend is 'cutlass'"):
        flashinfer.SegmentGEMMWrapper(torch.empty(8), backend="cutlass")


@pytest.mark.gpu
def test_cuda_graph() -> None:
    lengths = torch.tensor([3, 40], device="cuda")
    x, weights = make((3, 40), 128, 64, True, torch.float16, "cuda")
    indptr = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    gemm = wrapper("cuda")
    gemm.run(x, weights, 2, True, seg_indptr=indptr)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = gemm.run(x, weights, 2, True, seg_indptr=indptr)
    indptr.copy_(torch.tensor([0, 30, 43]))  # the segments are read when the graph runs
    graph.replay()
    assert_product(y, exact(x, weights, (30, 13), True), 128)
