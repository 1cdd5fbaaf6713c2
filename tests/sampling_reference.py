"""What api.h says of sampling, again, with a sort and Python's integers, a row at a time.

The kernels find thresholds with histograms and read a row as often as that takes; here everything
is sorted. Sums are of 64-bit integers in both, so results are compared for equality.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch

LARGEST = torch.finfo(torch.float32).max
LEAST, MOST = 1 << 41, 3 << 41


def clean(row: torch.Tensor) -> torch.Tensor:
    """fp64 of a row of fp32: NaN and negative numbers are 0."""
    row = row.float().cpu().double()
    return torch.where(row > 0, row.clamp(max=LARGEST), 0.0)


def weights(row: torch.Tensor, least: int = LEAST) -> tuple[torch.Tensor, int]:
    """The weights of a row, int64, and their exponent."""
    p = clean(row)

    def at(exponent: int) -> torch.Tensor:
        # In halves: 2^exponent may be beyond fp64.
        half = exponent // 2
        scaled = p * 2.0**half * 2.0 ** (exponent - half)
        return torch.round(scaled.clamp(max=2.0**43)).to(torch.int64)

    exponent = 42
    w = at(exponent)
    for attempt in range(2):
        total = sum(w.tolist()) if w.numel() < 100 else int(w.sum())
        if least <= total < MOST or not p.any():
            break
        exponent = (
            22 - math.frexp(float(p.max()))[1] + 1
            if attempt == 0
            else exponent + 41 - (total.bit_length() - 1)
        )
        w = at(exponent)
    return w, exponent


def kept(
    row: torch.Tensor,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    top_k_first: bool = False,
) -> torch.Tensor:
    """Which entries the filters keep."""
    p, (w, exponent) = clean(row), weights(row)
    order = torch.argsort(p, descending=True)
    values, sums = p[order], w[order].cumsum(0)
    # The entries that are larger: those before the first equal one.
    _, group = torch.unique_consecutive(values, return_inverse=True)
    first = torch.searchsorted(group, group)
    above = torch.where(first > 0, sums[(first - 1).clamp(min=0)], 0)
    keep = values > 0
    if top_k > 0:
        keep &= first < top_k
    if top_p < 1:
        # What a probability of 1 weighs; exact, as a product with a power of two.
        one = Fraction(2) ** exponent
        if top_k_first and 0 < top_k < p.numel():
            one = Fraction(int(w[order][keep].sum()))
        limit = math.ceil(float(one) * float(torch.tensor(top_p, dtype=torch.float32)))
        keep &= above < min(max(1, limit), 2**63 - 1)
    if min_p > 0:
        share = torch.tensor(min_p, dtype=torch.float32) * p.max().float()
        keep &= values >= share.double()
    out = torch.zeros_like(keep)
    out[order] = keep
    return out


def sample(row: torch.Tensor, uniform: float, **filters: Any) -> tuple[int, bool]:
    """The sample, and whether there is one."""
    w = weights(row)[0] * kept(row, **filters)
    return pick(w, uniform)


def pick(w: torch.Tensor, uniform: float) -> tuple[int, bool]:
    """The entry that a uniform number picks by weights."""
    total = int(w.sum())
    if total == 0:
        return 0, False
    uniform = float(torch.tensor(uniform, dtype=torch.float32))
    target = min(int(uniform * float(total)), total - 1)
    return int(torch.searchsorted(w.cumsum(0), target, right=True)), True


def renormalised(row: torch.Tensor, **filters: Any) -> torch.Tensor:
    """fp64: every kept entry by the sum of all that are kept."""
    p = clean(row) * kept(row, **filters)
    return p / p.sum() if p.any() else p


def masked(row: torch.Tensor, top_k: int) -> torch.Tensor:
    """Logits, -inf where less than the k-th largest."""
    row = row.cpu()
    ordered = torch.where(row.isnan(), -torch.inf, row).sort(descending=True).values
    if not 0 < top_k < row.numel():
        return row
    return torch.where(row >= ordered[top_k - 1], row, -torch.inf)


def chain(
    draft: torch.Tensor, ids: list[int], uniform: list[float], target: torch.Tensor
) -> tuple[list[int], int, int]:
    """One request: its output, and what the counters of accepted and emitted tokens grow by."""
    n, vocab = draft.shape
    u = torch.tensor(uniform, dtype=torch.float32)
    good = [
        0 <= ids[i] < vocab and bool(u[i] * draft[i, ids[i]] < target[i, ids[i]]) for i in range(n)
    ]
    length = good.index(False) if False in good else n
    row = target[length]
    if length < n:
        residual = (row - draft[length]).clamp(min=0)
        if residual.any():
            row = residual
    w, _ = weights(row, least=1 << 31)
    drawn, _ = pick(w, float(u[min(length + 1, n)]))
    return [*ids[:length], drawn, *([-1] * (n - length))], sum(good), length


# ---------------------------------------------------------------- cases

U = [0.0, 0.3, 0.75, 0.99999994]


def rows_of(kind: str, rows: int, vocab: int) -> torch.Tensor:
    """Probabilities [rows, vocab] of some kind."""
    if kind == "peaked":
        return torch.softmax(torch.randn(rows, vocab) * 3, -1)
    if kind == "flat":
        return torch.softmax(torch.randn(rows, vocab) * 0.1, -1)
    if kind == "equal":
        return torch.full((rows, vocab), 1 / vocab)
    if kind == "steps":  # many ties, many zeros
        steps = torch.randint(0, 4, (rows, vocab)).float()
        steps[:, vocab // 2] = 3
        return steps / steps.sum(-1, keepdim=True)
    if kind == "one":
        one = torch.zeros(rows, vocab)
        one[torch.arange(rows), torch.randint(vocab, (rows,))] = 1
        return one
    assert kind == "sums"  # that are not 1: a little less, a little more, tiny, huge
    factors = torch.tensor([0.9999, 1.0001, 0.3, 1e-30, 1e-44, 3e38, 1.9])
    return torch.softmax(torch.randn(rows, vocab), -1) * factors.repeat(rows)[:rows, None]


KINDS = ["peaked", "flat", "equal", "steps", "one", "sums"]


FILTERS: list[dict[str, Any]] = [
    {"top_k": 1},
    {"top_k": 40},
    {"top_p": 0.0},
    {"top_p": 0.6},
    {"top_p": 0.9999},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"top_k": 30, "top_p": 0.7},
    {"top_k": 30, "top_p": 0.7, "top_k_first": 1},
    {"top_k": 3000, "top_p": 0.3, "top_k_first": 1},
    {"top_k": 3000, "top_p": 0.999, "min_p": 0.01},
]


def expected(p: torch.Tensor, u: torch.Tensor, **filters: Any) -> torch.Tensor:
    """The samples of all rows; a filter is a value, or a tensor with one for each row."""

    def of(row: int) -> int:
        mine = {
            name: value[row].item() if isinstance(value, torch.Tensor) else value
            for name, value in filters.items()
        }
        return sample(p[row], float(u[row]), **mine)[0]

    return torch.tensor([of(row) for row in range(p.shape[0])])


# ---------------------------------------------------------------- statistics


def chi_square_tail(statistic: float, freedom: int) -> float:
    """The probability of a chi-square of that many degrees of freedom, or a larger one."""
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def frequency_p_value(samples: torch.Tensor, probabilities: torch.Tensor) -> float:
    """How likely draws as far from their probabilities as these are, by Pearson's test.

    Classes that are expected less than 5 times are taken together, from the rarest.
    """
    counts = torch.bincount(samples.long().cpu(), minlength=probabilities.numel()).double()
    expected = probabilities.double().cpu() / probabilities.double().sum() * samples.numel()
    order = torch.argsort(expected)
    counts, expected = counts[order], expected[order]
    small = int((expected.cumsum(0) < 5).sum()) + 1
    small = max(small, int((expected < 5).sum()))
    if small > 1:
        counts = torch.cat([counts[:small].sum().view(1), counts[small:]])
        expected = torch.cat([expected[:small].sum().view(1), expected[small:]])
    if float(expected[0]) == 0:
        assert not counts[0], "an entry without probability was drawn"
        counts, expected = counts[1:], expected[1:]
    if counts.numel() < 2:
        return 1.0
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return chi_square_tail(statistic, counts.numel() - 1)
