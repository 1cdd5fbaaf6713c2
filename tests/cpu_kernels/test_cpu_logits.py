"""Softmax of logits on the CPU against fp64, at every level."""

from __future__ import annotations

import pytest
import softmax_reference as exact
import torch
from capi import Guarded, Library


def softmax(
    lib: Library,
    x: torch.Tensor,
    out: torch.Tensor,
    temperature: torch.Tensor | float = 1.0,
) -> None:
    whole = isinstance(temperature, torch.Tensor)
    heat = {"temperature" if whole else "temperature_value": temperature}
    lib("softmax", rows=x.shape[0], vocab=x.shape[1], logits=x, logits_stride=x.stride(0), out=out,
        out_stride=out.stride(0), **heat)  # fmt: skip


@pytest.mark.parametrize("kind", exact.KINDS)
@pytest.mark.parametrize("vocab", [1, 3, 15, 64, 111, 1027, 20001])
def test_softmax(lib: Library, kind: str, vocab: int) -> None:
    torch.manual_seed(vocab)
    source, target = Guarded((3, vocab), torch.float32), Guarded((3, vocab), torch.float32, gap=3)
    values = exact.logits_of(kind, 3, vocab)
    x = source.fill(values)
    for out, guard in ((target.view, target), (x, source)):
        softmax(lib, x, out)
        exact.check(out, values)
        assert guard.intact()


def test_the_longest_vocabulary_of_equal_logits(lib: Library) -> None:
    """Every addition to one sum would be rounded in the same direction."""
    x = torch.full((1, 262144 + 5), 0.3)
    out = torch.empty_like(x)
    softmax(lib, x, out)
    assert (out * x.shape[1] - 1).abs().max() < 1e-6


HEATS = [1.0, 0.5, 2.0, 1e-3, 0.0, 7.0, -1.0, 1e-45, torch.inf]


def test_a_temperature_for_each_row(lib: Library) -> None:
    torch.manual_seed(5)
    x, heats = torch.randn(len(HEATS), 1003), torch.tensor(HEATS)
    out = torch.empty_like(x)
    softmax(lib, x, out, heats)
    usual = heats != 1e-45
    exact.check(out[usual], x[usual], heats[usual])
    # 1 / temperature is no fp32 number: the largest entry alone is left.
    assert torch.equal(out[~usual], torch.nn.functional.one_hot(x[~usual].argmax(-1), 1003).float())
    for i, heat in enumerate(HEATS):
        one = torch.empty(1, 1003)
        softmax(lib, x[i : i + 1], one, heat)
        assert torch.equal(one[0], out[i])


@pytest.mark.parametrize("heat", [0.0, torch.inf, 0.7])
def test_masked_entries_are_zero_at_any_temperature(lib: Library, heat: float) -> None:
    torch.manual_seed(6)
    x = exact.logits_of("masked", 3, 111)
    out = torch.empty_like(x)
    softmax(lib, x, out, heat)
    exact.check(out, x, heat)
    assert (out[x == -torch.inf] == 0).all()


@pytest.mark.parametrize("vocab", [1, 7, 111, 1003])
def test_bad_rows(lib: Library, vocab: int) -> None:
    x = torch.randn(4, vocab)
    x[0] = -torch.inf
    x[1, vocab // 2] = torch.nan
    x[2, vocab - 1] = torch.inf
    out = torch.empty_like(x)
    softmax(lib, x, out)
    assert (out[0] == 0).all()
    assert out[1:3].isnan().all()
    exact.check(out[3:], x[3:])
    softmax(lib, x, out, torch.tensor([1.0, 1.0, 1.0, torch.nan]))
    assert out[3].isnan().all()


@pytest.mark.parametrize(("rows", "vocab"), [(0, 8), (3, 0)])
def test_empty(lib: Library, rows: int, vocab: int) -> None:
    lib("softmax", rows=rows, vocab=vocab)
