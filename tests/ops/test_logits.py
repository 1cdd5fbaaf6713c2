"""Softmax and the largest entries of logits, by the references that the kernels' own tests have."""

from __future__ import annotations

import pytest
import softmax_reference as exact
import top_k_reference
import torch

import flashinfer
from flashinfer.topk import TopKTieBreak


@pytest.mark.parametrize("kind", exact.KINDS)
@pytest.mark.parametrize("vocab", [1, 111, 32000, 128256, 256000])
def test_softmax(kind: str, vocab: int, device: str) -> None:
    x = exact.logits_of(kind, 2, vocab)
    for heat in (None, 0.7):
        exact.check(flashinfer.softmax(x.to(device), heat), x, heat or 1.0)


def test_softmax_computes_in_float32(dtype: torch.dtype, device: str) -> None:
    x = (torch.randn(3, 500) * 4).to(dtype)
    out = flashinfer.softmax(x.to(device))
    assert out.dtype == torch.float32
    exact.check(out, x.float())
    exact.check(flashinfer.softmax(x.double().to(device)), x.float())


@pytest.mark.parametrize("heat_dtype", [torch.float16, torch.float64, torch.int64], ids=str)
def test_softmax_with_a_temperature_for_each_row(heat_dtype: torch.dtype, device: str) -> None:
    x = torch.randn(5, 500)
    heats = torch.tensor([1, 2, 0, -1, 100]).to(heat_dtype)
    out = flashinfer.softmax(x.to(device), heats.to(device).repeat_interleave(2)[::2])
    exact.check(out, x, heats.float())
    for i, heat in enumerate(heats.tolist()):
        for one in (heat, torch.tensor(heat)):
            alone = flashinfer.softmax(x[i : i + 1].to(device), one)
            assert torch.equal(alone, out[i : i + 1])


def test_softmax_of_a_temperature_next_to_0_is_the_largest(device: str) -> None:
    x = torch.randn(3, 100, device=device)
    largest = torch.nn.functional.one_hot(x.argmax(-1), 100).float()
    assert torch.equal(flashinfer.softmax(x, 1e-300), largest)
    assert torch.equal(flashinfer.softmax(-x, -1e-300), largest)


def test_softmax_of_masked_and_bad_rows(device: str) -> None:
    x = exact.logits_of("masked", 5, 300)
    x[1] = -torch.inf
    x[2, 7] = torch.nan
    x[3, 299] = torch.inf
    x[4, 3] = 1
    out = flashinfer.softmax(x.to(device)).cpu()
    assert (out[1] == 0).all()
    assert out[2:4].isnan().all()
    kept = torch.tensor([0, 4])
    exact.check(out[kept], x[kept])
    assert torch.equal(out[kept] > 0, x[kept] > -torch.inf)
    even = flashinfer.softmax(x[kept].to(device), 0).cpu()
    exact.check(even, x[kept], 0.0)
    # A row without a class has no sample.
    _, valid = flashinfer.sampling_from_probs(out.to(device), return_valid=True)
    assert valid.tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("form", ["rows apart", "transposed", "expanded", "gaps"])
def test_softmax_of_strides(form: str, device: str) -> None:
    x = torch.randn(6, 300)
    given = {
        "rows apart": x[:, :111],
        "transposed": x.T,
        "expanded": x[:1].expand(6, -1),
        "gaps": x[::2, ::3],
    }[form]
    out = flashinfer.softmax(x.to(device).as_strided(given.shape, given.stride()))
    exact.check(out, given)


def test_softmax_of_no_rows_or_columns(device: str) -> None:
    assert flashinfer.softmax(torch.empty(0, 9, device=device)).shape == (0, 9)
    assert flashinfer.softmax(torch.empty(3, 0, device=device)).shape == (3, 0)


@pytest.mark.parametrize("vocab", [1, 50, 128256])
def test_draws_from_logits_are_those_from_their_softmax(vocab: int, device: str) -> None:
    x = torch.randn(4, vocab, device=device) * 3
    generator = torch.Generator(device)
    got = flashinfer.sampling_from_logits(x, generator=generator.manual_seed(5))
    probs = flashinfer.softmax(x)
    assert torch.equal(
        got, flashinfer.sampling_from_probs(probs, generator=generator.manual_seed(5))
    )


@pytest.mark.parametrize("kind", top_k_reference.KINDS)
@pytest.mark.parametrize(("columns", "k"), [(1, 1), (111, 5), (111, 111), (128256, 50)])
def test_top_k(kind: str, columns: int, k: int, dtype: torch.dtype, device: str) -> None:
    x = top_k_reference.rows_of(kind, 2, columns, dtype)
    for sorted in (False, True):
        for tie_break in TopKTieBreak:
            values, indices = flashinfer.top_k(x.to(device), k, sorted, tie_break=tie_break)
            top_k_reference.check(values, indices, x, sorted, tie_break == 2)


@pytest.mark.parametrize("columns", [5000, 256000])
def test_top_k_of_many(columns: int, device: str) -> None:
    """More than a kernel sorts."""
    x = top_k_reference.rows_of("whole", 1, columns, torch.bfloat16)
    for last in (False, True):
        values, indices = flashinfer.top_k(x.to(device), 4500, True, tie_break=2 * last)
        top_k_reference.check(values, indices, x, True, last)


def test_top_k_of_what_the_kernels_do_not_take(device: str) -> None:
    x = torch.randn(2, 300, dtype=torch.float64).round()
    values, indices = flashinfer.top_k(x.to(device), 40, True, tie_break=2)
    assert torch.equal(indices.cpu(), top_k_reference.top_k(x, 40, True, True))
    assert torch.equal(values.cpu(), x.gather(1, indices.cpu()))
    long = torch.zeros(1, (1 << 20) + 1, device=device)
    long[0, -1] = 1
    assert flashinfer.top_k(long, 2)[1].tolist() == [[0, 1 << 20]]


@pytest.mark.parametrize("strides", ["row gaps", "inner gaps", "transposed"])
def test_top_k_of_strides(strides: str, device: str) -> None:
    wide = torch.randn(40, 90, device=device)
    x = {"row gaps": wide[:, 3:50], "inner gaps": wide[:, ::2], "transposed": wide.T}[strides]
    top_k_reference.check(*flashinfer.top_k(x, 7, True), x, True, False)


def test_top_k_of_no_rows(device: str) -> None:
    values, indices = flashinfer.top_k(torch.empty(0, 9, device=device), 3)
    assert (values.shape, indices.shape) == ((0, 3), (0, 3))
