"""The CPU's sampling against a sort with exact integer sums, at every level; and bad rows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import sampling_reference as exact
import torch
from capi import INVALID_ARGUMENT, Failed, Guarded, Library
from sampling_reference import FILTERS, KINDS, U, expected, rows_of


def sample(lib: Library, p: torch.Tensor, u: torch.Tensor, **filters: Any) -> torch.Tensor:
    rows, vocab = p.shape
    samples = torch.full((rows,), -7, dtype=torch.int32)
    success = torch.full((rows,), 7, dtype=torch.uint8)
    values: dict[str, Any] = {"top_p_value": 1.0}
    for name, value in filters.items():
        whole = isinstance(value, torch.Tensor) or name == "top_k_first"
        values[name if whole else f"{name}_value"] = value
    lib("sample", rows=rows, vocab=vocab, probs=p, probs_stride=p.stride(0), uniform=u,
        samples=samples, success=success, **values)  # fmt: skip
    assert torch.equal(success == 1, (torch.nan_to_num(p, 0, 1, 0) > 0).any(-1))
    return samples.long()


# Shorter than a vector, a piece (64) and a chunk (1024) and around them.
VOCABS = [2, 3, 15, 64, 111, 1023, 1024, 1027, 20001]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", VOCABS)
def test_plain(lib: Library, kind: str, vocab: int) -> None:
    torch.manual_seed(vocab)
    p, u = rows_of(kind, 8, vocab), torch.tensor([*U, *torch.rand(4).tolist()])
    assert torch.equal(sample(lib, p, u), expected(p, u))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("vocab", [3, 1000, 20001])
def test_filters(lib: Library, kind: str, vocab: int, filters: dict[str, Any]) -> None:
    torch.manual_seed(vocab)
    p, u = rows_of(kind, 7, vocab), torch.tensor([*U[1:], *torch.rand(4).tolist()])
    assert torch.equal(sample(lib, p, u, **filters), expected(p, u, **filters))


@pytest.mark.parametrize("first", [0, 1])
def test_a_filter_for_each_row(lib: Library, first: int) -> None:
    torch.manual_seed(0)
    p, u = rows_of("peaked", 5, 999), torch.rand(5)
    filters = {
        "top_k": torch.tensor([1, 7, 5000, 50, -3], dtype=torch.int32),
        "top_p": torch.tensor([0.9, 1.0, 0.5, 0.2, 1.0]),
        "min_p": torch.tensor([0.0, 0.01, 0.1, 1.0, 0.0]),
        "top_k_first": first,
    }
    samples = sample(lib, p, u, **filters)
    filters["top_k"][4] = 1  # what less than 1 counts as
    assert torch.equal(samples, expected(p, u, **filters))


@pytest.mark.parametrize("filters", [{}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.5}], ids=str)
def test_what_is_no_probability_counts_as_zero(lib: Library, filters: dict[str, Any]) -> None:
    torch.manual_seed(0)
    p = torch.rand(5, 700) / 350
    p[0, ::3] = torch.nan
    p[1, ::2] = -p[1, ::2]
    p[2] = 0
    p[3] = torch.nan
    p[4, 77] = torch.inf
    u = torch.full((5,), 0.9999)
    assert torch.equal(sample(lib, p, u, **filters), expected(p, u, **filters))


def test_uniform_numbers_out_of_range_are_clamped(lib: Library) -> None:
    u = torch.tensor([-1.0, 1.0, 7.0, torch.nan])
    assert sample(lib, torch.full((4, 9), 1 / 9), u).tolist() == [0, 8, 8, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", [3, 1000, 20001])
@pytest.mark.parametrize(
    "filters", [{"top_k": 1}, {"top_k": 50}, {"top_p": 0.4}, {"top_p": 0.95}, {"top_p": 1.0}],
    ids=str,
)  # fmt: skip
def test_renormalised(lib: Library, kind: str, vocab: int, filters: dict[str, Any]) -> None:
    torch.manual_seed(vocab)
    source, target = Guarded((3, vocab), torch.float32), Guarded((3, vocab), torch.float32, gap=3)
    p = source.fill(rows_of(kind, 3, vocab))
    right = torch.stack([exact.renormalised(row, **filters) for row in p])
    values = {"top_p_value": 1.0, **{f"{name}_value": value for name, value in filters.items()}}
    for out, guard in ((target.view, target), (p, source)):
        lib("renorm_probs", rows=3, vocab=vocab, probs=p, probs_stride=p.stride(0), out=out,
            out_stride=out.stride(0), **values)  # fmt: skip
        assert torch.equal(out > 0, right > 0)
        torch.testing.assert_close(out.double(), right, rtol=3e-7, atol=0)
        assert guard.intact()


@pytest.mark.parametrize("vocab", [3, 1000, 20001])
@pytest.mark.parametrize("top_k", [1, 2, 64, 15000])
@pytest.mark.parametrize("kind", ["normal", "whole", "few", "zeros"])
def test_masked_logits(lib: Library, kind: str, vocab: int, top_k: int) -> None:
    torch.manual_seed(vocab)
    x = torch.randn(3, vocab) * 5
    if kind == "whole":
        x = x.round()
    elif kind == "few":
        x[:, 2:] = -torch.inf
    elif kind == "zeros":
        x = torch.where(torch.rand(3, vocab) < 0.5, 0.0, -0.0)
    target = Guarded((3, vocab), torch.float32)
    lib("mask_logits", rows=3, vocab=vocab, logits=x, logits_stride=vocab, out=target.view,
        out_stride=target.view.stride(0), top_k_value=top_k)  # fmt: skip
    assert torch.equal(target.view, torch.stack([exact.masked(row, top_k) for row in x]))
    assert target.intact()


def test_a_nan_among_logits_is_the_first_to_go(lib: Library) -> None:
    x = torch.tensor([[torch.nan, 1.0, -torch.inf, 3.0, torch.inf]])
    out = torch.empty_like(x)
    lib("mask_logits", rows=1, vocab=5, logits=x, logits_stride=5, out=out, out_stride=5,
        top_k_value=3)  # fmt: skip
    assert out.tolist() == [[-torch.inf, 1.0, -torch.inf, 3.0, torch.inf]]


@pytest.mark.parametrize("vocab", [2, 100, 9001])
@pytest.mark.parametrize("num_draft", [0, 1, 4])
def test_chain(lib: Library, vocab: int, num_draft: int) -> None:
    torch.manual_seed(vocab)
    rows = 12
    draft = torch.softmax(torch.randn(rows, num_draft, vocab), -1)
    target = torch.softmax(torch.randn(rows, num_draft + 1, vocab), -1)
    ids = torch.randint(vocab, (rows, num_draft), dtype=torch.int32)
    if num_draft:
        target[0, :-1] = draft[0]  # all accepted
        target[1, 0, ids[1, 0]] = 0  # the first rejected
        target[2, 0] = draft[2, 0]  # a token that neither has: rejected, without a residual
        target[2, 0, ids[2, 0]] = draft[2, 0, ids[2, 0]] = 0
        ids[3, -1] = vocab  # no token
    u = torch.rand(rows, num_draft + 1)
    output = torch.full((rows, num_draft + 1), -7, dtype=torch.int32)
    accepted = torch.full((rows,), 10, dtype=torch.int32)
    emitted = torch.full((rows,), 20, dtype=torch.int32)
    lib("chain_speculative", rows=rows, num_draft=num_draft, vocab=vocab, draft_probs=draft,
        draft_token_ids=ids, uniform=u, target_probs=target, output_token_ids=output,
        output_accepted=accepted, output_emitted=emitted)  # fmt: skip
    for row in range(rows):
        tokens, good, length = exact.chain(
            draft[row], ids[row].tolist(), u[row].tolist(), target[row]
        )
        assert output[row].tolist() == tokens
        assert (int(accepted[row]), int(emitted[row])) == (10 + good, 20 + length)


@pytest.mark.parametrize("filters", [{}, {"top_k": 50, "top_p": 0.9, "top_k_first": 1}], ids=str)
def test_threads_change_nothing(lib: Library, filters: dict[str, Any]) -> None:
    torch.manual_seed(0)
    p, u = rows_of("peaked", 40, 2000), torch.rand(40)
    alone = sample(lib, p, u, **filters)
    with lib.threads(lambda n, grain: list(itertools.pairwise([0, 1, 3, n - 9, n]))) as grains:
        assert torch.equal(sample(lib, p, u, **filters), alone)
    assert len(grains) == 1


def test_a_vocabulary_that_is_too_large_is_refused(lib: Library) -> None:
    for op in ("sample", "renorm_probs", "mask_logits", "chain_speculative"):
        match = rf"{op}: vocab must be at most 1048576, got 1048577"
        with pytest.raises(Failed, match=match) as caught:
            lib(op, rows=1, vocab=(1 << 20) + 1)
        assert caught.value.status == INVALID_ARGUMENT
        lib(op, rows=0, vocab=5)
        lib(op, rows=5, vocab=0)
