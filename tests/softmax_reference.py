"""What api.h says of the softmax of logits, in fp64, and rows to try it with."""

from __future__ import annotations

import torch

KINDS = ["normal", "wide", "masked", "one", "large", "equal"]


def logits_of(kind: str, rows: int, vocab: int) -> torch.Tensor:
    """fp32 ``[rows, vocab]`` of some kind."""
    x = torch.randn(rows, vocab)
    if kind == "wide":
        return x * 30
    if kind == "masked":
        return torch.where(torch.rand(rows, vocab) < 0.7, -torch.inf, x)
    if kind == "one":  # all but one masked
        one = torch.full((rows, vocab), -torch.inf)
        one[torch.arange(rows), torch.randint(vocab, (rows,))] = 3.5
        return one
    if kind == "large":
        return x * 1e30
    if kind == "equal":
        return torch.full((rows, vocab), -7.25)
    assert kind == "normal"
    return x


def softmax(x: torch.Tensor, temperature: torch.Tensor | float = 1.0) -> torch.Tensor:
    """fp64; ``temperature`` is a number, or ``[rows]``."""
    heat = torch.as_tensor(temperature, dtype=torch.float32).double().cpu().reshape(-1, 1)
    s = torch.where(heat == 0, 0.0, 1 / heat)
    y = x.double().cpu() * s
    masked = x.cpu() == -torch.inf
    y = torch.where(masked & (s >= 0), -torch.inf, y)
    p = torch.softmax(y, -1)
    return torch.where(masked.all(-1, keepdim=True), 0.0, p)


def check(out: torch.Tensor, x: torch.Tensor, temperature: torch.Tensor | float = 1.0) -> None:
    """``out`` is the softmax of ``x``, to a few roundings of the exponents and of the sum."""
    right = softmax(x, temperature)
    value = out.double().cpu()
    assert torch.equal(value.isnan(), right.isnan())
    # The rounded exponent is off by its own 2^-23, and there is nothing below 2^-126.
    exponent = right.clamp(min=2.0**-126).log().abs() + 1
    allowed = right * (exponent * 4e-7 + 4e-6) + 2.0**-125
    wrong = ~((value - right).abs() <= allowed) & ~right.isnan()
    assert not wrong.any(), f"{int(wrong.sum())} wrong: {value[wrong][:3]}, not {right[wrong][:3]}"
    sums = value.sum(-1)
    full = ~right.isnan().any(-1) & (right.sum(-1) > 0)
    assert ((sums - 1).abs()[full] < 1e-5).all()
