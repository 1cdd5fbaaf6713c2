"""The k largest entries by a stable sort, and rows to try it with."""

from __future__ import annotations

import torch

KINDS = ["normal", "whole", "equal", "zeros", "masked", "nan", "rising"]


def rows_of(kind: str, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """``[rows, columns]`` of some kind."""
    x = torch.randn(rows, columns)
    if kind == "whole":  # ties
        x = (x * 3).round()
    elif kind == "equal":
        x = torch.full((rows, columns), -2.5)
    elif kind == "zeros":  # of both signs, which are equal
        x = torch.where(torch.rand(rows, columns) < 0.5, 0.0, -0.0)
    elif kind == "masked":  # fewer than are asked for have a value
        x[:, 2:] = -torch.inf
    elif kind == "nan":
        x[torch.rand(rows, columns) < 0.3] = torch.nan
        x[:, columns // 2] = torch.inf
    elif kind == "rising":
        x = torch.linspace(-3, 3, columns).repeat(rows, 1)
    else:
        assert kind == "normal"
    return x.to(dtype)


def top_k(x: torch.Tensor, k: int, sorted: bool, last: bool) -> torch.Tensor:
    """The indices, in the order that api.h tells."""
    # fp64 of NaN sorts as the largest, and -0 equals 0.
    keys = x.cpu().double()
    order = keys.flip(-1) if last else keys
    indices = order.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    if last:
        indices = x.shape[1] - 1 - indices
    return indices if sorted else indices.sort(-1).values


def check(
    values: torch.Tensor, indices: torch.Tensor, x: torch.Tensor, sorted: bool, last: bool
) -> None:
    """Indices are those of the sort, and values bit for bit what is there."""
    right = top_k(x, indices.shape[1], sorted, last)
    assert torch.equal(indices.cpu(), right), f"wrong: {indices.tolist()}, not {right.tolist()}"
    taken = x.cpu().gather(1, right)
    assert values.dtype == x.dtype
    bits = torch.int32 if x.dtype == torch.float32 else torch.int16
    assert torch.equal(values.cpu().view(bits), taken.view(bits))
