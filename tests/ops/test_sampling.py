"""Draws stay in their set and have its frequencies; filters are those of a sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sampling_reference as exact
import torch
from sampling_reference import expected, frequency_p_value

import flashinfer

Sampler = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Every form, with the filters it stands for: sampler(probs, uniform) gives samples.
FORMS: dict[str, tuple[Sampler, dict[str, Any]]] = {
    "plain": (flashinfer.sampling_from_probs, {}),
    "top_p": (lambda p, u: flashinfer.top_p_sampling_from_probs(p, u, 0.7)[0], {"top_p": 0.7}),
    "top_k": (lambda p, u: flashinfer.top_k_sampling_from_probs(p, u, 5)[0], {"top_k": 5}),
    "min_p": (lambda p, u: flashinfer.min_p_sampling_from_probs(p, u, 0.05)[0], {"min_p": 0.05}),
    "top_k_first": (
        lambda p, u: flashinfer.top_k_top_p_sampling_from_probs(p, u, 8, 0.9)[0],
        {"top_k": 8, "top_p": 0.9, "top_k_first": True},
    ),
    "joint": (
        lambda p, u: flashinfer.top_k_top_p_sampling_from_probs(p, u, 8, 0.6, "joint")[0],
        {"top_k": 8, "top_p": 0.6},
    ),
    "logits": (
        lambda p, u: flashinfer.top_k_top_p_sampling_from_logits(p.log(), u, 8, 0.9)[0],
        {"top_k": 8, "top_p": 0.9, "top_k_first": True},
    ),
}
DRAWS = 1_000_000
# The samples are the same in every run, and the chance that right ones are this unlikely is 1e-6.
UNLIKELY = 1e-6


def row_of(vocab: int, device: str) -> torch.Tensor:
    """Probabilities with zeros and ties, which no float sum makes exactly 1."""
    p = torch.softmax(torch.randn(vocab), -1)
    p[::7] = 0
    p[3] = p[4]
    return (p / p.sum()).to(device)


def many(form: str, row: torch.Tensor, count: int = DRAWS) -> torch.Tensor:
    """Draws from one row, read again and again."""
    u = torch.rand(count).to(row.device)
    return FORMS[form][0](row.expand(count, -1), u).cpu()


@pytest.mark.parametrize("form", FORMS)
def test_a_million_draws(form: str, device: str) -> None:
    row = row_of(19, device)
    samples = many(form, row)
    keep = exact.kept(row, **FORMS[form][1])
    if form == "logits":  # the softmax of the logarithm is the row up to rounding
        keep = exact.kept(torch.softmax(row.log(), -1), **FORMS[form][1])
    counts = torch.bincount(samples, minlength=19)
    assert not counts[~keep].any()
    assert counts[keep].all()
    assert frequency_p_value(samples, row.cpu().double() * keep) > UNLIKELY


@pytest.mark.parametrize("form", FORMS)
def test_frequencies_find_a_sampler_that_is_a_little_wrong(form: str) -> None:
    row = row_of(19, "cpu")
    keep = exact.kept(row, **FORMS[form][1])
    right = row.double() * keep
    assert int(keep.sum()) > 2
    # What a sampler does that prefers large entries a little, or cuts its uniform numbers short.
    drawn = torch.multinomial(right**1.1, DRAWS, replacement=True)
    assert frequency_p_value(drawn, right) < UNLIKELY
    short = (torch.rand(DRAWS).double() * 16).floor() / 16
    cut = torch.searchsorted((right / right.sum()).cumsum(0), short, right=True)
    assert frequency_p_value(cut, right) < UNLIKELY
    fair = torch.multinomial(right, DRAWS, replacement=True)
    assert frequency_p_value(fair, right) > UNLIKELY


SUMS = [0.9999, 1.0, 1.0001]
UNIFORM = torch.tensor([0.0, 0.5, 0.99999994])


@pytest.mark.parametrize("vocab", [2, 3, 1000, 32000, 128256, 256000])
@pytest.mark.parametrize("total", SUMS)
@pytest.mark.parametrize("form", [form for form in FORMS if form != "logits"])
def test_samples_are_those_of_a_sort(form: str, total: float, vocab: int, device: str) -> None:
    sampler, filters = FORMS[form]
    p = torch.softmax(torch.randn(3, vocab) * 2, -1)
    p[:, vocab // 2 + 1 :: 3] = 0
    p = p / p.sum(-1, keepdim=True) * total
    samples = sampler(p.to(device), UNIFORM.to(device)).cpu().long()
    assert torch.equal(samples, expected(p, UNIFORM, **filters))
    assert (p[torch.arange(3), samples] > 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", [0, 500, 999])
def test_the_only_class_there_is(form: str, at: int, device: str) -> None:
    p = torch.zeros(3, 1000, device=device)
    p[:, at] = 1
    assert FORMS[form][0](p, UNIFORM.to(device)).tolist() == [at] * 3


@pytest.mark.parametrize("vocab", [2, 111, 32000, 128256, 256000])
@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_top_p_renorm(vocab: int, top_p: float, device: str) -> None:
    p = torch.softmax(torch.randn(2, vocab) * 2, -1)
    out = flashinfer.top_p_renorm_probs(p.to(device), top_p).cpu().double()
    for row, got in zip(p, out, strict=True):
        # The set is a top of the row that reaches top_p, and that without its least does not; up to
        # what the rounding of a sum may decide.
        kept = got > 0
        values, order = row.double().sort(descending=True)
        before = values.cumsum(0) - values
        size = int(kept.sum())
        assert size >= 1
        assert kept[order[:size]].all()
        assert size == 1 or before[size - 1] < top_p + 2e-7 or top_p == 1
        assert size == vocab or before[size] >= top_p - 2e-7
        right = row.double() * kept
        torch.testing.assert_close(got, right / right.sum(), rtol=3e-7, atol=0)
    assert torch.equal(
        flashinfer.top_p_renorm_prob(p.to(device), torch.full((2,), top_p, device=device)).cpu(),
        out.float(),
    )


@pytest.mark.parametrize("vocab", [2, 111, 32000, 128256, 256000])
@pytest.mark.parametrize("top_k", [1, 50, 1024, 200000, 1 << 30])
def test_top_k_renorm_and_mask(vocab: int, top_k: int, device: str) -> None:
    x = torch.randn(2, vocab) * 2
    p = torch.softmax(x, -1)
    tensor = torch.full((2,), top_k, dtype=torch.int64, device=device)
    k = min(top_k, vocab)
    keep = p >= p.topk(k, -1).values[:, -1:]
    right = p.double() * keep
    out = flashinfer.top_k_renorm_probs(p.to(device), top_k)
    torch.testing.assert_close(
        out.cpu().double(), right / right.sum(-1, keepdim=True), rtol=3e-7, atol=0
    )
    assert torch.equal(flashinfer.top_k_renorm_prob(p.to(device), tensor), out)
    masked = torch.where(x >= x.topk(k, -1).values[:, -1:], x, -torch.inf)
    assert torch.equal(flashinfer.top_k_mask_logits(x.to(device), top_k).cpu(), masked)
    assert torch.equal(flashinfer.top_k_mask_logits(x.to(device), tensor).cpu(), masked)


def test_equal_entries_stay_together(device: str) -> None:
    p = torch.tensor([[0.1, 0.3, 0.1, 0.3, 0.1, 0.1]], device=device)
    assert (flashinfer.top_k_renorm_probs(p, 1) > 0).tolist() == [[False, True] * 2 + [False] * 2]
    assert (flashinfer.top_k_renorm_probs(p, 3) > 0).all()
    assert (flashinfer.top_p_renorm_probs(p, 0.2) > 0).sum() == 2
    assert (flashinfer.top_p_renorm_probs(p, 0.7) > 0).all()


def test_filters_by_row_are_those_by_value(device: str) -> None:
    p = torch.softmax(torch.randn(3, 500), -1).to(device)
    u = torch.rand(7, 3).to(device)
    ks, ps = [3, 40, 499], [0.2, 0.9, 1.0]
    k = torch.tensor(ks, device=device)
    share = torch.tensor(ps, dtype=torch.float64, device=device)
    for order in ("top_k_first", "joint"):
        both, ok = flashinfer.top_k_top_p_sampling_from_probs(p, u, k, share, order)
        assert ok.all()
        alone = [
            flashinfer.top_k_top_p_sampling_from_probs(p[i : i + 1], u[:, i : i + 1], a, b, order)
            for i, (a, b) in enumerate(zip(ks, ps, strict=True))
        ]
        assert both.tolist() == [int(samples) for samples, _ in alone]


FILTERED: dict[str, Callable[[torch.Tensor, torch.Tensor, Any], Any]] = {
    "top_k": flashinfer.top_k_sampling_from_probs,
    "top_p": flashinfer.top_p_sampling_from_probs,
    "min_p": flashinfer.min_p_sampling_from_probs,
    "top_k of both": lambda p, u, x: flashinfer.top_k_top_p_sampling_from_probs(p, u, x, 0.9),
    "top_p of both": lambda p, u, x: flashinfer.top_k_top_p_sampling_from_probs(p, u, 3, x),
    "top_k renorm": lambda p, u, x: [flashinfer.top_k_renorm_probs(p, x)],
    "top_p renorm": lambda p, u, x: [flashinfer.top_p_renorm_probs(p, x)],
    "top_k mask": lambda p, u, x: [flashinfer.top_k_mask_logits(p, x)],
}


@pytest.mark.parametrize("form", FILTERED)
@pytest.mark.parametrize(
    "filter_dtype",
    [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float64],
    ids=str,
)
def test_filters_of_any_dtype(form: str, filter_dtype: torch.dtype, device: str) -> None:
    p = torch.softmax(torch.randn(2, 9), -1).to(device)
    u = torch.rand(2).to(device)
    given = torch.ones(2, dtype=filter_dtype, device=device)
    own = given.int() if "top_k" in form else given.float()
    for got, right in zip(FILTERED[form](p, u, given), FILTERED[form](p, u, own), strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize(
    "beyond", [torch.tensor([1e30]), torch.tensor([2**40]), torch.tensor([2.9])]
)
def test_top_k_is_converted_within_the_range_of_int32(beyond: torch.Tensor, device: str) -> None:
    p = torch.softmax(torch.randn(1, 9), -1).to(device)
    kept = flashinfer.top_k_renorm_probs(p, beyond.to(device)) > 0
    assert int(kept.sum()) == (2 if float(beyond) < 9 else 9)


@pytest.mark.parametrize("total", [1e-30, 0.1, 0.5, 2.0, 1e30])
@pytest.mark.parametrize("top_p", [0.0, 0.09, 0.3, 0.9, 1.0])
def test_top_p_is_no_share_of_the_row(total: float, top_p: float, device: str) -> None:
    row = torch.tensor([[0.5, 0.3, 0.2, 0.0]]) * total
    p = row.double()[0]
    before = p.cumsum(0) - p
    kept = (p > 0) & ((before < top_p) | (torch.arange(4) == 0) | (top_p == 1))
    right = torch.where(kept, p, 0.0)
    renormed = flashinfer.top_p_renorm_probs(row.to(device), top_p)[0].cpu()
    torch.testing.assert_close(renormed.double(), right / right.sum(), rtol=1e-6, atol=0)
    u = torch.linspace(0, 0.999, 100).to(device)
    rows = row.to(device).expand(100, -1)
    joint = flashinfer.top_k_top_p_sampling_from_probs(rows, u, 4, top_p, "joint")[0]
    for samples in (joint, flashinfer.top_p_sampling_from_probs(rows, u, top_p)[0]):
        assert set(samples.tolist()) == set(kept.nonzero().reshape(-1).tolist())


def test_top_p_behind_top_k_is_a_share_of_what_that_keeps(device: str) -> None:
    u = torch.linspace(0, 0.999, 100).to(device)
    rows = (torch.tensor([[0.5, 0.3, 0.2, 0.0]]) * 0.1).to(device).expand(100, -1)
    first = flashinfer.top_k_top_p_sampling_from_probs(rows, u, 2, 0.5)[0]
    assert set(first.tolist()) == {0}
    first = flashinfer.top_k_top_p_sampling_from_probs(rows, u, 2, 0.7)[0]
    assert set(first.tolist()) == {0, 1}


def test_the_first_round_decides(device: str) -> None:
    p = torch.softmax(torch.randn(64, 500), -1).to(device)
    u = torch.rand(32, 64).to(device)
    samples, success = flashinfer.top_p_sampling_from_probs(p, u, 0.9)
    assert success.all()
    assert (samples.dtype, success.dtype) == (torch.int32, torch.bool)
    assert torch.equal(samples, flashinfer.top_p_sampling_from_probs(p, u[0], 0.9)[0])
    renormed = flashinfer.top_p_renorm_probs(p, 0.9)
    again = flashinfer.sampling_from_probs(renormed, u[0])
    # The weights of the renormalised row are rounded again, so a draw at an edge may differ.
    assert (samples == again).sum() >= 63


@pytest.mark.parametrize("form", FORMS)
def test_threads_and_runs_change_no_bit(form: str, device: str) -> None:
    p, u = torch.softmax(torch.randn(40, 5000), -1).to(device), torch.rand(40).to(device)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results += [(FORMS[form][0](p, u), flashinfer.top_p_renorm_probs(p, 0.8))] * 2
    finally:
        torch.set_num_threads(before)
    for samples, renormed in results[1:]:
        assert torch.equal(samples, results[0][0])
        assert torch.equal(renormed, results[0][1])


def test_strides_and_dtypes(device: str) -> None:
    wide = torch.softmax(torch.randn(5, 1000), -1).to(device)
    u = torch.rand(5).to(device)
    for p in (wide[:, ::2], wide[:, 1:], wide.half(), wide.bfloat16(), wide.double()):
        plain = p.float().contiguous()
        assert torch.equal(
            flashinfer.top_k_sampling_from_probs(p, u, 9)[0],
            flashinfer.top_k_sampling_from_probs(plain, u, 9)[0],
        )
        assert torch.equal(
            flashinfer.top_k_mask_logits(p, 9), flashinfer.top_k_mask_logits(plain, 9)
        )


# ---------------------------------------------------------------- uniform numbers of a generator

GENERATED: dict[str, Callable[..., Any]] = {
    "plain": flashinfer.sampling_from_probs,
    "top_p": lambda p, **g: flashinfer.top_p_sampling_from_probs(p, top_p=0.9, **g),
    "top_k": lambda p, **g: flashinfer.top_k_sampling_from_probs(p, None, 40, **g),
    "min_p": lambda p, **g: flashinfer.min_p_sampling_from_probs(p, min_p=0.01, **g),
    "both": lambda p, **g: flashinfer.top_k_top_p_sampling_from_probs(p, None, 40, 0.9, **g),
    "logits": lambda p, **g: flashinfer.top_k_top_p_sampling_from_logits(
        p.log(), top_k=40, top_p=0.9, **g
    ),
}


@pytest.mark.parametrize("form", GENERATED)
def test_generator(form: str, device: str) -> None:
    p = torch.softmax(torch.randn(100, 1000), -1).to(device)

    def draw(seed: int) -> torch.Tensor:
        samples: torch.Tensor = GENERATED[form](
            p, generator=torch.Generator(device).manual_seed(seed)
        )
        return samples

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    torch.manual_seed(5)
    first = GENERATED[form](p)
    assert not torch.equal(GENERATED[form](p), first)
    torch.manual_seed(5)
    assert torch.equal(GENERATED[form](p), first)


@pytest.mark.gpu
def test_a_graph_draws_anew_in_each_replay() -> None:
    p = torch.softmax(torch.randn(64, 32000), -1).cuda()
    u = torch.rand(64, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        new, success = flashinfer.top_k_top_p_sampling_from_probs(
            p, top_k=50, top_p=0.9, return_valid=True
        )
        given = flashinfer.sampling_from_probs(p, u)
        renormed = flashinfer.top_p_renorm_probs(p, 0.5)
    seen = []
    for _ in range(3):
        u.uniform_()
        graph.replay()
        seen.append(new.clone())
        assert success.all()
        assert torch.equal(given, flashinfer.sampling_from_probs(p, u))
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(renormed, flashinfer.top_p_renorm_probs(p, 0.5))


# ---------------------------------------------------------------- rows that are wrong

NAN_FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "plain": lambda p: flashinfer.sampling_from_probs(p, check_nan=True),
    "top_p": lambda p: flashinfer.top_p_sampling_from_probs(p, top_p=0.9, check_nan=True),
    "top_k": lambda p: flashinfer.top_k_sampling_from_probs(p, top_k=5, check_nan=True),
    "min_p": lambda p: flashinfer.min_p_sampling_from_probs(p, min_p=0.1, check_nan=True),
    "both": lambda p: flashinfer.top_k_top_p_sampling_from_probs(
        p, top_k=5, top_p=0.9, check_nan=True
    ),
    "logits": lambda p: flashinfer.top_k_top_p_sampling_from_logits(
        p, top_k=5, top_p=0.9, check_nan=True
    ),
}


@pytest.mark.parametrize("form", NAN_FORMS)
def test_check_nan(form: str, device: str) -> None:
    p = torch.softmax(torch.randn(9, 50), -1).to(device)
    NAN_FORMS[form](p)
    p[4, 3] = p[7, 0] = torch.nan
    with pytest.raises(ValueError, match=r"probs has NaN in row 4, 7$"):
        NAN_FORMS[form](p)


def test_nothing_to_draw_is_no_success(device: str) -> None:
    p = torch.tensor([[0.0, 0.0], [0.0, 1.0], [torch.nan, -1.0]], device=device)
    samples, success = flashinfer.top_p_sampling_from_probs(p, top_p=0.5, return_valid=True)
    assert samples.tolist() == [0, 1, 0]
    assert success.tolist() == [False, True, False]
    assert flashinfer.top_p_renorm_probs(p, 0.5).tolist() == [[0, 0], [0, 1], [0, 0]]


def test_no_rows(device: str) -> None:
    p = torch.empty(0, 10, device=device)
    assert flashinfer.sampling_from_probs(p).shape == (0,)
    assert flashinfer.top_k_sampling_from_probs(p, torch.empty(4, 0, device=device), 3)[
        1
    ].shape == (0,)
    assert flashinfer.top_k_mask_logits(p, 3).shape == (0, 10)


# ---------------------------------------------------------------- speculative sampling


def drafted(count: int, device: str) -> tuple[torch.Tensor, ...]:
    """Two draft tokens from one pair of distributions, the draft's and the target's."""
    q = torch.softmax(torch.randn(3, 8), -1)
    p = torch.softmax(torch.randn(2, 8), -1)
    ids = torch.stack([torch.multinomial(row, count, replacement=True) for row in p], 1)
    shape = (count, -1, -1)
    return p.expand(*shape).to(device), ids.to(device), q.expand(*shape).to(device)


def test_speculation_has_the_targets_distribution(device: str) -> None:
    p, ids, q = drafted(200_000, device)
    out, accepted, emitted = flashinfer.chain_speculative_sampling(p, ids, target_probs=q)
    out, accepted, emitted = out.cpu(), accepted.cpu(), emitted.cpu()
    for i in range(3):
        column = out[:, i]
        assert frequency_p_value(column[column >= 0], q[0, i].cpu()) > UNLIKELY
    assert torch.equal((out >= 0).sum(1), emitted + 1)
    assert torch.equal((out >= 0).int().diff(dim=1).clamp(min=0).sum(), torch.tensor(0))
    assert (accepted >= emitted).all()
    share = torch.minimum(p[0], q[0, :2]).sum(-1).cpu()  # of a token, alone
    assert abs(float(accepted.double().mean()) - float(share.sum())) < 0.01
    # Without the residual the draft's tokens would be too many.
    wrong = torch.where(
        emitted >= 1, ids[:, 0].cpu(), torch.multinomial(q[0, 0].cpu(), len(out), replacement=True)
    )
    assert frequency_p_value(wrong, q[0, 0].cpu()) < UNLIKELY


def test_speculation_counts_in_place(device: str) -> None:
    p, ids, q = drafted(50, device)
    u = torch.rand(50, 3).to(device)
    out, accepted, emitted = flashinfer.chain_speculative_sampling(p, ids, u, q)
    for dtype in (torch.int32, torch.int64):
        counters = [torch.full((50,), n, dtype=dtype, device=device) for n in (100, 1000)]
        again, more, total = flashinfer.chain_speculative_sampling(p, ids.int(), u, q, *counters)
        assert torch.equal(again, out)
        assert more is counters[0]
        assert total is counters[1]
        assert torch.equal(more, (accepted + 100).to(dtype))
        assert torch.equal(total, (emitted + 1000).to(dtype))


@pytest.mark.parametrize("vocab", [2, 5000])
def test_speculation_is_that_of_the_reference(vocab: int, device: str) -> None:
    p, q = torch.softmax(torch.randn(9, 3, vocab), -1), torch.softmax(torch.randn(9, 4, vocab), -1)
    ids, u = torch.randint(vocab, (9, 3)), torch.rand(9, 4)
    q[0, :3] = p[0]
    ids[1, 1] = -1
    arguments = [value.to(device) for value in (p, ids, u, q)]
    out, accepted, emitted = flashinfer.chain_speculative_sampling(*arguments)
    for i in range(9):
        right = exact.chain(p[i], ids[i].tolist(), u[i].tolist(), q[i])
        assert (out[i].tolist(), int(accepted[i]), int(emitted[i])) == right
