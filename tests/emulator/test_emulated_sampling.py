"""The sampling kernels against a sort with exact integer sums, and against bad rows."""

from __future__ import annotations

from typing import Any

import pytest
import sampling_reference as exact
import torch
from emulated import Emulator, Failed
from sampling_reference import FILTERS, KINDS, U, expected, rows_of


def sample(gpu: Emulator, p: torch.Tensor, u: torch.Tensor, **filters: Any) -> torch.Tensor:
    rows, vocab = p.shape
    samples = gpu.empty((rows,), torch.int32, "samples")
    success = gpu.empty((rows,), torch.uint8, "success")
    values: dict[str, Any] = {"top_p_value": 1.0}
    for name, value in filters.items():
        if isinstance(value, torch.Tensor):
            values[name] = gpu.put(value, name)
        else:
            values[name if name == "top_k_first" else f"{name}_value"] = value
    placed = gpu.put(p, "probs")
    gpu("sample", rows=rows, vocab=vocab, probs=placed, probs_stride=placed.stride(0),
        uniform=gpu.put(u, "uniform"), samples=samples, success=success, **values)  # fmt: skip
    assert torch.equal(success.bool(), (torch.nan_to_num(p, 0, 1, 0) > 0).any(-1))
    return samples.long()


# 8192 is the longest row of a block of 256; 512 (or 128, unaligned) entries are a warp's step.
VOCABS = [2, 3, 111, 512, 8192, 8196, 20001]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", VOCABS)
def test_plain(gpu: Emulator, kind: str, vocab: int) -> None:
    p, u = rows_of(kind, 4, vocab), torch.tensor(U)
    assert torch.equal(sample(gpu, p, u), expected(p, u))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("vocab", [3, 1000, 20001])
def test_filters(gpu: Emulator, kind: str, vocab: int, filters: dict[str, Any]) -> None:
    p, u = rows_of(kind, 3, vocab), torch.tensor(U[1:])
    assert torch.equal(sample(gpu, p, u, **filters), expected(p, u, **filters))


@pytest.mark.parametrize("first", [0, 1])
def test_a_filter_for_each_row(gpu: Emulator, first: int) -> None:
    p, u = rows_of("peaked", 4, 999), torch.rand(4)
    filters = {
        "top_k": torch.tensor([1, 7, 5000, 50], dtype=torch.int32),
        "top_p": torch.tensor([0.9, 1.0, 0.5, 0.2]),
        "min_p": torch.tensor([0.0, 0.01, 0.1, 1.0]),
        "top_k_first": first,
    }
    assert torch.equal(sample(gpu, p, u, **filters), expected(p, u, **filters))


@pytest.mark.parametrize("filters", [{}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.5}], ids=str)
def test_what_is_no_probability_counts_as_zero(gpu: Emulator, filters: dict[str, Any]) -> None:
    p = torch.rand(5, 700) / 350
    p[0, ::3] = torch.nan
    p[1, ::2] = -p[1, ::2]
    p[2] = 0
    p[3] = torch.nan
    p[4, 77] = torch.inf
    u = torch.full((5,), 0.9999)
    assert torch.equal(sample(gpu, p, u, **filters), expected(p, u, **filters))


def test_uniform_numbers_out_of_range_are_clamped(gpu: Emulator) -> None:
    p = torch.full((4, 9), 1 / 9)
    u = torch.tensor([-1.0, 1.0, 7.0, torch.nan])
    assert sample(gpu, p, u).tolist() == [0, 8, 8, 0]


@pytest.mark.parametrize(("stride", "offset"), [(1004, 0), (1001, 0), (1004, 1)])
def test_rows_apart_and_unaligned(gpu: Emulator, stride: int, offset: int) -> None:
    p, u = rows_of("flat", 3, 1000), torch.tensor(U[1:])
    placed = gpu.put(p, "probs", strides=(stride, 1), offset=offset)
    samples = gpu.empty((3,), torch.int32)
    for top_k in (0, 9):
        gpu("sample", rows=3, vocab=1000, probs=placed, probs_stride=stride, samples=samples,
            uniform=gpu.put(u), top_k_value=top_k, top_p_value=1.0)  # fmt: skip
        assert torch.equal(samples.long(), expected(p, u, top_k=top_k))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", [3, 1000, 20001])
@pytest.mark.parametrize(
    "filters", [{"top_k": 1}, {"top_k": 50}, {"top_p": 0.4}, {"top_p": 0.95}, {"top_p": 1.0}],
    ids=str,
)  # fmt: skip
def test_renormalised(gpu: Emulator, kind: str, vocab: int, filters: dict[str, Any]) -> None:
    p = rows_of(kind, 3, vocab)
    out = gpu.empty(p.shape, torch.float32)
    values = {"top_p_value": 1.0, **{f"{name}_value": value for name, value in filters.items()}}
    gpu("renorm_probs", rows=3, vocab=vocab, probs=gpu.put(p, "probs"), probs_stride=vocab,
        out=out, out_stride=vocab, **values)  # fmt: skip
    right = torch.stack([exact.renormalised(row, **filters) for row in p])
    assert torch.equal(out > 0, right > 0)
    torch.testing.assert_close(out.double(), right, rtol=3e-7, atol=0)


@pytest.mark.parametrize("vocab", [3, 1000, 20001])
@pytest.mark.parametrize("top_k", [1, 2, 64, 15000])
@pytest.mark.parametrize("kind", ["normal", "whole", "few", "zeros"])
def test_masked_logits(gpu: Emulator, kind: str, vocab: int, top_k: int) -> None:
    x = torch.randn(3, vocab) * 5
    if kind == "whole":
        x = x.round()
    elif kind == "few":
        x[:, 2:] = -torch.inf
    elif kind == "zeros":
        x = torch.where(torch.rand(3, vocab) < 0.5, 0.0, -0.0)
    out = gpu.empty(x.shape, torch.float32)
    gpu("mask_logits", rows=3, vocab=vocab, logits=gpu.put(x, "logits"), logits_stride=vocab,
        out=out, out_stride=vocab, top_k_value=top_k)  # fmt: skip
    assert torch.equal(out, torch.stack([exact.masked(row, top_k) for row in x]))


@pytest.mark.parametrize("vocab", [2, 100, 9001])
@pytest.mark.parametrize("num_draft", [0, 1, 4])
def test_chain(gpu: Emulator, vocab: int, num_draft: int) -> None:
    rows = 6
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
    output = gpu.empty((rows, num_draft + 1), torch.int32)
    accepted, emitted = gpu.ints([10] * rows), gpu.ints([20] * rows)
    gpu("chain_speculative", rows=rows, num_draft=num_draft, vocab=vocab,
        draft_probs=gpu.put(draft, "draft"), draft_token_ids=gpu.put(ids, "ids"),
        uniform=gpu.put(u), target_probs=gpu.put(target, "target"), output_token_ids=output,
        output_accepted=accepted, output_emitted=emitted)  # fmt: skip
    for row in range(rows):
        tokens, good, length = exact.chain(
            draft[row], ids[row].tolist(), u[row].tolist(), target[row]
        )
        assert output[row].tolist() == tokens
        assert (int(accepted[row]), int(emitted[row])) == (10 + good, 20 + length)


def test_a_vocabulary_that_is_too_large_is_refused(gpu: Emulator) -> None:
    for op in ("sample", "renorm_probs", "mask_logits", "chain_speculative"):
        with pytest.raises(Failed, match=rf"{op}: vocab must be at most 1048576, got 1048577"):
            gpu(op, rows=1, vocab=(1 << 20) + 1)
        gpu(op, rows=0, vocab=5)
